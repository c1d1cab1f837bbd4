"""Speech on a device that has no float64 and mixes with no other, as MPS; see `pretend_device`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretend_device import DEVICE, pretend

from tokenlm.synthesis import Synthesizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("options", [{}, {"speed": 1.3}, {"context": "full"}])
def test_speech_is_that_of_the_cpu(
    tiny_bundle: Path, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tensors of the pretended device have no memory of their own.
    monkeypatch.setattr("tokenlm.synthesis.voice.allocated_bytes", lambda values: 0)
    plain = Synthesizer.from_pretrained(tiny_bundle).generate("Is it so? Yes!", seed=3, **options)
    with pretend() as counts:
        synthesizer = Synthesizer.from_pretrained(tiny_bundle, device=DEVICE)
        speech = synthesizer.generate("Is it so? Yes!", seed=3, **options)
        assert sum(counts.values()) > 1000, "nothing was computed on the device"
        if "context" not in options:
            chunks = [*synthesizer.stream("Is it so? Yes!", seed=3, **options)]
            torch.testing.assert_close(torch.cat(chunks), speech, atol=1e-4, rtol=0)
    torch.testing.assert_close(speech, plain, atol=1e-4, rtol=0)


def test_voices_are_those_of_the_cpu(
    tiny_bundle: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenlm.synthesis.voice.allocated_bytes", lambda values: 0)
    plain = Synthesizer.from_pretrained(tiny_bundle)
    prepared = plain.prepare_voice(recording, "is it so?")
    with pretend():
        synthesizer = Synthesizer.from_pretrained(tiny_bundle, device=DEVICE)
        pairs = [
            (synthesizer.prepare_voice(recording, "is it so?"), prepared),
            (synthesizer.voice("ann:0.7+bob:0.3"), plain.voice("ann:0.7+bob:0.3")),
        ]
        said = synthesizer.convert(recording, voice="ann")
        assert isinstance(synthesizer.transcribe(recording), str)
    for one, other in pairs:
        assert torch.equal(one.prompt_tokens, other.prompt_tokens)
        torch.testing.assert_close(one.speaker_embedding, other.speaker_embedding)
        torch.testing.assert_close(one.prompt_mel, other.prompt_mel, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(said, plain.convert(recording, voice="ann"), atol=1e-4, rtol=0)
