"""From text to waveform with tiny random models."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.audio.io import load_audio
from tokenlm.models.lm.decoding import SamplingConfig
from tokenlm.modules.quantised import Precision
from tokenlm.modules.streaming import FULL_CONTEXT, Context
from tokenlm.synthesis import Synthesizer, VoiceError
from tokenlm.synthesis import rendering as rendering_module
from tokenlm.synthesis import session as session_module
from tokenlm.synthesis.acceleration import accelerate
from tokenlm.synthesis.voice import Voice
from tokenlm.text.normalize import normalize_paragraphs
from tokenlm.text.segmentation import segment

LONG = "The quick brown fox jumps over the lazy dog. " * 3 + "\n\nIs it so? Well; yes, it is!"


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def test_facts(synthesizer: Synthesizer) -> None:
    assert synthesizer.sample_rate == 24_000
    assert synthesizer.voices == ["ann", "bob"]
    # 3 tokens of 40 ms and 2 frames of 20 ms.
    assert synthesizer.lookahead_ms == 160.0


def test_one_word(synthesizer: Synthesizer) -> None:
    waveform = synthesizer.generate("Yes")
    assert waveform.ndim == 1 and waveform.dtype == torch.float32
    assert 0.04 <= waveform.shape[0] / 24_000 <= 2.0
    assert bool(waveform.isfinite().all()) and float(waveform.abs().max()) <= 1.0
    assert not waveform.is_inference()


def test_seed_decides(synthesizer: Synthesizer) -> None:
    first = synthesizer.generate("Is it so?", seed=3)
    assert torch.equal(synthesizer.generate("Is it so?", seed=3), first)
    other = synthesizer.generate("Is it so?", seed=4)
    assert other.shape != first.shape or not torch.allclose(other, first, atol=1e-3)


def test_global_generator_is_left_alone(synthesizer: Synthesizer) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    synthesizer.generate("so.")
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(1)
    assert torch.equal(synthesizer.generate("so."), synthesizer.generate("so."))


def test_default_voice_is_the_first(synthesizer: Synthesizer) -> None:
    first = synthesizer.generate("so.")
    assert torch.equal(first, synthesizer.generate("so.", voice="ann"))
    assert torch.equal(first, synthesizer.generate("so.", voice=synthesizer.voice("ann")))
    bob = synthesizer.generate("so.", voice="bob")
    assert bob.shape != first.shape or not torch.allclose(bob, first, atol=1e-3)


def silences(waveform: Tensor, shortest: float) -> list[float]:
    """Lengths in seconds of the stretches of digital silence."""
    is_zero = torch.cat([torch.zeros(1), (waveform == 0).float(), torch.zeros(1)])
    edges = is_zero.diff()
    lengths = torch.nonzero(edges < 0)[:, 0] - torch.nonzero(edges > 0)[:, 0]
    return [length / 24_000 for length in lengths.tolist() if length > shortest * 24_000]


def test_segments_are_joined_by_pauses(synthesizer: Synthesizer) -> None:
    parts = segment("\n".join(normalize_paragraphs(LONG)), max_length=160)
    expected = [part.pause_seconds for part in parts[:-1]]
    assert len(parts) >= 3 and 0.6 in expected and all(0.1 <= p <= 0.6 for p in expected)
    found = silences(synthesizer.generate(LONG), 0.09)
    assert found == pytest.approx(expected, abs=0.01)


def test_text_that_cannot_be_said(synthesizer: Synthesizer) -> None:
    for text in ("", "   \n\n", "🙂🎉", "…", "***"):
        with pytest.raises(ValueError, match="holds nothing that can be said"):
            synthesizer.generate(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": ["a", "b"]}, "a text is a string, not list; pieces of one go to `stream`"),
        ({"text": "Yes.", "voice": 3}, "a voice is a Voice or a name, not int"),
        ({"text": "Yes.", "speed": "fast"}, "speed must be from 0.25 to 4, got fast"),
        ({"text": "Yes.", "num_steps": 2.5}, "num_steps must be at least 1 and whole"),
        ({"text": "Yes.", "guidance_scale": float("nan")}, "guidance_scale must be a number"),
    ],
)
def test_arguments_of_other_kinds(
    synthesizer: Synthesizer, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        synthesizer.generate(**options)


def test_long_texts_are_decoded_in_batches(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = synthesizer.generate(LONG)
    monkeypatch.setattr(session_module, "SEGMENTS_PER_BATCH", 1)
    torch.testing.assert_close(synthesizer.generate(LONG), whole, atol=1e-4, rtol=0)


def test_default_context_equals_chunks(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long speech is rendered as a stream is, and sounds the same."""
    text = "the quick brown fox jumps over the lazy dog, the quick brown fox jumps over it."
    whole = synthesizer.generate(text)
    monkeypatch.setattr(rendering_module, "WHOLE_TOKENS", 0)
    torch.testing.assert_close(synthesizer.generate(text), whole, atol=1e-4, rtol=0)
    own = synthesizer.components.flow.config.default_context
    torch.testing.assert_close(synthesizer.generate(text, context=own), whole, atol=1e-4, rtol=0)


def test_contexts(synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "the quick brown fox."
    full = synthesizer.generate(text, context="full")
    assert torch.equal(synthesizer.generate(text, context=FULL_CONTEXT), full)
    chunked = synthesizer.generate(text, context=Context(chunk_frames=3, left_frames=3))
    assert full.shape != chunked.shape or not torch.allclose(full, chunked, atol=1e-4)
    # The full context has no chunks, however long the speech is.
    monkeypatch.setattr(rendering_module, "WHOLE_TOKENS", 0)
    assert torch.equal(synthesizer.generate(text, context=FULL_CONTEXT), full)
    with pytest.raises(ValueError, match="context must be 'default', 'full' or a Context, got 'l"):
        synthesizer.generate(text, context="left")  # type: ignore[arg-type]


@pytest.mark.slow
def test_solvers(synthesizer: Synthesizer, tiny_bundle: Path, tmp_path: Path) -> None:
    """Those of torchdiffeq for whole speech, by the call or the bundle; streams have Euler's."""
    text = "the quick brown fox."
    plain, better = (synthesizer.generate(text, solver=solver) for solver in ("euler", "midpoint"))
    assert torch.equal(plain, synthesizer.generate(text))
    assert plain.shape == better.shape and not torch.equal(plain, better)
    session = synthesizer.open_session(text, seed=0)
    session.decode_all()
    tokens = session.speech_tokens
    assert torch.equal(synthesizer.render(tokens, solver="midpoint"), better)
    for solver in ("heun2", "heun3", "rk4", "implicit_adams", "dopri5"):
        other = synthesizer.render(tokens, solver=solver)
        assert other.shape == better.shape and bool(other.isfinite().all())
    for ask in (synthesizer.stream, synthesizer.open_session):
        with pytest.raises(ValueError, match="solver 'euler' alone, not 'midpoint'; use generate"):
            ask(text, solver="midpoint")
    with pytest.raises(ValueError, match="solver must be one of euler, midpoint, .* got 'spiral'"):
        synthesizer.generate(text, solver="spiral")
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "bundle.yaml"
    manifest.write_text(
        manifest.read_text().replace("generation:\n", "generation:\n  solver: midpoint\n")
    )
    other = Synthesizer.from_pretrained(tmp_path / "bundle")
    assert torch.equal(other.generate(text), better)
    assert torch.equal(
        torch.cat(list(other.stream(text))), torch.cat(list(synthesizer.stream(text)))
    )


def test_settings_are_those_of_the_call_or_of_the_bundle(synthesizer: Synthesizer) -> None:
    text = "so."
    default = synthesizer.generate(text)
    same = synthesizer.generate(text, num_steps=2, guidance_scale=0.7, sampling=SamplingConfig())
    assert torch.equal(same, default)
    for change in ({"num_steps": 3}, {"guidance_scale": 0.0}):
        other = synthesizer.generate(text, **change)
        assert other.shape != default.shape or not torch.equal(other, default)
    for change, words in (({"num_steps": 0}, "num_steps"), ({"guidance_scale": -1.0}, "guidance")):
        with pytest.raises(ValueError, match=words):
            synthesizer.generate(text, **change)


def test_progress_rises_to_one(synthesizer: Synthesizer) -> None:
    shares: list[float] = []
    synthesizer.generate(LONG, on_progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and 0.5 in shares


def test_voices_by_name_and_by_file(synthesizer: Synthesizer, tiny_bundle: Path) -> None:
    assert synthesizer.voice("bob").name == "bob"
    path = tiny_bundle / "voices" / "bob.voice"
    assert torch.equal(synthesizer.voice(path).prompt_mel, synthesizer.voice("bob").prompt_mel)
    with pytest.raises(VoiceError, match="no voice 'eve'; voices here: ann, bob"):
        synthesizer.voice("eve")
    with pytest.raises(VoiceError, match="no voice '../voices/bob'"):
        synthesizer.voice("../voices/bob")


def test_voices_of_other_bundles(synthesizer: Synthesizer) -> None:
    voice = synthesizer.voice("ann")
    with pytest.raises(VoiceError, match="made with the speech tokenizer other, but this bundle"):
        synthesizer.generate("so.", voice=replace(voice, tokenizer="other"))
    misfits: list[Voice] = [
        replace(voice, prompt_mel=voice.prompt_mel[:-1]),
        replace(voice, prompt_mel=voice.prompt_mel[:, :40]),
        replace(voice, speaker_embedding=voice.speaker_embedding[:4]),
        replace(voice, prompt_tokens=voice.prompt_tokens + 27),
    ]
    for misfit in misfits:
        with pytest.raises(VoiceError, match="'ann' does not fit the flow of this bundle"):
            synthesizer.generate("so.", voice=misfit)


def test_a_bundle_without_voices(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "mute")
    shutil.rmtree(tmp_path / "mute" / "voices")
    synthesizer = Synthesizer.from_pretrained(tmp_path / "mute")
    assert synthesizer.voices == []
    with pytest.raises(VoiceError, match="has no voices: prepare one"):
        synthesizer.generate("so.")


def test_a_voice_without_its_words(synthesizer: Synthesizer) -> None:
    """The LM then gets no prompt; the flow still does."""
    voice = replace(synthesizer.voice("ann"), prompt_text="")
    assert synthesizer.generate("so.", voice=voice).shape[0] > 0
    nothing = replace(voice, prompt_tokens=voice.prompt_tokens[:0], prompt_mel=voice.prompt_mel[:0])
    assert synthesizer.generate("so.", voice=nothing).shape[0] > 0


def test_a_bundle_whose_lm_gets_no_prompt(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = synthesizer.voice("ann")
    with_prompt = synthesizer.generate("so.", voice=voice)
    wordless = synthesizer.generate("so.", voice=replace(voice, prompt_text=""))
    settings = replace(synthesizer.components.generation, prompt_in_lm=False)
    monkeypatch.setattr(synthesizer.components, "generation", settings)
    without = synthesizer.generate("so.", voice=voice)
    assert torch.equal(without, wordless)
    assert without.shape != with_prompt.shape or not torch.equal(without, with_prompt)


def test_convert_keeps_the_length(synthesizer: Synthesizer, recording: Path) -> None:
    tokens = synthesizer.tokenize(recording)
    out = synthesizer.convert(recording, voice="bob")
    assert out.shape == (len(tokens) * 960,)
    assert not out.is_inference()
    samples = load_audio(recording, 24_000)
    again = synthesizer.convert(samples, sample_rate=24_000, voice="bob")
    torch.testing.assert_close(again, out, atol=1e-3, rtol=0)


def test_tokens_and_transcripts(synthesizer: Synthesizer, recording: Path) -> None:
    tokens = synthesizer.tokenize(recording)
    assert 40 <= len(tokens) <= 50 and all(0 <= token < 27 for token in tokens)
    text = synthesizer.transcribe(recording)
    assert set(text) <= set(" 'abcdefghijklmnopqrstuvwxyz")


def test_unknown_bundle() -> None:
    with pytest.raises(ValueError, match="no-such-bundle"):
        Synthesizer.from_pretrained("./no-such-bundle")


def test_a_bundle_may_keep_the_prompt_from_the_lm(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = synthesizer.voice(synthesizer.voices[0])
    assert voice.prompt_text
    silent = replace(voice, prompt_text="")
    unprompted = replace(synthesizer.components.generation, prompt_in_lm=False)
    with_prompt = synthesizer.generate("one", voice=voice)
    monkeypatch.setattr(synthesizer.components, "generation", unprompted)
    assert torch.equal(
        synthesizer.generate("one", voice=voice), synthesizer.generate("one", voice=silent)
    )
    assert not torch.equal(synthesizer.generate("one", voice=voice), with_prompt)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_a_synthesizer_can_be_copied_and_sent_to_another_process(
    tiny_bundle: Path, weights: Precision
) -> None:
    original = Synthesizer.from_pretrained(tiny_bundle)
    accelerate(original.components, weights=weights)
    expected = original.generate("Is it so?")  # with what a synthesizer keeps from use to use
    for other in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert torch.equal(other.generate("Is it so?"), expected)
        assert other.components.speech_lm is not original.components.speech_lm
        assert other.voices == original.voices


def test_a_seed_of_none_is_drawn_and_told(
    synthesizer: Synthesizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="tokenlm"):
        first = synthesizer.generate("Is it so?", seed=None)
        second = synthesizer.generate("Is it so?", seed=None)
    told = [record.getMessage() for record in caplog.records]
    seeds = [int(text.rpartition(" ")[2]) for text in told if text.startswith("drew the seed")]
    assert len(set(seeds)) == 2
    assert torch.equal(synthesizer.generate("Is it so?", seed=seeds[0]), first)
    assert torch.equal(synthesizer.generate("Is it so?", seed=seeds[1]), second)
    stream = synthesizer.stream("Is it so?", seed=None)
    assert 0 <= stream.seed < 1 << 31
    again = torch.cat(list(synthesizer.stream("Is it so?", seed=stream.seed)))
    assert torch.equal(torch.cat(list(stream)), again)
    assert synthesizer.astream("Is it so?", seed=7).seed == 7


@pytest.mark.parametrize("seed", ["random", "None", 1.5])
def test_a_seed_is_a_whole_number(synthesizer: Synthesizer, seed: Any) -> None:
    for speak in (synthesizer.generate, synthesizer.stream, synthesizer.astream):
        with pytest.raises(ValueError, match="a seed is a whole number, or None for a random one"):
            speak("Is it so?", seed=seed)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps:99", "cuda:-1", "CPU", "", "cuda 0"])
def test_a_device_that_is_not_there(device: str, tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match=f"the device '{device}' cannot be used"):
        Synthesizer.from_pretrained(tiny_bundle, device=device)


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.3])
def test_short_recordings_are_listened_to(synthesizer: Synthesizer, seconds: float) -> None:
    samples = 0.3 * torch.sin(torch.arange(round(24_000 * seconds)) * 0.1)
    assert len(synthesizer.tokenize(samples, sample_rate=24_000)) == 10  # 0.4 s
    assert synthesizer.convert(samples, sample_rate=24_000).shape[0] >= 0.3 * 24_000
    assert isinstance(synthesizer.transcribe(samples, sample_rate=24_000), str)
    with pytest.raises(VoiceError, match="at least 0.4 s"):
        synthesizer.prepare_voice(samples, sample_rate=24_000)
