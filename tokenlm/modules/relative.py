"""Transformer blocks with relative positions, after Transformer-XL (Dai et al., 2019).

Shapes: B batch, T query frames, K key frames, D channels, H heads, E channels of a head, R relative
distances. The form is that of conformer encoders: sinusoids of the distance go through a linear
layer, and each head has two biases, one beside its queries for content and one for position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.attention import (
    AttentionPlan,
    AttentionState,
    BatchedPlan,
    Cache,
    Caches,
    Plan,
    TransformerState,
    plan_attention,
)
from tokenlm.modules.streaming import FULL_CONTEXT, Context

_SMALLEST_REACH = 1024


def distance_table(distances: Tensor, dim: int) -> Tensor:
    """Sinusoids (R, D) of distances (R,) from key to query: sines in even channels, cosines in odd.

    A distance is positive where the key lies before the query.
    """
    exponents = torch.arange(0, dim, 2, device=distances.device, dtype=torch.float32) / dim
    angles = distances.to(torch.float32)[:, None] * torch.exp(-math.log(10_000.0) * exponents)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def distance_span(largest: int, count: int, dim: int, device: torch.device) -> Tensor:
    """`distance_table` of `count` distances from `largest` down, a view of a table made once."""
    if torch.compiler.is_compiling():  # a cache has no place in a graph
        return distance_table(torch.arange(largest, largest - count, -1, device=device), dim)
    reach = max(largest, count - 1 - largest, 1)
    size = max(1 << reach.bit_length(), _SMALLEST_REACH)
    return _whole_table(size, dim, device)[size - largest :][:count]


@lru_cache(maxsize=8)
def _whole_table(reach: int, dim: int, device: torch.device) -> Tensor:
    # Tensors that were made in inference mode could not be trained with later.
    with torch.inference_mode(False):
        return distance_table(torch.arange(reach, -reach - 1, -1, device=device), dim)


@dataclass
class RelativePlan(AttentionPlan):
    """What all layers of a stack share for one call."""

    distances: Tensor
    """(R, D) sinusoids, from the largest distance to the smallest."""
    index: Tensor | None
    """(T, K + T) row of `distances` for each query and key; None where keys have no gap."""


def plan_relative(
    x: Tensor,
    context: Context,
    caches: Caches | None = None,
    *,
    mask: Tensor | None = None,
    pinned_frames: Tensor | None = None,
) -> RelativePlan | BatchedPlan:
    """Distances and mask for the next frames `x` (B, T, D); arguments as for `plan_attention`."""
    plan = plan_attention(x, context, caches, head_dim=None, mask=mask, pinned_frames=pinned_frames)
    if isinstance(plan, BatchedPlan):
        parts = [_with_distances(x, part) for part in plan.parts]
        return BatchedPlan(parts=[*parts], table=None)
    return _with_distances(x, plan)


def _with_distances(x: Tensor, plan: AttentionPlan) -> RelativePlan:
    frames, keys = x.shape[1], plan.positions
    queries = keys[keys.shape[0] - frames :]
    first, last = int(keys[0]), int(queries[-1])
    has_gap = keys.shape[0] != last + 1 - first
    index = None
    if has_gap:
        index = (last - first - (queries[:, None] - keys[None])).to(x.device, non_blocking=True)
    distances = distance_span(last - first, last - first + frames, x.shape[2], x.device)
    return RelativePlan(
        context=plan.context,
        table=None,
        mask=plan.mask,
        positions=keys,
        distances=distances.to(x.dtype),
        index=index,
    )


class RelativeAttention(nn.Module):
    """Self-attention over (B, T, D) with relative positions."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not split into {num_heads} heads")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        self.position_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))

    def init_state(self, batch_size: int) -> AttentionState:
        """An empty cache."""
        like = self.content_bias
        return AttentionState.empty(like, batch_size, self.num_heads, like.shape[1])

    def forward(self, x: Tensor, plan: Plan, cache: Cache = None) -> Tensor:
        """(B, T, D) to (B, T, D); `plan` of `plan_relative`, `cache` grows by the frames of `x`."""
        query, key, value = (
            self._heads(project(x)) for project in (self.query, self.key, self.value)
        )
        if isinstance(plan, BatchedPlan):
            assert isinstance(cache, list)
            rows = x.shape[0] // len(cache)
            parts = zip(
                query.split(rows),
                key.split(rows),
                value.split(rows),
                plan.parts,
                cache,
                strict=True,
            )
            attended = torch.cat([self._attend(*part) for part in parts])
        else:
            assert not isinstance(cache, list)
            attended = self._attend(query, key, value, plan, cache)
        return self.out(rearrange(attended, "b h t e -> b t (h e)"))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: AttentionPlan,
        cache: AttentionState | None,
    ) -> Tensor:
        assert isinstance(plan, RelativePlan)
        if cache is not None:
            key, value = cache.extend(key, value)
        by_distance = self._heads(self.position(plan.distances)[None])
        scores = (query + self.position_bias[:, None]) @ by_distance.mT
        bias = self._by_key(scores, key.shape[2], plan.index) / math.sqrt(query.shape[-1])
        if plan.mask is not None:
            bias = bias.masked_fill(~plan.mask, -torch.inf)
        return functional.scaled_dot_product_attention(
            query + self.content_bias[:, None], key, value, attn_mask=bias
        )

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (h e) -> b h t e", h=self.num_heads)

    def _by_key(self, scores: Tensor, num_keys: int, index: Tensor | None) -> Tensor:
        """Scores (B, H, T, R) by distance to scores (B, H, T, K) by key."""
        batch, heads, frames, distances = scores.shape
        if index is not None:
            return scores.gather(3, index.expand(batch, heads, -1, -1))
        # Row t of the result starts T - 1 - t columns in: a view of stride one less.
        return scores.contiguous().as_strided(
            (batch, heads, frames, num_keys),
            (heads * frames * distances, frames * distances, distances - 1, 1),
            frames - 1,
        )


class RelativeBlock(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x), a swish inside the latter."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.attention = RelativeAttention(dim, num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=1e-12)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, dim)
        )

    def forward(self, x: Tensor, plan: Plan, cache: Cache = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), plan, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class RelativeTransformer(nn.Module):
    """A stack of blocks without a final norm, causal by chunks as its context says."""

    def __init__(self, dim: int, num_layers: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        layers = [RelativeBlock(dim, num_heads, hidden_dim) for _ in range(num_layers)]
        self.layers = cast("Sequence[RelativeBlock]", nn.ModuleList(layers))

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
            x: the whole sequence, or with `state` the next piece, which ends at a chunk boundary
                of `context` unless it is the last.
            context: what a frame may see.
            state: advanced in place.
            mask: (B, T) True where valid, for padded batches without a state.
            pinned_frames: (B,) prompt lengths, see `plan_attention`.
        """
        plan = plan_relative(x, context, state, mask=mask, pinned_frames=pinned_frames)
        for index, layer in enumerate(self.layers):
            x = layer(x, plan, None if state is None else state.layers[index])
        if state is not None:
            state.advance(plan, x.shape[1])
        return x
