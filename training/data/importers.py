"""From the layouts in which corpora are published to a manifest.

An importer is a function that yields the rows of a corpus as `SourceRow`s, in an order that is the
same every time; `import_rows` does the rest. To add a layout, write one and name it in `IMPORTERS`.

- `libritts` (Zen et al., 2019): a tree with `SPEAKER_CHAPTER_….wav` and `….normalized.txt` beside.
- `librispeech` (Panayotov et al., 2015): a tree with `SPEAKER-CHAPTER-NUMBER.flac` and one
  `SPEAKER-CHAPTER.trans.txt` per chapter with a line `ID WORDS` for each.
- `ljspeech` (Ito and Johnson, 2017): `metadata.csv` with `ID|text|normalised text`, and `wavs/`.
- `gpt-sovits`: a `.list` file with `path|speaker|language|text`, paths relative to it or to the
  folder it is read from; `write_gpt_sovits` writes one.
- `hf-dataset`: rows of the `datasets` library with the column `audio`.
- `webdataset`: tar files in which the files of one key are a sound, and `.json` or `.txt`, as of
  Emilia (He et al., 2024); on a disk or any address that `fsspec` knows.

In the last two the text is one of `TEXT_KEYS`, the speaker one of `SPEAKER_KEYS`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import TarError
from typing import Any

from tokenlm.atomic import atomic_path, write_text
from tokenlm.audio.io import READABLE_SUFFIXES, read_recording, recording_seconds
from training.data.manifest import DURATION_TOLERANCE, Utterance
from training.data.rejects import Reject, Rejects

TEXT_KEYS = (
    "text_normalized",
    "normalized_text",
    "text",
    "sentence",
    "transcription",
    "transcript",
)
SPEAKER_KEYS = ("speaker_id", "speaker", "client_id")
ID_KEYS = ("id", "_id", "utterance_id")
_EXTRA_KEYS = ("language", "dnsmos", "gender", "phone_count")
_SUFFIXES = {
    b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\x1aE\xdf\xa3": ".mka",
    b"FORM": ".aiff", b".snd": ".au",
}  # fmt: skip
"""Of sound files, by their first bytes."""


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """A row of a corpus, not yet checked."""

    file: str
    """File that the row stands in, for messages."""
    line: int | None
    """Line in it from 1; None where a file is a row."""
    id: str = ""
    text: str = ""
    speaker: str = ""
    audio: Path | None = None
    """Sound file that lies on the disk."""
    sound: bytes | None = None
    """An encoded sound file out of a container, to be written beside the manifest."""
    seconds: float | None = None
    """Length that the corpus gives for it; the sound must have it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further keys of the manifest, such as a language."""
    problem: str = ""
    """Why the row cannot be used, where the importer has seen it itself."""


def read_libritts(source: str, split: str) -> Iterator[SourceRow]:
    """Yield a row for every sound file of a tree; its normalised text, or else the original one."""
    folder = _folder(source, split)
    for audio in sorted(p for p in folder.rglob("*") if p.suffix.lower() in READABLE_SUFFIXES):
        texts = [audio.with_suffix(f".{kind}.txt") for kind in ("normalized", "original")]
        beside = next((path for path in texts if path.is_file()), None)
        text, problem = "", f"there is no {texts[0].name} beside it."
        if beside is not None:
            text, problem = _read(beside)
        yield SourceRow(
            file=str(audio),
            line=None,
            id=audio.stem,
            text=text,
            speaker=audio.stem.split("_")[0],
            audio=audio,
            problem=problem,
        )


def read_librispeech(source: str, split: str) -> Iterator[SourceRow]:
    """Yield a row for every line of the transcripts of a tree.

    The text is in capitals without punctuation, as published; it is lowered here, which is what
    the text front end expects of words.
    """
    for transcript in sorted(_folder(source, split).rglob("*.trans.txt")):
        text, problem = _read(transcript)
        if problem:
            yield SourceRow(file=str(transcript), line=None, problem=problem)
        for number, line in enumerate(text.split("\n"), start=1):
            name, _, words = line.partition(" ")
            candidates = [transcript.with_name(f"{name}{suffix}") for suffix in READABLE_SUFFIXES]
            if line.strip():
                yield SourceRow(
                    file=str(transcript),
                    line=number,
                    id=name,
                    text=words.lower(),
                    speaker=name.split("-")[0],
                    audio=next((path for path in candidates if path.is_file()), candidates[1]),
                )


def read_ljspeech(source: str, split: str) -> Iterator[SourceRow]:
    """Yield the rows of a folder; the normalised text is taken where there is one."""
    folder = _folder(source)
    for row, parts in _table(folder / "metadata.csv", "id|text|normalised text", (2, 3)):
        yield (
            row
            if row.problem
            else SourceRow(
                file=row.file,
                line=row.line,
                id=parts[0],
                text=parts[-1] or parts[1],
                speaker="lj",
                audio=folder / "wavs" / f"{parts[0]}.wav",
            )
        )


def read_gpt_sovits(source: str, split: str) -> Iterator[SourceRow]:
    """Yield the rows of a `.list` file."""
    for row, parts in _table(Path(source), "path|speaker|language|text", (4,), 3):
        if row.problem:
            yield row
            continue
        path, speaker, language, text = (part.strip() for part in parts)
        # Lists made on Windows have backslashes; on its own system a path never needs them.
        audio = Path(path.replace("\\", "/"))
        beside = Path(source).parent / audio
        yield SourceRow(
            file=row.file,
            line=row.line,
            id=f"{speaker}/{audio.stem}",  # names repeat between the folders of several speakers
            text=text,
            speaker=speaker,
            audio=beside if beside.is_file() else audio,
            extra={"language": language.lower()} if language else {},
        )


def write_gpt_sovits(path: Path, rows: Iterable[Utterance], language: str) -> None:
    """Write a `.list` file, whole or not at all; `read_gpt_sovits` reads it.

    Args:
        path: The file; sounds are named relative to its folder, as are those of a manifest.
        rows: What it lists.
        language: Of rows that name none.

    Raises:
        ValueError: A text, name or path holds a `|` or a line break, which ends a field.
    """
    lines = []
    for row in rows:
        audio = Path(os.path.relpath(row.audio.absolute(), path.absolute().parent)).as_posix()
        own = str(row.extra.get("language") or language).upper()
        fields = (audio, row.speaker, own, row.text)
        for value in fields:
            if "|" in value or len(value.splitlines()) > 1:
                raise ValueError(f"{row.id}: {value!r} cannot stand in a .list file")
        lines.append("|".join(fields) + "\n")
    write_text(path, "".join(lines))


def read_hf_dataset(source: str, split: str) -> Iterator[SourceRow]:
    """Yield the rows of a folder of `save_to_disk`, of a folder of data files, or of a hub id."""
    from datasets import Audio, Dataset, DatasetDict, load_dataset, load_from_disk

    marks = ("state.json", "dataset_dict.json")
    try:
        on_disk = any((Path(source) / name).exists() for name in marks)
        data: Any = load_from_disk(source) if on_disk else load_dataset(source)
    except (FileNotFoundError, ValueError, ConnectionError) as error:
        raise ValueError(f"the data set {source} cannot be read: {error}") from error
    if isinstance(data, DatasetDict):
        name = split or (next(iter(data)) if len(data) == 1 else "")
        if name not in data:
            raise ValueError(
                f"{source} has the splits {', '.join(map(str, data))}; "
                + (f"there is no {split!r}." if split else "say which one with --split.")
            )
        data = data[name]
    if not isinstance(data, Dataset):
        raise ValueError(f"{source} is a {type(data).__name__}, not a data set of rows.")
    if "audio" not in data.column_names:
        raise ValueError(f"{source} has no column 'audio', only: {', '.join(data.column_names)}.")
    # Without decoding a broken sound file is a row that fails later, not a loop that ends here.
    rows: Any = data.cast_column("audio", Audio(decode=False))
    for number, row in enumerate(rows, start=1):
        sound = row["audio"] or {}
        payload, path = sound.get("bytes"), sound.get("path")
        name = Path(path).stem if path else f"row{number - 1:08d}"
        audio = Path(path) if path and payload is None else None
        yield _keyed_row(source, number, row, name, sound=payload, audio=audio)


def read_webdataset(source: str, split: str) -> Iterator[SourceRow]:
    """Yield the rows of tar files; one that cannot be read is one bad row and no more.

    The source is a folder of them, one file, or a pattern (`data/*.tar`).
    """
    import fsspec
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    pattern = f"{source}/*.tar" if Path(source).is_dir() else source
    files = [file for file in fsspec.open_files(pattern) if file.fs.exists(file.path)]
    if not files:
        raise ValueError(f"there is no tar file at {source}.")
    for opened in files:
        try:
            with opened as file:
                members = ({**m, "__url__": opened.path} for m in tar_file_iterator(file))
                for number, sample in enumerate(group_by_keys(members), start=1):
                    yield _sample_row(opened.path, number, sample)
        # Of a damaged archive; the library adds what it was reading.
        except (OSError, EOFError, ValueError, TarError) as error:
            problem = f"the shard cannot be read: {error}."
            yield SourceRow(file=opened.path, line=None, problem=problem)


Importer = Callable[[str, str], Iterator[SourceRow]]
"""Yields the rows of a source and, where it has splits, of one of them ('' means all).

Raises a `ValueError` where there is no such source or split."""
IMPORTERS: dict[str, Importer] = {
    "libritts": read_libritts,
    "librispeech": read_librispeech,
    "ljspeech": read_ljspeech,
    "gpt-sovits": read_gpt_sovits,
    "hf-dataset": read_hf_dataset,
    "webdataset": read_webdataset,
}
WITH_SPLITS = ("libritts", "librispeech", "hf-dataset")
"""Formats of `IMPORTERS` whose corpora have splits."""


def import_rows(
    name: str,
    source: str,
    output: Path,
    rejects: Rejects,
    *,
    split: str = "",
    check_audio: bool = False,
) -> Iterator[Utterance]:
    """Yield the good rows of a corpus; the others go to `rejects`.

    Args:
        name: Format, one of `IMPORTERS`.
        source: Where the corpus lies.
        output: The manifest that is to be written; sound out of containers goes to the folder
            `<its stem>.audio` beside it.
        rejects: Takes the bad rows; an id that was there before is one.
        split: Split of the corpus, where its format has them; '' means all.
        check_audio: Decode every file; otherwise only its header is read.

    Raises:
        ValueError: If the source cannot be used, or the format has no splits.
        TooManyRejects: If too much of it cannot.
    """
    if name not in IMPORTERS:
        raise ValueError(f"there is no format {name!r}; valid are: {', '.join(IMPORTERS)}")
    if split and name not in WITH_SPLITS:
        raise ValueError(
            f"the format {name} has no splits: leave out --split {split}; formats that have them: "
            + ", ".join(WITH_SPLITS)
        )
    seen: dict[str, str] = {}
    for row in IMPORTERS[name](source, split):
        place = row.file if row.line is None else f"{row.file}:{row.line}"
        try:
            if row.id in seen:
                raise ValueError(f"the id {row.id!r} is already that of {seen[row.id]}.")
            folder = output.with_name(f"{output.stem}.audio")
            utterance = _checked(row, folder, check_audio=check_audio)
        except ValueError as error:
            rejects.reject(Reject(row.file, row.line, str(error)))
            continue
        seen[row.id] = place
        rejects.accept()
        yield utterance


def _checked(row: SourceRow, audio_folder: Path, *, check_audio: bool) -> Utterance:
    """Turn a row into an utterance; writes the sound of a row that came out of a container.

    Raises:
        ValueError: If the row cannot be used; says why.
    """
    if row.problem:
        raise ValueError(row.problem)
    for name in ("id", "text", "speaker"):
        if not getattr(row, name).strip():
            raise ValueError(f"{name!r} is empty.")
    if "\ufffd" in row.text:
        raise ValueError("'text' is not UTF-8, or holds the mark of a letter that was lost.")
    audio = row.audio
    if row.sound is not None:
        audio = audio_folder / _file_name(row.id, row.sound)
        with atomic_path(audio) as temporary:
            temporary.write_bytes(row.sound)
    if audio is None:
        raise ValueError("there is no sound.")
    duration = sound_seconds(audio, decode=check_audio)
    if row.seconds is not None and abs(duration - row.seconds) > DURATION_TOLERANCE:
        raise ValueError(f"'duration' is {row.seconds:.2f} s, the audio has {duration:.2f} s.")
    return Utterance(
        id=row.id,
        audio=audio,
        text=row.text.strip(),
        speaker=row.speaker.strip(),
        duration=duration,
        extra=row.extra,
    )


def _file_name(name: str, sound: bytes) -> str:
    """Name of the file of a sound out of a container: that of its id, and of no other one.

    Raises:
        ValueError: If it is no sound that can be read.
    """
    suffix = next((s for head, s in _SUFFIXES.items() if sound.startswith(head)), "")
    if not suffix and sound[:1] == b"\xff" and sound[1:2] >= b"\xe0":
        suffix = ".mp3"  # without a tag it begins with the eleven set bits of a frame
    if sound[4:8] == b"ftyp":
        suffix = ".m4a"
    if not suffix:
        raise ValueError(
            "the sound is in none of the formats wav, flac, ogg, mp3, aiff, au, m4a, webm."
        )
    # An id may hold slashes and whatever else a file name may not.
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    if safe != name or len(safe) > 100:  # "a/b" and "a_b" are two
        safe = f"{safe[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return safe + suffix


def sound_seconds(path: Path, *, decode: bool) -> float:
    """Return the length of a sound file in seconds.

    Args:
        path: The file.
        decode: Read all of it rather than trust its header.

    Raises:
        ValueError: If it is missing, unreadable or empty.
    """
    if not path.is_file():
        raise ValueError(f"the audio file {path} does not exist.")
    if not decode:
        return round(recording_seconds(path), 6)
    waveform, rate = read_recording(path)
    return round(len(waveform) / rate, 6)


def _folder(source: str, split: str = "") -> Path:
    folder = Path(source) / split
    if split and not folder.is_dir():
        raise ValueError(f"there is no split {split!r} in {source}.")
    if not folder.is_dir():
        raise ValueError(f"{source} is no folder.")
    return folder


def _read(path: Path) -> tuple[str, str]:
    """The text of a file, or what is wrong with it."""
    try:
        return path.read_text(encoding="utf-8"), ""
    except (OSError, UnicodeDecodeError) as error:
        return "", f"{path.name} cannot be read: {error}."


def _table(
    path: Path, layout: str, num_fields: tuple[int, ...], max_splits: int = -1
) -> Iterator[tuple[SourceRow, list[str]]]:
    """Place and fields of the lines of a table; a line of other fields has a `problem`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    # Only newlines part rows: a text may hold any other separator that str.splitlines knows.
    for number, line in enumerate(text.split(b"\n"), start=1):
        # A byte that is no UTF-8 spoils its own row and no other: `_checked` finds the mark.
        decoded = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r")
        if decoded.strip():
            parts = decoded.split("|", max_splits)
            problem = f"expected {layout}, found {len(parts)} fields."
            problem = "" if len(parts) in num_fields else problem
            yield SourceRow(file=str(path), line=number, problem=problem), parts


def _keyed_row(
    file: str, number: int, row: Mapping[str, Any], name: str, **changes: Any
) -> SourceRow:
    """A row of a container by its keys; the id is `name` where it has none."""
    seconds = row.get("duration")
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    facts: dict[str, Any] = {
        "id": _first_of(row, ID_KEYS) or name,
        "text": _first_of(row, TEXT_KEYS),
        "speaker": _first_of(row, SPEAKER_KEYS) or "unknown",
        "seconds": float(seconds) if is_number and seconds is not None else None,
        "extra": {key: row[key] for key in _EXTRA_KEYS if row.get(key) is not None},
    }
    return SourceRow(file=file, line=number, **{**facts, **changes})


def _first_of(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    values = (row.get(key) for key in keys)
    return next((str(v) for v in values if v is not None and str(v).strip()), "")


def _sample_row(file: str, number: int, sample: Mapping[str, Any]) -> SourceRow:
    row, changes = {}, {}
    if "json" in sample:
        try:
            row = json.loads(sample["json"])
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            row, changes = {}, {"problem": "its .json is not a JSON object."}
    if not _first_of(row, TEXT_KEYS):
        changes["text"] = sample.get("txt", b"").decode("utf-8", "replace")
    sound = next((sample[end[1:]] for end in READABLE_SUFFIXES if end[1:] in sample), None)
    return _keyed_row(file, number, row, sample["__key__"], sound=sound, **changes)
