"""Bundles in other types than float32, for GPUs: language model, flow and their caches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenlm.checkpoint.resolve import ResolveError
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.voice import flow_prompt

TYPES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_flow_of_another_type_is_near(tiny_bundle: Path, dtype: torch.dtype) -> None:
    tokens = torch.arange(40)[None] % 8
    mels = []
    for chosen in (torch.float32, dtype):
        synthesizer = Synthesizer.from_pretrained(tiny_bundle, dtype=chosen)
        flow = synthesizer.components.flow
        assert {weight.dtype for weight in flow.parameters()} == {chosen} == {flow.dtype}
        prompt = flow_prompt(synthesizer.voice("ann"), "cpu")
        mels.append(flow.generate(tokens, **prompt, seed=1))
        assert mels[-1].dtype == torch.float32
        state = flow.start(**prompt)
        pieces = [flow.step(piece, state, seed=1) for piece in tokens.split(9, dim=1)]
        pieces.append(flow.step(tokens[:, :0], state, seed=1, flush=True))
        keys = state.steps[0].transformer.layers[0].keys  # type: ignore[union-attr]
        assert keys.dtype == chosen
        error = (torch.cat(pieces, dim=1) - mels[-1]).abs().mean()
        assert float(error) < (1e-4 if chosen == torch.float32 else 0.02)
    spread = float((mels[0] - mels[0].mean()).abs().mean())
    assert 0.0 < float((mels[1] - mels[0]).abs().mean()) < 0.05 * spread


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_speech_in_another_type(tiny_bundle: Path, recording: Path, dtype: str) -> None:
    synthesizer = Synthesizer.from_pretrained(tiny_bundle, dtype=dtype)
    assert next(synthesizer.components.speech_lm.parameters()).dtype == getattr(torch, dtype)
    assert next(synthesizer.components.vocoder.parameters()).dtype == torch.float32
    speech = synthesizer.generate("Is it so? Yes!", seed=3)
    assert speech.dtype == torch.float32 and speech.isfinite().all() and speech.shape[0] > 1000
    assert torch.equal(speech, synthesizer.generate("Is it so? Yes!", seed=3))
    streamed = torch.cat([*synthesizer.stream("Is it so? Yes!", seed=3)])
    assert streamed.shape == speech.shape
    voice = synthesizer.prepare_voice(recording, "is it so?")
    assert synthesizer.convert(recording, voice=voice).isfinite().all()


def test_types_and_revisions_that_there_are_not(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16"):
        Synthesizer.from_pretrained(tiny_bundle, dtype="int4")
    with pytest.raises(ValueError, match="dtype must be one of"):
        Synthesizer.from_pretrained(tiny_bundle, dtype=torch.int8)
    with pytest.raises(ResolveError, match="is local and has no revision 'v2' to choose"):
        Synthesizer.from_pretrained(tiny_bundle, revision="v2")


@pytest.mark.slow
def test_the_estimator_can_be_compiled(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    compile_module = torch.nn.Module.compile

    def record(self: torch.nn.Module, **options: object) -> None:
        asked.append(options)
        compile_module(self, **{**options, "backend": "eager"})

    monkeypatch.setattr(torch.nn.Module, "compile", record)
    plain = Synthesizer.from_pretrained(tiny_bundle).generate("Is it so?", seed=3)
    assert not asked
    compiled = Synthesizer.from_pretrained(tiny_bundle, compile=True)
    assert asked == [{"dynamic": True, "backend": "inductor"}]
    torch.testing.assert_close(compiled.generate("Is it so?", seed=3), plain, atol=1e-5, rtol=0)
