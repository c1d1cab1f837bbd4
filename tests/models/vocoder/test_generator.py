"""The vocoder: lengths, chunks == whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tokenlm.audio.mel import MelConfig
from tokenlm.models.vocoder import Vocoder, VocoderConfig
from tokenlm.modules.streaming import batched

CONFIG = VocoderConfig(dim=16, num_layers=2, kernel_size=5, lookahead_frames=2)


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(CONFIG).eval().requires_grad_(False)


def mel(batch: int = 1, frames: int = 20) -> torch.Tensor:
    return torch.randn(batch, frames, 80, generator=torch.Generator().manual_seed(1)) * 2 - 5


def test_facts_are_derived() -> None:
    assert CONFIG.head_hop_length == 240
    assert CONFIG.lookahead_ms == 40.0


def test_hop_length_samples_for_each_frame(vocoder: Vocoder) -> None:
    out = vocoder(mel(2, 7))
    assert out.shape == (2, 7 * 480) and out.dtype == torch.float32
    assert float(out.abs().max()) <= 1.0 and float(out.abs().max()) > 1e-4


@pytest.mark.parametrize("schedule", [[1] * 20, [2, 9, 9], [12, 8], [20]])
@pytest.mark.parametrize(("lookahead", "chunk_frames"), [(0, 0), (2, 0), (2, 3)])
def test_chunks_equal_whole(schedule: list[int], lookahead: int, chunk_frames: int) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, lookahead_frames=lookahead, chunk_frames=chunk_frames)
    vocoder = Vocoder(config).eval()
    state, given, pieces = vocoder.init_state(2), 0, []
    with torch.no_grad():
        for piece in mel(2).split(schedule, dim=1):
            pieces.append(vocoder(piece, state))
            given += piece.shape[1]
            # Nothing but the look-ahead is held back.
            assert sum(p.shape[1] for p in pieces) == 480 * max(given - lookahead, 0)
        pieces.append(vocoder.flush(state))
        torch.testing.assert_close(torch.cat(pieces, dim=1), vocoder(mel(2)), atol=1e-4, rtol=0)


def test_chunks_see_the_samples_before_them() -> None:
    torch.manual_seed(0)
    vocoder = Vocoder(replace(CONFIG, chunk_frames=4, past_samples=600)).eval()
    vocoder.requires_grad_(False)
    whole = vocoder(mel(2, 18))
    # Its own samples in the place of those of an original make no difference.
    taught = vocoder(mel(2, 18), original=whole)
    torch.testing.assert_close(taught, whole, rtol=0, atol=1e-5)
    other = whole.clone()
    other[:, 8 * 480 - 1] += 1.0  # the last sample before the third chunk
    changed = (vocoder(mel(2, 18), original=other) - taught).abs().amax(0) > 1e-7
    assert int(changed.nonzero()[0]) >= 8 * 480
    assert bool(changed[8 * 480 : 12 * 480].any())


def test_streams_at_different_positions_share_a_batch(vocoder: Vocoder) -> None:
    whole = vocoder(mel(2))
    states = []
    for item, given in enumerate((3, 8)):
        state = vocoder.init_state(1)
        vocoder(mel(2)[item : item + 1, :given], state)
        states.append(state)
    with batched(states) as joined:
        out = vocoder(torch.stack([mel(2)[0, 3:8], mel(2)[1, 8:13]]), joined)
    torch.testing.assert_close(out[0], whole[0, 480:2880], atol=1e-4, rtol=0)
    torch.testing.assert_close(out[1], whole[1, 2880:5280], atol=1e-4, rtol=0)
    rest = vocoder(mel(2)[1:, 13:], states[1])
    torch.testing.assert_close(rest[0], whole[1, 5280 : 18 * 480], atol=1e-4, rtol=0)


def test_memory_of_a_stream_is_constant(vocoder: Vocoder) -> None:
    state, sizes = vocoder.init_state(1), []
    for _ in range(5):
        vocoder(mel(1, 4), state)
        sizes.append(state.num_bytes)
    assert len(set(sizes)) == 1
    copy = state.clone()
    torch.testing.assert_close(vocoder(mel(), copy), vocoder(mel(), state))


def test_odd_frames_do_not_overflow(vocoder: Vocoder) -> None:
    assert bool(vocoder(torch.full((1, 4, 80), 1e4)).isfinite().all())


def test_empty_streams(vocoder: Vocoder) -> None:
    state = vocoder.init_state(1)
    assert vocoder.flush(state).shape == (1, 0)
    assert vocoder(mel(1, 1), state).shape == (1, 0)
    assert vocoder.flush(state).shape == (1, 480)


def test_gradients_reach_everything() -> None:
    torch.manual_seed(0)
    vocoder = Vocoder(CONFIG)
    vocoder(mel()).square().sum().backward()
    for name, weight in vocoder.named_parameters():
        assert weight.grad is not None and bool((weight.grad != 0).any()), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames_per_mel_frame": 7}, "mel hop must be a multiple"),
        ({"n_fft": 1000}, "n_fft 1000 must be a multiple of 240"),
        ({"mel": MelConfig(hop_length=512), "n_fft": 960}, "must be a multiple of 256"),
    ],
)
def test_impossible_configs(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VocoderConfig(**change)
