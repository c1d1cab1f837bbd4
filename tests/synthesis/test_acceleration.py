"""Faster and smaller models say the same, nearly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.acceleration import accelerate
from tokenlm.synthesis.components import Components

TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6] * 4]


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_smaller_weights_sound_alike(tiny_bundle: Path, weights: Any) -> None:
    expected = Synthesizer(Components(tiny_bundle)).render(TOKENS, voice="ann")
    components = accelerate(Components(tiny_bundle), weights=weights)
    waveform = Synthesizer(components).render(TOKENS, voice="ann")
    assert waveform.shape == expected.shape
    deviation = (waveform - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 0 < float(deviation) < 0.5
    assert Synthesizer(components).generate("is it so?", voice="ann").isfinite().all()


@pytest.mark.parametrize("caches", ["float16", "int8"])
def test_smaller_caches_sound_alike_streamed_as_whole(tiny_bundle: Path, caches: Any) -> None:
    expected = Synthesizer(Components(tiny_bundle)).render(TOKENS, voice="ann")
    synthesizer = Synthesizer(accelerate(Components(tiny_bundle), caches=caches))
    waveform = synthesizer.render(TOKENS, voice="ann")
    deviation = (waveform - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 0 < float(deviation) < 0.1
    spoken = synthesizer.generate("is it so?", voice="ann", seed=1)
    with synthesizer.stream("is it so?", voice="ann", seed=1) as chunks:
        streamed = torch.cat([*chunks])
    torch.testing.assert_close(streamed, spoken, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_compiled_models_sound_alike(tiny_bundle: Path) -> None:
    expected = Synthesizer(Components(tiny_bundle)).render(TOKENS, voice="ann")
    components = accelerate(Components(tiny_bundle), is_compiled=True, backend="aot_eager")
    waveform = Synthesizer(components).render(TOKENS, voice="ann")
    torch.testing.assert_close(waveform, expected, rtol=0, atol=1e-4)
