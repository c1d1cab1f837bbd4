"""Corpora inside containers: Hugging Face `datasets`, and tar shards as WebDataset writes them.

A container row needs a sound and a text. In a data set these are the columns `audio` and one of
`text`, `sentence`, `transcription`, `normalized_text`, `text_normalized`, `transcript`; the speaker
comes from `speaker_id`, `speaker`, `client_id`. In a shard they are the files of one key: a sound,
and `.json` (same names) or `.txt`.
"""

from __future__ import annotations

import glob
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenlm.audio.io import READABLE_SUFFIXES
from training.data.importers.row import SourceRow

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
_KEPT = ("language", "dnsmos", "gender", "phone_count")


def read_hf_dataset(source: str, *, split: str = "") -> Iterator[SourceRow]:
    """Yield the rows of a data set of the `datasets` library.

    Args:
        source: A folder of `save_to_disk`, a folder of data files, or a hub id.
        split: Its split; needed where there are several.

    Raises:
        ValueError: If there is no such data set or split, or it has no sound.
    """
    from datasets import Audio, Dataset, DatasetDict, load_dataset, load_from_disk

    try:
        on_disk = (Path(source) / "state.json").exists() or (
            Path(source) / "dataset_dict.json"
        ).exists()
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
    data = data.cast_column("audio", Audio(decode=False))
    for number in range(len(data)):
        row = data[number]
        sound = row["audio"] or {}
        payload, path = sound.get("bytes"), sound.get("path")
        named = first_of(row, ID_KEYS) or (Path(path).stem if path else "")
        yield SourceRow(
            file=source,
            line=number + 1,
            id=named or f"row{number:08d}",
            text=first_of(row, TEXT_KEYS),
            speaker=first_of(row, SPEAKER_KEYS) or "unknown",
            audio=Path(path) if path and payload is None else None,
            sound=payload,
            seconds=_seconds(row),
            extra={key: row[key] for key in _KEPT if row.get(key) is not None},
        )


def read_webdataset(source: str, *, split: str = "") -> Iterator[SourceRow]:
    """Yield the rows of tar shards; a shard that cannot be read is one bad row and no more.

    Args:
        source: A folder of tar files, one file, or a pattern (`data/*.tar`).
        split: Not used: name the files of the split.

    Raises:
        ValueError: If there is no tar file.
    """
    folder = Path(source)
    shards = (
        sorted(folder.glob("*.tar")) if folder.is_dir() else sorted(map(Path, glob.glob(source)))
    )
    if not shards:
        raise ValueError(f"there is no tar file at {source}.")
    for shard in shards:
        try:
            yield from _shard_rows(shard)
        except (tarfile.TarError, OSError, EOFError) as error:
            yield SourceRow(
                file=str(shard), line=None, problem=f"the shard cannot be read: {error}."
            )


def _shard_rows(shard: Path) -> Iterator[SourceRow]:
    files: dict[str, bytes] = {}
    key, number = "", 0
    with tarfile.open(shard, "r:*") as archive:
        for member in archive:
            if not member.isfile():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, kind = name.partition(".")
            member_key = f"{folder}/{stem}" if folder else stem
            if member_key != key and files:
                number += 1
                yield _tar_row(shard, number, key, files)
                files = {}
            key = member_key
            handle = archive.extractfile(member)
            files[kind.lower()] = handle.read() if handle is not None else b""
    if files:
        yield _tar_row(shard, number + 1, key, files)


def _tar_row(shard: Path, number: int, key: str, files: Mapping[str, bytes]) -> SourceRow:
    row: dict[str, Any] = {}
    problem = ""
    if "json" in files:
        try:
            found = json.load(io.BytesIO(files["json"]))
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            row = found
        else:
            problem = "its .json is not a JSON object."
    text = first_of(row, TEXT_KEYS) or files.get("txt", b"").decode("utf-8", "replace")
    sound = next((files[end[1:]] for end in READABLE_SUFFIXES if end[1:] in files), None)
    return SourceRow(
        file=str(shard),
        line=number,
        id=first_of(row, ID_KEYS) or key,
        text=text,
        speaker=first_of(row, SPEAKER_KEYS) or "unknown",
        sound=sound,
        seconds=_seconds(row),
        extra={name: row[name] for name in _KEPT if row.get(name) is not None},
        problem=problem,
    )


def _seconds(row: Mapping[str, Any]) -> float | None:
    value = row.get("duration")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and value is not None else None


def first_of(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first value of `keys` that is there and not empty, as a string; else ""."""
    for key in keys:
        value = row.get(key)
        if value is not None and str(value).strip():
            return str(value)
    return ""
