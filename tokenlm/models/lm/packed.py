"""Attention in rows that hold several items, none of which sees another.

A mask over whole rows would be right, too, but its work grows with the square of the row, most of
it for pairs that do not see one another. Here the items are taken out of their rows, those of
similar length together, attend as a padded batch, and are put back.

Shapes: B rows, L positions of a row, G items of a group, P positions of its longest item, H heads,
D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_of_packed_items"
"""Name of the attention among those of `transformers`: `sdpa` wherever nothing is packed."""
FULLEST = 0.75
"""An item is put beside a longer one if it has at least this share of its length."""


@dataclass(frozen=True)
class PackedItems:
    """Where the items of packed rows lie, of all rows laid behind one another."""

    places: tuple[Tensor, ...]
    """For each group (G, P) int64: the positions of its items, with any position behind them."""
    back: Tensor
    """(B, L) int64: where each position stands in all groups laid behind one another; padding
    gets any place."""

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]], length: int) -> PackedItems:
        """Find the groups.

        Args:
            rows: sizes of the items of each row.
            length: L.
        """
        items = [
            (size, number * length + sum(row[:place]))
            for number, row in enumerate(rows)
            for place, size in enumerate(row)
        ]
        items.sort(key=lambda item: -item[0])
        groups: list[list[tuple[int, int]]] = []
        for item in items:
            if not groups or item[0] < FULLEST * groups[-1][0][0]:
                groups.append([])
            groups[-1].append(item)
        back = torch.zeros(len(rows) * length, dtype=torch.long)
        places, done = [], 0
        for group in groups:
            longest = torch.arange(group[0][0])
            sizes, starts = torch.tensor(group).T[:, :, None]
            is_own = longest < sizes
            # Padding reads the first position of its own item: it is behind whatever may see it.
            places.append(starts + longest * is_own)
            own = torch.arange(done, done + is_own.numel()).view_as(is_own)[is_own]
            back[places[-1][is_own]] = own
            done += is_own.numel()
        return cls(tuple(places), back.view(len(rows), length))

    def to(self, device: torch.device | str) -> PackedItems:
        """The same on another device."""
        return PackedItems(tuple(group.to(device) for group in self.places), self.back.to(device))


def _attend_packed(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedItems,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Causal attention within the items.

    Args:
        module: the attention of a backbone.
        query: (B, H, L, D)
        key: (B, its own H, L, D)
        value: as `key`.
        packed: the items.
        dropout: of the attention.
        scaling: of the scores.

    Returns:
        (B, L, H, D)
    """
    flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
    found = []
    for places in packed.places:
        own, keys, values = (_take(part, places).transpose(1, 2) for part in flat)
        attended, _ = sdpa_attention_forward(
            module, own, keys, values, None, dropout=dropout, scaling=scaling, is_causal=True
        )
        found.append(attended.flatten(0, 1))
    return _take(torch.cat(found), packed.back)


def _take(rows: Tensor, places: Tensor) -> Tensor:
    # The gradient of brackets sorts the places first; that of this adds row by row.
    return rows.index_select(0, places.flatten()).unflatten(0, places.shape)


# The number of groups and their shapes vary from batch to batch: compiled, each would be compiled.
_attend_eagerly = cast("Callable[..., Tensor]", torch.compiler.disable(_attend_packed))


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: PackedItems | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    return _attend_eagerly(module, query, key, value, packed, dropout, scaling), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
