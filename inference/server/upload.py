"""Recordings that clients send: read with every limit checked before memory is spent.

Shapes: S samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from inference.server.errors import ApiError
from inference.server.settings import Limits
from tokenlm.audio.io import SequentialSound

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 384_000
"""Sample rates of recordings, in hertz."""


@dataclass(frozen=True)
class Recording:
    """What was sent."""

    waveform: Tensor
    """(S,), channels averaged."""
    sample_rate: int
    sha256: str
    """Of the file."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.waveform.shape[0] / self.sample_rate


def read_upload(file: BinaryIO, limits: Limits) -> Recording:
    """Reads a sound file of any kind that libsndfile knows.

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
    try:
        waveform, rate = _unpack(file, limits)
    # libsndfile's own errors, and what soundfile makes of headers that make no sense.
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError, ValueError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise _unusable(f"it cannot be read as sound: {reason.strip().rstrip('.')}") from error
    if waveform.shape[0] == 0:
        raise _unusable("it holds no samples")
    if not waveform.isfinite().all():
        raise _unusable("it holds samples that are not finite numbers")
    return Recording(waveform, rate, digest.hexdigest())


def _unpack(file: BinaryIO, limits: Limits) -> tuple[Tensor, int]:
    with SequentialSound(file) as sound:
        rate, channels = sound.samplerate, sound.channels
        if not 1 <= channels <= MAX_CHANNELS:
            raise _unusable(f"it has {channels} channels; at most {MAX_CHANNELS} are taken")
        if not MIN_RATE <= rate <= MAX_RATE:
            raise _unusable(f"its sample rate is {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are taken")
        limit = int(limits.max_upload_seconds * rate)
        pieces: list[np.ndarray] = []
        count = 0
        # The number of frames in the header is not believed.
        for block in sound.read_blocks():
            pieces.append(block.mean(axis=1))
            count += block.shape[0]
            if count > limit:
                raise ApiError(
                    413,
                    f"The recording is longer than the {limits.max_upload_seconds:g} s that are "
                    "taken here; 5 to 10 s are enough.",
                    param="audio_sample",
                    code="too_long",
                )
    samples = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
    return torch.from_numpy(samples), rate


def _unusable(reason: str) -> ApiError:
    return ApiError(
        400,
        f"No voice can be made of the recording: {reason}.",
        param="audio_sample",
        code="invalid_audio",
    )
