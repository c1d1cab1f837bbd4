"""On a device without float64, that mixes with no other, the same is said; see `pretend_device`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_device import DEVICE, pretend
from published_folder import graphs, imported_bundle, text_folder, tokenizer
from torch import Tensor

from tokenlm.models.lm.sampling import SamplingConfig, draw, sample
from tokenlm.modules.exact import has_float64
from tokenlm.synthesis import Synthesizer

__all__ = ["graphs", "imported_bundle", "text_folder", "tokenizer"]

TEXT = "is it so? yes, it is."


def speak(folder: Path, recording: Path, device: torch.device) -> dict[str, Any]:
    synthesizer = Synthesizer.from_pretrained(folder, device=device)
    voice = synthesizer.prepare_voice(recording, "is it so?", name="me")
    found = {
        "tokens": voice.prompt_tokens,
        "mel": voice.prompt_mel,
        "embedding": voice.speaker_embedding,
        "one_shot": synthesizer.generate(TEXT, voice=voice, seed=3),
        "full": synthesizer.generate(TEXT, voice=voice, seed=3, context="full"),
        "converted": synthesizer.convert(recording, voice=voice, seed=3),
    }
    with synthesizer.stream([*TEXT], voice=voice, seed=3) as stream:
        found["interleaved"] = torch.cat([torch.zeros(0), *(chunk.clone() for chunk in stream)])
    parts = synthesizer.components
    if "token_recognizer" in parts.manifest.components:
        reading = parts.read_back(["is it so"], [voice.prompt_tokens.tolist()])[0]
        assert reading is not None
        found["read_back"] = torch.tensor([reading.error, reading.surprise])
    return found


def same(folder: Path, recording: Path) -> None:
    plain = speak(folder, recording, torch.device("cpu"))
    with pretend() as counts:
        assert not has_float64(DEVICE.type)
        found = {name: value.cpu() for name, value in speak(folder, recording, DEVICE).items()}
    assert counts["aten::addmm"] > 100, "the models did not run on the device"
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4)


def test_a_bundle_says_the_same_on_another_device(tiny_bundle: Path, recording: Path) -> None:
    same(tiny_bundle, recording)


def test_imported_models_say_the_same_on_another_device(
    imported_bundle: Path, recording: Path
) -> None:
    same(imported_bundle, recording)


@pytest.mark.parametrize("window", [0, 10])
def test_draws_without_float64_are_those_with_it(window: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(200, 300, generator=generator)
    uniforms = torch.rand(200, 2, generator=generator)
    history = torch.randint(0, 300, (200, 10), generator=generator)
    probabilities = logits.softmax(dim=-1)
    config = SamplingConfig(top_k=0, top_p=1.0, repetition_window=window)

    def drawn(device: torch.device) -> list[Tensor]:
        given = [tensor.to(device) for tensor in (logits, history, uniforms, probabilities)]
        found = [
            sample(given[0], given[1], given[2], config),
            draw(given[3], given[2][:, 0]),
        ]
        assert all(tokens.device.type == device.type for tokens in found)
        return [tokens.cpu() for tokens in found]

    plain = drawn(torch.device("cpu"))
    # In float32 the sum of 300 probabilities is off by more than some draws are from an edge.
    with pretend():
        other = drawn(DEVICE)
    assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))
