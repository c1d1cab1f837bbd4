"""Where speech goes while it is being made: a file, standard output, a loudspeaker.

Shapes: S samples.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from torch import Tensor

StreamFormat = Literal["wav", "pcm", "flac", "mp3", "opus"]

_UNKNOWN_SIZE = 0xFFFFFFFF
"""Size in a wav header whose data has no known end yet; players read on to the end."""

_HEADER_SIZE = 44
"""Bytes before the samples."""

_PLAYERS = {
    "aplay": "aplay -q -t raw -f S16_LE -c 1 -r {rate}",
    "pacat": "pacat --playback --raw --format=s16le --channels=1 --rate={rate}",
    "play": "play -q -t raw -e signed -b 16 -c 1 -r {rate} -",
    "ffplay": "ffplay -loglevel error -nodisp -autoexit -f s16le -ch_layout mono -ar {rate} -i -",
}
"""Programs that play samples from their standard input, the likeliest first."""


class Sink:
    """Takes a waveform chunk by chunk; a context manager."""

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        raise NotImplementedError

    def finish(self) -> None:
        """All has been written."""

    def close(self) -> None:
        """Frees what the sink holds, whether it was finished or not."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self.close()


class FileSink(Sink):
    """A sound file, written whole when the speech has ended, or not at all."""

    def __init__(self, path: Path, sample_rate: int, comment: str) -> None:
        self._path, self._sample_rate, self._comment = path, sample_rate, comment
        self._chunks: list[Tensor] = []

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        self._chunks.append(chunk)

    def finish(self) -> None:
        """Writes the file."""
        import torch

        from tokenlm.audio.io import save_audio

        waveform = torch.cat(self._chunks) if self._chunks else torch.zeros(0)
        save_audio(self._path, waveform, self._sample_rate, comment=self._comment)


class PipeSink(Sink):
    """Speech to a binary stream as it comes; `pcm` is bare samples of 16 bits.

    The header of a wav file says how long it is once that is known, where the stream is a file.

    Raises:
        ValueError: the format cannot be written here.
    """

    def __init__(
        self, stream: BinaryIO, sample_rate: int, form: StreamFormat = "pcm", comment: str = ""
    ) -> None:
        self._stream = stream
        self._encoder = None
        self._header: int | None = None
        self._num_bytes = 0
        if form == "wav":
            self._header = _position(stream)
            stream.write(wav_header(sample_rate))
            stream.flush()
        elif form != "pcm":
            from inference.server.encoders import build_encoder

            self._encoder = build_encoder(form, sample_rate, comment)

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        self._send(pcm16(chunk) if self._encoder is None else self._encoder.encode(chunk))

    def finish(self) -> None:
        """Writes what the encoder holds back, and the length into a header."""
        if self._encoder is not None:
            self._send(self._encoder.finish())
        if self._header is not None and self._num_bytes < _UNKNOWN_SIZE - _HEADER_SIZE:
            end = self._stream.tell()
            for place, size in ((4, self._num_bytes + _HEADER_SIZE - 8), (40, self._num_bytes)):
                self._stream.seek(self._header + place)
                self._stream.write(struct.pack("<I", size))
            self._stream.seek(end)
            self._stream.flush()

    def _send(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()
        self._num_bytes += len(data)


def _position(stream: BinaryIO) -> int | None:
    """Where a stream stands, if what lies behind can be written again."""
    try:
        place = stream.tell() if stream.seekable() else None
        if place is not None and sys.platform != "win32":
            import fcntl

            # Of a file that is only added to, everything is written to its end.
            if fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND:
                return None
    except io.UnsupportedOperation:  # a buffer in memory has no number
        pass
    except OSError:
        return None
    return place


class PlayerSink(Sink):
    """The loudspeaker, by way of whichever player is installed.

    Raises:
        ValueError: there is no player.
    """

    def __init__(self, sample_rate: int) -> None:
        command = player_command(sample_rate)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._pipe = PipeSink(self._process.stdin, sample_rate)  # type: ignore[arg-type]

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        try:
            self._pipe.write(chunk)
        except BrokenPipeError as error:
            status = self._process.wait()
            raise ValueError(f"{self._process.args[0]} ended with status {status}.") from error  # type: ignore[index]

    def finish(self) -> None:
        """Waits until all has been heard.

        Raises:
            ValueError: the player failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait()
        if status:
            raise ValueError(f"{self._process.args[0]} ended with status {status}.")  # type: ignore[index]

    def close(self) -> None:
        """Ends the player."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def check_player() -> None:
    """Checks that there is a player, before any work is done for it.

    Raises:
        ValueError: there is none.
    """
    player_command(24_000)


def player_command(sample_rate: int) -> list[str]:
    """The command that plays 16-bit samples from its standard input.

    Raises:
        ValueError: there is no player.
    """
    for name, command in _PLAYERS.items():
        if shutil.which(name):
            return command.format(rate=sample_rate).split()
    raise ValueError(f"--play needs one of these programs: {', '.join(_PLAYERS)}.")


def pcm16(waveform: Tensor) -> bytes:
    """A waveform (S,) as 16-bit little-endian samples."""
    import torch

    steps = (waveform.detach().float().clamp(-1.0, 1.0) * 32768).round().clamp(max=32767)
    return steps.to(torch.int16).numpy().astype("<i2").tobytes()


def wav_header(sample_rate: int) -> bytes:
    """The header of a wav file of one channel and 16 bits whose length is not known yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", _UNKNOWN_SIZE, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", _UNKNOWN_SIZE)
    )
