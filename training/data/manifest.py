"""The list of the data: one JSON object per line.

    {"id": "a1", "audio": "wavs/a1.flac", "text": "Hello.", "speaker": "ann", "duration": 0.83}

`audio` is relative to the manifest, `duration` in seconds. Optional: `phones`, the aligned phones
as [[phone, end in seconds], ...]; `speech_tokens`, a list of ids, and `tokenizer`, the fingerprint
of the speech tokenizer that made them. Other keys are kept. A bad row never stops the reading: it
is kept apart with its line number and the reason.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenlm.atomic import atomic_path
from tokenlm.audio.io import AudioError, read_recording

_DURATION_TOLERANCE = 0.1
_KNOWN = ("id", "audio", "text", "speaker", "duration", "phones", "speech_tokens", "tokenizer")


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


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, good and bad."""

    path: Path
    """The file."""
    utterances: list[Utterance]
    """Good rows, in order."""
    lines: list[int]
    """Line number of each good row."""
    bad_rows: list[BadRow]
    """Bad rows, in order."""

    def report(self, *, limit: int = 20) -> str:
        """Say how many rows are good and, line by line, what is wrong with the others."""
        total = len(self.utterances) + len(self.bad_rows)
        text = [f"{self.path}: {len(self.utterances)} of {total} rows are good."]
        text += [f"{self.path}:{bad.line}: {bad.reason}" for bad in self.bad_rows[:limit]]
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
    utterances: list[Utterance] = []
    lines: list[int] = []
    bad_rows: list[BadRow] = []
    seen: dict[str, int] = {}
    try:
        rows = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ManifestError(f"{path}: the manifest cannot be read: {error.strerror}.") from error
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            utterance = parse_row(row.decode("utf-8"), path.parent)
            if utterance.id in seen:
                raise ManifestError(
                    f"the id {utterance.id!r} is already that of line {seen[utterance.id]}."
                )
        except (ManifestError, UnicodeDecodeError) as error:
            bad_rows.append(BadRow(number, str(error)))
            continue
        seen[utterance.id] = number
        utterances.append(utterance)
        lines.append(number)
    manifest = Manifest(path, utterances, lines, bad_rows)
    if strict and bad_rows:
        raise ManifestError(manifest.report())
    return manifest


def parse_row(row: str, folder: Path) -> Utterance:
    """Read one row.

    Args:
        row: A JSON object.
        folder: Folder that `audio` is relative to.

    Raises:
        ManifestError: If the row is bad; says why.
    """
    try:
        data = json.loads(row)
    except json.JSONDecodeError as error:
        raise ManifestError(f"not JSON: {error.msg} at column {error.colno}.") from None
    if not isinstance(data, dict):
        raise ManifestError(f"expected a JSON object, got {type(data).__name__}.")
    texts = {}
    for key in ("id", "audio", "text", "speaker"):
        value = data.get(key)
        if not isinstance(value, str):
            problem = f"missing key {key!r}." if key not in data else f"{key!r} is not a string."
            raise ManifestError(problem)
        if not value.strip():
            raise ManifestError(f"{key!r} is empty.")
        texts[key] = value
    return Utterance(
        id=texts["id"],
        audio=folder / texts["audio"],
        text=texts["text"],
        speaker=texts["speaker"],
        duration=_duration(data.get("duration")),
        phones=_phones(data.get("phones")),
        speech_tokens=_tokens(data.get("speech_tokens")),
        tokenizer=_fingerprint(data.get("tokenizer")),
        extra={key: value for key, value in data.items() if key not in _KNOWN},
    )


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ManifestError(f"'duration' is not a number of seconds: {value!r}.")
    if not math.isfinite(value) or value <= 0:
        raise ManifestError(f"'duration' must be a positive number of seconds, not {value}.")
    return float(value)


def _phones(value: Any) -> tuple[tuple[str, float], ...] | None:
    if value is None:
        return None
    try:
        phones = tuple((str(phone), float(end)) for phone, end in value)
    except (TypeError, ValueError):
        raise ManifestError("'phones' is not a list of [phone, end in seconds].") from None
    ends = [end for _, end in phones]
    if not all(math.isfinite(end) for end in ends) or ends != sorted(ends):
        raise ManifestError("the ends of 'phones' do not rise.")
    return phones


def _tokens(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or any(type(token) is not int or token < 0 for token in value):
        raise ManifestError("'speech_tokens' is not a list of non-negative whole numbers.")
    return tuple(value)


def _fingerprint(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ManifestError("'tokenizer' is not a string.")
    return value


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
    good: list[Utterance] = []
    lines: list[int] = []
    bad_rows = list(manifest.bad_rows)
    for utterance, line, reason in zip(manifest.utterances, manifest.lines, reasons, strict=True):
        if reason is None:
            good.append(utterance)
            lines.append(line)
        else:
            bad_rows.append(BadRow(line, reason))
    return Manifest(manifest.path, good, lines, sorted(bad_rows, key=lambda bad: bad.line))


def audio_problem(utterance: Utterance) -> str | None:
    """Say what is wrong with the sound file of an utterance; None if nothing."""
    if not utterance.audio.is_file():
        return f"the audio file {utterance.audio} does not exist."
    try:
        waveform, sample_rate = read_recording(utterance.audio, name="it")
    except AudioError as error:
        return f"the audio file {utterance.audio} cannot be used: {error}"
    seconds = len(waveform) / sample_rate
    if abs(seconds - utterance.duration) > _DURATION_TOLERANCE:
        return f"'duration' is {utterance.duration:.2f} s, the audio has {seconds:.2f} s."
    return None


def by_speaker(utterances: Iterable[Utterance]) -> Mapping[str, list[int]]:
    """Return the indices of each speaker's utterances, speakers sorted by name."""
    groups: dict[str, list[int]] = {}
    for index, utterance in enumerate(utterances):
        groups.setdefault(utterance.speaker, []).append(index)
    return dict(sorted(groups.items()))
