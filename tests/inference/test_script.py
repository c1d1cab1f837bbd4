"""The verb `read`: scripts and books to files, with marks of chapters."""

from __future__ import annotations

import signal
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from verb_runner import run_verb

from inference.commands.script import read
from inference.commands.speech import say
from inference.sinks import ChapterSink
from tokenlm.audio.io import load_audio
from tokenlm.synthesis import Synthesizer, script
from tokenlm.synthesis.script import speak_script
from tokenlm.text.script import read_dialogue

BOOK = "# Book\n\nIt is one.\n\n## Two\n\nIs it so?\n"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.md"
    path.write_text(BOOK, encoding="utf-8")
    return path


def test_a_dialogue(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "play.txt", tmp_path / "play.wav"
    source.write_text("Anna: Is it so?\nBob: Yes, it is.\n", encoding="utf-8")
    options = ("-o", output, "--bundle", tiny_bundle, "--speaker", "Anna=ann")
    wrong = run_verb(read, source, *options[:-2])
    assert wrong.exit_code == 2 and "line 1 ('Is it so?'): " in wrong.stderr
    assert "'Anna'" in wrong.stderr and not output.exists()
    result = run_verb(read, source, *options, "--speaker", "Bob=bob")
    assert result.exit_code == 0, result.output
    assert f"2 of 2 lines made; all are kept in {output}.lines" in result.stdout
    lines = read_dialogue(source.read_text(encoding="utf-8"), {"Anna": "ann", "Bob": "bob"})
    expected = torch.cat(
        [part.waveform for part in speak_script(Synthesizer.from_pretrained(tiny_bundle), lines)]
    )
    found = torch.from_numpy(soundfile.read(str(output), dtype="float32")[0])
    torch.testing.assert_close(found, expected, atol=1.1 / 32768, rtol=0)
    again = run_verb(read, source, *options, "--speaker", "Bob=bob", "--reseed", "2=7")
    assert "1 of 2 lines made" in again.stdout
    changed = soundfile.read(str(output), dtype="float32")[0]
    size = load_audio(next(Path(f"{output}.lines").iterdir()), 24_000).shape[0]
    assert size > 0 and np.array_equal(changed[:4800], found[:4800].numpy())
    assert "0 of 2 lines made" in run_verb(read, source, *options, "--speaker", "Bob=bob").stdout
    for option in ("3=1", "x=1", "1", "\u00b2=7", "2=\u00b2", "2=-1", "\u0662=7"):
        wrong = run_verb(read, source, *options, "--reseed", option)
        assert wrong.exit_code == 2 and "--reseed takes" in wrong.stderr
    wrong = run_verb(read, source, *options, "--chapter", "1")
    assert wrong.exit_code == 2 and "the script has no chapters" in wrong.stderr
    wrong = run_verb(read, source, *options, "--speaker", "Bbo=bob")
    assert wrong.exit_code == 2
    assert (
        "no line is spoken by 'Bbo'; the speakers of the script are 'Anna', 'Bob'" in wrong.stderr
    )


def test_a_book_has_chapters(book: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "book.m4b"
    result = run_verb(read, book, "-o", output, "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    wave = tmp_path / "book.wav"
    lines = ("--lines", f"{output}.lines")
    result = run_verb(read, book, "-o", wave, "--bundle", tiny_bundle, *lines)
    assert "0 of 4 lines made" in result.stdout
    samples, rate = soundfile.read(str(wave), dtype="float32")
    points = cue_points(wave.read_bytes())
    assert [label for label, _ in points] == ["Book", "Two"] and points[0][1] == 0
    # The chapter begins with the first sample behind the pause that ends the one before.
    start = points[1][1]
    assert not samples[start - round(1.5 * rate) : start].any() and samples[start:].any()
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "Book"
        assert "Synthesised speech, not a recording" in container.metadata["comment"]
        chapters = container.chapters()
        assert [chapter["metadata"]["title"] for chapter in chapters] == ["Book", "Two"]
        begin = float(chapters[1]["start"] * chapters[1]["time_base"])
        assert begin == pytest.approx(start / rate, abs=0.002)
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    decoded = np.concatenate(frames)
    assert abs(decoded.shape[0] - samples.shape[0]) <= 2048
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "book.m4b", "book.m4b.lines", "book.md", "book.wav"
    ]  # fmt: skip


def cue_points(data: bytes) -> list[tuple[str, int]]:
    """Label and sample of each cue point of a wav file."""
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    place, samples, labels = 12, {}, {}
    while place < len(data):
        name, size = struct.unpack("<4sI", data[place : place + 8])
        content = data[place + 8 : place + 8 + size]
        if name == b"cue ":
            for n in range(struct.unpack("<I", content[:4])[0]):
                number, _, _, _, _, sample = struct.unpack("<II4sIII", content[4 + 24 * n :][:24])
                samples[number] = sample
        elif name == b"LIST" and content[:4] == b"adtl":
            inner = 4
            while inner < len(content):
                _, length, number = struct.unpack("<4sII", content[inner : inner + 12])
                labels[number] = content[inner + 12 : inner + 8 + length].rstrip(b"\0").decode()
                inner += 8 + length + length % 2
        place += 8 + size + size % 2
    return [(labels[number], samples[number]) for number in sorted(samples)]


def test_chapters_are_listed_and_chosen(book: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    result = run_verb(read, book, "--list")
    assert result.stdout.splitlines() == [
        "chapter 1: Book",
        "    1 -: Book",
        "    2 -: It is one.",
        "chapter 2: Two",
        "    3 -: Two",
        "    4 -: Is it so?",
    ]
    assert len(run_verb(read, book, "--list", "--chapter", "2").stdout.splitlines()) == 3
    for wrong, message in (
        ("3", "from 1 to 2"),
        ("x", "--chapter takes"),
        ("1-", "--chapter takes"),
        ("\u00b2", "--chapter takes"),
        ("1-2-2", "--chapter takes"),
    ):
        result = run_verb(read, book, "--list", "--chapter", wrong)
        assert result.exit_code == 2 and message in result.stderr
    result = run_verb(read, book, "-o", tmp_path / "a.pdf", "--bundle", tiny_bundle)
    assert result.exit_code == 2 and ".m4b" in result.stderr
    for folder in (book, book / "lines"):
        result = run_verb(read, book, "--bundle", tiny_bundle, "--lines", folder)
        assert result.exit_code == 2 and f"{book} is no folder" in result.stderr
    result = run_verb(read, book, "--list", "--speaker", "Anna=ann")
    assert result.exit_code == 2 and "are none: its lines name nobody" in result.stderr
    result = run_verb(read, tmp_path / "gone.md")
    assert result.exit_code == 2 and "gone.md" in result.stderr


def test_ctrl_c_says_what_is_finished(
    book: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "book.wav"
    words = (read, book, "-o", output, "--bundle", tiny_bundle)
    num_calls = 0

    def interrupt(*args: Any) -> torch.Tensor:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 3:
            signal.raise_signal(signal.SIGINT)
        return speak_line(*args)

    speak_line = script._speak_line
    monkeypatch.setattr(script, "_speak_line", interrupt)
    # In the background of a shell the signal is ignored, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = run_verb(*words, "--seed", "random")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130 and not output.exists()
    assert "interrupted: 2 of 4 lines are finished; what is finished is kept in" in result.stderr
    assert f"{output}.lines, and the same command with --seed " in result.stderr
    seed = result.stderr.partition("--seed ")[2].split()[0]
    result = run_verb(*words, "--seed", seed)
    assert result.exit_code == 0 and "2 of 4 lines made" in result.stdout, result.output

    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference.commands.script.load_synthesizer", stop)
    result = run_verb(*words)
    assert result.exit_code == 130 and "interrupted: no line is finished; what" in result.stderr


def test_an_interrupted_book_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.m4b"
    with pytest.raises(RuntimeError), ChapterSink(path, 24_000, "c") as sink:
        sink.write(torch.zeros(4800))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_say_takes_markup(tiny_bundle: Path, tmp_path: Path) -> None:
    lengths = []
    for number, text in enumerate(("[pause 1s]Is it so?", "[pause 2s]Is it so?")):
        path = tmp_path / f"{number}.wav"
        result = run_verb(say, text, "-o", path, "--bundle", tiny_bundle)
        assert result.exit_code == 0, result.output
        lengths.append(soundfile.info(str(path)).frames)
    assert lengths[1] - lengths[0] == 24_000
    result = run_verb(say, "Is <foo> it?", "-o", tmp_path / "a.wav", "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "line 1, column 4: the element <foo>" in result.stderr
    result = run_verb(say, "Is <foo> it?", "-o", tmp_path / "a.wav", "--bundle", tiny_bundle,
                      "--no-markup", "--sentence-gap", "1")  # fmt: skip
    assert result.exit_code == 0, result.output
