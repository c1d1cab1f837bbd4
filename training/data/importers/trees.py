"""LibriTTS and LibriSpeech: trees of speaker/chapter folders.

LibriTTS (Zen et al., 2019) has `SPEAKER_CHAPTER_….wav` with `….normalized.txt` beside it;
LibriSpeech (Panayotov et al., 2015) has `SPEAKER-CHAPTER-NUMBER.flac` and one
`SPEAKER-CHAPTER.trans.txt` per chapter with a line `ID WORDS` for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokenlm.audio.io import READABLE_SUFFIXES
from training.data.importers.row import SourceRow


def existing_folder(source: str, split: str = "") -> Path:
    """Return `source`, or the folder of a split in it.

    Raises:
        ValueError: If there is none.
    """
    folder = Path(source) / split
    if split and not folder.is_dir():
        raise ValueError(f"there is no split {split!r} in {source}.")
    if not folder.is_dir():
        raise ValueError(f"{source} is no folder.")
    return folder


def read_libritts(source: str, *, split: str = "") -> Iterator[SourceRow]:
    """Yield a row for every sound file of a LibriTTS tree.

    Args:
        source: The tree, or one of its splits (`train-clean-100`).
        split: Folder under it; empty takes all.

    Raises:
        ValueError: If there is no such folder.
    """
    for audio in _sounds(existing_folder(source, split)):
        texts = [audio.with_suffix(f".{kind}.txt") for kind in ("normalized", "original")]
        found = next((path for path in texts if path.is_file()), None)
        text, problem = "", ""
        if found is None:
            problem = f"there is no {texts[0].name} beside it."
        else:
            text, problem = _read(found)
        yield SourceRow(
            file=str(audio),
            line=None,
            id=audio.stem,
            text=text,
            speaker=audio.stem.split("_")[0],
            audio=audio,
            problem=problem,
        )


def read_librispeech(source: str, *, split: str = "") -> Iterator[SourceRow]:
    """Yield a row for every line of the transcripts of a LibriSpeech tree.

    The text is in capitals without punctuation, as published; it is lowered here, which is what
    the text front end expects of words.

    Args:
        source: The tree, or one of its splits.
        split: Folder under it; empty takes all.

    Raises:
        ValueError: If there is no such folder.
    """
    for transcript in sorted((existing_folder(source, split)).rglob("*.trans.txt")):
        text, problem = _read(transcript)
        if problem:
            yield SourceRow(file=str(transcript), line=None, problem=problem)
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            name, _, words = line.partition(" ")
            candidates = [transcript.with_name(f"{name}{suffix}") for suffix in READABLE_SUFFIXES]
            audio = next((path for path in candidates if path.is_file()), candidates[1])
            yield SourceRow(
                file=str(transcript),
                line=number,
                id=name,
                text=words.lower(),
                speaker=name.split("-")[0],
                audio=audio,
            )


def _sounds(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in READABLE_SUFFIXES)


def _read(path: Path) -> tuple[str, str]:
    try:
        return path.read_text(encoding="utf-8"), ""
    except (OSError, UnicodeDecodeError) as error:
        return "", f"{path.name} cannot be read: {error}."
