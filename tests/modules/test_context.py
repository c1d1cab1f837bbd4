"""What a position may see, against matrices written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tokenlm.modules.streaming import FULL_CONTEXT, Context


def rows(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.tolist()]


def visible(context: Context, num_frames: int) -> list[str]:
    positions = torch.arange(num_frames)
    return rows(context.visible(positions, positions))


def test_chunks_without_window() -> None:
    assert visible(Context(chunk_frames=2), 5) == [
        "xx...",
        "xx...",
        "xxxx.",
        "xxxx.",
        "xxxxx",
    ]


def test_chunks_with_window() -> None:
    assert visible(Context(chunk_frames=2, left_frames=1), 6) == [
        "xx....",
        "xx....",
        ".xxx..",
        ".xxx..",
        "...xxx",
        "...xxx",
    ]


def test_window_of_nothing() -> None:
    assert visible(Context(chunk_frames=2, left_frames=0), 4) == ["xx..", "xx..", "..xx", "..xx"]


def test_prompt_is_pinned_and_shifts_the_grid() -> None:
    """Chunks are counted from the end of a prompt of 3, which all of them see."""
    assert visible(Context(chunk_frames=2, left_frames=1, pinned_frames=3), 8) == [
        "xxx.....",
        "xxx.....",
        "xxx.....",
        "xxxxx...",
        "xxxxx...",
        "xxx.xxx.",
        "xxx.xxx.",
        "xxx...xx",
    ]


def test_prompt_without_window() -> None:
    assert visible(Context(chunk_frames=2, pinned_frames=1), 4) == ["x...", "xxx.", "xxx.", "xxxx"]


def test_full_context_sees_everything() -> None:
    assert visible(FULL_CONTEXT, 3) == ["xxx"] * 3
    assert visible(Context(pinned_frames=2), 3) == ["xxx"] * 3
    assert FULL_CONTEXT.is_full and not Context(chunk_frames=9).is_full


def test_queries_of_a_later_chunk_over_cached_keys() -> None:
    context = Context(chunk_frames=2, left_frames=2, pinned_frames=1)
    mask = context.visible(torch.tensor([5, 6]), torch.tensor([0, 2, 3, 4, 5, 6]))
    assert rows(mask) == ["x.xxxx", "x.xxxx"]


def test_prompt_lengths_of_a_batch_replace_the_own_one() -> None:
    positions = torch.arange(4)
    context = Context(chunk_frames=2, left_frames=0, pinned_frames=4)
    mask = context.visible(positions, positions, pinned_frames=torch.tensor([0, 1]))
    assert rows(mask[0]) == ["xx..", "xx..", "..xx", "..xx"]
    assert rows(mask[1]) == ["x...", "xxx.", "xxx.", "x..x"]
    full = FULL_CONTEXT.visible(positions, positions, pinned_frames=torch.tensor([0, 1, 2]))
    assert full.shape == (3, 4, 4) and bool(full.all())


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
@pytest.mark.parametrize("left", [None, 0, 1, 4])
@pytest.mark.parametrize("pinned", [0, 1, 4])
def test_kept_is_what_later_chunks_see(chunk: int, left: int | None, pinned: int) -> None:
    """A cache trimmed by `kept` holds exactly the keys that some later query sees."""
    context = Context(chunk_frames=chunk, left_frames=left, pinned_frames=pinned)
    num_frames = 30
    positions = torch.arange(num_frames)
    mask = context.visible(positions, positions)
    for _, end in context.chunk_bounds(num_frames)[:-1]:
        needed = mask[end:, :end].any(dim=0)
        kept = context.kept(positions[:end], end)
        assert not bool((needed & ~kept).any())
        if left is not None:
            assert torch.equal(needed, kept)
        else:
            assert bool(kept.all())


def test_chunk_bounds() -> None:
    assert Context(chunk_frames=3).chunk_bounds(7) == [(0, 3), (3, 6), (6, 7)]
    assert Context(chunk_frames=3, pinned_frames=2).chunk_bounds(8) == [(0, 2), (2, 5), (5, 8)]
    assert Context(chunk_frames=3, pinned_frames=4).chunk_bounds(3) == [(0, 3)]
    assert Context(pinned_frames=2).chunk_bounds(7) == [(0, 2), (2, 7)]
    assert FULL_CONTEXT.chunk_bounds(7) == [(0, 7)]
    assert FULL_CONTEXT.chunk_bounds(0) == []


def test_scaled_and_divided() -> None:
    context = Context(chunk_frames=12, left_frames=75, lookahead_frames=3, pinned_frames=10)
    double = Context(chunk_frames=24, left_frames=150, lookahead_frames=6, pinned_frames=20)
    assert context.scaled(2) == double
    assert double.divided(2) == context
    assert Context(chunk_frames=4).scaled(3) == Context(chunk_frames=12)
    assert FULL_CONTEXT.scaled(2) == FULL_CONTEXT.divided(2) == FULL_CONTEXT
    with pytest.raises(ValueError, match="not multiples of 2"):
        context.divided(2)


def test_scaled_masks_agree() -> None:
    """What a token sees, each of its frames sees."""
    context = Context(chunk_frames=2, left_frames=1, pinned_frames=3)
    tokens, frames = torch.arange(9), torch.arange(18)
    mask = context.visible(tokens, tokens)
    repeated = mask.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)
    assert torch.equal(context.scaled(2).visible(frames, frames), repeated)


def test_pinned() -> None:
    context = Context(chunk_frames=2, left_frames=1, pinned_frames=3)
    assert context.pinned(7) == Context(chunk_frames=2, left_frames=1, pinned_frames=7)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"chunk_frames": 0}, "chunk_frames must be at least 1"),
        ({"chunk_frames": 2, "left_frames": -1}, "left_frames must not be negative"),
        ({"left_frames": 5}, "left_frames needs chunk_frames"),
        ({"lookahead_frames": -1}, "must not be negative"),
        ({"pinned_frames": -1}, "must not be negative"),
    ],
)
def test_impossible_contexts(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Context(**sizes)


GROWING = Context(chunk_frames=3, chunk_step_frames=(1, 2), left_frames=1, pinned_frames=2)


def test_chunks_that_grow() -> None:
    """After a prompt of 2 the chunks are 1, 2, 3, 3, … frames long."""
    assert visible(GROWING, 10) == [
        "xx........",
        "xx........",
        "xxx.......",
        "xxxxx.....",
        "xxxxx.....",
        "xx..xxxx..",
        "xx..xxxx..",
        "xx..xxxx..",
        "xx.....xxx",
        "xx.....xxx",
    ]
    bounds = [(0, 2), (2, 3), (3, 5), (5, 8), (8, 11), (11, 12)]
    assert GROWING.chunk_bounds(12) == bounds
    assert [GROWING.chunk_end(frame) for frame in range(8)] == [1, 3, 3, 6, 6, 6, 9, 9]
    assert [GROWING.whole_chunks(count) for count in range(10)] == [0, 1, 1, 3, 3, 3, 6, 6, 6, 9]
    assert FULL_CONTEXT.chunk_end(5) == FULL_CONTEXT.whole_chunks(5) == 0
    assert Context(chunk_frames=4).whole_chunks(11) == 8


def test_growing_chunks_scale_and_are_kept() -> None:
    assert GROWING.scaled(2).chunk_step_frames == (2, 4) and GROWING.scaled(2).divided(2) == GROWING
    with pytest.raises(ValueError, match="not multiples of 2"):
        Context(chunk_frames=4, chunk_step_frames=(1,)).divided(2)
    positions = torch.arange(20)
    mask = GROWING.visible(positions, positions)
    for _, end in GROWING.chunk_bounds(20)[:-1]:
        needed = mask[end:, :end].any(dim=0)
        assert torch.equal(needed, GROWING.kept(positions[:end], end))


def test_items_at_different_positions() -> None:
    """Queries and keys of a batch may stand apart, each with its own prompt."""
    positions = torch.arange(10)
    own = [GROWING.pinned(count).visible(positions, positions) for count in (2, 3)]
    queries, keys = torch.tensor([[5, 6], [6, 7]]), torch.tensor([[0, 1, 4, 5, 6], [2, 3, 5, 6, 7]])
    both = GROWING.visible(queries, keys, pinned_frames=torch.tensor([2, 3]))
    for item in range(2):
        assert torch.equal(both[item], own[item][queries[item]][:, keys[item]])


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"chunk_frames": 2, "chunk_step_frames": (0,)}, "chunk_step_frames must be at least 1"),
        ({"chunk_step_frames": (2,)}, "chunk_step_frames needs chunk_frames"),
    ],
)
def test_impossible_steps(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Context(**sizes)
