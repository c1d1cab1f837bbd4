"""Nets of enhancement: streams equal the whole and wait no longer than said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelConfig
from tokenlm.models.enhancer import (
    MelEnhancer,
    MelEnhancerConfig,
    VoiceIsolator,
    VoiceIsolatorConfig,
)
from tokenlm.modules.streaming import batched

Net = VoiceIsolator | MelEnhancer


def make_isolator(**changes: Any) -> VoiceIsolator:
    torch.manual_seed(0)
    sizes = {"dim": 8, "num_layers": 1, "num_recurrent_layers": 2, "kernel_size": 3, **changes}
    return VoiceIsolator(VoiceIsolatorConfig(**sizes)).eval().requires_grad_(False)


def make_enhancer(**changes: Any) -> MelEnhancer:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"channels": (4, 6, 8), "dim": 8, **changes}
    net = MelEnhancer(MelEnhancerConfig(**sizes)).eval().requires_grad_(False)
    nn.init.normal_(net.last.weight, std=0.3)  # it starts at zero
    return net


def in_pieces(net: Net, x: Tensor, sizes: list[int]) -> Tensor:
    state: Any = net.init_state(x.shape[0])
    pieces = [net(piece, state) for piece in x.split([*sizes, x.shape[1] - sum(sizes)], dim=1)]
    return torch.cat([*pieces, net.flush(state)], dim=1)


@pytest.mark.parametrize("sizes", [[1, 319, 321, 5000], [7000, 3], [0], [500] * 15])
@pytest.mark.parametrize("lookahead", [0, 2])
def test_chunks_of_sound_equal_the_whole(sizes: list[int], lookahead: int) -> None:
    net = make_isolator(lookahead_frames=lookahead)
    x = 0.1 * torch.randn(2, 9_477, generator=torch.Generator().manual_seed(1))
    whole = net(x)
    assert whole.shape == x.shape
    assert not torch.allclose(whole, x, atol=1e-3)
    torch.testing.assert_close(in_pieces(net, x, sizes), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sizes", [[1] * 8, [2, 9, 9], [0]])
@pytest.mark.parametrize(("lookahead", "num_mels"), [(0, 80), (2, 80), (2, 25)])
def test_chunks_of_mel_equal_the_whole(sizes: list[int], lookahead: int, num_mels: int) -> None:
    net = make_enhancer(lookahead_frames=lookahead, mel=MelConfig(num_mels=num_mels))
    mel = torch.randn(2, 21, num_mels, generator=torch.Generator().manual_seed(1)) - 5
    whole = net(mel)
    assert whole.shape == mel.shape
    assert not torch.allclose(whole, mel, atol=1e-2)
    torch.testing.assert_close(in_pieces(net, mel, sizes), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_short_streams(length: int) -> None:
    isolator, enhancer = make_isolator(), make_enhancer()
    assert isolator(torch.zeros(1, length)).shape == (1, length)
    assert enhancer(torch.zeros(1, length, 80)).shape == (1, length, 80)


def test_a_mask_of_ones_gives_the_sound_back() -> None:
    net = make_isolator()
    net.head.weight.zero_()
    assert net.head.bias is not None
    net.head.bias.fill_(30.0)
    x = 0.1 * torch.randn(1, 5_001)
    torch.testing.assert_close(net(x), x, rtol=0, atol=1e-6)


def test_an_untrained_mel_enhancer_changes_nothing() -> None:
    net = MelEnhancer(MelEnhancerConfig(channels=(4, 6), dim=4))
    mel = torch.randn(1, 9, 80)
    assert torch.equal(net(mel), mel)


@pytest.mark.parametrize("net", [make_isolator(), make_enhancer()], ids=["isolator", "enhancer"])
def test_the_future_is_no_longer_than_said(net: Net) -> None:
    if isinstance(net, VoiceIsolator):
        rate, x = net.config.sample_rate, 0.1 * torch.randn(1, 12_000)
    else:
        rate, x = round(net.config.mel.frame_rate), torch.randn(1, 40, 80)
    place = x.shape[1] // 2
    changed = x.clone()
    changed[:, place:] += 1.0
    first = int((net(x) - net(changed)).abs().reshape(x.shape[1], -1).amax(1).nonzero()[0])
    assert place - first <= net.config.lookahead_ms / 1000 * rate + 1e-6
    assert first < place  # and it is used


def test_streams_share_a_batch() -> None:
    for net, width in ((make_isolator(), ()), (make_enhancer(), (80,))):
        x = torch.randn(2, 1_280 if not width else 8, *width)
        alone = [net(x[index : index + 1], net.init_state(1)) for index in range(2)]  # type: ignore[arg-type]
        states: Any = [net.init_state(1) for _ in range(2)]
        with batched(states) as state:
            together = net(x, state)
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)
        again = torch.cat([net(x[i : i + 1], states[i]) for i in range(2)])
        assert again.shape == x.shape


def test_memory_of_a_stream_is_constant() -> None:
    net = make_isolator()
    state, sizes = net.init_state(1), []
    for _ in range(6):
        net(torch.zeros(1, 960), state)
        sizes.append(state.num_bytes)
    assert len(set(sizes[2:])) == 1


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        (VoiceIsolatorConfig, {"hop_length": 500}, "multiple"),
        (VoiceIsolatorConfig, {"dim": 0}, "positive"),
        (VoiceIsolatorConfig, {"lookahead_frames": -1}, "negative"),
        (MelEnhancerConfig, {"channels": ()}, "level"),
        (MelEnhancerConfig, {"channels": (4,) * 9}, "halved"),
        (MelEnhancerConfig, {"lookahead_frames": -1}, "negative"),
    ],
)
def test_impossible_configs(config: type, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**change)


def test_embedded_weights_are_small() -> None:
    nets = [VoiceIsolator(VoiceIsolatorConfig()), MelEnhancer(MelEnhancerConfig())]
    count = sum(weight.numel() for net in nets for weight in net.parameters())
    assert 2 * count <= 6_000_000  # bytes, of 16 bits each
