"""Mixed and designed voices."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.checkpoint import BundleError, read_manifest
from tokenlm.checkpoint.adapter import (
    AdapterBase,
    AdapterConfig,
    PartChange,
    bundle_fingerprint,
    save_adapter,
)
from tokenlm.checkpoint.component import read_state
from tokenlm.checkpoint.resolve import ResolveError, find_voices, mixture_parts
from tokenlm.synthesis import Synthesizer, Voice, VoiceError
from tokenlm.synthesis.voice_space import FILE, DescriptionError, VoiceSpace


def world(num_voices: int = 60, size: int = 8) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings that are linear in two attributes that go together, and noise."""
    generator = torch.Generator().manual_seed(1)
    sex = torch.where(torch.rand(num_voices, generator=generator) < 0.5, -1.0, 1.0)
    pitch = 12.0 + 5.0 * sex + 2.0 * torch.randn(num_voices, generator=generator)
    age = torch.full((num_voices,), torch.nan)
    embeddings = torch.randn(num_voices, size, generator=generator) * 0.05
    embeddings[:, 0] += 1.0
    embeddings[:, 1] += 0.3 * (pitch - 12.0) / 5.0
    embeddings[:, 2] += 0.3 * sex
    return embeddings, {"pitch": pitch, "sex": sex, "age": age}


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    folder = tmp_path_factory.mktemp("space") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    VoiceSpace.fit(*world()).save(folder / FILE)
    return Synthesizer.from_pretrained(folder)


def test_mixtures_are_written_with_weights(tiny_bundle: Path, tmp_path: Path) -> None:
    assert mixture_parts("ann:0.7+bob:0.3") == [("ann", 0.7), ("bob", 0.3)]
    assert mixture_parts(" ann + bob:2") == [("ann", 1.0), ("bob", 2.0)]
    own = tmp_path / "a+b:1.voice"  # a name is taken as it is where there is such a file
    shutil.copy(tiny_bundle / "voices" / "ann.voice", own)
    assert find_voices(tiny_bundle, own) == [(own, 1.0)]
    for text, problem in (
        ("ann:0+bob", "positive weights"),
        ("ann:-1+bob:2", "positive weights"),
        ("ann:inf+bob", "positive weights"),
        ("ann+", "written as"),
        ("ann+boob", "did you mean 'bob'"),
        ("ann:x+bob", "the weight of 'ann' is a positive number, as in ann:0.7, not 'x'"),
        ("bob+ann:", "the weight of 'ann' is a positive number, as in ann:0.7, not ''"),
        ("ann:much", "the weight of 'ann' is a positive number"),
        ("+".join(["ann"] * 9), "at most 8"),
    ):
        with pytest.raises(ResolveError, match=problem):
            find_voices(tiny_bundle, text)


def test_a_mixture_lies_between_its_parts(synthesizer: Synthesizer) -> None:
    ann, bob = synthesizer.voice("ann"), synthesizer.voice("bob")
    unit = [functional.normalize(voice.speaker_embedding, dim=0) for voice in (ann, bob)]
    mixed = synthesizer.voice("ann:0.7+bob:0.3")
    expected = functional.normalize(0.7 * unit[0] + 0.3 * unit[1], dim=0)
    torch.testing.assert_close(mixed.speaker_embedding, expected)
    assert mixed.name == "ann:0.7+bob:0.3" and mixed.prompt_text == ann.prompt_text
    assert torch.equal(mixed.prompt_tokens, ann.prompt_tokens)
    assert mixed.prompt_mel.shape == ann.prompt_mel.shape
    # Only ratios count; the same again is the same voice, kept.
    assert synthesizer.voice("ann:7+bob:3").digest == mixed.digest
    assert synthesizer.voice("ann:0.7+bob:0.3") is mixed
    assert synthesizer.voice("ann:1").digest == ann.digest
    assert synthesizer.mix_voices([(ann, 1.0), (ann, 2.0)]) is ann
    with pytest.raises(VoiceError, match="positive"):
        synthesizer.mix_voices([(ann, 1.0), (bob, 0.0)])
    with pytest.raises(VoiceError, match="there is no voice 'zoe'"):
        synthesizer.generate("so", voice="ann+zoe")


def test_offsets_are_mixed(synthesizer: Synthesizer) -> None:
    ann, bob = synthesizer.voice("ann"), synthesizer.voice("bob")
    ann = replace(ann, mel_offset=torch.full((80,), 0.4))
    mixed = synthesizer.mix_voices([(ann, 1.0), (bob, 3.0)])
    assert mixed.mel_offset is not None
    torch.testing.assert_close(mixed.mel_offset, torch.full((80,), 0.1))


def test_a_mixture_speaks_whole_and_streamed(synthesizer: Synthesizer, tmp_path: Path) -> None:
    whole = synthesizer.generate("Is it so? Yes!", voice="ann:0.6+bob:0.4", seed=3)
    streamed = torch.cat([*synthesizer.stream("Is it so? Yes!", voice="ann:0.6+bob:0.4", seed=3)])
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)
    assert not torch.equal(whole, synthesizer.generate("Is it so? Yes!", voice="ann", seed=3))
    synthesizer.voice("ann:0.6+bob:0.4").save(tmp_path / "both.voice")
    again = synthesizer.generate("Is it so? Yes!", voice=str(tmp_path / "both.voice"), seed=3)
    assert torch.equal(again, whole)


def test_the_model_of_voices_is_that_of_the_world(tmp_path: Path) -> None:
    embeddings, values = world()
    space = VoiceSpace.fit(embeddings, values, source="a test")
    # Nothing is known of age. Pitch and sex are told apart, though they go together.
    assert space.names == ["pitch", "sex"]
    assert float(space.correlation[0, 1]) > 0.8
    unit = functional.normalize(space.directions, dim=1)
    assert float(unit[0, 1]) > 0.9 and float(unit[1, 2]) > 0.9
    # A voice of which only the pitch is asked for has the sex that goes with it.
    assert float(space.values({"pitch": -1.5})[1]) < -1.0
    assert space.values({"pitch": -1.5, "sex": 1.0}).tolist() == pytest.approx([-1.5, 1.0])
    low, high = (space.design({"pitch": value}, seed=1) for value in (-2.0, 2.0))
    assert float(high[1] - low[1]) > 0.5
    # The attributes of a voice are found again in its embedding.
    estimates = torch.stack([space.estimate(row) for row in embeddings])
    assert float(((estimates[:, 1] > 0) == (values["sex"] > 0)).float().mean()) > 0.95
    assert float(torch.corrcoef(torch.stack([estimates[:, 0], values["pitch"]]))[0, 1]) > 0.9
    space.save(tmp_path / FILE)
    loaded = VoiceSpace.load(tmp_path / FILE)
    assert loaded.attributes == space.attributes and loaded.source == "a test"
    assert torch.equal(loaded.design({"pitch": 1.0}, seed=5), space.design({"pitch": 1.0}, seed=5))
    with pytest.raises(VoiceError, match="at least 4 voices"):
        VoiceSpace.fit(embeddings[:3], {name: v[:3] for name, v in values.items()})
    with pytest.raises(VoiceError, match="no attribute is known"):
        VoiceSpace.fit(embeddings, {"age": values["age"]})
    (tmp_path / FILE).write_bytes(b"x")
    with pytest.raises(VoiceError, match="is no voice space"):
        VoiceSpace.load(tmp_path / FILE)


def test_designed_voices_are_stable_and_saved(synthesizer: Synthesizer, tmp_path: Path) -> None:
    make = synthesizer.design_voice
    first = make(description="a deep man", seed=1, name="him")
    assert first.digest == make(description="A DEEP man!", seed=1).digest
    assert first.digest != make(description="a deep man", seed=2).digest
    assert first.digest != make(description="a high woman", seed=1).digest
    assert first.name == "him" and first.description == "designed: a deep man"
    assert make({"pitch": 1.0}, description="a deep man").digest == (
        make({"pitch": 1.0}, description="a man").digest
    )
    bundle = synthesizer.components.folder
    name, value = next(iter(read_state(bundle / "vocoder" / "model.safetensors").items()))
    base = AdapterBase(name="tiny", fingerprint=bundle_fingerprint(read_manifest(bundle)))
    config = AdapterConfig(name="me", base=base)
    save_adapter(tmp_path / "me.adapter", config, {"vocoder": PartChange({name: value}, {})})
    tuned = replace(synthesizer.voice("ann"), adapter=str(tmp_path / "me.adapter"))
    with pytest.raises(VoiceError, match="'ann' is spoken by an adapter"):
        make({"pitch": 1.0}, base=tuned)
    first.save(tmp_path / "him.voice")
    loaded = Voice.load(tmp_path / "him.voice")
    whole = synthesizer.generate("Is it so?", voice=first)
    assert torch.equal(whole, synthesizer.generate("Is it so?", voice=loaded))
    streamed = torch.cat([*synthesizer.stream("Is it so?", voice=loaded)])
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)


def test_a_voice_is_changed_along_one_attribute(synthesizer: Synthesizer) -> None:
    ann = synthesizer.voice("ann")
    changed = synthesizer.design_voice({"pitch": 1.0}, base="ann", name="higher")
    moved = changed.speaker_embedding - functional.normalize(ann.speaker_embedding, dim=0)
    direction = synthesizer.voice_space.directions[0]
    assert float(functional.cosine_similarity(moved, direction, dim=0)) > 0.9
    assert torch.equal(changed.prompt_tokens, ann.prompt_tokens)
    unchanged = synthesizer.design_voice({"pitch": 0.0}, base="ann")
    torch.testing.assert_close(
        unchanged.speaker_embedding, functional.normalize(ann.speaker_embedding, dim=0)
    )


def test_mistakes_are_sentences(
    synthesizer: Synthesizer, tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(VoiceError, match=r"no attribute 'colour'; there is: pitch, sex"):
        synthesizer.design_voice({"colour": 1.0})
    for value in (3.5, float("nan")):
        with pytest.raises(VoiceError, match="from -3 to 3 standard deviations"):
            synthesizer.design_voice({"pitch": value})
    with pytest.raises(DescriptionError, match="have no age; there is: pitch, sex"):
        synthesizer.design_voice(description="elderly")
    synthesizer.design_voice(description="an elderly man from Mars")
    assert "not understood of the description: from, mars, age" in caplog.text
    with pytest.raises(BundleError, match=f"has no {FILE}: voices cannot be designed"):
        Synthesizer.from_pretrained(tiny_bundle).design_voice({"pitch": 1.0})
    embeddings, values = world(size=6)
    copy = tmp_path / "other"
    shutil.copytree(tiny_bundle, copy)
    VoiceSpace.fit(embeddings, values).save(copy / FILE)
    with pytest.raises(VoiceError, match="another speaker encoder"):
        Synthesizer.from_pretrained(copy).design_voice({"pitch": 1.0})
