from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import BundleError
from tokenlm.config import from_dict
from tokenlm.models.lm import SamplingConfig
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.components import Components, GenerationConfig
from training.data.manifest import Utterance, write_manifest
from training.evaluation.tuning import (
    Renderer,
    find_silent_tokens,
    main,
    pick_pairs,
    quiet_tokens,
    score_sampling,
)


def row(name: str, speaker: str, duration: float = 2.5, **more: object) -> Utterance:
    plain = Utterance(
        id=name, audio=Path(f"{name}.wav"), text="hi there", speaker=speaker, duration=duration
    )
    return replace(plain, **more)


def test_pairs_are_of_one_speaker_and_never_the_same_utterance() -> None:
    rows = [row("a", "x"), row("b", "x", 0.9), row("c", "x"), row("d", "y"), row("e", "y", 1.0)]
    pairs = [(prompt.id, target.id) for prompt, target in pick_pairs(rows, 10)]
    # y has one long utterance, which cannot be its own prompt.
    assert pairs == [("c", "a"), ("a", "b"), ("a", "c"), ("d", "e")]
    assert len(pick_pairs(rows, 2)) == 2
    with pytest.raises(ValueError, match="no speaker with two utterances"):
        pick_pairs([row("a", "x"), row("b", "y")], 5)


def test_errors_are_counted_over_what_was_read_back(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    components = Components(tiny_bundle)
    heard = iter(["hi there", "xx xxxxx"])
    monkeypatch.setattr(
        type(components.token_recognizer), "transcribe", lambda self, tokens: [next(heard)]
    )
    pairs = [(row("p", "x"), row(n, "x", speech_tokens=(1, 2, 3, 4))) for n in ("a", "b")]
    found = score_sampling(components, pairs, None)
    # 7 of 16 characters: all letters of the second text, its space is right.
    assert found.char_error_rate == pytest.approx(7 / 16)
    assert found.lost == 0.5
    assert found.length_ratio == 1.0


def test_speaking_with_and_without_the_prompt(tiny_bundle: Path) -> None:
    torch.manual_seed(0)
    components = Components(tiny_bundle)
    pairs = [(row("p", "x", speech_tokens=(1, 2)), row("a", "x", speech_tokens=(1, 2, 3)))]
    sampling = SamplingConfig(temperature=0.0)
    for with_prompt in (False, True):
        found = score_sampling(components, pairs, sampling, with_prompt=with_prompt)
        assert found.length_ratio > 0


@pytest.mark.parametrize(("normalizer", "read"), [("english", "two cats."), ("none", "2 cats.")])
def test_texts_are_read_as_the_text_tokenizer_says(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, normalizer: str, read: str
) -> None:
    components = Components(tiny_bundle)
    monkeypatch.setattr(
        type(components.text_tokenizer), "config", SimpleNamespace(normalizer=normalizer)
    )
    encoded: list[str] = []
    encode = components.text_tokenizer.encode
    monkeypatch.setattr(
        components.text_tokenizer, "encode", lambda text: encoded.append(text) or encode(text)
    )
    target = replace(row("a", "x", speech_tokens=(1, 2, 3)), text="2 cats")
    pairs = [(row("p", "x", speech_tokens=(1, 2)), target)]
    score_sampling(components, pairs, SamplingConfig(temperature=0.0), with_prompt=True)
    # A mark ends what is to be said, and nothing is put behind the prompt.
    assert encoded == [read, "hi there"]


def test_tokens_of_another_tokenizer_are_refused(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(n, "x", speech_tokens=(1,), tokenizer="other") for n in ("a", "b")]
    write_manifest(tmp_path / "valid.jsonl", rows)
    arguments = ["--bundle", str(tiny_bundle), "--manifest", str(tmp_path / "valid.jsonl")]
    assert main(["sampling", *arguments]) == 2
    assert "holds tokens of ['other']" in capsys.readouterr().err


def test_a_bundle_without_recogniser_is_refused(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "deaf"
    shutil.copytree(tiny_bundle, bundle)
    lines = (bundle / "bundle.yaml").read_text().splitlines(keepends=True)
    told = "".join(line for line in lines if "token_recognizer" not in line)
    (bundle / "bundle.yaml").write_text(told)
    write_manifest(tmp_path / "valid.jsonl", [row("a", "x", speech_tokens=(1,))])
    arguments = ["--bundle", str(bundle), "--manifest", str(tmp_path / "valid.jsonl")]
    assert main(["sampling", *arguments]) == 2
    assert "no component 'token_recognizer', which reads speech tokens" in capsys.readouterr().err
    with pytest.raises(BundleError, match="The stage token_recognizer trains one"):
        Synthesizer.from_pretrained(bundle).transcribe(torch.zeros(24_000), sample_rate=24_000)


@pytest.fixture
def sounds(tmp_path: Path) -> list[Utterance]:
    torch.manual_seed(0)
    found = []
    for name in ("a", "b"):
        time = torch.arange(2 * 16_000) / 16_000
        sound = sum((0.1 * torch.sin(2 * torch.pi * 150 * k * time) for k in range(1, 6)), time * 0)
        save_audio(tmp_path / f"{name}.wav", sound + 0.01 * torch.randn(32_000), 16_000)
        found.append(
            Utterance(id=name, audio=tmp_path / f"{name}.wav", text="hi", speaker="x", duration=2.0)
        )
    return found


def test_recordings_are_their_own_best_and_silence_is_told_apart(
    tiny_bundle: Path, sounds: list[Utterance]
) -> None:
    synthesizer = Synthesizer.from_pretrained(str(tiny_bundle))
    renderer = Renderer(synthesizer, [(sounds[0], sounds[1])])
    recorded = renderer.score(None)
    assert recorded.similarity == pytest.approx(1.0, abs=1e-5)
    noise = renderer.score(lambda target, voice, number: 0.1 * torch.randn(48_000))
    assert noise.similarity < recorded.similarity
    assert noise.char_error_rate >= 0


def test_every_setting_is_tried(
    tiny_bundle: Path,
    tmp_path: Path,
    sounds: list[Utterance],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_manifest(tmp_path / "valid.jsonl", sounds)
    arguments = ["--bundle", str(tiny_bundle), "--manifest", str(tmp_path / "valid.jsonl")]
    arguments += ["--steps", "1", "2", "--guidance", "0", "1.5"]
    assert main(["rendering", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:22].strip() for line in lines[1:]] == [
        "recorded",
        "1 steps, guidance 0.0",
        "1 steps, guidance 1.5",
        "2 steps, guidance 0.0",
        "2 steps, guidance 1.5",
    ]
    write_manifest(tmp_path / "valid.jsonl", sounds[:1])
    assert main(["rendering", *arguments]) == 2
    assert "no speaker with two utterances" in capsys.readouterr().err


def test_quiet_by_hand() -> None:
    # Powers 1, 1e-3 (-30 dB), 1e-5 (-50 dB); the last sample belongs to no whole token.
    waveform = torch.cat([torch.full((4,), level) for level in (1.0, 10**-1.5, 10**-2.5)])
    assert quiet_tokens(torch.cat([waveform, torch.ones(1)]), 3).tolist() == [False, False, True]


def test_codes_must_nearly_always_be_quiet_and_not_be_rare() -> None:
    quiet, loud = torch.tensor([True]), torch.tensor([False])
    recordings = [([1], quiet)] * 10 + [([2], quiet)] * 8 + [([2], loud)] * 2
    recordings += [([3], quiet)] * 7 + [([3], loud)] * 3 + [([4], quiet)] * 9
    assert find_silent_tokens(recordings) == [1, 2]


def test_the_command_prints_what_a_bundle_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number in range(12):
        waveform = torch.zeros(16_000 // 25 * 4)
        waveform[: 640 * 2] = 0.3
        save_audio(tmp_path / f"{number}.wav", waveform, 16_000)
        rows.append(
            Utterance(
                id=str(number),
                audio=tmp_path / f"{number}.wav",
                text="x",
                speaker="s",
                duration=0.16,
                speech_tokens=(5, 6, 7, 7),
            )
        )
    write_manifest(tmp_path / "m.jsonl", rows)
    assert main(["silence", str(tmp_path / "m.jsonl")]) == 0
    generation = from_dict(GenerationConfig, yaml.safe_load(capsys.readouterr().out))
    assert generation.guards.silent_tokens == (7,)
    write_manifest(
        tmp_path / "n.jsonl",
        [Utterance(id="a", audio=tmp_path / "0.wav", text="x", speaker="s", duration=1.0)],
    )
    assert main(["silence", str(tmp_path / "n.jsonl")]) == 2
    told = capsys.readouterr().err
    assert "has no speech tokens" in told
    assert f"data precompute {tmp_path / 'n.jsonl'} OUTPUT --tokenizer FOLDER\n" in told
