"""Keys and values of the sequences that are being decoded, one row each.

Sequences of the LM are not batched as those of flow and vocoder are (`modules.streaming.batched`,
which leaves caches with their streams): a step adds one token to each, and reads all of them in one
padded attention of each layer, so their keys and values lie together for as long as they live.

Shapes: R rows, B rows of one call, H key-value heads, C capacity (positions), L positions filled,
P new positions, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenlm.models.lm.model import SpeechLM
from tokenlm.modules.streaming import State

BLOCK_POSITIONS = 256
"""Rows grow by so many positions at once, so that few steps copy them."""


@dataclass
class KeyValues(State):
    """Keys and values of the start of a sequence, apart from any cache."""

    keys: list[Tensor]
    """Of each layer (1, H, L, E)."""
    values: list[Tensor]
    """Of each layer (1, H, L, E)."""


class CacheRow:
    """The row of one sequence in a `KeyValueCache`, until `release`."""

    def __init__(self, cache: KeyValueCache, index: int) -> None:
        self.cache = cache
        self.index = index
        self.length = 0

    @torch.inference_mode()
    def start(self, prefix: KeyValues | None = None) -> None:
        """Resets the row to the positions of `prefix`, by default none."""
        self.length = 0
        if prefix is not None and prefix.keys:
            length = prefix.keys[0].shape[2]
            self.cache.reserve(length)
            for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
                self.cache.keys[layer][self.index, :, :length] = keys[0]
                self.cache.values[layer][self.index, :, :length] = values[0]
            self.length = length

    @torch.inference_mode()
    def snapshot(self) -> KeyValues:
        """A copy of what the row holds."""
        row = slice(self.index, self.index + 1)
        return KeyValues(
            keys=[keys[row, :, : self.length].clone() for keys in self.cache.keys],
            values=[values[row, :, : self.length].clone() for values in self.cache.values],
        )

    def release(self) -> None:
        """Removes the row; its memory is freed at once."""
        self.cache.remove(self)


class KeyValueCache:
    """Rows of keys and values that can be read together.

    Rows may have different lengths, come and go at any time, and any of them can be read by one
    call of the model. There are exactly as many rows as sequences.
    """

    def __init__(self, model: SpeechLM) -> None:
        backbone = model.config.backbone
        weight = model.head.weight
        empty = weight.new_zeros(0, backbone.num_kv_heads, 0, backbone.channels_per_head)
        self.keys = [empty for _ in range(backbone.num_layers)]
        """Of each layer (R, H, C, E)."""
        self.values = [empty for _ in range(backbone.num_layers)]
        self.rows: list[CacheRow] = []

    @property
    def num_bytes(self) -> int:
        """Memory that the rows hold."""
        return sum(
            part.numel() * part.element_size() for part in (*self.keys, *self.values) if self.rows
        )

    @torch.inference_mode()
    def add(self, prefix: KeyValues | None = None) -> CacheRow:
        """A new row behind the others, which starts with `prefix`."""
        row = CacheRow(self, len(self.rows))
        self._map(lambda part: torch.cat([part, part.new_zeros(1, *part.shape[1:])]))
        self.rows.append(row)
        try:
            row.start(prefix)
        except BaseException:
            self.remove(row)
            raise
        return row

    @torch.inference_mode()
    def remove(self, row: CacheRow) -> None:
        """Removes a row; those behind it move up. May be called again."""
        if row not in self.rows:
            return
        index = row.index
        self._map(lambda part: torch.cat([part[:index], part[index + 1 :]]))
        self.rows.remove(row)
        for other in self.rows[index:]:
            other.index -= 1
        if not self.rows:
            self._map(lambda part: part[:, :, :0].clone())

    @torch.inference_mode()
    def reserve(self, num_positions: int) -> None:
        """Makes room for `num_positions` in every row."""
        capacity = self.keys[0].shape[2]
        if num_positions > capacity:
            missing = -(-(num_positions - capacity) // BLOCK_POSITIONS) * BLOCK_POSITIONS
            self._map(lambda part: torch.nn.functional.pad(part, (0, 0, 0, missing)))

    @torch.inference_mode()
    def arrange(self, rows: Sequence[CacheRow]) -> None:
        """Moves `rows` to the front, in this order, so that a `RowsView` can batch them."""
        for target, row in enumerate(rows):
            if row.index == target:
                continue
            other, source = self.rows[target], row.index
            parts = [*self.keys, *self.values]
            # What may fail for want of memory comes before the first write.
            swapped = [part[[source, target]] for part in parts]
            for part, pair in zip(parts, swapped, strict=True):
                part[[target, source]] = pair
            self.rows[target], self.rows[source] = row, other
            row.index, other.index = target, source

    def _map(self, function: Any) -> None:
        """Replaces all parts or, where that fails, none."""
        keys = [function(part) for part in self.keys]
        values = [function(part) for part in self.values]
        self.keys, self.values = keys, values


class RowsView:
    """Some neighbouring rows, as the `Cache` that a backbone reads and fills."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[CacheRow], num_new: int) -> None:
        """A view of neighbouring rows, each of which will grow by P = `num_new` positions."""
        self._cache = cache
        self._rows = rows
        self._span = slice(rows[0].index, rows[0].index + len(rows))
        self.lengths = [row.length for row in rows]
        self._end = max(self.lengths) + num_new
        cache.reserve(self._end)
        device = cache.keys[0].device
        starts = torch.tensor(self.lengths, device=device)
        self.positions = starts[:, None] + torch.arange(num_new, device=device)
        """(B, P)"""
        places = torch.arange(self._end, device=device)
        self.mask = (places[None, None] <= self.positions[:, :, None])[:, None]
        """(B, 1, P, L) True where a new position may look."""
        self._index = torch.arange(len(rows), device=device)[:, None]

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (B, H, P, E) of a layer; those of all positions."""
        all_keys = self._cache.keys[layer][self._span]
        all_values = self._cache.values[layer][self._span]
        first, num_new = self.lengths[0], keys.shape[2]
        if all(length == first for length in self.lengths):
            all_keys[:, :, first : first + num_new] = keys
            all_values[:, :, first : first + num_new] = values
        else:
            all_keys[self._index, :, self.positions] = keys.transpose(1, 2)
            all_values[self._index, :, self.positions] = values.transpose(1, 2)
        return all_keys[:, :, : self._end], all_values[:, :, : self._end]

    def advance(self) -> None:
        """Counts the new positions as part of the rows."""
        for row in self._rows:
            row.length += self.positions.shape[1]
