"""Fitting a voice to its prompt: what it gains, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.synthesis.components import FitConfig
from tokenlm.synthesis.voice import add_offset, fit_voice, mean_difference

Flow = FlowDecoder

FIT = FitConfig(num_steps=30, num_draws=8, learning_rate=0.05, max_offset=100.0)


def imported(**changes: Any) -> FlowDecoder:
    torch.manual_seed(0)
    config = cosyvoice_flow_config(
        codebook_size=27, speaker_dim=8, dim=16, num_heads=2, head_dim=8, chunk_tokens=4,
        encoder_dim=16, encoder_hidden_dim=24, encoder_heads=2, **changes,
    )  # fmt: skip
    return FlowDecoder(config).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["own", "unet", "dit"])
def flow(request: pytest.FixtureRequest, tiny_models: dict[str, nn.Module]) -> Flow:
    if request.param == "own":
        own = tiny_models["flow"]
        assert isinstance(own, FlowDecoder)
        return own
    if request.param == "unet":
        levels = {"encoder_layers": 1, "encoder_up_layers": 1, "blocks_per_level": 1}
        return imported(encoder="conformer", estimator="unet", num_mid_levels=1, **levels)
    return imported(encoder="lookahead", estimator="f5_dit", num_layers=2)


def rendering(flow: Flow) -> dict[str, Any]:
    return {
        "context": flow.config.default_context,
        "num_steps": 3,
        "guidance_scale": 0.5,
    }


def mumbled(flow: Flow, num_tokens: int = 40) -> tuple[Voice, torch.Tensor]:
    """A voice whose embedding is not that which its prompt was made with, and that one."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(27, (num_tokens,), generator=generator)
    true, other = functional.normalize(torch.randn(2, 8, generator=generator), dim=1)
    mel = flow.generate(
        tokens[None],
        prompt_tokens=tokens[None, :0],
        prompt_mel=torch.zeros(1, 0, 80),
        speaker_embedding=true[None],
        seed=1,
        **rendering(flow),
    )[0]
    voice = Voice(
        name="ann",
        prompt_text="",
        prompt_tokens=tokens,
        prompt_mel=mel.clone(),
        speaker_embedding=other,
        tokenizer="0123456789abcdef",
    )
    return voice, true


def test_the_embedding_moves_to_that_of_the_prompt(flow: Flow) -> None:
    voice, true = mumbled(flow)
    before = [weight.clone() for weight in flow.parameters()]
    fitted = fit_voice(flow, voice, FIT, **rendering(flow))
    assert float(fitted.speaker_embedding @ true) > float(voice.speaker_embedding @ true) + 0.05
    assert float(fitted.speaker_embedding.norm()) == pytest.approx(1.0)
    assert fitted.mel_offset is None
    assert not any(weight.requires_grad for weight in flow.parameters())
    pairs = zip(before, flow.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)


def test_the_same_voice_is_fitted_alike(flow: Flow) -> None:
    voice, _ = mumbled(flow)
    few = replace(FIT, num_steps=3, offset_share=1.0)
    first = fit_voice(flow, voice, few, **rendering(flow))
    with torch.inference_mode():
        again = fit_voice(flow, replace(voice), few, **rendering(flow))
    assert again.digest == first.digest
    assert not again.speaker_embedding.is_inference()


def test_the_offset_is_what_the_rendering_lacks(flow: Flow) -> None:
    voice, _ = mumbled(flow)
    shift = torch.linspace(-1.0, 1.0, 80)
    config = FitConfig(offset_share=1.0, offset_tokens=0, max_offset=100.0)
    fitted = fit_voice(flow, voice, config, **rendering(flow))
    moved = replace(voice, prompt_mel=voice.prompt_mel + shift)
    rendered = flow.generate(
        voice.prompt_tokens[None],
        prompt_tokens=voice.prompt_tokens[None],
        prompt_mel=moved.prompt_mel[None],
        speaker_embedding=voice.speaker_embedding[None],
        seed=moved.seed,
        prompt_seed=moved.seed,
        **rendering(flow),
    )
    other = fit_voice(flow, moved, config, **rendering(flow))
    left = mean_difference(moved.prompt_mel, add_offset(rendered, other)[0])
    torch.testing.assert_close(left, torch.zeros(80), atol=1e-4, rtol=0)
    assert torch.equal(fitted.speaker_embedding, voice.speaker_embedding)
    assert fitted.mel_offset is not None
    assert add_offset(rendered, voice) is rendered


def test_pauses_say_nothing_of_a_voice() -> None:
    mel, rendered = torch.zeros(10, 80), torch.zeros(10, 80)
    mel[:3] = -10.0
    rendered[:3] = 5.0
    rendered[3:] = -1.0
    assert torch.equal(mean_difference(mel, rendered), torch.ones(80))


def test_short_prompts_shift_less(flow: Flow) -> None:
    voice, _ = mumbled(flow, 10)
    whole = fit_voice(
        flow,
        voice,
        FitConfig(offset_share=1.0, offset_tokens=0, max_offset=100.0),
        **rendering(flow),
    )
    half = fit_voice(flow, voice, replace(FIT, num_steps=0, offset_share=1.0), **rendering(flow))
    assert whole.mel_offset is not None and half.mel_offset is not None
    torch.testing.assert_close(half.mel_offset, whole.mel_offset / 2)


def test_a_damaged_recording_is_not_copied(flow: Flow, caplog: pytest.LogCaptureFixture) -> None:
    voice, _ = mumbled(flow)
    config = replace(FIT, num_steps=2, offset_share=1.0, max_offset=2.0)
    offset = fit_voice(flow, voice, replace(config, num_steps=0), **rendering(flow)).mel_offset
    size = 0.0 if offset is None else float(offset.square().mean().sqrt())
    assert 0.0 < size < 2.0 and not caplog.records
    telephone = voice.prompt_mel.clone()
    telephone[:, 40:] -= 8.0
    narrow = replace(voice, prompt_mel=telephone)
    assert fit_voice(flow, narrow, config, **rendering(flow)) is narrow
    assert "is not fitted" in caplog.text


def test_nothing_to_fit(flow: Flow) -> None:
    voice, _ = mumbled(flow)
    assert fit_voice(flow, voice, FitConfig(), **rendering(flow)) is voice
    empty = replace(voice, prompt_tokens=voice.prompt_tokens[:0], prompt_mel=torch.zeros(0, 80))
    config = replace(FIT, offset_share=1.0)
    assert fit_voice(flow, empty, config, **rendering(flow)) is empty


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": -1}, "num_steps of a fit"),
        ({"num_draws": 0}, "num_draws"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"offset_tokens": -1}, "offset_tokens"),
        ({"max_offset": 0.0}, "max_offset"),
        ({"offset_share": 1.5}, "offset_share must be between 0 and 1"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FitConfig(**change)


def test_a_bundle_fits_what_it_prepares(tiny_bundle: Path, recording: Path) -> None:
    """And streams the fitted voice as it renders it whole, chunk by chunk, and at any speed."""
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    plain = synthesizer.prepare_voice(recording)
    components = synthesizer.components
    components.generation = replace(
        components.generation, voice_fit=replace(FIT, num_steps=2, offset_share=1.0)
    )
    fitted = synthesizer.prepare_voice(recording)
    assert plain.mel_offset is None
    assert fitted.mel_offset is not None
    assert torch.equal(fitted.prompt_mel, plain.prompt_mel)
    assert not torch.equal(fitted.speaker_embedding, plain.speaker_embedding)
    for speed in (1.0, 1.3):
        whole = synthesizer.generate("is it so?", voice=fitted, speed=speed)
        streamed = torch.cat(list(synthesizer.stream("is it so?", voice=fitted, speed=speed)))
        torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)
        without = synthesizer.generate(
            "is it so?", voice=replace(fitted, mel_offset=None), speed=speed
        )
        assert not torch.allclose(without, whole, atol=1e-3)
