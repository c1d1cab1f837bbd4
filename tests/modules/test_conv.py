"""Convolutions with carried context: by hand, and chunks == whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tokenlm.modules.conv import CausalConv1d, ConvNeXtBlock, LookaheadConv1d

SCHEDULES = [[1] * 11, [4, 4, 3], [2, 7, 2], [11]]


def constant(conv: nn.Conv1d, weights: list[float]) -> None:
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(weights).view_as(conv.weight))
        assert conv.bias is not None
        conv.bias.zero_()


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1)


def test_causal_by_hand() -> None:
    conv = CausalConv1d(1, 1, 3)
    constant(conv.conv, [1.0, 10.0, 100.0])
    out = conv(column(1, 2, 3, 4))
    assert out.flatten().tolist() == [100, 210, 321, 432]


def test_lookahead_by_hand() -> None:
    conv = LookaheadConv1d(1, 1, 2)
    constant(conv.conv, [1.0, 10.0, 100.0])
    assert conv(column(1, 2, 3, 4)).flatten().tolist() == [321, 432, 43, 4]
    # Nothing behind a prompt of two is seen from within it.
    pinned = conv(column(1, 2, 3, 4), pinned_frames=2)
    assert pinned.flatten().tolist() == [21, 2, 43, 4]
    batch = conv(column(1, 2, 3, 4).expand(2, -1, -1), pinned_frames=torch.tensor([2, 0]))
    assert batch[..., 0].tolist() == [[21, 2, 43, 4], [321, 432, 43, 4]]


def test_lookahead_waits() -> None:
    conv = LookaheadConv1d(1, 1, 2)
    constant(conv.conv, [1.0, 10.0, 100.0])
    state = conv.init_state(1)
    assert conv(column(1), state).shape == (1, 0, 1)
    assert conv(column(2), state).shape == (1, 0, 1)
    assert conv(column(3, 4), state).flatten().tolist() == [321, 432]
    assert state.waiting.flatten().tolist() == [3, 4]
    assert conv.flush(state).flatten().tolist() == [43, 4]
    assert conv.flush(state).shape == (1, 0, 1)


def test_no_lookahead_waits_for_nothing() -> None:
    conv = LookaheadConv1d(2, 3, 0)
    x = torch.randn(2, 5, 2)
    state = conv.init_state(2)
    torch.testing.assert_close(conv(x, state), conv(x, pinned_frames=2))
    assert conv.flush(state).shape == (2, 0, 3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kernel_size", [1, 2, 5])
def test_causal_chunks_equal_whole(schedule: list[int], kernel_size: int) -> None:
    torch.manual_seed(0)
    conv = CausalConv1d(3, 4, kernel_size)
    x = torch.randn(2, 11, 3)
    state = conv.init_state(2)
    pieces = [conv(piece, state) for piece in x.split(schedule, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), conv(x), atol=1e-5, rtol=0)
    assert state.past.shape == (2, kernel_size - 1, 3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("lookahead", [1, 3])
@pytest.mark.parametrize("pinned", [0, 2, 6])
def test_lookahead_chunks_equal_whole(schedule: list[int], lookahead: int, pinned: int) -> None:
    """A prompt, flushed at its end, then the rest in pieces, flushed at its end."""
    torch.manual_seed(0)
    conv = LookaheadConv1d(3, 4, lookahead)
    prompt, x = torch.randn(2, pinned, 3), torch.randn(2, 11, 3)
    state = conv.init_state(2)
    pieces = [conv(prompt, state), conv.flush(state)]
    pieces += [conv(piece, state) for piece in x.split(schedule, dim=1)]
    pieces.append(conv.flush(state))
    whole = conv(torch.cat([prompt, x], dim=1), pinned_frames=pinned)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_convnext_chunks_equal_whole(schedule: list[int]) -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(4, 5, 2.0, 0.5)
    x = torch.randn(2, 11, 4)
    state = block.init_state(2)
    pieces = [block(piece, state) for piece in x.split(schedule, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), block(x), atol=1e-5, rtol=0)


def test_convnext_is_causal_and_residual() -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(4, 5, 2.0, 0.5)
    x = torch.randn(1, 8, 4)
    changed = torch.cat([x[:, :5], torch.randn(1, 3, 4)], dim=1)
    torch.testing.assert_close(block(x)[:, :5], block(changed)[:, :5])
    with torch.no_grad():
        block.scale.zero_()
    assert torch.equal(block(x), x)
