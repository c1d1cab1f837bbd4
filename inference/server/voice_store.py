"""The folder of the voices that clients have added, which is all the state of a server.

```
NAME.yaml              the record: consent, text, date, the name of the file beside it
NAME.HASH.voice        the voice, safetensors
```

A voice exists once its record does. Records appear whole and never replace one another, so several
servers may share the folder.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tokenlm.atomic import publish, sync_to_disk
from tokenlm.config import ConfigError, load_config, save_config
from tokenlm.synthesis import Voice, VoiceError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names of voices, which are file names: nothing that could lead out of the folder."""
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.[0-9a-f]{16}\.voice")


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class VoiceNameError(ValueError):
    """A name that no voice may have."""


class VoiceExistsError(ValueError):
    """A name that is taken."""


class VoiceStoreFullError(ValueError):
    """The folder holds as many voices as it may."""


class VoiceStoreReadOnlyError(ValueError):
    """The folder cannot be written to."""


@dataclass(frozen=True, kw_only=True)
class Consent:
    """That a person agreed to the use of their voice."""

    who: str
    """The person whose voice it is."""
    statement: str
    """What they agreed to, in words."""
    date: str
    """When it was given to the server (ISO 8601, UTC)."""
    audio_sha256: str
    """Of the recording that it is about."""


@dataclass(frozen=True, kw_only=True)
class VoiceRecord:
    """The content of NAME.yaml."""

    name: str
    created_at: int
    """Seconds since 1970."""
    seconds: float
    """Length of the recording."""
    ref_text: str = ""
    """What the recording says; empty where that is not known."""
    file: str
    """Name of the voice file in the same folder."""
    consent: Consent

    def __post_init__(self) -> None:
        check_name(self.name)
        if not _FILE.fullmatch(self.file):
            raise ValueError(f"file: {self.file!r} is not the name of a voice file")


def check_name(name: str) -> str:
    """Returns a name that a voice may have.

    Raises:
        VoiceNameError: no voice may have it.
    """
    if not NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise VoiceNameError(
            f"{name[:80]!r} cannot be the name of a voice: 1 to 64 letters, digits, dashes and "
            "underscores, the first a letter or digit."
        )
    return name


class VoiceStore:
    """The folder. Every call reads it anew: another server may have changed it."""

    def __init__(self, folder: Path, *, max_voices: int) -> None:
        """Names the folder, which need not be there yet.

        Args:
            folder: two files for each voice.
            max_voices: how many it may hold.
        """
        self.folder = folder
        self._max_voices = max_voices

    def names(self) -> list[str]:
        """Names of all voices, sorted."""
        try:
            with os.scandir(self.folder) as entries:
                found = [entry.name for entry in entries if entry.name.endswith(".yaml")]
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []
        return sorted(name[:-5] for name in found if NAME.fullmatch(name[:-5]))

    def __contains__(self, name: str) -> bool:
        return bool(NAME.fullmatch(name)) and self._record_path(name).is_file()

    def why_read_only(self) -> str | None:
        """Why no voice can be written here, a sentence; None where one can."""
        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            return f"{place} is not a folder."
        try:  # its permissions alone do not tell
            with tempfile.TemporaryFile(dir=place):
                return None
        except OSError as error:
            if error.errno in _FULL:
                return None  # temporary
            return f"the folder {place} cannot be written to: {error.strerror or error}."

    def record(self, name: str) -> VoiceRecord | None:
        """Reads the record of a voice; None if there is none or it is damaged."""
        if name not in self:
            return None
        try:
            record = load_config(VoiceRecord, self._record_path(name))
        except ConfigError:
            return None
        return record if record.name == name else None

    def load(self, name: str) -> Voice:
        """Reads a voice.

        Raises:
            VoiceError: there is none, or its file is damaged.
        """
        record = self.record(name)
        if record is None:
            raise VoiceError(f"there is no voice {name!r}.")
        return Voice.load(self.folder / record.file)

    def version(self, name: str) -> tuple[int, int] | None:
        """Changes when a name comes to mean another voice; None if there is none."""
        if not NAME.fullmatch(name):
            return None
        try:
            found = self._record_path(name).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def add(
        self, voice: Voice, *, who: str, statement: str, audio_sha256: str, seconds: float
    ) -> VoiceRecord:
        """Writes a voice and its record, both or neither.

        Args:
            voice: its name is that under which it is found.
            who, statement: see `Consent`.
            audio_sha256: of the recording.
            seconds: length of the recording.

        Raises:
            VoiceNameError: the voice has a name that cannot be one of a file.
            VoiceExistsError: there is a voice of this name.
            VoiceStoreFullError: there are too many voices.
            VoiceStoreReadOnlyError: the folder cannot be written to.
            OSError: writing failed otherwise, as on a disk that is full.
        """
        self.check_free(check_name(voice.name))
        now = datetime.now(UTC)
        record = VoiceRecord(
            name=voice.name,
            created_at=int(now.timestamp()),
            seconds=round(seconds, 3),
            ref_text=voice.prompt_text,
            file=f"{voice.name}.{secrets.token_hex(8)}.voice",
            consent=Consent(
                who=who,
                statement=statement,
                date=now.isoformat(timespec="seconds"),
                audio_sha256=audio_sha256,
            ),
        )
        path = self.folder / record.file
        draft = self.folder / f".{record.file}.yaml"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VoiceStoreReadOnlyError(_not_written(error)) from error
        try:
            voice.save(path)
            save_config(record, draft)
            publish(draft, self._record_path(record.name))
        except FileExistsError:
            path.unlink(missing_ok=True)
            raise _taken(record.name) from None
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise VoiceStoreReadOnlyError(_not_written(error)) from error
            raise
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            draft.unlink(missing_ok=True)
        sync_to_disk(self.folder)
        return record

    def check_free(self, name: str) -> None:
        """Checks that a voice of this name may be added; see `add` for the errors."""
        if (reason := self.why_read_only()) is not None:
            raise VoiceStoreReadOnlyError(reason)
        names = self.names()
        # Some file systems do not tell capitals from small letters.
        if name.lower() in {taken.lower() for taken in names}:
            raise _taken(name)
        if len(names) >= self._max_voices:
            raise VoiceStoreFullError(
                f"there are {len(names)} voices, which is all that this server keeps."
            )

    def delete(self, name: str) -> bool:
        """Removes a voice and its record; whether there was one.

        Raises:
            VoiceStoreReadOnlyError: the folder cannot be written to.
        """
        if name not in self:
            return False
        record = self.record(name)
        try:
            self._record_path(name).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise VoiceStoreReadOnlyError(_not_written(error)) from error
        if record is not None:
            (self.folder / record.file).unlink(missing_ok=True)
        return True

    def _record_path(self, name: str) -> Path:
        assert NAME.fullmatch(name), name
        return self.folder / f"{name}.yaml"


def _not_written(error: OSError) -> str:
    return f"the folder of voices cannot be written to: {error.strerror or error}."


def _taken(name: str) -> VoiceExistsError:
    return VoiceExistsError(f"there is a voice {name!r} already; delete it first.")
