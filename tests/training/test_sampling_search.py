from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tokenlm.checkpoint import BundleError
from tokenlm.models.lm import SamplingConfig
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.components import Components
from training import sampling_search
from training.data.manifest import Utterance, write_manifest
from training.sampling_search import pick_pairs, score


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
    found = score(components, pairs, None)
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
        found = score(components, pairs, sampling, with_prompt=with_prompt)
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
    score(components, pairs, SamplingConfig(temperature=0.0), with_prompt=True)
    # A mark ends what is to be said, and nothing is put behind the prompt.
    assert encoded == [read, "hi there"]


def test_tokens_of_another_tokenizer_are_refused(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(n, "x", speech_tokens=(1,), tokenizer="other") for n in ("a", "b")]
    write_manifest(tmp_path / "valid.jsonl", rows)
    arguments = ["--bundle", str(tiny_bundle), "--manifest", str(tmp_path / "valid.jsonl")]
    assert sampling_search.main(arguments) == 1
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
    assert sampling_search.main(arguments) == 1
    assert "no component 'token_recognizer', which reads speech tokens" in capsys.readouterr().err
    with pytest.raises(BundleError, match="The stage token_recognizer trains one"):
        Synthesizer.from_pretrained(bundle).transcribe(torch.zeros(24_000), sample_rate=24_000)
