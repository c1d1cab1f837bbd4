"""Attention of the backbone, also in rows that hold several items, none of which sees another.

A mask over whole rows would be right, too, but its work grows with the square of the row, most of
it for pairs that do not see one another. Here the items are taken out of their rows, those of
similar length together, attend as a padded batch, and are put back.

Shapes: B rows, L positions of a row, G items of a group, P positions of its longest item, H heads,
D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Attention of groups of heads: each head of keys and values serves several of queries.

    Args:
        query: (B, H, L, D)
        key: (B, its own H, L', D)
        value: as `key`.
        mask: (B, 1 or H, L, L') True where a position may look, or what is added to the scores;
            None lets each position see those up to its own.
        dropout: of the weights.
        scale: of the scores; None is that of D channels.

    Returns:
        (B, L, H, D)
    """
    num_heads, length = query.shape[1], query.shape[2]
    group = num_heads // key.shape[1]
    # Without a mask the kernels share keys themselves; with one they would fall back to a slow way.
    shares = group > 1 and mask is None and query.device.type != "mps"
    stands_in_row = group > 1 and mask is not None and mask.shape[1] == 1 and length == 1
    if stands_in_row and not torch.compiler.is_compiling():
        # The heads of a group stand in for positions: no key is copied.
        query = query.unflatten(1, (-1, group)).flatten(2, 3)
    elif group > 1 and not shares:
        key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    attended = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scale,
        is_causal=mask is None and length > 1,
        enable_gqa=shares,
    )
    if attended.shape[1] != num_heads:
        attended = attended.reshape(attended.shape[0], num_heads, length, -1)
    return attended.transpose(1, 2)


def attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedItems,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """Causal attention within the items: `attend` of each as if it were alone.

    Args:
        query: (B, H, L, D)
        key: (B, its own H, L, D)
        value: as `key`.
        packed: the items.
        dropout: of the weights.
        scale: of the scores.

    Returns:
        (B, L, H, D)
    """
    flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
    found = []
    for places in packed.places:
        own, keys, values = (_take(part, places).transpose(1, 2) for part in flat)
        found.append(attend(own, keys, values, None, dropout, scale).flatten(0, 1))
    return _take(torch.cat(found), packed.back)


def _take(rows: Tensor, places: Tensor) -> Tensor:
    # The gradient of brackets sorts the places first; that of this adds row by row.
    return rows.index_select(0, places.flatten()).unflatten(0, places.shape)
