"""What every importer yields, and what a row must be to enter a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from training.data.manifest import Utterance

_BYTES_SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}


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
    audio = row.audio
    if row.sound is not None:
        suffix = next((s for head, s in _BYTES_SUFFIXES.items() if row.sound.startswith(head)), "")
        if not suffix:
            raise ValueError("the sound is in none of the formats wav, flac, ogg and mp3.")
        # An id may hold slashes and whatever else a file name may not.
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in row.id)
        audio = audio_folder / f"{safe}{suffix}"
        if not audio.exists() or audio.stat().st_size != len(row.sound):
            audio.parent.mkdir(parents=True, exist_ok=True)
            audio.write_bytes(row.sound)
    if audio is None:
        raise ValueError("there is no sound.")
    return Utterance(
        id=row.id,
        audio=audio,
        text=row.text.strip(),
        speaker=row.speaker.strip(),
        duration=sound_seconds(audio, decode=check_audio),
        extra=row.extra,
    )


def sound_seconds(path: Path, *, decode: bool) -> float:
    """Return the length of a sound file in seconds.

    Args:
        path: The file.
        decode: Read all of it rather than trust its header.

    Raises:
        ValueError: If it is missing, unreadable or empty.
    """
    import numpy as np
    import soundfile

    if not path.is_file():
        raise ValueError(f"the audio file {path} does not exist.")
    try:
        if decode:
            samples, rate = soundfile.read(path, dtype="float32")
            count = len(samples)
            if not np.isfinite(samples).all():
                raise ValueError(f"the audio file {path} has samples that are not finite.")
        else:
            info = soundfile.info(path)
            count, rate = info.frames, info.samplerate
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise ValueError(f"the audio file {path} cannot be read: {error}") from error
    if count <= 0:
        raise ValueError(f"the audio file {path} is empty.")
    return round(count / rate, 6)
