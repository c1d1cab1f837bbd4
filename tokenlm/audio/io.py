"""Audio files: reading any of them as one float waveform, writing one.

Shapes: S samples.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from tokenlm.atomic import atomic_path
from tokenlm.audio.resample import resample

_log = logging.getLogger(__name__)

_WRITERS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
WRITABLE_SUFFIXES = tuple(_WRITERS)
"""Ends of the names of files that can be written."""
_PCM16_SCALE = 32768
# Samples given to the encoder at once: some versions of the Vorbis writer put them on the stack.
_WRITE_BLOCK = 65536
_READ_BLOCK = 65536
"""Samples of all channels that are unpacked at once by default."""


class AudioError(ValueError):
    """An audio file or waveform that cannot be used; the message names the file."""


class SequentialSound(soundfile.SoundFile):
    """A sound file that is read from its start to its end, whatever its header says of its length.

    A file that was sent while it was made does not say how long it is. soundfile believes a flac of
    this kind to hold 2^63 samples, and seeks after every read, which fails at the end.
    """

    def seekable(self) -> bool:
        """See `soundfile.SoundFile`."""
        return False

    def read_blocks(self, num_samples: int = _READ_BLOCK) -> Iterator[np.ndarray]:
        """All samples, float32 (S, channels), some at a time.

        Args:
            num_samples: of all channels, in one block.

        Raises:
            soundfile.LibsndfileError: the file is damaged.
        """
        size = max(num_samples // self.channels, 1)
        buffer = np.empty((size, self.channels), dtype=np.float32)
        while (count := self.buffer_read_into(buffer, dtype="float32")) > 0:
            yield buffer[:count].copy()


def load_audio(path: str | Path, sample_rate: int) -> Tensor:
    """Read an audio file as one channel at the wanted rate.

    Args:
        path: a file in any format that libsndfile reads (wav, flac, ogg, mp3, ...), also one that
            was sent while it was made and does not say how long it is. Several channels are
            averaged.
        sample_rate: the wanted rate, in hertz.

    Returns:
        (S,) float32, full scale is -1 .. 1.

    Raises:
        AudioError: if the file is missing, is not audio, holds no samples, or holds samples that
            are not finite numbers.
    """
    path = Path(path)
    if not path.exists():
        raise AudioError(f"{path}: there is no such audio file.")
    if path.is_dir():
        raise AudioError(f"{path} is a folder, not an audio file.")
    try:
        if path.stat().st_size == 0:
            raise AudioError(f"{path} is an empty file.")
        with SequentialSound(str(path)) as file:
            file_rate = file.samplerate
            blocks = [block.mean(axis=1) for block in file.read_blocks()]
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        # soundfile takes a .raw file to be headerless and asks for its rate with a TypeError.
        reason = getattr(error, "error_string", None) or str(error)
        raise AudioError(f"{path} cannot be read as audio: {reason.strip()}") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    if samples.shape[0] == 0:
        raise AudioError(f"{path} holds no samples.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path} holds samples that are not finite numbers (NaN or infinite).")
    waveform = resample(torch.from_numpy(samples), file_rate, sample_rate)
    if waveform.shape[0] == 0:
        raise AudioError(f"{path} is too short to be resampled to {sample_rate} Hz.")
    return waveform


def save_audio(
    path: str | Path, waveform: Tensor, sample_rate: int, *, comment: str | None = None
) -> None:
    """Write a waveform to a wav, flac or ogg file (by its suffix), whole or not at all.

    Samples beyond full scale are clipped, with a warning in the log. Wav and flac hold 16 bits.

    Args:
        path: the file; missing folders are made.
        waveform: (S,), full scale is -1 .. 1.
        sample_rate: in hertz.
        comment: written to the comment field of the file's metadata.

    Raises:
        AudioError: for another suffix, another shape, or samples that are not finite numbers.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise AudioError(f"{path}: audio is written as one of {', '.join(_WRITERS)} files.")
    container, encoding = _WRITERS[path.suffix.lower()]
    if waveform.ndim != 1:
        raise AudioError(
            f"{path}: a waveform of shape (samples,) is written, not {tuple(waveform.shape)}."
        )
    samples = waveform.detach().float().cpu().numpy()
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: the waveform holds samples that are not finite numbers.")
    num_clipped = int((np.abs(samples) > 1.0).sum())
    if num_clipped:
        _log.warning("%s: %d samples beyond full scale were clipped", path, num_clipped)
    # Scaled by 32768 a file that is read and written again stays the same to the bit; +1.0 itself
    # has no 16-bit value and becomes the largest there is, where a plain cast would wrap around.
    steps = np.rint(samples * np.float64(_PCM16_SCALE))
    pcm = np.clip(steps, -_PCM16_SCALE, _PCM16_SCALE - 1).astype(np.int16)
    data = np.clip(samples, -1.0, 1.0) if encoding == "VORBIS" else pcm
    try:
        with (
            atomic_path(path) as temporary,
            soundfile.SoundFile(
                str(temporary), "w", int(sample_rate), 1, encoding, format=container
            ) as file,
        ):
            file.software = "tokenlm"
            if comment is not None:
                file.comment = comment
            for start in range(0, len(data), _WRITE_BLOCK):
                file.write(data[start : start + _WRITE_BLOCK])
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path} cannot be written: {error.error_string}") from error
