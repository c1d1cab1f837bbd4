"""Encoding waveforms: 16-bit samples, wav headers, and files that are sent while they are made.

Shapes: S samples of one piece.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import numpy as np
import soundfile

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("mp3", "opus", "flac", "wav", "pcm")
"""Formats that can be written piece by piece. `pcm` is bare 16-bit samples, the low byte first."""
UNKNOWN_SIZE = 0xFFFFFFFF
"""Size in a wav header whose end is not yet made; readers take it as "until the end"."""
OPUS_PAGE_MS = 100.0
"""Longest stretch of speech that the encoder holds back until a page of Ogg is full."""
_SET_OGG_PAGE_LATENCY_MS = 0x1302  # SFC_SET_OGG_PAGE_LATENCY_MS of sndfile.h


class Encoder(Protocol):
    """Encodes one file."""

    def encode(self, waveform: Tensor) -> bytes:
        """Takes the next samples (S,) and returns the bytes that are ready, which may be none."""
        ...

    def finish(self) -> bytes:
        """Returns the last bytes."""
        ...


@dataclass(frozen=True)
class _Codec:
    """A format that libsndfile writes."""

    container: str
    subtype: str
    options: dict[str, object]


_CODECS = {
    # With a constant bit rate a reader knows the length from the size, without the table that
    # could only be written at the end. 0.6 is 64 kbit/s at 24 kHz.
    "mp3": _Codec("MP3", "MPEG_LAYER_III", {"bitrate_mode": "CONSTANT", "compression_level": 0.6}),
    "opus": _Codec("OGG", "OPUS", {}),
    "flac": _Codec("FLAC", "PCM_16", {}),
}


@lru_cache
def available_formats() -> tuple[str, ...]:
    """The `FORMATS` that this installation can write."""
    containers = soundfile.available_formats()
    return tuple(
        name
        for name in FORMATS
        if (codec := _CODECS.get(name)) is None
        or (
            codec.container in containers
            and codec.subtype in soundfile.available_subtypes(codec.container)
        )
    )


def build_encoder(name: str, sample_rate: int, comment: str | None = None) -> Encoder:
    """Builds the encoder of a format.

    Args:
        name: one of `available_formats()`.
        sample_rate: of the waveform, in hertz.
        comment: for the metadata of the file, where the format has any.

    Raises:
        ValueError: the format cannot be written here.
    """
    if name not in available_formats():
        raise ValueError(
            f"there is no encoder for {name!r} here; there is: {', '.join(available_formats())}."
        )
    if name == "pcm":
        return PcmEncoder()
    if name == "wav":
        return PcmEncoder(wav_header(sample_rate, comment))
    return FileEncoder(_CODECS[name], sample_rate, comment)


class PcmEncoder:
    """16-bit samples, behind a header if one is given."""

    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def encode(self, waveform: Tensor) -> bytes:
        """See `Encoder`."""
        return self.finish() + to_pcm16(waveform).tobytes()

    def finish(self) -> bytes:
        """See `Encoder`."""
        header, self._header = self._header, b""
        return header


class FileEncoder:
    """A compressed file, written by libsndfile."""

    def __init__(self, codec: _Codec, sample_rate: int, comment: str | None) -> None:
        self._sink = _Sink()
        self._file = soundfile.SoundFile(
            cast(BinaryIO, self._sink),
            "w",
            sample_rate,
            1,
            codec.subtype,
            format=codec.container,
            **codec.options,  # type: ignore[arg-type]
        )
        if comment is not None:
            self._file.comment = comment
        self._file.software = "tokenlm"
        if codec.subtype == "OPUS":
            _set_page_latency(self._file, OPUS_PAGE_MS)

    def encode(self, waveform: Tensor) -> bytes:
        """See `Encoder`."""
        self._file.write(to_pcm16(waveform))
        return self._sink.take()

    def finish(self) -> bytes:
        """See `Encoder`."""
        self._file.close()
        return self._sink.take()


def to_pcm16(waveform: Tensor) -> np.ndarray:
    """Samples (S,) as little-endian 16-bit integers, clipped at full scale.

    Scaled by 32768, samples that were read from 16 bits stay the same to the bit; +1.0 itself has
    no 16-bit value and becomes the largest there is, where a plain cast would wrap around.
    """
    samples = waveform.detach().float().cpu().numpy()
    scaled = np.rint(samples * np.float64(32768))
    return np.clip(scaled, -32768, 32767).astype("<i2")


def wav_header(
    sample_rate: int, comment: str | None = None, *, num_samples: int | None = None
) -> bytes:
    """Header of a mono wav file of 16 bits.

    Args:
        sample_rate: in hertz.
        comment: for a LIST chunk, which names the software, too; without it the header is 44 bytes.
        num_samples: length of the file; None where it is not known yet.
    """
    form = struct.pack("<HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    chunks = b"WAVE" + _chunk(b"fmt ", form)
    if comment is not None:
        information = _chunk(b"ICMT", comment.encode() + b"\0") + _chunk(b"ISFT", b"tokenlm\0")
        chunks += _chunk(b"LIST", b"INFO" + information)
    riff_size = data_size = UNKNOWN_SIZE
    if num_samples is not None:
        riff_size, data_size = len(chunks) + 8 + 2 * num_samples, 2 * num_samples
    return (
        struct.pack("<4sI", b"RIFF", riff_size) + chunks + struct.pack("<4sI", b"data", data_size)
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _set_page_latency(file: soundfile.SoundFile, milliseconds: float) -> None:
    """Makes pages of Ogg shorter than libsndfile's default of a second.

    The Python package does not expose this command. Should its internals change, pages stay long
    and the first bytes come later.
    """
    library, ffi = getattr(soundfile, "_snd", None), getattr(soundfile, "_ffi", None)
    handle = getattr(file, "_file", None)
    if library is not None and ffi is not None and handle is not None:
        value = ffi.new("double*", milliseconds)
        library.sf_command(handle, _SET_OGG_PAGE_LATENCY_MS, value, ffi.sizeof("double"))


class _Sink(io.RawIOBase):
    """A file that is sent while it is written.

    At their end encoders seek back to the header and write the length. What has been sent cannot
    be changed, so that is dropped, and the header keeps its "unknown".
    """

    def __init__(self) -> None:
        super().__init__()
        self._position = 0
        self._end = 0
        self._ready = bytearray()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        self._position = start + offset
        return self._position

    def write(self, data: object) -> int:  # type: ignore[override]
        content = bytes(data)  # type: ignore[call-overload]
        fresh = content[max(self._end - self._position, 0) :]
        self._ready += fresh
        self._position += len(content)
        self._end = max(self._end, self._position)
        return len(content)

    def take(self) -> bytes:
        """Returns the bytes written since the last call."""
        ready, self._ready = bytes(self._ready), bytearray()
        return ready
