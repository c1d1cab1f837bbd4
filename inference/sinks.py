"""Outputs of speech while it is being made: a file, a pipe, a player.

Shapes: S samples.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

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

    def __enter__(self) -> Self:
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
        """Keeps what is needed to write the file; nothing is written before `finish`.

        Args:
            path: of the file; its suffix says the format.
            sample_rate: in hertz.
            comment: for its metadata.
        """
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


class ChapterSink(Sink):
    """An audio file with marks of chapters, written whole or not at all.

    An m4b or m4a file is encoded while the speech comes; it has the chapters, title and author. A
    wav file has them as cue points with labels, which audio editors show. Other files have none.
    """

    def __init__(
        self, path: Path, sample_rate: int, comment: str, facts: Mapping[str, str] | None = None
    ) -> None:
        """Opens the file.

        Args:
            path: of the file.
            sample_rate: in hertz.
            comment: for the metadata.
            facts: further metadata of an m4b file, such as title and artist.

        Raises:
            ImportError: an m4b file needs av.
        """
        self._path, self._sample_rate, self._num_samples = path, sample_rate, 0
        self._chapters: list[tuple[str, int]] = []
        """Title and first sample of each."""
        self._sink = FileSink(path, sample_rate, comment)
        self._book: _BookEncoder | None = None
        if path.suffix.lower() in (".m4b", ".m4a"):
            known = {name: value for name, value in (facts or {}).items() if value}
            self._book = _BookEncoder(path, sample_rate, {**known, "comment": comment})

    def begin_chapter(self, title: str) -> None:
        """A chapter begins with the next sample."""
        self._chapters.append((title, self._num_samples))

    def write(self, chunk: Tensor) -> None:
        """Takes the next samples (S,)."""
        self._num_samples += chunk.shape[0]
        (self._sink if self._book is None else self._book).write(chunk)

    def finish(self) -> None:
        """Writes what is left, and the marks."""
        if self._book is not None:
            self._book.finish(self._chapters, self._num_samples)
            return
        self._sink.finish()
        if self._chapters and self._path.suffix.lower() == ".wav":
            add_cue_points(self._path, self._chapters)

    def close(self) -> None:
        """Removes a file that is not complete."""
        if self._book is not None:
            self._book.close()


class _BookEncoder:
    """AAC in an MPEG-4 file, by FFmpeg."""

    def __init__(self, path: Path, sample_rate: int, metadata: Mapping[str, str]) -> None:
        import av

        self._path, self._rate, self._num_samples = path, sample_rate, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{path.name}.part")
        self._container = av.open(str(self._temporary), "w", format="ipod")
        self._container.metadata.update(metadata)
        self._stream = self._container.add_stream("aac", rate=sample_rate, layout="mono")
        self._stream.bit_rate = 64_000

    def write(self, chunk: Tensor) -> None:
        import av

        samples = chunk.detach().float().cpu().clamp(-1.0, 1.0).numpy()
        if not samples.shape[0]:
            return
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self._rate, self._num_samples
        self._num_samples += samples.shape[0]
        self._container.mux(self._stream.encode(frame))

    def finish(self, chapters: Sequence[tuple[str, int]], num_samples: int) -> None:
        self._container.mux(self._stream.encode(None))
        ends = [*(start for _, start in chapters[1:]), num_samples]
        self._container.set_chapters(
            [
                {
                    "id": number,
                    "start": start,
                    "end": end,
                    "time_base": Fraction(1, self._rate),
                    "metadata": {"title": title},
                }
                for number, ((title, start), end) in enumerate(zip(chapters, ends, strict=False))
            ]
        )
        self._container.close()
        self._temporary.replace(self._path)

    def close(self) -> None:
        self._container.close()
        self._temporary.unlink(missing_ok=True)


def add_cue_points(path: Path, points: Sequence[tuple[str, int]]) -> None:
    """Adds cue points with labels to a wav file.

    Args:
        path: of the file.
        points: label and sample of each.
    """
    cues = struct.pack("<I", len(points))
    labels = b"adtl"
    for number, (label, sample) in enumerate(points, start=1):
        cues += struct.pack("<II4sIII", number, sample, b"data", 0, 0, sample)
        labels += _chunk(b"labl", struct.pack("<I", number) + label.encode() + b"\0")
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"\0" * (file.tell() % 2) + _chunk(b"cue ", cues) + _chunk(b"LIST", labels))
        size = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", size - 8))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


class PipeSink(Sink):
    """Speech to a binary stream as it comes; `pcm` is bare samples of 16 bits.

    The header of a wav file gets its length at the end, where the stream is a file.
    """

    def __init__(
        self, stream: BinaryIO, sample_rate: int, form: StreamFormat = "pcm", comment: str = ""
    ) -> None:
        """Writes the header, where the format has one.

        Args:
            stream: is written to and flushed at each chunk, and is left open.
            sample_rate: in hertz.
            form: of what is written.
            comment: for the metadata, where the format has any.

        Raises:
            ValueError: the format cannot be written here.
        """
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
    """The loudspeaker, through the first of the known players that is installed."""

    def __init__(self, sample_rate: int) -> None:
        """Starts the player.

        Args:
            sample_rate: in hertz.

        Raises:
            ValueError: there is no player.
        """
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
