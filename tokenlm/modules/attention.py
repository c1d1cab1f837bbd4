"""Transformers, whole or in chunks: rotary positions, attention with its cache, and blocks.

Shapes: B batch, T frames, D channels, H heads, E channels of a head, K cached frames, C capacity
of a cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self, TypeAlias, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.streaming import FULL_CONTEXT, Context, State

# --- Rotary positions (Su et al., 2021, RoFormer), half-split form ---

_SMALLEST_TABLE = 1024


def rotary_table(positions: Tensor, dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation angles.

    Args:
        positions: (T,) integer positions, or (B, T).
        dim: size of an attention head, even.
        theta: base of the geometric series of wavelengths.

    Returns:
        Two tensors (T, dim / 2), or (B, T, dim / 2).
    """
    exponents = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    angles = positions.to(torch.float32)[..., None] * theta**-exponents
    return angles.cos(), angles.sin()


def rotary_span(start: int, count: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`rotary_table` of the positions from `start` on, as views of a table that is made once.

    Args:
        start: first position.
        count: number of positions, T.
        dim: size of an attention head, even.
        device: where the table is.

    Returns:
        Two tensors (T, dim / 2).
    """
    if torch.compiler.is_compiling():  # a cache has no place in a graph
        return rotary_table(torch.arange(start, start + count, device=device), dim)
    size = max(1 << (start + count).bit_length(), _SMALLEST_TABLE)
    cos, sin = _whole_table(size, dim, device)
    return cos[start : start + count], sin[start : start + count]


@lru_cache(maxsize=16)
def _whole_table(size: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    # Tensors that were made in inference mode could not be trained with later.
    with torch.inference_mode(False):
        return rotary_table(torch.arange(size, device=device), dim)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates pairs (i, i + dim / 2) of `x` (B, H, T, dim) by the angles of `rotary_table`."""
    cos, sin = (part.to(x.dtype) for part in table)
    if cos.ndim == 3:
        cos, sin = cos[:, None], sin[:, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotate_first_channels(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates the pairs (2i, 2i + 1) of the first channels of `x` (B, T, D), those of a head."""
    cos, sin = (part.to(x.dtype) for part in table)
    size = 2 * cos.shape[-1]
    even, odd = rearrange(x[..., :size], "... (pair two) -> two ... pair", two=2)
    rotated = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([rotated, x[..., size:]], dim=-1)


# --- Multi-head self-attention with a cache of keys and values ---

CachePrecision = Literal["float32", "float16", "int8"]
CACHE_TYPES: dict[CachePrecision, torch.dtype | None] = {
    "float32": None,
    "float16": torch.float16,
    "int8": torch.int8,
}
"""What keys and values are rounded to; None keeps the type that they are computed in."""
_SCALE_BYTES = 4


def pack(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Keys or values (B, H, T, E) as a cache of type `dtype` keeps them.

    In int8 those of a head are whole numbers from -127 to 127 with one scale for each frame, a
    float32 in the four bytes behind them: (B, H, T, E + 4). A frame is rounded alike wherever a
    stream is cut.
    """
    if dtype != torch.int8:
        return x.to(dtype)
    wide = x.float()
    scale = wide.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127.0
    return torch.cat([(wide / scale).round().to(torch.int8), scale.view(torch.int8)], dim=-1)


def unpack(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `pack`, in `dtype`."""
    if packed.dtype != torch.int8:
        return packed.to(dtype)
    scale = packed[..., -_SCALE_BYTES:].contiguous().view(torch.float32)
    return packed[..., :-_SCALE_BYTES].to(dtype).mul_(scale.to(dtype))


@dataclass
class AttentionState(State):
    """Keys and values that later chunks may still see, with room for more behind them."""

    keys: Tensor
    """(B, H, C, E), rotated, as `pack` gives them; the first K are filled."""
    values: Tensor
    """(B, H, C, E)"""
    positions: Tensor
    """(K,) position of each cached frame; on the CPU, whatever the device of the others."""

    @classmethod
    def empty(
        cls,
        like: Tensor,
        batch_size: int,
        num_heads: int,
        head_dim: int,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """An empty cache on the device of `like`, of its type where no other is given."""
        size = head_dim + _SCALE_BYTES if dtype == torch.int8 else head_dim
        nothing = like.new_zeros(batch_size, num_heads, 0, size, dtype=dtype)
        positions = torch.zeros(0, dtype=torch.long, device="cpu")
        return cls(keys=nothing, values=nothing, positions=positions)

    @property
    def num_frames(self) -> int:
        """K, the frames that are filled."""
        return self.positions.shape[0]

    @property
    def capacity(self) -> int:
        """C, the frames that there is room for."""
        return self.keys.shape[2]

    def clone(self) -> Self:
        """A copy without the room that is not filled."""
        held = self.shared()
        return type(self)(
            keys=held.keys.clone(), values=held.values.clone(), positions=held.positions.clone()
        )

    def shared(self) -> Self:
        """The same frames without the room behind them, which stays this cache's own."""
        held = slice(self.num_frames)
        return type(self)(
            keys=self.keys[:, :, held], values=self.values[:, :, held], positions=self.positions
        )

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts new keys and values (B, H, T, E) behind those held; gives all (B, H, K + T, E).

        Positions follow when all layers are done, see `TransformerState.advance`.
        """
        held, needed = self.num_frames, self.num_frames + keys.shape[2]
        if self.capacity < needed:
            self.keys, self.values = (
                functional.pad(part[:, :, :held], (0, 0, 0, _roomy(held, needed) - held))
                for part in (self.keys, self.values)
            )
        kept = self.keys.dtype
        self.keys[:, :, held:needed] = pack(keys, kept)
        self.values[:, :, held:needed] = pack(values, kept)
        return (
            unpack(self.keys[:, :, :needed], keys.dtype),
            unpack(self.values[:, :, :needed], values.dtype),
        )

    def advance(self, positions: Tensor, keep: Tensor | None) -> None:
        """Counts the new frames as held, and drops what no later chunk can see.

        Args:
            positions: (K + T,) of all frames.
            keep: (K + T,) True where a frame stays; None keeps all.
        """
        if keep is not None:
            filled = slice(positions.shape[0])
            self.keys = self.keys[:, :, filled][:, :, keep]
            self.values = self.values[:, :, filled][:, :, keep]
            positions = positions[keep]
        self.positions = positions


def make_room(states: Sequence[AttentionState], num_frames: int) -> None:
    """Makes room for new frames in the caches of all layers of a stream at once, without gradient.

    The caches have equal sizes. Their room is one piece of memory: a large one goes back to the
    system as a whole when it is outgrown, and costs nothing where nothing is written yet; many
    small ones leave holes that are never filled. It has half as much again as is needed, so that
    most chunks copy nothing but themselves.
    """
    held, needed = states[0].num_frames, states[0].num_frames + num_frames
    if all(state.capacity >= needed for state in states):
        return
    batch, heads, _, channels = states[0].keys.shape
    size = _roomy(held, needed)
    whole = states[0].keys.new_empty(len(states), 2, batch, heads, size, channels)
    for index, state in enumerate(states):
        keys, values = whole[index, 0], whole[index, 1]
        keys[:, :, :held] = state.keys[:, :, :held]
        values[:, :, :held] = state.values[:, :, :held]
        state.keys, state.values = keys, values


def _roomy(held: int, needed: int) -> int:
    return needed if held == 0 else needed + needed // 2


@dataclass
class TransformerState(State):
    """Caches of all layers and the position of the next frame."""

    layers: list[AttentionState]
    next_position: int = 0

    @classmethod
    def join(cls, states: Sequence[Self]) -> BatchedCaches:
        """The caches stay with their streams."""
        layers = [[*column] for column in zip(*(state.layers for state in states), strict=True)]
        return BatchedCaches(streams=[*states], layers=layers)

    def reserve(self, num_frames: int) -> None:
        """Makes room for new frames in the caches of all layers."""
        make_room(self.layers, num_frames)

    def advance(self, plan: Plan, num_frames: int) -> None:
        """Moves on past `num_frames` new frames that have been attended to under `plan`."""
        assert isinstance(plan, AttentionPlan)
        self.next_position += num_frames
        # The same for all layers. Without a window there is nothing to compare, nor to wait for.
        keep = None
        if plan.context.left_frames is not None:
            keep = plan.context.kept(plan.positions, self.next_position)
            keep = None if bool(keep.all()) else keep
        for layer in self.layers:
            layer.advance(plan.positions, keep)


@dataclass
class BatchedCaches(State):
    """Caches of several streams whose rows run in one batch, one stream after the other."""

    streams: list[TransformerState]
    layers: list[list[AttentionState]]
    """By layer, then by stream."""

    def write_back(self, states: Sequence[TransformerState]) -> None:
        """Nothing is left to do: the streams have been advanced themselves."""

    def reserve(self, num_frames: int) -> None:
        """See `TransformerState.reserve`."""
        for stream in self.streams:
            stream.reserve(num_frames)

    def advance(self, plan: Plan, num_frames: int) -> None:
        """See `TransformerState.advance`."""
        assert isinstance(plan, BatchedPlan)
        for stream, part in zip(self.streams, plan.parts, strict=True):
            stream.advance(part, num_frames)


Caches: TypeAlias = TransformerState | BatchedCaches
"""Of one batch, or of several streams in one batch."""
Cache: TypeAlias = AttentionState | list[AttentionState] | None
"""Of one layer, the same."""


@dataclass
class AttentionPlan:
    """Positions and mask for one call, shared by all layers of a stack."""

    context: Context
    table: tuple[Tensor, Tensor] | None
    """Rotary table of the new frames; None where there is no rotation."""
    mask: Tensor | None
    """(B or 1, 1, T, K + T) True where visible; None: everything is."""
    positions: Tensor
    """(K + T,) positions of the keys, cached ones first; on the CPU where there is a cache."""


@dataclass
class BatchedPlan:
    """The plans of several streams whose rows run in one batch."""

    parts: list[AttentionPlan]
    table: tuple[Tensor, Tensor] | None
    """(B, T, E / 2) of all rows."""


Plan: TypeAlias = AttentionPlan | BatchedPlan


def plan_attention(
    x: Tensor,
    context: Context,
    caches: Caches | None = None,
    *,
    head_dim: int | None,
    mask: Tensor | None = None,
    pinned_frames: Tensor | None = None,
) -> Plan:
    """Positions, rotary table and mask for the next frames `x` (B, T, any).

    Args:
        x: read for its shape and device only.
        context: what a frame may see.
        caches: what lies before; None for whole sequences.
        head_dim: channels of a head, for the rotary table; None where there is no rotation.
        mask: (B, T) True where `x` is valid (a padded batch), without caches.
        pinned_frames: (B,) prompt lengths, in place of the one of the context: of a training batch
            (see `Context.visible`), or of the rows of batched streams.
    """
    if isinstance(caches, BatchedCaches):
        rows = x.split(x.shape[0] // len(caches.streams))
        parts: list[AttentionPlan] = []
        for number, (row, stream) in enumerate(zip(rows, caches.streams, strict=True)):
            own = context
            if pinned_frames is not None:
                own = context.pinned(int(pinned_frames[number * row.shape[0]]))
            part = plan_attention(row, own, stream, head_dim=head_dim)
            assert isinstance(part, AttentionPlan)
            parts.append(part)
        return BatchedPlan(parts=parts, table=_joined_tables(rows, parts))
    start = 0 if caches is None else caches.next_position
    # Masks are made of positions alone, which are known on the CPU: it need not wait for a GPU.
    place = "cpu" if pinned_frames is None else pinned_frames.device
    queries = torch.arange(start, start + x.shape[1], device=place)
    keys = queries if caches is None else torch.cat([caches.layers[0].positions, queries])
    table = None if head_dim is None else rotary_span(start, x.shape[1], head_dim, x.device)
    combined = visible_mask(queries, keys, context, pinned_frames)
    if combined is not None:
        combined = combined.to(x.device, non_blocking=True)
    if mask is not None:
        valid = mask[:, None, None, :]
        combined = valid if combined is None else combined & valid
        # A padded query with nothing to see would give NaN; let it see itself.
        combined = combined | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return AttentionPlan(context=context, table=table, mask=combined, positions=keys)


def visible_mask(
    queries: Tensor, keys: Tensor, context: Context, pinned_frames: Tensor | None = None
) -> Tensor | None:
    """What frames at `queries` (T,) see of those at `keys` (K,), (B or 1, 1, T, K).

    None where they see everything, for which attention has the fastest code; on a GPU that is not
    asked, since the answer would have to be waited for.
    """
    if context.is_full:
        return None
    visible = context.visible(queries, keys, pinned_frames=pinned_frames)
    if visible.device.type == "cpu" and bool(visible.all()):
        return None
    return visible[None, None] if visible.ndim == 2 else visible[:, None]


def _joined_tables(
    rows: Sequence[Tensor], plans: Sequence[AttentionPlan]
) -> tuple[Tensor, Tensor] | None:
    tables = [
        [part.expand(row.shape[0], -1, -1) for part in plan.table]
        for row, plan in zip(rows, plans, strict=True)
        if plan.table is not None
    ]
    if not tables:
        return None
    cos, sin = (torch.cat(column) for column in zip(*tables, strict=True))
    return cos, sin


class SelfAttention(nn.Module):
    """Self-attention over (B, T, D).

    Args:
        dim: D.
        num_heads: H.
        head_dim: E, default D / H.
        dropout: of the attention weights.
        fused: queries, keys and values come from one projection, or from one each.
        bias: whether the projections of queries, keys and values have one.
        rotary: what is rotated by the position: every head, the first head alone (as in F5-TTS and
            CosyVoice 3), or nothing.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        *,
        dropout: float = 0.0,
        fused: bool = True,
        bias: bool = True,
        rotary: Literal["every_head", "first_head"] | None = "every_head",
    ) -> None:
        super().__init__()
        if head_dim is None:
            if dim % num_heads or (dim // num_heads) % 2:
                raise ValueError(f"dim {dim} does not split into {num_heads} heads of even size")
            head_dim = dim // num_heads
        self.num_heads, self.head_dim = num_heads, head_dim
        self.dropout, self.rotary = dropout, rotary
        self.cache_dtype: torch.dtype | None = None
        """What keys and values are rounded to, in whole sequences as in the caches of streams."""
        inner = num_heads * head_dim
        if fused:
            self.query_key_value = nn.Linear(dim, 3 * inner, bias=bias)
        else:
            self.query = nn.Linear(dim, inner, bias=bias)
            self.key = nn.Linear(dim, inner, bias=bias)
            self.value = nn.Linear(dim, inner, bias=bias)
        self.out = nn.Linear(inner, dim)
        self.fused = fused

    def init_state(self, batch_size: int) -> AttentionState:
        """An empty cache."""
        # The weights may be kept in fewer bits, or packed; the bias has the type of what comes out.
        return AttentionState.empty(
            self.out.bias, batch_size, self.num_heads, self.head_dim, self.cache_dtype
        )

    def forward(self, x: Tensor, plan: Plan, cache: Cache = None) -> Tensor:
        """Attends from the frames of `x` (B, T, D) to the cached frames and to those of `x`.

        Args:
            x: (B, T, D).
            plan: of `plan_attention`.
            cache: grows by the frames of `x`; `advance` of its state counts them.

        Returns:
            (B, T, D)
        """
        query, key, value = self._project(x, plan.table)
        if self.cache_dtype is not None and cache is None:
            key = unpack(pack(key, self.cache_dtype), key.dtype)
            value = unpack(pack(value, self.cache_dtype), value.dtype)
        dropout = self.dropout if self.training else 0.0
        attended = attend(query, key, value, plan, cache, dropout)
        return self.out(rearrange(attended, "b h t e -> b t (h e)"))

    def _project(
        self, x: Tensor, table: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, T, E), rotated."""
        if self.fused:
            query, key, value = rearrange(
                self.query_key_value(x), "b t (n h e) -> n b h t e", n=3, h=self.num_heads
            )
            if table is not None and self.rotary == "every_head":
                query, key = rotate(query, table), rotate(key, table)
            return query, key, value
        query, key, value = self.query(x), self.key(x), self.value(x)
        if table is not None and self.rotary == "first_head":
            query, key = rotate_first_channels(query, table), rotate_first_channels(key, table)
        query, key, value = (
            rearrange(part, "b t (h e) -> b h t e", h=self.num_heads)
            for part in (query, key, value)
        )
        if table is not None and self.rotary == "every_head":
            query, key = rotate(query, table), rotate(key, table)
        return query, key, value


def keep_caches_in(module: nn.Module, precision: CachePrecision) -> None:
    """Rounds keys and values of every `SelfAttention` in `module`, so that caches are smaller.

    Whole sequences are rounded alike, so that streams equal them. States that were made before
    stay as they are.
    """
    for part in module.modules():
        if isinstance(part, SelfAttention):
            part.cache_dtype = CACHE_TYPES[precision]


def attend(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, cache: Cache, dropout: float = 0.0
) -> Tensor:
    """Attends from new frames to those of a cache and to themselves.

    Args:
        query: (B, H, T, E) of the new frames.
        key: the same.
        value: the same.
        plan: what is visible.
        cache: grows by the new frames. Batched streams have one each, of any lengths; their rows
            follow one another.
        dropout: of the attention weights.

    Returns:
        (B, H, T, E)
    """
    if isinstance(plan, BatchedPlan):
        assert isinstance(cache, list)
        rows = query.shape[0] // len(cache)
        parts = zip(
            query.split(rows), key.split(rows), value.split(rows), plan.parts, cache, strict=True
        )
        return torch.cat([attend(*part, dropout) for part in parts])
    assert not isinstance(cache, list)
    if cache is not None:
        key, value = cache.extend(key, value)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=plan.mask, dropout_p=dropout
    )


# --- Pre-norm transformer ---


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
        self.attention = SelfAttention(dim, num_heads, dropout=dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, expansion, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, plan: Plan, cache: Cache = None) -> Tensor:
        """(B, T, D) to (B, T, D); arguments as in `SelfAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), plan, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


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
        return TransformerState([layer.attention.init_state(batch_size) for layer in self.layers])

    def forward(
        self,
        x: Tensor,
        context: Context = FULL_CONTEXT,
        state: Caches | None = None,
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
            pinned_frames: (B,) prompt lengths, see `plan_attention`.
        """
        plan = plan_attention(
            x, context, state, head_dim=self.head_dim, mask=mask, pinned_frames=pinned_frames
        )
        for index, layer in enumerate(self.layers):
            x = layer(x, plan, None if state is None else state.layers[index])
        if state is not None:
            state.advance(plan, x.shape[1])
        return self.norm(x)


# --- Time of a flow, as an input of its transformer ---


class TimestepEmbedding(nn.Module):
    """Time in [0, 1], shape (B,), to (B, D)."""

    def __init__(self, dim: int, num_frequencies: int = 128, scale: float = 1000.0) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Linear(2 * num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim)
        )

    def forward(self, t: Tensor) -> Tensor:
        """(B,) to (B, D)."""
        exponents = torch.arange(self.num_frequencies, device=t.device, dtype=torch.float32)
        rates = torch.exp(-math.log(10_000.0) * exponents / (self.num_frequencies - 1))
        angles = self.scale * t.to(torch.float32)[:, None] * rates
        features = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.layers(features.to(next(self.layers.parameters()).dtype))
