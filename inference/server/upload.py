"""Recordings that clients send: read with every limit checked before memory is spent.

Shapes: S samples.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

from torch import Tensor

from inference.server.errors import ApiError, sentence
from inference.server.settings import Limits
from tokenlm.audio.io import (
    AudioError,
    AudioKindError,
    AudioTooLongError,
    ReadLimits,
    read_audio,
)


@dataclass(frozen=True)
class Recording:
    """What was sent."""

    waveform: Tensor
    """(S,), one channel."""
    sample_rate: int
    sha256: str
    """Of the file."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.waveform.shape[0] / self.sample_rate


def read_upload(file: BinaryIO, limits: Limits) -> Recording:
    """Reads a sound file of any kind that `tokenlm.audio.load_audio` knows.

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
        raise _unusable("The recording is an empty file.")
    file.seek(0)
    read = ReadLimits(max_seconds=limits.max_upload_seconds)
    with tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        try:
            waveform, rate = read_audio(copy.name, name="the recording", limits=read)
        except AudioTooLongError as error:
            raise ApiError(
                413,
                f"The recording is longer than the {limits.max_upload_seconds:g} s that are "
                "taken here; 5 to 10 s are enough.",
                param="audio_sample",
                code="too_long",
            ) from error
        except AudioKindError as error:  # which says how to install what knows more kinds
            raise _unusable(
                "The recording cannot be read as audio: send it as wav, flac, ogg, opus or mp3."
            ) from error
        except AudioError as error:
            raise _unusable(sentence(error)) from error
    return Recording(waveform, rate, digest.hexdigest())


def _unusable(message: str) -> ApiError:
    return ApiError(400, message, param="audio_sample", code="invalid_audio")
