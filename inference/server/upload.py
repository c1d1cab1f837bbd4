"""Recordings that clients send: read with every limit checked before memory is spent.

Shapes: S samples.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

from torch import Tensor

from inference.server.errors import ApiError
from inference.server.settings import Limits
from tokenlm.audio.io import AudioError, UnknownKindError, read_recording

_log = logging.getLogger(__name__)

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 384_000
"""Sample rates of recordings, in hertz."""


@dataclass(frozen=True)
class Recording:
    """What was sent."""

    waveform: Tensor
    """(S,), of one channel."""
    sample_rate: int
    sha256: str
    """Of the file."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.waveform.shape[0] / self.sample_rate


def read_upload(file: BinaryIO, limits: Limits) -> Recording:
    """Reads a sound file of any kind that `tokenlm.audio.io.load_audio` does, save by programs.

    A small file may unpack to hours: it is unpacked block by block, and never beyond the limit.

    Args:
        file: at its start.
        limits: for bytes and seconds.

    Raises:
        ApiError: 413 for too many bytes or seconds, 400 for anything that is not a sound file.
    """
    digest = hashlib.sha256()
    size = 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
        if size > limits.max_upload_bytes:
            raise ApiError(
                413,
                f"The recording is larger than the {limits.max_upload_bytes} bytes taken here.",
                param="audio_sample",
                code="too_large",
            )
    if size == 0:
        raise _unusable("it is empty")
    file.seek(0)
    with tempfile.NamedTemporaryFile(prefix="tokenlm-") as copy:  # decoders want a file with a name
        shutil.copyfileobj(file, copy)
        copy.flush()
        try:
            waveform, rate = read_recording(
                copy.name,
                name="it",
                accept=lambda rate, channels, seconds: _check(rate, channels, seconds, limits),
                programs=False,
            )
        except UnknownKindError as error:
            # How more kinds come to be read is for whoever runs the server.
            _log.info("a recording that was sent cannot be read: %s", error)
            raise _unusable(f"it cannot be read as audio: {error.reason.rstrip('.')}") from error
        except AudioError as error:
            raise _unusable(str(error).rstrip(".")) from error
    return Recording(waveform, rate, digest.hexdigest())


def _check(rate: int, channels: int, seconds: float, limits: Limits) -> None:
    """Refuses what is too much, before it is kept: the length in the header is not believed."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise _unusable(f"it has {channels} channels; at most {MAX_CHANNELS} are taken")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise _unusable(f"its sample rate is {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are taken")
    if seconds > limits.max_upload_seconds:
        raise ApiError(
            413,
            f"The recording is longer than the {limits.max_upload_seconds:g} s that are "
            "taken here; 5 to 10 s are enough.",
            param="audio_sample",
            code="too_long",
        )


def _unusable(reason: str) -> ApiError:
    return ApiError(
        400,
        f"No voice can be made of the recording: {reason}.",
        param="audio_sample",
        code="invalid_audio",
    )
