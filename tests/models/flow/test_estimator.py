"""Token encoder and velocity estimator: chunks == whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.audio.mel import MelConfig
from tokenlm.models.flow import FlowConfig
from tokenlm.models.flow.dit import DiT
from tokenlm.models.flow.encoder import TokenEncoder
from tokenlm.modules.streaming import FULL_CONTEXT, Context

FRAMES_PER_TOKEN = 2
NUM_MELS, CONDITION_DIM = 3, 8


def config(**changes: Any) -> FlowConfig:
    sizes = {
        "mel": MelConfig(num_mels=NUM_MELS),
        "codebook_size": 11,
        "speaker_condition_dim": CONDITION_DIM - 2 * NUM_MELS,
        "encoder_dim": 8,
        "encoder_layers": 2,
        "encoder_heads": 2,
        "dim": 8,
        "num_layers": 2,
        "num_heads": 2,
        "expansion": 2.0,
    }
    return FlowConfig(**(sizes | changes))


def token_encoder(lookahead_tokens: int = 3) -> TokenEncoder:
    torch.manual_seed(0)
    return TokenEncoder(config(lookahead_tokens=lookahead_tokens)).eval()


def estimator(patch_frames: int = 2) -> DiT:
    torch.manual_seed(0)
    model = DiT(config(patch_frames=patch_frames))
    # It begins as zero.
    torch.nn.init.normal_(model.project.weight)
    return model.eval()


CONTEXTS = [
    Context(chunk_frames=3),
    Context(chunk_frames=4, left_frames=4),
    Context(chunk_frames=2, left_frames=0),
]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("pinned", [0, 5])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("lookahead", [0, 3])
def test_encoder_chunks_equal_whole(
    context: Context, pinned: int, chunks: int, lookahead: int
) -> None:
    """What comes out are whole chunks: each piece brings the look-ahead of its last chunk."""
    encoder = token_encoder(lookahead)
    context = context.pinned(pinned)
    tokens = torch.randint(11, (2, pinned + 14))
    state, pieces = encoder.init_state(2), []
    assert context.chunk_frames is not None
    with torch.no_grad():
        if pinned:
            pieces.append(encoder(tokens[:, :pinned], context, state, flush=True))
        fed = pinned
        for end in range(
            pinned + chunks * context.chunk_frames, pinned + 14, chunks * context.chunk_frames
        ):
            if end + lookahead > pinned + 14:
                break
            pieces.append(encoder(tokens[:, fed : end + lookahead], context, state))
            fed = end + lookahead
            assert sum(piece.shape[1] for piece in pieces) == end * FRAMES_PER_TOKEN
        pieces.append(encoder(tokens[:, fed:], context, state, flush=True))
        whole = encoder(tokens, context)
    assert whole.shape == (2, (pinned + 14) * FRAMES_PER_TOKEN, 3)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


def test_encoder_waits_for_the_lookahead() -> None:
    encoder = token_encoder(3)
    state = encoder.init_state(1)
    context = Context(chunk_frames=1)
    assert encoder(torch.tensor([[1, 2]]), context, state).shape == (1, 0, 3)
    assert encoder(torch.tensor([[3, 4]]), context, state).shape == (1, 2, 3)
    assert encoder(torch.zeros(1, 0, dtype=torch.long), context, state, flush=True).shape == (
        1,
        6,
        3,
    )


def test_prompt_does_not_see_what_follows() -> None:
    encoder = token_encoder()
    context = Context(chunk_frames=4, pinned_frames=5)
    first = torch.randint(11, (1, 12))
    other = torch.cat([first[:, :5], torch.randint(11, (1, 7))], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(encoder(first, context)[:, :10], encoder(other, context)[:, :10])
        apart = encoder(first[:, :5], context)
        torch.testing.assert_close(encoder(first, context)[:, :10], apart)


@pytest.mark.parametrize("context", [FULL_CONTEXT, *CONTEXTS])
def test_encoder_padded_batch_equals_single(context: Context) -> None:
    encoder = token_encoder()
    tokens = torch.randint(11, (2, 12))
    lengths, pinned = (12, 7), torch.tensor([4, 3])
    mask = torch.arange(12)[None] < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        both = encoder(tokens, context, mask=mask, pinned_tokens=pinned)
        for item, length in enumerate(lengths):
            alone = encoder(tokens[item : item + 1, :length], context.pinned(int(pinned[item])))
            torch.testing.assert_close(
                both[item, : length * FRAMES_PER_TOKEN], alone[0], atol=1e-5, rtol=0
            )


@pytest.mark.parametrize("context", [context.scaled(2) for context in CONTEXTS])
@pytest.mark.parametrize("pinned", [0, 6])
@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("patch_frames", [1, 2])
def test_estimator_chunks_equal_whole(
    context: Context, pinned: int, chunks: int, patch_frames: int
) -> None:
    model = estimator(patch_frames)
    context = context.pinned(pinned)
    frames = pinned + 26
    x_t, condition = torch.randn(2, frames, 3), torch.randn(2, frames, 8)
    t = torch.tensor([0.3, 0.8])
    assert context.chunk_frames is not None
    bounds = [*range(pinned, frames, chunks * context.chunk_frames), frames]
    if pinned:
        bounds.insert(0, 0)
    state = model.init_state(2)
    with torch.no_grad():
        pieces = [
            model(x_t[:, a:b], t, condition[:, a:b], context, state)
            for a, b in zip(bounds, bounds[1:], strict=False)
        ]
        whole = model(x_t, t, condition, context)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", [FULL_CONTEXT, *(context.scaled(2) for context in CONTEXTS)])
def test_estimator_padded_batch_equals_single(context: Context) -> None:
    model = estimator()
    x_t, condition, t = torch.randn(2, 16, 3), torch.randn(2, 16, 8), torch.rand(2)
    lengths, pinned = (16, 10), torch.tensor([4, 6])
    mask = torch.arange(16)[None] < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        both = model(x_t, t, condition, context, mask=mask, pinned_frames=pinned)
        for item, length in enumerate(lengths):
            rows = slice(item, item + 1)
            alone = model(
                x_t[rows, :length],
                t[rows],
                condition[rows, :length],
                context.pinned(int(pinned[item])),
            )
            torch.testing.assert_close(both[rows, :length], alone, atol=1e-5, rtol=0)


def test_estimator_begins_as_zero() -> None:
    model = DiT(config(num_layers=1))
    out = model(torch.randn(1, 4, 3), torch.rand(1), torch.randn(1, 4, 8))
    assert torch.equal(out, torch.zeros(1, 4, 3))


def test_frames_fill_patches() -> None:
    def run(frames: int) -> Tensor:
        return estimator()(torch.zeros(1, frames, 3), torch.zeros(1), torch.zeros(1, frames, 8))

    assert run(4).shape == (1, 4, 3)
    with pytest.raises(ValueError, match="5 frames are not a multiple of the patch of 2"):
        run(5)
