"""The list of the data: one JSON object per line.

    {"id": "a1", "audio": "wavs/a1.flac", "text": "Hello.", "speaker": "ann", "duration": 0.83}

`audio` is relative to the manifest, `duration` in seconds. Optional: `phones`, the aligned phones
as [[phone, end in seconds], ...]; `speech_tokens`, a list of ids, and `tokenizer`, the fingerprint
of the speech tokenizer that made them. Other keys are kept. A bad row never stops the reading: it
is kept apart with its line number and the reason.

The rows are read through Arrow (`training.data.table`): a large manifest is converted once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from tokenlm.atomic import atomic_path
from tokenlm.audio.io import AudioError, read_recording
from training.data.table import Columns, Table, digest, in_columns

logger = logging.getLogger(__name__)

DURATION_TOLERANCE = 0.1
"""Seconds that a recording may differ from what its row says."""
_KNOWN = {"id", "audio", "text", "speaker", "duration", "phones", "speech_tokens", "tokenizer"}


ROW_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "audio": pa.string(),
        "text": pa.string(),
        "speaker": pa.string(),
        "duration": pa.float64(),
        "phones": pa.list_(pa.string()),
        "phone_ends": pa.list_(pa.float64()),
        "speech_tokens": pa.list_(pa.int32()),
        "num_tokens": pa.int32(),
        "max_token": pa.int32(),
        "tokenizer": pa.string(),
        "extra": pa.string(),  # JSON
        "line": pa.int64(),
        "problem": pa.string(),  # why the row is bad
    }
)
_FORMAT = 1
"""Changes with the meaning of the columns, so that what is cached is converted anew."""


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names file and line."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One row of a manifest."""

    id: str
    """Name, unique in the manifest."""
    audio: Path
    """Path of the sound file (in the file: relative to the manifest)."""
    text: str
    """What is said."""
    speaker: str
    """Who says it."""
    duration: float
    """Seconds."""
    phones: tuple[tuple[str, float], ...] | None = None
    """Aligned phones, each with its end in seconds."""
    speech_tokens: tuple[int, ...] | None = None
    """Ids of the speech tokenizer."""
    tokenizer: str | None = None
    """Fingerprint of the tokenizer that made `speech_tokens`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys that this code does not know."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out."""

    line: int
    """Line number, from 1."""
    reason: str
    """What is wrong, as a sentence."""


class Rows(Sequence[Utterance]):
    """Utterances in a table; each is made when it is asked for.

    Attributes:
        table: The rows, with the columns of `ROW_SCHEMA` and perhaps more.
    """

    def __init__(self, table: Table, make: Callable[[dict[str, Any]], Utterance]) -> None:
        """Take the rows, and what makes an utterance of one."""
        self.table, self._make = table, make

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> Rows:
        """Rows in memory, of utterances."""
        if isinstance(utterances, Rows):
            return utterances
        rows = (row_columns({**row_of(row, Path()), "audio": str(row.audio)}) for row in utterances)
        table = Table.convert("", 0, ROW_SCHEMA, lambda: in_columns(rows, ROW_SCHEMA))
        return cls(table, partial(_utterance, Path()))

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Utterance | Rows:
        if isinstance(index, slice):
            return Rows(self.table[index], self._make)
        return self._make(self.table[index])

    def __iter__(self) -> Iterator[Utterance]:
        return map(self._make, self.table)

    def select(self, indices: np.ndarray) -> Rows:
        """The rows of these indices, or those where a mask is true, in order."""
        return Rows(self.table.select(indices), self._make)

    def detached(self) -> Rows:
        """The same rows in memory, as another machine needs them."""
        return Rows(self.table.detached(), self._make)

    def with_audio(self, paths: Sequence[str]) -> Rows:
        """The same rows in memory, with other sound files (absolute paths)."""
        return Rows(self.table.detached(audio=paths), self._make)

    def column(self, name: str) -> np.ndarray:
        """The values (rows,) of a column of numbers or strings."""
        return self.table.column(name)


class Speakers:
    """Which rows are of one speaker, and alike in other keys, in arrays."""

    def __init__(self, rows: Rows, keys: Sequence[str] = ()) -> None:
        """Sort the rows.

        Args:
            rows: the rows.
            keys: further keys of the manifest that rows must agree in; a row without one agrees
                with those that lack it, too.
        """
        names, self._codes = rows.table.coded("speaker")
        count = len(names)
        if keys:
            found: dict[tuple[Any, ...], int] = {}
            codes = [
                found.setdefault(facts, len(found))
                for facts in zip(self._codes.tolist(), *_extras(rows, keys), strict=True)
            ]
            self._codes, count = np.array(codes, dtype=np.int32), len(found)
        order = np.argsort(self._codes, kind="stable")
        self._order = order.astype(np.int32 if len(order) < 2**31 else np.int64)
        self._starts = np.searchsorted(self._codes[order], np.arange(count + 1))

    def same(self, index: int) -> np.ndarray:
        """Indices of all rows that are like a row, itself among them, in order."""
        code = self._codes[index]
        return self._order[self._starts[code] : self._starts[code + 1]]


def _extras(rows: Rows, keys: Sequence[str]) -> list[list[Any]]:
    """The values of keys of the manifest that have no column of their own."""
    texts = [json.loads(text) if text else {} for text in rows.column("extra")]
    return [[json.dumps(text.get(key), sort_keys=True) for text in texts] for key in keys]


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, good and bad."""

    path: Path
    """The file."""
    utterances: Rows
    """Good rows, in order."""
    bad_rows: list[BadRow]
    """Bad rows, in order."""
    address: str = ""
    """Where the file was fetched from (`training.data.storage`); `path` is then a copy."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.address or str(self.path)

    @property
    def lines(self) -> np.ndarray:
        """Line number of each good row."""
        return self.utterances.column("line")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the good rows, in order; where the files lie does not matter."""
        sha, encode = hashlib.sha256(), json.JSONEncoder().encode
        # Column by column: an `Utterance` of each row would take several times as long.
        for columns in self.utterances.table.parts("id", "audio", "text", "speaker", "duration"):
            facts = (
                encode([name, self._file_name(audio), *others])
                for name, audio, *others in zip(*columns, strict=True)
            )
            sha.update("".join(facts).encode())
        return sha.hexdigest()[:16]

    def _file_name(self, audio: str) -> str:
        """The name of `audio` in its folder."""
        name = audio.rpartition("/")[2]
        is_plain = name not in ("", ".") and "\\" not in name
        return name if is_plain else (self.path.parent / audio).name

    def report(self, *, limit: int = 20) -> str:
        """Say how many rows are good and, line by line, what is wrong with the others."""
        total = len(self.utterances) + len(self.bad_rows)
        text = [f"{self.name}: {len(self.utterances)} of {total} rows are good."]
        text += [f"{self.name}:{bad.line}: {bad.reason}" for bad in self.bad_rows[:limit]]
        if len(self.bad_rows) > limit:
            text.append(f"... and {len(self.bad_rows) - limit} more bad rows.")
        return "\n".join(text)


def read_manifest(path: str | Path, *, strict: bool = False) -> Manifest:
    """Read a manifest.

    Args:
        path: JSONL file; empty lines are skipped.
        strict: Raise at bad rows rather than keep them apart.

    Raises:
        ManifestError: If there is no such file, or, when strict, if any row is bad.
    """
    path = Path(path)
    try:
        key, num_bytes = table_key(path), path.stat().st_size
        path.open("rb").close()
    except OSError as error:
        raise ManifestError(f"{path}: the manifest cannot be read: {error.strerror}.") from error
    table = Table.convert(key, num_bytes, ROW_SCHEMA, partial(_read_rows, path))
    manifest = Manifest(path, *split_rows(table, partial(_utterance, path.parent)))
    if strict and manifest.bad_rows:
        raise ManifestError(manifest.report())
    return manifest


def read_good_rows(path: str | Path) -> Rows:
    """Read the good rows of a manifest; bad ones are left out with a warning that names them.

    Raises:
        ManifestError: If there is no such file.
    """
    manifest = read_manifest(path)
    if manifest.bad_rows:
        logger.warning(manifest.report())
    return manifest.utterances


def table_key(path: Path) -> str:
    """Names the converted rows of a manifest (see `Table.convert`) by its place and state."""
    state = path.stat()
    return digest((_FORMAT, str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino))


def split_rows(
    table: Table, make: Callable[[dict[str, Any]], Utterance]
) -> tuple[Rows, list[BadRow]]:
    """Part the good rows of a table from the bad ones."""
    good = table.is_null("problem")
    if good.all():
        return Rows(table, make), []
    bad = [BadRow(row["line"], row["problem"]) for row in table.select(~good)]
    return Rows(table.select(good), make), bad


def _read_rows(path: Path) -> Iterator[Columns]:
    seen: dict[str, int] = {}

    def rows() -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = row_columns(_parse(line))
                    if row["id"] in seen:
                        raise ManifestError(
                            f"the id {row['id']!r} is already that of line {seen[row['id']]}."
                        )
                    seen[row["id"]] = number
                except (ManifestError, UnicodeError, OverflowError, RecursionError) as error:
                    row = {"problem": str(error), "duration": 0.0, "num_tokens": 0, "max_token": 0}
                row["line"] = number
                yield row

    return in_columns(rows(), ROW_SCHEMA)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line.decode("utf-8").rstrip("\n"))
    except json.JSONDecodeError as error:
        raise ManifestError(f"not JSON: {error.msg} at column {error.colno}.") from None
    if not isinstance(data, dict):
        raise ManifestError(f"expected a JSON object, got {type(data).__name__}.")
    return data


def row_columns(data: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row of a manifest.

    Raises:
        ManifestError: If the row is bad; says why.
        UnicodeEncodeError: If a string holds half of a character.
    """
    row: dict[str, Any] = {}
    for key in ("id", "audio", "text", "speaker"):
        value = data.get(key)
        if not isinstance(value, str):
            problem = f"missing key {key!r}." if key not in data else f"{key!r} is not a string."
            raise ManifestError(problem)
        if not value.strip():
            raise ManifestError(f"{key!r} is empty.")
        row[key] = _whole(value)
    row["duration"] = _duration(data.get("duration"))
    if data.get("phones") is not None:
        row["phones"], row["phone_ends"] = _phones(data["phones"])
    tokens = row["speech_tokens"] = _tokens(data.get("speech_tokens"))
    if tokens is None or not tokens.size:
        row["num_tokens"] = row["max_token"] = 0
    else:
        row["num_tokens"], row["max_token"] = tokens.size, int(tokens.max())
    row["tokenizer"] = _fingerprint(data.get("tokenizer"))
    if data.keys() - _KNOWN:
        row["extra"] = json.dumps({k: v for k, v in data.items() if k not in _KNOWN})
    return row


def _utterance(folder: Path, row: dict[str, Any]) -> Utterance:
    phones, tokens = row["phones"], row["speech_tokens"]
    return Utterance(
        id=row["id"],
        audio=folder / row["audio"],
        text=row["text"],
        speaker=row["speaker"],
        duration=row["duration"],
        phones=None if phones is None else tuple(zip(phones, row["phone_ends"], strict=True)),
        speech_tokens=None if tokens is None else tuple(tokens),
        tokenizer=row["tokenizer"],
        extra=json.loads(row["extra"]) if row["extra"] else {},
    )


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ManifestError(f"'duration' is not a number of seconds: {value!r}.")
    if not math.isfinite(value) or value <= 0:
        raise ManifestError(f"'duration' must be a positive number of seconds, not {value}.")
    return float(value)


def _phones(value: Any) -> tuple[list[str], list[float]]:
    try:
        phones = [str(phone) for phone, _ in value]
        ends = [float(end) for _, end in value]
    except (TypeError, ValueError):
        raise ManifestError("'phones' is not a list of [phone, end in seconds].") from None
    _whole("".join(phones))
    if not all(math.isfinite(end) for end in ends) or ends != sorted(ends):
        raise ManifestError("the ends of 'phones' do not rise.")
    return phones, ends


def _tokens(value: Any) -> np.ndarray | None:
    if value is None:
        return None
    # As an array, and not token by token: most of the time of a conversion is spent here.
    if not isinstance(value, list) or set(map(type, value)) - {int}:
        raise ManifestError("'speech_tokens' is not a list of non-negative whole numbers.")
    tokens = np.array(value, dtype=np.int64)
    if tokens.size and tokens.min() < 0:
        raise ManifestError("'speech_tokens' is not a list of non-negative whole numbers.")
    if tokens.size and tokens.max() >= 2**31:
        raise ManifestError(f"'speech_tokens' has {tokens.max()}, which is too large for a token.")
    return tokens.astype(np.int32)


def _fingerprint(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ManifestError("'tokenizer' is not a string.")
    return value and _whole(value)


def _whole(text: str) -> str:
    if not text.isascii():
        text.encode("utf-8")
    return text


def row_of(utterance: Utterance, folder: Path) -> dict[str, Any]:
    """Return the JSON object of an utterance in a manifest of `folder`."""
    audio = Path(os.path.relpath(utterance.audio.absolute(), folder.absolute())).as_posix()
    row: dict[str, Any] = {
        "id": utterance.id,
        "audio": audio,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "duration": utterance.duration,
    }
    if utterance.phones is not None:
        row["phones"] = [list(phone) for phone in utterance.phones]
    if utterance.speech_tokens is not None:
        row["speech_tokens"] = list(utterance.speech_tokens)
    if utterance.tokenizer is not None:
        row["tokenizer"] = utterance.tokenizer
    return {**row, **utterance.extra}


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, whole or not at all."""
    path = Path(path)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for utterance in utterances:
            file.write(json.dumps(row_of(utterance, path.parent), ensure_ascii=False) + "\n")


def merge_manifests(
    output: str | Path, manifests: Sequence[tuple[str, str | Path]]
) -> tuple[int, float]:
    """Write the rows of several manifests as one, in order.

    Args:
        output: the manifest to write.
        manifests: a name and a file each; `name-` is put before the ids and speakers of the file,
            so that those of other corpora cannot be the same. An empty name leaves them as they
            are.

    Returns:
        Number of rows, and their seconds.

    Raises:
        ManifestError: a manifest cannot be read or has bad rows, or two rows have the same id.
    """
    owners: dict[str, Path] = {}
    seconds = 0.0

    def rows() -> Iterator[Utterance]:
        nonlocal seconds
        for name, file in manifests:
            prefix, file = f"{name}-" if name else "", Path(file)
            for row in read_manifest(file, strict=True).utterances:
                row = replace(row, id=prefix + row.id, speaker=prefix + row.speaker)
                if row.id in owners:
                    raise ManifestError(
                        f"the id {row.id!r} is in {owners[row.id]} and in {file}: give each "
                        "manifest a name (NAME=PATH)."
                    )
                owners[row.id] = file
                seconds += row.duration
                yield row

    write_manifest(output, rows())
    return len(owners), seconds


def validate(path: str | Path, *, check_audio: bool = True, num_threads: int = 4) -> Manifest:
    """Check every row of a manifest and, if asked, every sound file.

    Args:
        path: The manifest.
        check_audio: Decode each file: missing, unreadable, empty, not finite, or a length that
            differs by more than 0.1 s from `duration`.
        num_threads: Files that are decoded at the same time.

    Returns:
        The manifest with the rows that failed among `bad_rows`.
    """
    manifest = read_manifest(path)
    if not check_audio:
        return manifest
    with ThreadPoolExecutor(num_threads) as pool:
        reasons = list(pool.map(audio_problem, manifest.utterances))
    good = np.array([reason is None for reason in reasons], dtype=bool)
    lines = manifest.lines.tolist()
    bad_rows = [BadRow(line, text) for line, text in zip(lines, reasons, strict=True) if text]
    return Manifest(
        manifest.path,
        manifest.utterances.select(good),
        sorted([*manifest.bad_rows, *bad_rows], key=lambda bad: bad.line),
    )


def audio_problem(utterance: Utterance) -> str | None:
    """Say what is wrong with the sound file of an utterance; None if nothing."""
    if not utterance.audio.is_file():
        return f"the audio file {utterance.audio} does not exist."
    try:
        waveform, sample_rate = read_recording(utterance.audio, name="it")
    except AudioError as error:
        return f"the audio file {utterance.audio} cannot be used: {error}"
    seconds = len(waveform) / sample_rate
    if abs(seconds - utterance.duration) > DURATION_TOLERANCE:
        return f"'duration' is {utterance.duration:.2f} s, the audio has {seconds:.2f} s."
    return None


def by_speaker(utterances: Iterable[Utterance]) -> Mapping[str, list[int]]:
    """Return the indices of each speaker's utterances, speakers sorted by name."""
    groups: dict[str, list[int]] = {}
    for index, utterance in enumerate(utterances):
        groups.setdefault(utterance.speaker, []).append(index)
    return dict(sorted(groups.items()))
