"""Corpora whose transcripts are one table: LJSpeech and the lists of GPT-SoVITS.

LJSpeech (Ito and Johnson, 2017): `metadata.csv` with `ID|text|normalised text`, sound in `wavs/`.
GPT-SoVITS: a `.list` file with `path|speaker|language|text`, paths relative to the list or to the
folder it is read from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.data.importers.row import SourceRow
from training.data.importers.trees import existing_folder


def read_ljspeech(source: str, *, split: str = "") -> Iterator[SourceRow]:
    """Yield the rows of an LJSpeech folder; the normalised text is taken where there is one.

    Args:
        source: Folder of `metadata.csv` and `wavs/`.
        split: Not used: the corpus has none.

    Raises:
        ValueError: If there is no such folder or table.
    """
    folder = existing_folder(source)
    table = folder / "metadata.csv"
    for number, line in _lines(table):
        parts = line.split("|")
        if len(parts) not in (2, 3):
            problem = f"expected id|text|normalised text, found {len(parts)} fields."
            yield SourceRow(file=str(table), line=number, problem=problem)
            continue
        yield SourceRow(
            file=str(table),
            line=number,
            id=parts[0],
            text=parts[-1] or parts[1],
            speaker="lj",
            audio=folder / "wavs" / f"{parts[0]}.wav",
        )


def read_gpt_sovits(source: str, *, split: str = "") -> Iterator[SourceRow]:
    """Yield the rows of a `.list` file.

    Args:
        source: The file.
        split: Not used.

    Raises:
        ValueError: If there is no such file.
    """
    table = Path(source)
    for number, line in _lines(table):
        parts = line.split("|", 3)
        if len(parts) != 4:
            problem = f"expected path|speaker|language|text, found {len(parts)} fields."
            yield SourceRow(file=source, line=number, problem=problem)
            continue
        path, speaker, language, text = (part.strip() for part in parts)
        # Lists made on Windows have backslashes; on its own system a path never needs them.
        audio = Path(path.replace("\\", "/"))
        beside = table.parent / audio
        audio = beside if not audio.is_absolute() and beside.is_file() else audio
        # Names alone repeat between the folders of several speakers.
        name = f"{speaker}/{audio.stem}"
        yield SourceRow(
            file=source,
            line=number,
            id=name,
            text=text,
            speaker=speaker,
            audio=audio,
            extra={"language": language.lower()} if language else {},
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    # Only newlines part rows: a text may hold any other separator that str.splitlines knows.
    for number, line in enumerate(text.split(b"\n"), start=1):
        # A byte that is no UTF-8 spoils its own row and no other: `checked` finds the mark.
        decoded = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r")
        if decoded.strip():
            yield number, decoded
