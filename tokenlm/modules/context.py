"""What a position may see, as one value.

Shapes: B batch, Q query positions, K key positions, T frames.

The training mask, the offline mask and the sizes of the streaming caches are all computed from a
`Context`, so they cannot disagree. Positions count from the start of the sequence; the first
`pinned_frames` of them are the prompt, and chunk boundaries are counted from its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Context:
    """Attention context of a sequence that is processed in chunks.

    A frame of the prompt sees the whole prompt and nothing else. A later frame sees the prompt, its
    own chunk, and `left_frames` before its chunk. With `chunk_frames=None` every frame sees every
    frame (the non-streaming mode).
    """

    chunk_frames: int | None = None
    """Frames processed at once; None is the full context."""
    chunk_step_frames: tuple[int, ...] = ()
    """The steps by which chunks grow: sizes of the first chunks, before those of `chunk_frames`.
    Small first chunks give an early first sound, larger ones cost less."""
    left_frames: int | None = None
    """Frames seen before the chunk besides the prompt; None is all of them."""
    lookahead_frames: int = 0
    """Future frames that the look-ahead convolution before the attention waits for."""
    pinned_frames: int = 0
    """Frames of the prompt, never evicted from a cache."""

    def __post_init__(self) -> None:
        if self.chunk_frames is not None and self.chunk_frames < 1:
            raise ValueError(f"chunk_frames must be at least 1, got {self.chunk_frames}")
        if any(size < 1 for size in self.chunk_step_frames):
            raise ValueError(f"chunk_step_frames must be at least 1, got {self.chunk_step_frames}")
        if self.chunk_frames is None and self.chunk_step_frames:
            raise ValueError("chunk_step_frames needs chunk_frames: the full context has no chunks")
        if self.left_frames is not None and self.left_frames < 0:
            raise ValueError(f"left_frames must not be negative, got {self.left_frames}")
        if self.chunk_frames is None and self.left_frames is not None:
            raise ValueError("left_frames needs chunk_frames: the full context has no window")
        if self.lookahead_frames < 0 or self.pinned_frames < 0:
            raise ValueError("lookahead_frames and pinned_frames must not be negative")

    @property
    def is_full(self) -> bool:
        """Whether every frame sees every frame."""
        return self.chunk_frames is None

    def pinned(self, num_frames: int) -> Context:
        """Returns the same context with a prompt of `num_frames`."""
        return replace(self, pinned_frames=num_frames)

    def scaled(self, factor: int) -> Context:
        """Returns the context in units `factor` times shorter (tokens to mel frames)."""
        return Context(
            chunk_frames=None if self.chunk_frames is None else self.chunk_frames * factor,
            chunk_step_frames=tuple(size * factor for size in self.chunk_step_frames),
            left_frames=None if self.left_frames is None else self.left_frames * factor,
            lookahead_frames=self.lookahead_frames * factor,
            pinned_frames=self.pinned_frames * factor,
        )

    def divided(self, factor: int) -> Context:
        """Returns the context in units `factor` times longer (mel frames to patches).

        Raises:
            ValueError: a size is not a multiple of `factor`.
        """
        sizes = (
            self.chunk_frames,
            self.left_frames,
            self.lookahead_frames,
            self.pinned_frames,
            *self.chunk_step_frames,
        )
        if any(size is not None and size % factor for size in sizes):
            raise ValueError(f"the sizes of {self} are not multiples of {factor}")
        return Context(
            chunk_frames=None if self.chunk_frames is None else self.chunk_frames // factor,
            chunk_step_frames=tuple(size // factor for size in self.chunk_step_frames),
            left_frames=None if self.left_frames is None else self.left_frames // factor,
            lookahead_frames=self.lookahead_frames // factor,
            pinned_frames=self.pinned_frames // factor,
        )

    def chunk_bounds(self, num_frames: int) -> list[tuple[int, int]]:
        """Cuts `num_frames` frames into (start, end) pieces: the prompt, then the chunks."""
        bounds = []
        start = min(self.pinned_frames, num_frames)
        if start:
            bounds.append((0, start))
        while start < num_frames:
            end = min(self.pinned_frames + self.chunk_end(start - self.pinned_frames), num_frames)
            if self.chunk_frames is None:
                end = num_frames
            bounds.append((start, end))
            start = end
        return bounds

    def chunk_end(self, frame: int) -> int:
        """End of the chunk that holds `frame`; both are counted from the end of the prompt.

        The full context has a single chunk, whose end is not known: 0.
        """
        if self.chunk_frames is None:
            return 0
        end = 0
        for size in self.chunk_step_frames:
            end += size
            if frame < end:
                return end
        return end + ((frame - end) // self.chunk_frames + 1) * self.chunk_frames

    def whole_chunks(self, num_frames: int) -> int:
        """How many of the first `num_frames` frames after the prompt are in complete chunks."""
        done = 0
        while self.chunk_frames is not None and (end := self.chunk_end(done)) <= num_frames:
            done = end
            if done >= sum(self.chunk_step_frames):
                return done + (num_frames - done) // self.chunk_frames * self.chunk_frames
        return done

    def visible(
        self, queries: Tensor, keys: Tensor, *, pinned_frames: Tensor | None = None
    ) -> Tensor:
        """Which keys each query may attend to.

        Args:
            queries: (Q,) positions, or (B, Q) where the items of a batch differ.
            keys: (K,) positions, or (B, K).
            pinned_frames: (B,) prompt lengths of the items of a batch, in place of the one of the
                context (training draws one for each item).

        Returns:
            (Q, K) or (B, Q, K) mask, True where visible.
        """
        q, k = queries[..., :, None], keys[..., None, :]
        if self.chunk_frames is None:
            shape = torch.broadcast_shapes(q.shape, k.shape)
            if pinned_frames is not None and len(shape) == 2:
                shape = (pinned_frames.shape[0], *shape)
            return torch.ones(shape, dtype=torch.bool, device=queries.device)
        pinned: Tensor | int = self.pinned_frames
        if pinned_frames is not None:
            pinned = pinned_frames[:, None, None]
        start, end = self._chunk_of(q - pinned)
        start, end = start + pinned, end + pinned
        is_prompt_key = k < pinned
        seen = (k < end) & ~is_prompt_key
        if self.left_frames is not None:
            seen = seen & (k >= start - self.left_frames)
        return is_prompt_key | (seen & (q >= pinned))

    def _chunk_of(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end of the chunk of each frame, all counted from the end of the prompt."""
        assert self.chunk_frames is not None
        grown = sum(self.chunk_step_frames)
        number = torch.div(frames - grown, self.chunk_frames, rounding_mode="floor")
        start = number * self.chunk_frames + grown
        end = start + self.chunk_frames
        first = 0
        for size in self.chunk_step_frames:
            inside = (frames >= first) & (frames < first + size)
            start = torch.where(inside, first, start)
            first += size
            end = torch.where(inside, first, end)
        return start, end

    def kept(self, positions: Tensor, next_position: int) -> Tensor:
        """Which cached positions (K,) can be seen by a chunk that starts at `next_position`."""
        if self.left_frames is None:
            return torch.ones_like(positions, dtype=torch.bool)
        return (positions < self.pinned_frames) | (positions >= next_position - self.left_frames)


FULL_CONTEXT = Context()
"""Every frame sees every frame."""
