"""Edits of recordings, with tiny models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from verb_runner import run_verb

from inference.commands.edit import edit
from tokenlm.audio.io import AudioError, load_audio
from tokenlm.audio.level import rms_dbfs
from tokenlm.audio.recording import Recording
from tokenlm.checkpoint.bundle import BundleError
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.editing import (
    Analysis,
    Cut,
    EditError,
    EditRequest,
    find_words,
    fit_background,
    fit_level,
    plan_cut,
)
from tokenlm.synthesis.words import TimedWord

TEXT = "The quick brown fox jumps over the lazy dog."
EDITS: dict[str, dict[str, Any]] = {
    "replace": {"replace": ("brown fox", "yes")},
    "after": {"insert": ("after", "fox", "is it")},
    "before": {"insert": ("before", "The quick", "one two")},
    "at": {"insert": ("at", 1.0, "so")},
    "delete": {"delete": "jumps"},
    "delete_last": {"delete": "lazy dog"},
    "span": {"span": (0.7, 1.1)},
    "continue": {"continue_with": "is it so?"},
}
FORMATS = [
    ("wav", "PCM_16", 24_000, 1),
    ("wav", "PCM_24", 44_100, 2),
    ("flac", "PCM_16", 16_000, 2),
]
FORMATS += [("wav", "FLOAT", 48_000, 1)]


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.fixture(scope="module")
def hum(recording: Path) -> torch.Tensor:
    """Two seconds (S,) at 24 kHz."""
    return load_audio(recording, 24_000)


@pytest.fixture(scope="module")
def sound(recording: Path) -> Callable[[int, int], np.ndarray]:
    def make(rate: int, channels: int) -> np.ndarray:
        quiet = torch.zeros(rate // 2)
        wave = torch.cat([quiet, load_audio(recording, rate), quiet]).numpy()
        wave += np.random.default_rng(0).normal(0, 1e-3, len(wave))
        return np.stack([wave, 0.5 * wave][:channels], axis=1)

    return make


def samples_of(path: Path) -> np.ndarray:
    return Recording.load(path).samples


@pytest.mark.parametrize(
    ("kind", "form"),
    [(kind, FORMATS[n % len(FORMATS)]) for n, kind in enumerate(EDITS)],
    ids=list(EDITS),
)
def test_the_rest_stays_as_it_was_recorded(
    synthesizer: Synthesizer,
    sound: Callable[[int, int], np.ndarray],
    tmp_path: Path,
    kind: str,
    form: tuple[str, str, int, int],
) -> None:
    suffix, encoding, rate, channels = form
    path, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    soundfile.write(str(path), sound(rate, channels), rate, encoding)
    edited = synthesizer.edit(path, text=TEXT, **EDITS[kind])
    edited.save(out)
    was, now = soundfile.info(str(path)), soundfile.info(str(out))
    assert (now.samplerate, now.channels, now.format, now.subtype) == (
        was.samplerate, was.channels, was.format, was.subtype,
    )  # fmt: skip
    before, after = samples_of(path), samples_of(out)
    start, end = edited.start_seconds, edited.end_seconds
    assert 0 <= edited.replaced[0] <= edited.replaced[1] <= len(before) / rate
    assert start == edited.replaced[0]
    grown = round((end - start - edited.replaced[1] + edited.replaced[0]) * rate)
    assert abs(len(after) - len(before) - grown) <= 1
    left = int((start - 0.05) * rate)
    right = len(after) - int((end + 0.05) * rate)
    assert left > 0 and right > 0
    assert np.array_equal(after[:left], before[:left])
    assert np.array_equal(after[-right:], before[-right:])
    inner = after[int(start * rate) : int(end * rate)]
    assert inner.any() and len({*inner[:, 0].tolist()}) > 20
    if channels == 2:  # the second is half as loud, in the span as elsewhere
        unclipped = inner[np.abs(inner[:, 0] / 2.0**31) < 0.99] / 2.0**31
        np.testing.assert_allclose(unclipped[:, 1], 0.5 * unclipped[:, 0], atol=2e-4)
    with soundfile.SoundFile(str(out)) as file:
        assert "synthesised speech" in file.comment
    new = EDITS[kind].get("replace") or EDITS[kind].get("insert") or ()
    assert not new or new[-1] in edited.text


def test_the_seed_decides(
    synthesizer: Synthesizer, sound: Callable[[int, int], np.ndarray]
) -> None:
    recording = Recording.of(torch.from_numpy(sound(24_000, 1)).T, 24_000)
    results = [
        synthesizer.edit(recording, text=TEXT, seed=seed, replace=("brown", "so")).waveform
        for seed in (1, 1, 2)
    ]
    assert torch.equal(results[0], results[1])
    assert results[0].shape != results[2].shape or not torch.equal(results[0], results[2])


def test_the_text_may_be_left_out(
    synthesizer: Synthesizer, sound: Callable[[int, int], np.ndarray]
) -> None:
    recording = Recording.of(torch.from_numpy(sound(24_000, 1)).T, 24_000)
    read = synthesizer.transcribe(recording.waveform[0], sample_rate=24_000)
    assert any(letter.isalpha() for letter in read)
    edited = synthesizer.edit(recording, continue_with="is it so?")
    assert edited.text.endswith(" is it so?") and len(edited.text) > len(" is it so?")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one edit is made at a time"),
        ({"delete": "fox", "span": (0.5, 1.0)}, "are delete and span"),
        ({"delete": "cat"}, "does not say 'cat'; it says: The quick"),
        ({"delete": "the"}, "2 times; give the occurrence. 1: at .* s, in 'The quick brown'; 2"),
        ({"delete": "the", "occurrence": 3}, "there is no occurrence 3"),
        ({"span": (0.5, 1.0), "occurrence": 1}, "for edits that name words"),
        ({"delete": TEXT}, "nothing would be left"),
        ({"delete": "…"}, "names no words"),
        ({"replace": ("fox", "--")}, "hold nothing that can be said"),
        ({"replace": ("fox", "so " * 100)}, "at most 160 are said in one edit"),
        ({"span": (1.0, 0.5)}, "two rising seconds"),
        ({"span": (7.0, 8.0)}, "outside of the speech"),
        ({"span": (1.0, 1.01)}, "at least 0.03 s"),
        ({"insert": ("beside", "fox", "so")}, "before, after or at"),
        ({"insert": ("at", "fox", "so")}, "a number of seconds, not 'fox'"),
        ({"insert": ("at", -1.0, "so")}, "a number of seconds from 0"),
        ({"replace": "fox"}, "replace has 2 parts, and not 'fox'"),
        ({"replace": ("fox", 3)}, "replace cannot hold 3"),
        ({"span": ("1", "2")}, "span cannot hold '1'"),
        ({"delete": 3}, "delete is words, not 3"),
    ],
)
def test_edits_that_cannot_be_made(
    synthesizer: Synthesizer,
    sound: Callable[[int, int], np.ndarray],
    options: dict[str, Any],
    message: str,
) -> None:
    recording = Recording.of(torch.from_numpy(sound(16_000, 1)).T, 16_000)
    with pytest.raises(EditError, match=message):
        synthesizer.edit(recording, text=TEXT, **options)


@pytest.mark.parametrize(
    ("sounding", "quiet", "rate", "message"),
    [
        (0, 24_000, 24_000, "is silent"),
        (7200, 0, 24_000, "lasts 0.30 s; at least 0.4 s"),
        (2400, 20_000, 24_000, "only 0.[23]. s of sound"),
        (24_000, 300_000, 1000, "at most 300 s"),
    ],
)
def test_recordings_that_cannot_be_edited(
    synthesizer: Synthesizer,
    hum: torch.Tensor,
    sounding: int,
    quiet: int,
    rate: int,
    message: str,
) -> None:
    waveform = torch.cat([torch.zeros(quiet), hum[:sounding]])
    with pytest.raises(EditError, match=message):
        synthesizer.edit(waveform, sample_rate=rate, text=TEXT, delete="fox")


def test_the_verb(
    tiny_bundle: Path, sound: Callable[[int, int], np.ndarray], tmp_path: Path
) -> None:
    path, out = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(str(path), sound(24_000, 1), 24_000)
    known = ("--text", TEXT, "--bundle", tiny_bundle, "-o", out)
    out.write_bytes(b"as it was")
    for options, message in (
        (("--replace", "cat", "dog"), "does not say 'cat'"),
        (("--delete", "fox", "--span", "1-2"), "one edit is made at a time"),
        (("--span", "soon"), "a span is seconds from and to"),
        (("--insert", "so"), "insert takes one of before"),
        (("--after", "fox"), "say where to insert words"),
        (("--delete", "the"), "2 times"),
    ):
        result = run_verb(edit, path, *known, *options)
        assert result.exit_code == 2 and message in result.stderr, result.output
        assert out.read_bytes() == b"as it was"
    result = run_verb(edit, path, "--delete", "fox", "-o", path, "--bundle", tiny_bundle)
    assert "is the recording itself" in result.stderr
    result = run_verb(edit, path, "--delete", "fox", "-o", tmp_path / "out.mp3")
    assert "keeps it" in result.stderr
    result = run_verb(edit, path, *known, "--replace", "brown", "so")
    assert result.exit_code == 0, result.output
    assert "s are new, in place of" in result.stdout
    assert "it says: The quick so fox jumps over the lazy dog." in result.stdout
    assert soundfile.info(str(out)).subtype == "PCM_16"
    ogg = tmp_path / "in.ogg"
    soundfile.write(str(ogg), sound(24_000, 1), 24_000)
    result = run_verb(edit, ogg, "--delete", "fox")
    assert result.exit_code == 2 and "Convert it first" in result.stderr


# -- what is cut


def timed(text: str) -> list[TimedWord]:
    """Each word lasts 0.3 s, and 0.1 s of quiet follow it."""
    words, place = [], 0
    for number, word in enumerate(text.split()):
        place = text.index(word, place)
        words.append(
            TimedWord(
                text=word,
                spoken={"5": "five"}.get(word, word),
                start_seconds=0.4 * number + 0.2,
                end_seconds=0.4 * number + 0.5,
                text_start=place,
                text_end=place + len(word),
            )
        )
        place += len(word)
    return words


def plan(text: str, **options: Any) -> Cut:
    analysis = Analysis(
        waveform=torch.zeros(1, 1),
        gains=torch.ones(1),
        decibels=0.0,
        first_seconds=0.2,
        tokens=[0] * 100,
        mel=torch.zeros(200, 80),
        token_rate=25,
    )
    return plan_cut(EditRequest(**options), timed(text), text, analysis)


@pytest.mark.parametrize(
    ("options", "text", "new", "seconds"),
    [
        ({"replace": ("tuesday", "Friday")}, "We met Friday, at 5 there.", "Friday,", (1.0, 1.3)),
        ({"replace": ("there", "here")}, "We met Tuesday, at 5 here.", "here.", (2.2, 2.5)),
        ({"replace": ("five", "six")}, "We met Tuesday, at six there.", "six", (1.8, 2.1)),
        ({"delete": "at 5"}, "We met Tuesday, there.", None, (1.4, 2.2)),
        ({"delete": "there"}, "We met Tuesday, at 5.", None, (2.1, 2.5)),
        ({"delete": "we"}, "met Tuesday, at 5 there.", None, (0.2, 0.6)),
        (
            {"insert": ("after", "there", "again")},
            "We met Tuesday, at 5 there again.", "again.", (2.5, 2.5),
        ),
        (
            {"insert": ("after", "Tuesday", "sharp")},
            "We met Tuesday, sharp at 5 there.", "sharp", (1.3, 1.3),
        ),
        (
            {"insert": ("before", "we", "Now")},
            "Now We met Tuesday, at 5 there.", "Now", (0.2, 0.2),
        ),
        (
            {"insert": ("at", 0.95, "on")},
            "We met on Tuesday, at 5 there.", "on", (0.95, 0.95),
        ),
        (
            {"insert": ("at", 99.0, "again")},
            "We met Tuesday, at 5 there again.", "again.", (2.5, 2.5),
        ),
        (
            {"continue_with": "It was fun."},
            "We met Tuesday, at 5 there. It was fun.", "It was fun.", (2.5, 2.5),
        ),
        ({"span": (0.9, 1.15)}, "We met Tuesday, at 5 there.", "Tuesday,", (0.9, 1.3)),
        ({"span": (0.51, 0.6)}, "We met Tuesday, at 5 there.", None, (0.51, 0.6)),
    ],
)  # fmt: skip
def test_what_is_cut(
    options: dict[str, Any], text: str, new: str | None, seconds: tuple[float, float]
) -> None:
    cut = plan("We met Tuesday, at 5 there.", **options)
    assert cut.text == text
    assert (None if cut.new is None else text[slice(*cut.new)]) == new
    assert (cut.start / 25 + 0.2, cut.end / 25 + 0.2) == pytest.approx(seconds)
    assert cut.growth == len(text) - len("We met Tuesday, at 5 there.")
    assert cut.is_silent == (options == {"span": (0.51, 0.6)})


def test_occurrences_are_counted() -> None:
    words = timed("One two one, two one")
    assert find_words(words, "one", 2) == (2, 2)
    assert find_words(words, "ONE two", 2) == (2, 3)
    with pytest.raises(EditError, match="says 'two one' 2 times"):
        find_words(words, "two one")
    with pytest.raises(EditError, match="says 'one' 3 times, there is no occurrence 4"):
        find_words(words, "one", 4)


def test_a_bundle_without_recogniser_says_so(tiny_bundle: Path, hum: torch.Tensor) -> None:
    other = Synthesizer.from_pretrained(tiny_bundle)
    manifest = other.components.manifest
    kept = {n: folder for n, folder in manifest.components.items() if n != "token_recognizer"}
    other.components.manifest = replace(manifest, components=kept)
    with pytest.raises(BundleError, match="token_recognizer"):
        other.edit(hum, sample_rate=24_000, text=TEXT, delete="fox")


def test_samples_need_their_rate(synthesizer: Synthesizer, hum: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        synthesizer.edit(hum, text=TEXT, delete="fox")
    with pytest.raises(AudioError, match="no such"):
        synthesizer.edit("nowhere.wav", text=TEXT, delete="fox")


def test_a_span_is_brought_to_the_level_of_the_recording() -> None:
    mel = torch.randn(200, 80, generator=torch.Generator().manual_seed(0)) - 5
    for step, left in ((0.0, 0.0), (0.3, 0.3), (2.0, 0.35), (-3.0, -0.35)):
        fitted = fit_level(mel[None] + step, mel)
        torch.testing.assert_close(fitted[0], mel + left, atol=1e-4, rtol=0)
    # Noise that is always there is there in the span, too.
    assert bool((fit_background(mel[None] - 20, mel) > -9).all())
    torch.testing.assert_close(fit_background(mel[None] + 20, mel)[0], mel + 20)


@pytest.mark.slow
def test_the_embedded_bundle_says_the_new_words(tmp_path: Path) -> None:
    """By its own recogniser; and beyond the seams nothing differs."""
    synthesizer = Synthesizer.from_pretrained("mini-en")
    folder = synthesizer.components.folder
    source = folder / "demo_prompt.wav"
    text = (folder / "demo_prompt.txt").read_text(encoding="utf-8").strip()
    edited = synthesizer.edit(source, text=text, replace=("English", "music"))
    edited.save(tmp_path / "out.wav")
    before, after = samples_of(source), samples_of(tmp_path / "out.wav")
    rate = edited.sample_rate
    left = int((edited.start_seconds - 0.05) * rate)
    right = len(after) - int((edited.end_seconds + 0.05) * rate) - 1
    assert np.array_equal(after[:left], before[:left])
    assert np.array_equal(after[-right:], before[-right:])
    assert 0.2 < edited.end_seconds - edited.start_seconds < 1.0
    words = synthesizer.transcribe(tmp_path / "out.wav")
    assert "music" in words and "english" not in words and "cooking" in words
    # As loud as what is around it, to some decibels.
    inner = edited.waveform[0, int(edited.start_seconds * rate) : int(edited.end_seconds * rate)]
    outer = torch.cat([edited.waveform[0, rate // 2 : left], edited.waveform[0, -right:]])
    assert abs(rms_dbfs(inner) - rms_dbfs(outer)) < 5.0
