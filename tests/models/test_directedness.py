"""Streams of the acoustic net equal whole recordings; the block that a frame sees; texts."""

from __future__ import annotations

import pytest
import torch

from tokenlm.models.directedness import (
    USES,
    AcousticDirectedness,
    AcousticDirectednessConfig,
    TextDirectedness,
    TextDirectednessConfig,
)


@pytest.fixture(scope="module")
def net() -> AcousticDirectedness:
    torch.manual_seed(0)
    config = AcousticDirectednessConfig(dim=16, num_layers=2, num_heads=2, shift_frames=8)
    return AcousticDirectedness(config).eval()


@pytest.mark.parametrize("seconds", [0.1, 1.0, 1.7])
def test_chunks_equal_the_whole(net: AcousticDirectedness, seconds: float) -> None:
    size = int(seconds * 16_000)
    waveform = 0.1 * torch.randn(2, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = net(waveform, torch.tensor([size, size]))
        state = net.init_state(2)
        for piece in waveform.split(1_777, dim=1):
            net.push(piece, state)
        net.push(waveform[:, :0], state, flush=True)
        assert torch.allclose(net.logit(state), whole, atol=1e-5)


def test_padding_changes_nothing(net: AcousticDirectedness) -> None:
    waveform = 0.1 * torch.randn(1, 12_000, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(waveform, (0, 9_000))
    with torch.inference_mode():
        alone = net(waveform, torch.tensor([12_000]))
        assert torch.allclose(net(padded, torch.tensor([12_000])), alone, atol=1e-5)


def test_blocks_of_two_shifts_overlap_by_one() -> None:
    config = AcousticDirectednessConfig()
    frames = torch.arange(128)
    visible = config.context.visible(frames, frames)
    # Frame 70 is in the third chunk, 64 to 95; with the chunk before its block begins at 32.
    assert visible[70].nonzero().flatten().tolist() == list(range(32, 96))
    size = sum(p.numel() for p in AcousticDirectedness(config).parameters())
    assert 100_000 < size < 1_000_000


def test_texts() -> None:
    torch.manual_seed(0)
    net = TextDirectedness(TextDirectednessConfig(dim=16, num_layers=1, num_heads=2)).eval()
    found = net.classify("Hey token, stop.")
    assert set(found) == set(USES) and sum(found.values()) == pytest.approx(1.0)
    assert net.classify("hey   TOKEN, stop. §") == found
    assert net.classify("§§") == dict.fromkeys(USES, 1 / 3)
    batch = torch.tensor([net.encode("stop") + [0, 0], net.encode("listen")])
    with torch.inference_mode():
        probabilities = net(batch)[0].exp().tolist()
    assert probabilities == pytest.approx([*net.classify("stop").values()], abs=1e-5)
