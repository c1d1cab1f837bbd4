"""Pre-norm transformer blocks, whole or in chunks.

Shapes: B batch, T frames, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.attention import AttentionState, Mask, SelfAttention, make_room, trim
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.rope import rotary_span, rotary_table
from tokenlm.modules.streaming import State


@dataclass
class TransformerState(State):
    """Caches of all layers and the position of the next frame."""

    layers: list[AttentionState]
    next_position: int | Tensor
    """(B,) where sequences that stand at different places run together, see `stack_ragged`."""


@dataclass
class SideBySide:
    """Streams of one context in one batch, each with caches of its own; see `modules.together`."""

    streams: list[TransformerState]
    layers: list[list[AttentionState]]
    """By layer, then by stream."""


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between them, (B, T, D) to (B, T, D)."""

    def __init__(self, dim: int, expansion: float, dropout: float = 0.0) -> None:
        hidden = int(dim * expansion)
        super().__init__(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )


class TransformerBlock(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x)."""

    def __init__(self, dim: int, num_heads: int, expansion: float, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, expansion, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        table: tuple[Tensor, Tensor],
        mask: Tensor | None,
        state: AttentionState | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); arguments as in `SelfAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), table, mask, state))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


@dataclass
class AttentionPlan:
    """What all layers of a stack share for one call: rotary table and mask."""

    table: tuple[Tensor, Tensor]
    mask: Mask
    """(B or 1, 1, T, K) or None; a list has one for each of the streams of a `SideBySide`."""
    positions: Tensor | list[Tensor]
    """(K,) or (B, K) positions of the keys, cached ones first; -1 where there is none."""


def plan_attention(
    x: Tensor,
    head_dim: int,
    context: Context,
    *,
    cached: Tensor | None = None,
    next_position: int | Tensor = 0,
    mask: Tensor | None = None,
    pinned_frames: Tensor | None = None,
) -> AttentionPlan:
    """Rotary table and mask for the frames of `x` (B, T, D), which stand at `next_position`.

    Args:
        x: (B, T, D), read for its shape and device only.
        head_dim: channels of one attention head.
        context: what a frame may see.
        cached: (K',) positions that a cache holds, or (B, K').
        next_position: position of the first frame of `x`, or (B,) positions.
        mask: (B, T) True where `x` is valid (a padded batch).
        pinned_frames: (B,) prompt lengths, see `Context.visible`.
    """
    queries = torch.arange(x.shape[1], device=x.device)
    is_ragged = isinstance(next_position, Tensor)
    queries = queries + (next_position[:, None] if is_ragged else next_position)
    keys = queries if cached is None else torch.cat([cached, queries], dim=-1)
    if isinstance(next_position, Tensor):
        cos, sin = rotary_table(queries, head_dim)
        table = (cos[:, None], sin[:, None])
    else:
        table = rotary_span(next_position, x.shape[1], head_dim, x.device)
    combined: Tensor | None = None
    if not context.is_full:
        visible = context.visible(queries, keys, pinned_frames=pinned_frames)
        if is_ragged:
            visible = visible & (keys >= 0)[:, None]
        if not bool(visible.all()):
            combined = visible[None, None] if visible.ndim == 2 else visible[:, None]
    if mask is not None:
        valid = mask[:, None, None, :]
        combined = valid if combined is None else combined & valid
        # A padded query with nothing to see would give NaN; let it see itself.
        combined = combined | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return AttentionPlan(table=table, mask=combined, positions=keys)


def plan_side_by_side(rows: Sequence[Tensor], plans: Sequence[AttentionPlan]) -> AttentionPlan:
    """One plan of the plans of streams, each of which has its rows (B, T, D) of the batch."""
    tables = [
        [part.expand(row.shape[0], -1, -1) for part in plan.table]
        for row, plan in zip(rows, plans, strict=True)
    ]
    cos, sin = (torch.cat(column) for column in zip(*tables, strict=True))
    masks, positions = [plan.mask for plan in plans], [plan.positions for plan in plans]
    return AttentionPlan(
        table=(cos, sin),
        mask=cast("list[Tensor | None]", masks),
        positions=cast("list[Tensor]", positions),
    )


class Transformer(nn.Module):
    """A stack of blocks with a final norm, causal by chunks as its context says."""

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        expansion: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        layers = [TransformerBlock(dim, num_heads, expansion, dropout) for _ in range(num_layers)]
        self.layers = cast("Sequence[TransformerBlock]", nn.ModuleList(layers))
        self.norm = nn.LayerNorm(dim)

    def init_state(self, batch_size: int) -> TransformerState:
        """State before the first frame."""
        layers = [layer.attention.init_state(batch_size) for layer in self.layers]
        return TransformerState(layers=layers, next_position=0)

    def forward(
        self,
        x: Tensor,
        context: Context = FULL_CONTEXT,
        state: TransformerState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D).

        Args:
            x: the whole sequence, or with `state` the next piece, which must end at a chunk
                boundary of `context` unless it is the last.
            context: what a frame may see.
            state: advanced in place.
            mask: (B, T) True where valid, for padded batches without a state.
            pinned_frames: (B,) prompt lengths of a training batch.
        """
        plan = plan_attention(
            x,
            self.head_dim,
            context,
            cached=None if state is None else state.layers[0].positions,
            next_position=0 if state is None else state.next_position,
            mask=mask,
            pinned_frames=pinned_frames,
        )
        for index, layer in enumerate(self.layers):
            x = layer(x, plan.table, plan.mask, None if state is None else state.layers[index])
        if state is not None:
            advance(state, plan.positions, context, x.shape[1])
        return self.norm(x)


def advance(
    state: TransformerState | SideBySide,
    positions: Tensor | list[Tensor],
    context: Context,
    num_frames: int,
) -> None:
    """Moves `state` past `num_frames` new frames and trims its caches.

    Args:
        state: changed in place.
        positions: (K,) or (B, K) of all frames that its caches hold now; of streams side by side a
            list.
        context: what later frames may see.
        num_frames: frames that were added.
    """
    if isinstance(state, SideBySide):
        for stream, places in zip(state.streams, positions, strict=True):
            advance(stream, places, context, num_frames)
        return
    assert isinstance(positions, Tensor)
    state.next_position = state.next_position + num_frames
    if isinstance(state.next_position, Tensor):
        for layer in state.layers:
            layer.positions = positions  # each row is trimmed when they part
        return
    # The same for all layers. Without a window there is nothing to compare, nor to wait for.
    keep = None
    if context.left_frames is not None:
        keep = context.kept(positions, state.next_position)
        keep = None if bool(keep.all()) else keep
    for layer in state.layers:
        trim(layer, positions, keep)


def reserve(state: TransformerState | SideBySide | None, num_frames: int) -> None:
    """Makes room for new frames in the caches of all layers, see `make_room`."""
    streams = state.streams if isinstance(state, SideBySide) else [state]
    for stream in streams:
        if stream is not None:
            make_room(stream.layers, num_frames)


def stack_ragged(states: Sequence[TransformerState]) -> TransformerState:
    """Joins states along the batch that stand at different positions, for the next call only.

    The caches are padded to one length; `unstack_ragged` parts them again.
    """
    places, rows = [], []
    longest = max(state.layers[0].positions.shape[0] for state in states)
    for state in states:
        layer = state.layers[0]
        missing = longest - layer.positions.shape[0]
        padded = functional.pad(layer.positions, (missing, 0), value=-1)
        places.append(padded.expand(layer.keys.shape[0], -1))
        rows.append(layer.positions.new_full((layer.keys.shape[0],), int(state.next_position)))
    positions = torch.cat(places)

    def joined(parts: list[Tensor]) -> Tensor:
        missing = [longest - part.shape[2] for part in parts]
        return torch.cat(
            [
                functional.pad(part, (0, 0, count, 0)) if count else part
                for part, count in zip(parts, missing, strict=True)
            ]
        )

    layers = [
        AttentionState(
            keys=joined([layer.keys for layer in column]),
            values=joined([layer.values for layer in column]),
            positions=positions,
        )
        for column in zip(*(state.layers for state in states), strict=True)
    ]
    return TransformerState(layers=layers, next_position=torch.cat(rows))


def unstack_ragged(state: TransformerState, contexts: Sequence[Context]) -> list[TransformerState]:
    """Parts what `stack_ragged` joined, and trims each by its own context."""
    assert isinstance(state.next_position, Tensor)
    count = state.next_position.shape[0] // len(contexts)
    parts = []
    for item, context in enumerate(contexts):
        rows = slice(item * count, (item + 1) * count)
        positions = state.layers[0].positions[item * count]
        next_position = int(state.next_position[item * count])
        keep = context.kept(positions, next_position) & (positions >= 0)
        layers = [
            AttentionState(
                keys=layer.keys[rows][:, :, keep],
                values=layer.values[rows][:, :, keep],
                positions=positions[keep],
            )
            for layer in state.layers
        ]
        parts.append(TransformerState(layers=layers, next_position=next_position))
    return parts
