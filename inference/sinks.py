"""Outputs of speech while it is being made: a file, a pipe, a player.

Shapes: S samples.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal

from tokenlm.audio.encoders import UNKNOWN_SIZE, PcmEncoder, build_encoder, wav_header
from tokenlm.audio.io import save_audio

if TYPE_CHECKING:
    from torch import Tensor

StreamFormat = Literal["wav", "pcm", "flac", "mp3", "opus"]

_PLAYERS = {
    "aplay": "aplay -q -t raw -f S16_LE -c 1 -r {rate}",
    "pacat": "pacat --playback --raw --format=s16le --channels=1 --rate={rate}",
    "play": "play -q -t raw -e signed -b 16 -c 1 -r {rate} -",
    "ffplay": "ffplay -loglevel error -nodisp -autoexit -f s16le -ch_layout mono -ar {rate} -i -",
}
"""Programs that play samples from their standard input, in the order of preference."""


class Sink:
    """Takes a waveform chunk by chunk. A context manager that finishes and closes it."""

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        raise NotImplementedError

    def finish(self) -> None:
        """Called when all chunks have been written."""

    def close(self) -> None:
        """Releases resources, whether the sink was finished or not."""

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
    """An audio file, written when the speech has ended, whole or not at all."""

    def __init__(self, path: Path, sample_rate: int, comment: str) -> None:
        self._path, self._sample_rate, self._comment = path, sample_rate, comment
        self._chunks: list[Tensor] = []

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        self._chunks.append(chunk)

    def finish(self) -> None:
        """Writes the file."""
        import torch

        waveform = torch.cat(self._chunks) if self._chunks else torch.zeros(0)
        save_audio(self._path, waveform, self._sample_rate, comment=self._comment)


class PipeSink(Sink):
    """Speech to a binary stream as it comes; `pcm` is bare samples of 16 bits.

    The header of a wav file gets its length at the end, where the stream is a file.

    Raises:
        ValueError: the format cannot be written here.
    """

    def __init__(
        self, stream: BinaryIO, sample_rate: int, form: StreamFormat = "pcm", comment: str = ""
    ) -> None:
        self._stream, self._sample_rate = stream, sample_rate
        self._num_samples = 0
        self._header: int | None = None
        """Place of a wav header that can be written again."""
        if form == "wav":
            self._header = _position(stream)
            self._encoder = PcmEncoder()
            self._send(wav_header(sample_rate))
        else:
            self._encoder = build_encoder(form, sample_rate, comment)

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        self._num_samples += chunk.shape[0]
        self._send(self._encoder.encode(chunk))

    def finish(self) -> None:
        """Writes what the encoder holds back, and the length into a wav header."""
        self._send(self._encoder.finish())
        if self._header is not None:
            header = wav_header(self._sample_rate, num_samples=self._num_samples)
            if 2 * self._num_samples < UNKNOWN_SIZE - len(header):
                end = self._stream.tell()
                self._stream.seek(self._header)
                self._stream.write(header)
                self._stream.seek(end)
                self._stream.flush()

    def _send(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()


def _position(stream: BinaryIO) -> int | None:
    """The position of a stream, if what is written from here can be overwritten later."""
    try:
        place = stream.tell() if stream.seekable() else None
        if place is not None and sys.platform != "win32":
            import fcntl

            # In append mode everything is written to the end.
            if fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND:
                return None
    except io.UnsupportedOperation:  # a buffer in memory has no descriptor
        pass
    except OSError:
        return None
    return place


class PlayerSink(Sink):
    """The loudspeaker, through the first of the known players that is installed.

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
        """Waits until everything has been played.

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
    """Checks that a player is installed.

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
