"""What a streaming module needs: its state between pieces, and the context that a frame may see.

States are typed dataclasses that belong to a session, never to a module.
A streaming module has `init_state(batch_size)` and `forward(x, context, state=None)`: without a
state it takes the whole sequence, with one it takes the next piece and advances it.

Shapes: B batch, Q query positions, K key positions, T frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor


@dataclass
class State:
    """Base of all states.

    Tensors have the batch on axis 0. Fields may also be states, lists of either, or plain values.
    """

    @property
    def num_bytes(self) -> int:
        """Memory held by the tensors of the state."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(self))

    def clone(self) -> Self:
        """Copies the state, so that one prompt can start many sessions."""
        return _map(self, torch.clone, lambda state: state.clone())

    def shared(self) -> Self:
        """A state that continues from here and shares the tensors, which neither writes to."""
        return _map(self, lambda tensor: tensor, lambda state: state.shared())

    @classmethod
    def join(cls, states: Sequence[Self]) -> Any:
        """One state for the rows of all streams, one stream after the other; see `batched`.

        Raises:
            ValueError: the states differ in the shapes of their tensors or in a plain value.
        """
        columns = {
            item.name: _join([getattr(state, item.name) for state in states])
            for item in dataclasses.fields(cls)
        }
        return cls(**columns)

    def write_back(self, states: Sequence[Any]) -> None:
        """Gives each of the streams that were joined its own rows of this state."""
        for item in dataclasses.fields(self):
            parts = _split(getattr(self, item.name), [getattr(s, item.name) for s in states])
            for state, part in zip(states, parts, strict=True):
                setattr(state, item.name, part)


StateT = TypeVar("StateT", bound=State | list[Any])


@contextmanager
def batched(states: Sequence[StateT]) -> Iterator[StateT]:
    """One state for a batch of streams, each at a position of its own.

    What is small (the pasts of convolutions) is concatenated, and split again when the context
    ends. The caches of attention stay with their streams: their lengths may differ, and nothing of
    them is copied or padded (`TransformerState`).

    Args:
        states: of the streams, or equally long lists of their states; advanced in place when the
            context ends without an error. They have equally many rows, and tensors of equal shapes
            outside of attention. A single one is used as it is.

    Raises:
        ValueError: the states cannot be batched.
    """
    if len(states) == 1:
        yield states[0]
        return
    joined = _join(states)
    yield joined
    _split(joined, states)


def kept(part: Tensor) -> Tensor:
    """A copy of what a state keeps of a larger tensor, which a view would keep as a whole."""
    return part.clone()


def allocated_bytes(values: Iterable[State]) -> int:
    """Memory that is kept because of some states.

    Of a view that is the whole of what it looks into; what several look into is counted once.
    """
    sizes: dict[tuple[torch.device, int], int] = {}
    for value in values:
        for tensor in _tensors(value):
            storage = tensor.untyped_storage()
            sizes[tensor.device, storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, State):
        for item in dataclasses.fields(value):
            yield from _tensors(getattr(value, item.name))
    elif isinstance(value, list):
        for element in value:
            yield from _tensors(element)


def _map(state: State, function: Callable[[Tensor], Tensor], inner: Callable[[Any], Any]) -> Any:
    """A state of the same class: `function` of its tensors, `inner` of the states in it."""

    def mapped(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if isinstance(value, State):
            return inner(value)
        return [mapped(element) for element in value] if isinstance(value, list) else value

    fields = {item.name: mapped(getattr(state, item.name)) for item in dataclasses.fields(state)}
    return type(state)(**fields)


def _join(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        if any(value.shape[1:] != first.shape[1:] for value in values[1:]):
            raise ValueError("states of different shapes cannot be batched")
        return torch.cat([*values])
    if isinstance(first, State):
        return type(first).join(values)
    if isinstance(first, list):
        if any(len(value) != len(first) for value in values[1:]):
            raise ValueError("states of different depth cannot be batched")
        return [_join(column) for column in zip(*values, strict=True)]
    if any(value != first for value in values[1:]):
        raise ValueError(f"states that differ in a value cannot be batched: {values}")
    return first


def _split(joined: Any, values: Sequence[Any]) -> Sequence[Any]:
    """The part of each stream; states and lists of `values` are changed in place."""
    if isinstance(joined, Tensor):
        # A view would keep the whole batch.
        return [part.clone() for part in joined.chunk(len(values))]
    if isinstance(joined, State):
        joined.write_back(values)
    elif isinstance(joined, list):
        columns = zip(*values, strict=True)
        for place, (element, column) in enumerate(zip(joined, columns, strict=True)):
            for value, part in zip(values, _split(element, column), strict=True):
                value[place] = part
    else:
        return [joined] * len(values)
    return values


# --- Context ---
#
# The training mask, the offline mask and the sizes of the streaming caches are all computed from a
# `Context`, so they cannot disagree. Positions count from the start of the sequence; the first
# `pinned_frames` of them are the prompt, and chunk boundaries are counted from its end.


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
