"""A recording whose samples are kept as its file has them, to be written back in the same format.

Shapes: S samples, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import soundfile

from tokenlm.audio.io import AudioError, check_recording, mended_wav, write_samples

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = {
    "WAV": (".wav",),
    "WAVEX": (".wav",),
    "RF64": (".wav", ".rf64"),
    "W64": (".w64",),
    "FLAC": (".flac",),
    "AIFF": (".aiff", ".aif"),
    "AU": (".au",),
    "CAF": (".caf",),
}
"""Containers that are read and written, and the suffixes of their files."""
_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_FLOATS = ("FLOAT", "DOUBLE")
_TAGS = ("title", "artist", "album", "date", "genre", "copyright", "comment", "software")
_FULL_SCALE = 2.0**31
_READ_BLOCK = 65536

Accept = Callable[[int, int, float], None]
"""Called with sample rate in hertz, number of channels, and seconds so far."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Samples, rate and format of a sound file that loses nothing."""

    samples: np.ndarray
    """(S, C), int32 of which the first bits are those of the file, or float64."""
    sample_rate: int
    """In hertz."""
    container: str = "WAV"
    encoding: str = "FLOAT"
    """Of the samples, as libsndfile calls it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the file."""

    @classmethod
    def load(
        cls, path: str | Path, *, name: str | None = None, accept: Accept | None = None
    ) -> Recording:
        """Reads a file without any loss.

        Args:
            path: a wav, flac, aiff, au, caf or w64 file of whole or floating-point samples.
            name: what errors call the file; default its path.
            accept: called before any block of samples is kept; raises whatever it likes where the
                file is too much.

        Raises:
            AudioError: there is no such file, it is no audio, or of a kind that loses something
                whenever it is written.
        """
        title = str(path) if name is None else name
        check_recording(path, name=name)
        try:
            file = soundfile.SoundFile(cast(str, mended_wav(Path(path)) or str(path)))
        except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
            raise AudioError(f"{title} cannot be edited: {_OTHER_KINDS}") from error
        with file:
            is_whole = file.subtype in _BITS
            if file.format not in SUFFIXES or not (is_whole or file.subtype in _FLOATS):
                found = f"{file.format}, {file.subtype}"
                raise AudioError(f"{title} ({found}) cannot be edited: {_OTHER_KINDS}")
            kind: Literal["int32", "float64"] = "int32" if is_whole else "float64"
            blocks, count = [np.zeros((0, file.channels), kind)], 0
            size = max(_READ_BLOCK // file.channels, 1)
            buffer = np.empty((size, file.channels), kind)
            try:
                while (read := file.buffer_read_into(buffer, dtype=kind)) > 0:
                    count += read
                    if accept is not None:
                        accept(file.samplerate, file.channels, count / file.samplerate)
                    blocks.append(buffer[:read].copy())
            except soundfile.LibsndfileError as error:
                raise AudioError(f"{title} is damaged: {error.error_string}") from error
            tags = {tag: value for tag in _TAGS if (value := getattr(file, tag))}
            samples = np.concatenate(blocks)
            if not np.isfinite(samples).all():
                raise AudioError(
                    f"{title} holds samples that are not finite numbers (NaN or infinite)."
                )
            return cls(
                samples=samples,
                sample_rate=file.samplerate,
                container=file.format,
                encoding=file.subtype,
                tags=tags,
            )

    @classmethod
    def of(cls, waveform: Tensor, sample_rate: int) -> Recording:
        """A recording of samples (S,) or (C, S), full scale is -1 .. 1.

        Raises:
            AudioError: samples of another shape, or not finite.
        """
        if waveform.ndim not in (1, 2) or not waveform.isfinite().all():
            raise AudioError(
                "a recording is finite samples of the shape (samples,) or (channels, samples), not "
                f"{tuple(waveform.shape)}."
            )
        table = waveform.detach().cpu().double()
        table = table[:, None] if table.ndim == 1 else table.T
        return cls(samples=table.contiguous().numpy(), sample_rate=sample_rate)

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.sample_rate

    @property
    def waveform(self) -> Tensor:
        """Samples (C, S) as float32, full scale is -1 .. 1."""
        import torch

        return torch.from_numpy(self._floats(self.samples).T.astype(np.float32))

    @property
    def suffix(self) -> str:
        """Of files of this format."""
        return SUFFIXES[self.container][0]

    def with_samples(self, before: int, waveform: Tensor, after: int) -> Recording:
        """The recording with other samples in the place of those from `before` to `after`.

        Args:
            before: index of the first sample that is replaced.
            waveform: (C, S') that takes their place, full scale is -1 .. 1; clipped where the
                encoding has whole numbers.
            after: index behind the last sample that is replaced.
        """
        new = self._quantised(waveform.detach().cpu().double().T.numpy())
        samples = np.concatenate([self.samples[:before], new, self.samples[after:]])
        return replace(self, samples=samples)

    def save(self, path: str | Path, *, comment: str = "") -> None:
        """Writes the recording in its own format, whole or not at all.

        Args:
            path: whose suffix is one of the format.
            comment: stands before the comment that the file had.

        Raises:
            AudioError: the suffix is that of another format, or the file cannot be written.
        """
        path = Path(path)
        self.check_suffix(path)
        tags = dict(self.tags)
        if comment:
            tags["comment"] = "; ".join(filter(None, [comment, tags.get("comment", "")]))
        write_samples(path, self.samples, self.sample_rate, self.container, self.encoding, tags)

    def check_suffix(self, path: Path) -> None:
        """Checks that a file of this name may hold the format of the recording.

        Raises:
            AudioError: it may not.
        """
        suffixes = SUFFIXES[self.container]
        if path.suffix.lower() not in suffixes:
            raise AudioError(
                f"{path}: the recording is of the format {self.container} and keeps it, so it is "
                f"written to a file that ends in {' or '.join(suffixes)}."
            )

    def _floats(self, samples: np.ndarray) -> np.ndarray:
        return samples / _FULL_SCALE if samples.dtype == np.int32 else samples

    def _quantised(self, values: np.ndarray) -> np.ndarray:
        """Values (S, C) as samples of the encoding."""
        if self.encoding not in _BITS:
            return values
        steps = 2.0 ** (_BITS[self.encoding] - 1)
        whole = np.clip(np.rint(values * steps), -steps, steps - 1)
        return (whole * (_FULL_SCALE / steps)).astype(np.int32)


_OTHER_KINDS = (
    "wav, flac, aiff, au, caf and w64 files of whole or floating-point samples are, others would "
    "lose something when they are written again. Convert it first: ffmpeg -i IN OUT.wav."
)
