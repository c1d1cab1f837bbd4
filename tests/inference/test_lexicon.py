"""The verb `lexicon check`, and verbs that take a lexicon."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from verb_runner import run_verb

from inference.commands.lexicon import check
from inference.commands.speech import clone, say
from inference.commands.voices import prepare_voice
from tokenlm.synthesis import Voice


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("GIF  /dʒɪf/\nso  s ow1\nNguyen  w ih1 n\n", encoding="utf-8")
    return path


def test_check_shows_what_changes(names: Path, phoneme_bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Is it a GIF? So zebra.", encoding="utf-8")
    result = run_verb(check, names, "--bundle", phoneme_bundle, "--text-file", text)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("gif     jh ih1 f  (instead of: ")
    assert lines[1] == "so      s ow1  (as without it)"
    assert lines[3] == "not in the text: nguyen"
    assert lines[4] == "in no lexicon, said by rule: a zebra"
    assert lines[5] == "3 words can be said by this bundle"


def test_check_reads_markup_as_speech_does(
    names: Path, phoneme_bundle: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        '<voice name="ann">So,</voice> [pause 1s] <sub alias="zebra">nguyen</sub> <!-- gif --> '
        '<b title="nguyen">it</b> <phoneme alphabet="x-cmu" ph="S OW1">quagga</phoneme>',
        encoding="utf-8",
    )
    words = (check, names, "--bundle", phoneme_bundle, "--text-file", text)
    result = run_verb(*words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[3] == "not in the text: gif nguyen"
    assert lines[4] == "in no lexicon, said by rule: zebra"
    result = run_verb(*words, "--no-markup")
    assert "not in the text:" not in result.stdout and "pause" in result.stdout
    for wrong, problem in (
        ("so <voice name='nobody'>it</voice>", "line 1, column 4: there is no voice 'nobody'"),
        ("so <break", "line 1, column 4: the tag <break is not finished"),
    ):
        text.write_text(wrong, encoding="utf-8")
        result = run_verb(*words)
        assert result.exit_code == 2 and problem in result.stderr, result.output


def test_check_names_lines_that_contradict_each_other(names: Path, phoneme_bundle: Path) -> None:
    names.write_text("so  s ow1\nit  ih1 t\nSO  z ow1\nit  ih1 t\nit(2)  d\n", encoding="utf-8")
    result = run_verb(check, names, "--bundle", phoneme_bundle)
    assert result.exit_code == 1
    assert "line 3: 'SO' is pronounced otherwise in line 1; leave one of the two" in result.stderr
    assert "line 4" not in result.stderr and "line 5" not in result.stderr


def test_check_names_every_line_that_is_wrong(
    names: Path, phoneme_bundle: Path, tiny_bundle: Path
) -> None:
    names.write_text("GIF  jif\nok  ow1 k\nbeige  b ey1 zh\nx\n", encoding="utf-8")
    result = run_verb(check, names, "--bundle", phoneme_bundle)
    assert result.exit_code == 1
    assert "line 1: 'jif' is no phone" in result.stderr
    assert "line 4: the word 'x' has no phones" in result.stderr
    assert "'beige': the text tokenizer of this bundle has no phone 'zh'" in result.stderr
    assert result.stdout.startswith("ok  ow1 k")
    names.write_text("ok  ow1 k\n", encoding="utf-8")
    result = run_verb(check, names, "--bundle", tiny_bundle)
    assert result.exit_code == 1 and "reads letters, not phones" in result.stderr


def test_speech_follows_a_lexicon(
    names: Path, phoneme_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    voice = tmp_path / "me.voice"
    result = run_verb(prepare_voice, recording, "-o", voice, "--lexicon", names,
                      "--bundle", phoneme_bundle)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "nguyen  w ih1 n" in Voice.load(voice).lexicon
    said = {}
    for name, words in {"with": ("--lexicon", names), "without": ()}.items():
        path = tmp_path / f"{name}.wav"
        result = run_verb(say, "A GIF", "-o", path, "--bundle", phoneme_bundle, *words)
        assert result.exit_code == 0, result.output
        assert ("in no lexicon, said by rule: a" in result.stderr) == bool(words)
        said[name] = soundfile.read(str(path))[0].tolist()
    assert said["with"] != said["without"]
    whole = tmp_path / "clone.wav"
    for path, output in ((names, whole), (tmp_path / "gone.txt", tmp_path / "none.wav")):
        result = run_verb(clone, "A GIF", "--prompt-audio", recording, "-o", output,
                          "--bundle", phoneme_bundle, "--lexicon", path)  # fmt: skip
        assert result.exit_code == (0 if path == names else 2), result.output
    assert "gone.txt cannot be read" in result.stderr and whole.is_file()
