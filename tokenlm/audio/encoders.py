"""Waveforms to bytes, piece by piece, as they are made.

Shapes: S samples of one piece.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Protocol, cast

import numpy as np
import soundfile
from torch import Tensor

from tokenlm.audio.io import AudioError

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""Every format that OpenAI's API knows."""
UNKNOWN_LENGTH = 0xFFFFFFFF
"""Length in a wav header whose end is not yet made; readers take it as "until the end"."""
OPUS_PAGE_MS = 100.0
"""Longest speech that waits in the encoder for its page of Ogg to be full."""
_SET_OGG_PAGE_LATENCY_MS = 0x1302  # SFC_SET_OGG_PAGE_LATENCY_MS of sndfile.h


class Encoder(Protocol):
    """Makes one file."""

    def encode(self, waveform: Tensor) -> bytes:
        """Bytes that are ready after a further piece (S,); there may be none."""
        ...

    def finish(self) -> bytes:
        """The last bytes."""
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
    """Formats that this installation can write."""
    known = soundfile.available_formats()
    found = [
        name
        for name, codec in _CODECS.items()
        if codec.container in known
        and codec.subtype in soundfile.available_subtypes(codec.container)
    ]
    return tuple(name for name in MEDIA_TYPES if name in (*found, "wav", "pcm"))


def build_encoder(name: str, sample_rate: int, comment: str) -> Encoder:
    """An encoder of a format.

    Args:
        name: one of `available_formats()`.
        sample_rate: of the waveform, in hertz.
        comment: for the metadata of the file, where it has any.

    Raises:
        AudioError: the format cannot be written here.
    """
    if name not in available_formats():
        raise AudioError(
            f"there is no encoder for {name!r} here; there is: {', '.join(available_formats())}."
        )
    if name == "pcm":
        return PcmEncoder()
    if name == "wav":
        return WavEncoder(sample_rate, comment)
    return FileEncoder(_CODECS[name], sample_rate, comment)


class PcmEncoder:
    """Signed 16-bit samples, the low byte first, and nothing else."""

    def encode(self, waveform: Tensor) -> bytes:
        """See `Encoder`."""
        return to_pcm16(waveform).tobytes()

    def finish(self) -> bytes:
        """See `Encoder`."""
        return b""


class WavEncoder:
    """A wav file of 16 bits whose header is written before its length is known."""

    def __init__(self, sample_rate: int, comment: str) -> None:
        self._header = wav_header(sample_rate, comment)

    def encode(self, waveform: Tensor) -> bytes:
        """See `Encoder`."""
        header, self._header = self._header, b""
        return header + to_pcm16(waveform).tobytes()

    def finish(self) -> bytes:
        """See `Encoder`."""
        header, self._header = self._header, b""
        return header


class FileEncoder:
    """Any other format, by libsndfile."""

    def __init__(self, codec: _Codec, sample_rate: int, comment: str) -> None:
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
    """Samples (S,) as 16-bit integers, clipped at full scale; scaled as `save_audio` does."""
    samples = waveform.detach().float().cpu().numpy()
    scaled = np.rint(samples * np.float64(32768))
    return np.clip(scaled, -32768, 32767).astype("<i2")


def wav_header(sample_rate: int, comment: str) -> bytes:
    """Header of a mono wav file of 16 bits and unknown length, with a comment (LIST INFO)."""
    text = b"INFO" + _chunk(b"ICMT", comment.encode() + b"\0") + _chunk(b"ISFT", b"tokenlm\0")
    facts = struct.pack("<HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    size = struct.pack("<I", UNKNOWN_LENGTH)
    return (
        b"RIFF" + size + b"WAVE" + _chunk(b"fmt ", facts) + _chunk(b"LIST", text) + b"data" + size
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _set_page_latency(file: soundfile.SoundFile, milliseconds: float) -> None:
    """Makes pages of Ogg shorter than the second that libsndfile takes by default.

    The Python package has no name for this command; where its inside should change, pages stay
    long, and the first bytes come later.
    """
    library, ffi = getattr(soundfile, "_snd", None), getattr(soundfile, "_ffi", None)
    handle = getattr(file, "_file", None)
    if library is not None and ffi is not None and handle is not None:
        value = ffi.new("double*", milliseconds)
        library.sf_command(handle, _SET_OGG_PAGE_LATENCY_MS, value, ffi.sizeof("double"))


class _Sink(io.RawIOBase):
    """A file that is sent while it is written.

    At the end encoders go back to the header and note the length; what has been sent cannot be
    changed, so that is dropped, and the header keeps its "unknown".
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
        """The bytes since the last call."""
        ready, self._ready = bytes(self._ready), bytearray()
        return ready
