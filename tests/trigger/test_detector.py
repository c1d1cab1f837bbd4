"""States, the decoder and its gradient, by hand; streams equal whole recordings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tokenlm.checkpoint.component import save_component
from tokenlm.models.phrase_detector import (
    MAX_RATIO,
    PhraseDecoder,
    PhraseDetector,
    PhraseDetectorConfig,
    chain_ratios,
    path_scores,
    phrase_chains,
    state_labels,
)
from tokenlm.modules.palette import nearest, pack_indices, pack_state, unpack_indices, unpack_state
from tokenlm.trigger.kinds import load_net

HEY_TOKEN = ("hh", "ey", "t", "ow", "k", "ax", "n")


def config(**changes: object) -> PhraseDetectorConfig:
    phones = {"phrases": ("hey token", "token"), "phones": (HEY_TOKEN, HEY_TOKEN[2:])}
    return PhraseDetectorConfig(**{"dim": 16, "num_layers": 2, **phones, **changes})  # type: ignore[arg-type]


def test_states_are_shared_with_the_longer_phrase() -> None:
    assert phrase_chains([HEY_TOKEN]) == (tuple(range(21)),)
    assert phrase_chains([HEY_TOKEN[2:], HEY_TOKEN]) == (tuple(range(6, 21)), tuple(range(21)))
    assert phrase_chains([["k"], ["t"]]) == ((0, 1, 2), (3, 4, 5))
    assert (config().num_states, config().silence, config().background) == (23, 21, 22)


def test_chunks_equal_the_whole() -> None:
    torch.manual_seed(0)
    net = PhraseDetector(config()).eval()
    waveform = 0.1 * torch.randn(2, 16_123)
    with torch.inference_mode():
        whole = net(waveform)
        state = net.init_state(2)
        pieces = [net(piece, state) for piece in waveform.split([7, 500, 1, 8000, 3333, 4282], 1)]
    joined = torch.cat(pieces, dim=1)
    assert joined.shape == whole.shape == (2, 98, 23)
    assert torch.allclose(joined, whole, atol=1e-5)


def test_best_path_by_hand() -> None:
    # Two states. The path of frames 1 to 3 has 2 + 2 + 3 = 7, a mean of 7 / 3.
    ratios = torch.tensor([[[-1.0, -9.0], [2.0, -9.0], [2.0, 1.0], [-9.0, 3.0], [-9.0, -2.0]]])
    ratios.requires_grad_(True)
    score = path_scores(ratios)
    assert score.item() == pytest.approx(7 / 3)
    score.backward()
    expected = torch.zeros(1, 5, 2)
    expected[0, 1, 0] = expected[0, 2, 0] = expected[0, 3, 1] = 1 / 3
    assert ratios.grad is not None and torch.allclose(ratios.grad, expected)
    # Only what is valid counts: of the first three frames the best path is that of 2 and 1.
    assert path_scores(ratios, torch.tensor([3])).item() == pytest.approx(3 / 2)
    assert path_scores(ratios[:, :1]).item() == -MAX_RATIO


def test_the_stream_scores_what_the_whole_does() -> None:
    torch.manual_seed(1)
    settings = config()
    posteriors = torch.randn(1, 300, 23).log_softmax(-1)
    decoder = PhraseDecoder(settings, [math.inf, math.inf], max_seconds=9.0)
    for piece in posteriors[0].split(37):
        assert decoder.push(piece) == []
    for chain, best in zip(settings.chains, decoder.best, strict=True):
        assert path_scores(chain_ratios(posteriors, chain, 23)).item() == pytest.approx(best)


def test_detects_a_phrase_once_and_says_where() -> None:
    settings = config(phrases=("token",), phones=(HEY_TOKEN[2:],))
    spans = [(0.5 + 0.06 * n, 0.56 + 0.06 * n) for n in range(5)]
    silent = torch.zeros(200, dtype=torch.bool)
    labels = state_labels(200, spans, silent, settings.chains[0], settings)
    assert labels[57].item() == settings.background and labels[58].item() == 0
    assert labels[87].item() == 14 and labels[88].item() == settings.background
    posteriors = torch.full((200, settings.num_states), -4.0)
    posteriors[torch.arange(200), labels] = 4.0
    posteriors = posteriors.log_softmax(-1)
    decoder = PhraseDecoder(settings, [1.0])
    assert decoder.push(posteriors[:100]) == []
    found = decoder.push(posteriors[100:])
    assert [detection.phrase for detection in found] == ["token"]
    assert found[0].start_seconds == pytest.approx(0.5)
    assert found[0].end_seconds == pytest.approx(0.8)
    # The ratio of the state to background and silence together.
    assert found[0].score == pytest.approx(8 - math.log(2), abs=1e-5)
    assert decoder.finish() == []
    # What has not settled when the stream ends is given by `finish`.
    decoder = PhraseDecoder(settings, [1.0])
    assert decoder.push(posteriors[:90]) == [] and len(decoder.finish()) == 1


def test_packed_weights_by_hand(tmp_path: Path) -> None:
    assert pack_indices(torch.tensor([1, 2, 15]), 4).tolist() == [0x21, 0x0F]
    assert unpack_indices(torch.tensor([0x21, 0x0F], dtype=torch.uint8), 4, 3).tolist() == [
        1,
        2,
        15,
    ]
    palette = torch.tensor([-1.0, 0.0, 0.5, 2.0])
    weights = torch.tensor([[0.1, -3.0, 0.4], [1.2, 1.3, 9.0]])
    packed = pack_state({"w": weights, "b": torch.ones(2)}, {"w": palette}, 2)
    restored = unpack_state(packed, 2)
    assert restored["w"].tolist() == [[0.0, -1.0, 0.5], [0.5, 2.0, 2.0]]
    assert restored["b"].tolist() == [1.0, 1.0] and set(restored) == {"w", "b"}
    torch.manual_seed(0)
    net = PhraseDetector(config(palette_bits=4))
    palettes = {"embed.weight": torch.linspace(-0.1, 0.1, 16)}
    state = pack_state(net.state_dict(), palettes, 4)
    save_component(tmp_path / "d", kind="phrase_detector", config=net.config, state_dict=state)
    loaded = load_net(tmp_path / "d", PhraseDetector)
    own, values = net.embed.weight, palettes["embed.weight"].half().float()
    assert torch.equal(loaded.embed.weight, values[nearest(own, values)].view_as(own))
    assert torch.equal(loaded.head.weight, net.head.weight)
