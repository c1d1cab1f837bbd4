"""The speaker encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig

CONFIG = SpeakerEncoderConfig(dim=16, num_layers=2, embedding_dim=8, max_seconds=1.0)


def build() -> SpeakerEncoder:
    torch.manual_seed(0)
    return SpeakerEncoder(CONFIG).eval()


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_padded_batch_equals_single() -> None:
    encoder = build()
    lengths = torch.tensor([8000, 3333, 5120])
    waveform = noise(3, 8000)
    with torch.no_grad():
        embeddings = encoder(waveform, lengths)
        assert embeddings.shape == (3, 8)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
        for item, length in enumerate(lengths.tolist()):
            alone = encoder(waveform[item : item + 1, :length], torch.tensor([length]))
            torch.testing.assert_close(embeddings[item : item + 1], alone, atol=1e-5, rtol=0)


def test_level_does_not_matter() -> None:
    encoder = build()
    with torch.no_grad():
        quiet, loud = (encoder(gain * noise(1, 8000), torch.tensor([8000])) for gain in (1.0, 3.0))
    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)


def test_long_recordings_are_averaged_over_windows() -> None:
    encoder = build()
    waveform = noise(2 * 16_000 + 3999)
    parts = [
        encoder(part[None], torch.tensor([16_000]))[0] for part in waveform[:32_000].split(16_000)
    ]
    mean = torch.stack(parts).mean(dim=0)
    # The last scrap, less than a quarter of a window, does not count.
    torch.testing.assert_close(encoder.embed_recording(waveform), mean / mean.norm())
    assert encoder.embed_recording(waveform[:3000]).shape == (8,)
    longer = noise(2 * 16_000 + 4000)
    parts.append(encoder(longer[None, 32_000:], torch.tensor([4000]))[0])
    mean = torch.stack(parts).mean(dim=0)
    torch.testing.assert_close(
        encoder.embed_recording(longer), mean / mean.norm(), atol=2e-2, rtol=0
    )


def test_shorter_than_a_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="159 samples are too few"):
        build().embed_recording(noise(159))


def test_gradients_reach_everything() -> None:
    encoder = build()
    embeddings = encoder(noise(2, 6000), torch.tensor([6000, 4000]))
    (embeddings * torch.arange(8)).sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
        if name != "attention.2.bias":  # shifts all scores alike
            assert bool((weight.grad != 0).any()), name
