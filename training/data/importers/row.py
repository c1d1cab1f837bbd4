"""What every importer yields, and what a row must be to enter a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tokenlm.atomic import atomic_path
from tokenlm.audio.io import read_recording, recording_seconds
from training.data.manifest import Utterance

_BYTES_SUFFIXES = {
    b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\x1aE\xdf\xa3": ".mka",
    b"FORM": ".aiff", b".snd": ".au",
}  # fmt: skip
_DURATION_TOLERANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """A row of a corpus as it was found, not yet checked."""

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


class Importer(Protocol):
    """Yields the rows of a corpus in an order that is the same every time."""

    def __call__(self, source: str, *, split: str = ...) -> Iterator[SourceRow]:
        """Read `source`."""
        ...


def checked(row: SourceRow, audio_folder: Path, *, check_audio: bool) -> Utterance:
    """Turn a row into an utterance; writes the sound of a row that came out of a container.

    Args:
        row: The row.
        audio_folder: Folder for sound out of containers.
        check_audio: Decode the whole file; otherwise only its header is read.

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
    if row.seconds is not None and abs(duration - row.seconds) > _DURATION_TOLERANCE:
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
    suffix = next((s for head, s in _BYTES_SUFFIXES.items() if sound.startswith(head)), "")
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
