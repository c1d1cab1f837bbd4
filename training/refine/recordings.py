"""What a refinement begins with: sound files, of any length, and what is known of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenlm.audio.io import READABLE_SUFFIXES
from training.data.manifest import read_manifest
from training.data.rejects import Reject


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A sound file, or a clip of one, and what is known of it."""

    id: str
    audio: Path
    text: str = ""
    speaker: str = "unknown"
    source: str = ""
    """Of a clip: the recording that it was cut from."""
    clipped_share: float = 0.0
    """Of a clip: share of the samples in flat tops, at the rate of the recording."""
    enhancement: str = ""
    """Of a clip: how its recording was enhanced, or why not; empty where that was not asked for."""
    before: Path | None = None
    """Of a clip that was enhanced: the same as it was recorded."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further keys of its row, which go on into the manifest that is written."""
    file: str = ""
    """Where it stands, for messages: a manifest, or the sound file itself."""
    line: int | None = None
    """Line in the manifest, from 1."""


def find_recordings(source: Path) -> tuple[list[Recording], list[Reject]]:
    """List the recordings of a folder or a manifest, and the rows and texts that cannot be read.

    Args:
        source: A folder of sound files, each with its text in a `.txt` of its name or without; the
            folder that a file lies in is its speaker. Or a manifest.

    Raises:
        ValueError: If there is none.
    """
    if source.is_file():
        rows = read_manifest(source)
        found = [
            Recording(
                id=row.id,
                audio=row.audio,
                text=row.text,
                speaker=row.speaker,
                extra=row.extra,
                file=str(source),
                line=line,
            )
            for row, line in zip(rows.utterances, rows.lines, strict=True)
        ]
        bad = [Reject(str(source), row.line, row.reason) for row in rows.bad_rows]
    else:
        found, bad = _files(source)
    if not found:
        told = f"; the first of {len(bad)} bad ones: {bad[0]}" if bad else ""
        raise ValueError(f"there is no recording in {source}{told}")
    return found, bad


def _files(source: Path) -> tuple[list[Recording], list[Reject]]:
    found, bad = [], []
    sounds = (path for path in source.rglob("*") if path.suffix.lower() in READABLE_SUFFIXES)
    for audio in sorted(sounds):
        beside = audio.with_suffix(".txt")
        try:
            text = beside.read_text(encoding="utf-8-sig") if beside.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            bad.append(Reject(str(beside), None, f"the text cannot be read: {error}."))
            continue
        found.append(
            Recording(
                id=audio.relative_to(source).with_suffix("").as_posix(),
                audio=audio,
                text=text.strip(),
                speaker=audio.parent.name if audio.parent != source else "unknown",
                file=str(audio),
            )
        )
    counted = Counter(recording.id for recording in found)
    twice = next((name for name, number in counted.items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"{source / twice} is there in two formats: which one is meant?")
    return found, bad
