"""Audio files: reading any of them as one float waveform, writing one.

libsndfile reads most kinds. What it does not know is given to FFmpeg: inside of PyAV (the extra
`audio`), or the program `ffmpeg` where that is installed.

Shapes: S samples, C channels.
"""

from __future__ import annotations

import codecs
import io
import logging
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np
import soundfile

from tokenlm.atomic import atomic_path
from tokenlm.audio.encoders import to_pcm16
from tokenlm.audio.resample import resample
from tokenlm.installation import install_command

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_WRITERS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".opus": ("OGG", "OPUS"),
}
WRITABLE_SUFFIXES = tuple(_WRITERS)
"""Suffixes of the formats that can be written."""
READABLE_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf",
    ".m4a", ".m4b", ".mp4", ".mov", ".aac", ".webm", ".mka", ".mkv", ".wma", ".amr", ".3gp",
)  # fmt: skip
"""Suffixes of recordings, to search folders with. The format is detected from the content."""
# Samples given to the encoder at once: some versions of the Vorbis writer put them on the stack.
_WRITE_BLOCK = 65536
_READ_BLOCK = 65536
"""Samples of all channels that are unpacked at once by default."""
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_CANCELLED = 0.1
"""Channels whose mean has less than this share of their power are in opposite phase."""
_ENDLESS = 1 << 62
"""Length in headers whose writer did not know it."""
_NUM_SNIFFED = 1024
"""Bytes read to detect the format."""
_NOT_AUDIO = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"<", "a web page or XML document"),
    (b"{", "a JSON document"),
    (b"[{", "a JSON document"),
    (b"%pdf", "a PDF document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89png", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"gif8", "a picture"),
    (b"version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the file itself)"),
    (b"#extm3u", "a playlist"),
    (b"ffconcat", "a playlist"),
)
"""Starts of files, in lower case, that are mistaken for audio, and what they are."""
_SINGLE_FILES = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpeg,mpegts,ogg,rm,"
    "tta,w64,wav,webm,wv"
)
"""Demuxers of FFmpeg that PyAV may use: those whose files do not name other files or addresses, as
a playlist does; a recording may come from a stranger."""


class AudioError(ValueError):
    """An audio file or waveform that cannot be used; the message names the file."""


class UnknownKindError(AudioError):
    """An audio file that no decoder that is installed knows."""

    def __init__(self, title: str, reason: str, hint: str = "") -> None:
        """Say what is wrong.

        Args:
            title: what the file is called.
            reason: why it cannot be decoded.
            hint: how to come to a decoder that could.
        """
        super().__init__(f"{title} cannot be read as audio: {reason}{hint}")
        self.reason = reason


class _Undecodable(Exception):
    """A decoder does not know the kind of a file; the message is its reason."""


class _Decoded(NamedTuple):
    """A file that a decoder has opened."""

    sample_rate: int
    blocks: Iterator[np.ndarray]
    """All samples, float32 (S, C), some at a time."""


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


def load_audio(path: str | Path, sample_rate: int, *, name: str | None = None) -> Tensor:
    """Read an audio file as one channel at the wanted rate.

    Args:
        path: a file in any format that libsndfile reads (wav, flac, ogg, opus, mp3, aiff, …), or
            FFmpeg where it is installed (m4a, mp4, aac, webm, mka, …). It need not say how long it
            is, or may say it wrongly, as where it was sent or recorded until something broke: what
            is there is read. Several channels are averaged; of channels in opposite phase, which
            would cancel one another, the loudest is taken.
        sample_rate: the wanted rate, in hertz.
        name: what errors call the file; default its path.

    Returns:
        (S,) float32, full scale is -1 .. 1.

    Raises:
        AudioError: if the file is missing, is not audio, holds no samples, or holds samples that
            are not finite numbers.
    """
    title = str(path) if name is None else name
    waveform, file_rate = read_recording(path, name=name)
    waveform = resample(waveform, file_rate, sample_rate)
    if waveform.shape[0] == 0:
        raise AudioError(f"{title} is too short to be resampled to {sample_rate} Hz.")
    return waveform


def read_recording(
    path: str | Path,
    *,
    name: str | None = None,
    accept: Callable[[int, int, float], None] | None = None,
    programs: bool = True,
) -> tuple[Tensor, int]:
    """Read an audio file as one channel at its own rate; see `load_audio`.

    Args:
        path: of the file.
        name: what errors call the file; default its path.
        accept: called with sample rate in hertz, number of channels, and seconds so far, before
            any block of samples is kept; raises whatever it likes where that is too much.
        programs: whether the program `ffmpeg` may be run, which unpacks the whole file first.

    Returns:
        (S,) float32, and the sample rate in hertz.

    Raises:
        AudioError: if the file is missing, is not audio, holds no samples, or holds samples that
            are not finite numbers.
    """
    import torch

    title = str(path) if name is None else name
    check_recording(path, name=name)
    samples, file_rate = _read_channel(Path(path), title, accept, programs)
    if samples.shape[0] == 0:
        raise AudioError(f"{title} holds no samples.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{title} holds samples that are not finite numbers (NaN or infinite).")
    return torch.from_numpy(samples), file_rate


def read_pieces(path: str | Path, seconds: float) -> Iterator[tuple[Tensor, int]]:
    """Read an audio file as one channel in pieces, for recordings that memory does not hold.

    Channels are joined as by `load_audio`, in each piece by itself.

    Args:
        path: of the file.
        seconds: length of each piece but the last; positive.

    Yields:
        (S,) float32, and the sample rate in hertz.

    Raises:
        AudioError: the file is missing, is not audio, or holds samples that are not finite numbers.
    """
    import torch

    check_recording(path)
    title = str(path)
    _, decoded = _open(Path(path), title)
    size = max(round(seconds * decoded.sample_rate), 1)
    blocks: list[np.ndarray] = []
    count = 0

    def piece(samples: np.ndarray) -> tuple[Tensor, int]:
        if not np.isfinite(samples).all():
            raise AudioError(
                f"{title} holds samples that are not finite numbers (NaN or infinite)."
            )
        mixed = samples.mean(axis=1)
        variances = samples.var(axis=0)
        if samples.shape[1] > 1 and mixed.var() < _CANCELLED * variances.mean():
            mixed = samples[:, int(variances.argmax())].copy()
        return torch.from_numpy(mixed), decoded.sample_rate

    try:
        for block in decoded.blocks:
            blocks.append(block)
            count += len(block)
            while count >= size:
                samples = np.concatenate(blocks)
                yield piece(samples[:size])
                blocks, count = [samples[size:]], count - size
    except (_Undecodable, soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise UnknownKindError(title, _reason(error)) from error
    if count:
        yield piece(np.concatenate(blocks))


def recording_rate(path: str | Path) -> int:
    """Sample rate of an audio file in hertz, without reading all of it.

    Raises:
        AudioError: if the file is missing or is not audio.
    """
    check_recording(path)
    return _open(Path(path), str(path))[1].sample_rate


def recording_seconds(path: str | Path) -> float:
    """Length of an audio file in seconds, by its header where that says it, else by reading it.

    Raises:
        AudioError: if the file is missing, is not audio, or holds no samples.
    """
    check_recording(path)
    try:
        info = soundfile.info(str(path))
        # Of a file that was not written to its end, or was sent while it was made, nothing is said.
        is_true = 0 < info.frames < _ENDLESS and mended_wav(Path(path)) is None
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError):
        is_true = False
    if is_true:
        return info.frames / info.samplerate
    waveform, rate = read_recording(path)
    return waveform.shape[0] / rate


def check_recording(path: str | Path, *, name: str | None = None) -> None:
    """Check that there is a file that may be audio, by its first bytes alone.

    Args:
        path: of the file.
        name: what errors call the file; default its path.

    Raises:
        AudioError: there is none, or it is something else.
    """
    title, path = str(path) if name is None else name, Path(path)
    if not path.exists():
        raise AudioError(f"{title}: there is no such audio file.")
    if path.is_dir():
        raise AudioError(f"{title} is a folder, not an audio file.")
    try:
        with path.open("rb") as file:
            start = file.read(_NUM_SNIFFED)
    except OSError as error:
        raise AudioError(f"{title} cannot be read: {error.strerror}.") from error
    if not start:
        raise AudioError(f"{title} is an empty file.")
    kind = _other_kind(start)
    if kind is not None:
        shown = start.lstrip().split(b"\n")[0].decode("utf-8", "ignore")
        shown = "".join(letter for letter in shown if letter.isprintable()).strip()[:40]
        raise AudioError(
            f"{title} cannot be read as audio: it is {kind} and starts with '{shown}'."
        )


def _other_kind(start: bytes) -> str | None:
    """What a file is by its first bytes, if that is surely no audio."""
    bare = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"NIST_1A"):  # audio behind a header of text
        return None
    for opening, kind in _NOT_AUDIO:
        if bare[: len(opening)].lower() == opening:
            return kind
    try:  # the last letter may be cut
        letters = codecs.getincrementaldecoder("utf-8")().decode(bare)
    except UnicodeDecodeError:
        return None
    is_text = all(letter.isprintable() or letter.isspace() for letter in letters)
    return "text" if len(bare) >= 4 and is_text else None


def _read_channel(
    path: Path,
    title: str,
    accept: Callable[[int, int, float], None] | None,
    programs: bool,
) -> tuple[np.ndarray, int]:
    """One channel (S,) of a file, and its sample rate."""
    decode, decoded = _open(path, title, programs)
    pieces: list[np.ndarray] = []
    count, mixed, separate = 0, np.zeros(2), np.zeros((2, 1))
    try:
        for block in decoded.blocks:
            count += len(block)
            if accept is not None:
                accept(decoded.sample_rate, block.shape[1], count / max(decoded.sample_rate, 1))
            mean = block.mean(axis=1)
            pieces.append(mean)
            mixed = mixed + [mean.sum(dtype=float), np.square(mean, dtype=float).sum()]
            separate = separate + [block.sum(0, dtype=float), np.square(block, dtype=float).sum(0)]
        if count and separate.shape[1] > 1:
            variances = separate[1] / count - (separate[0] / count) ** 2
            if mixed[1] / count - (mixed[0] / count) ** 2 < _CANCELLED * variances.mean():
                loudest = int(variances.argmax())
                _log.warning(
                    "%s: its channels are in opposite phase and would cancel one another: "
                    "only channel %d is used", title, loudest + 1,
                )  # fmt: skip
                pieces = [block[:, loudest] for block in decode(path).blocks]
    except (_Undecodable, soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise UnknownKindError(title, _reason(error)) from error
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32), decoded.sample_rate


def _open(
    path: Path, title: str, programs: bool = True
) -> tuple[Callable[[Path], _Decoded], _Decoded]:
    """Opens a file with the first decoder that knows its kind; gives the decoder, too.

    Raises:
        UnknownKindError: none does.
    """
    reasons = []
    for decode in (_by_libsndfile, _by_pyav, *([_by_ffmpeg] if programs else [])):
        try:
            return decode, decode(path)
        except ImportError:
            continue
        except _Undecodable as error:
            reasons.append(str(error))
    if len(reasons) > 1:  # FFmpeg knows more kinds, and knows better
        raise UnknownKindError(title, reasons[1])
    raise UnknownKindError(
        title,
        reasons[0],
        " wav, flac, ogg, opus, mp3, aiff and au are read; m4a, mp4, aac, webm, mka and most "
        f"others too, once PyAV is there: {install_command('audio')} "
        "(or ffmpeg, which also converts: ffmpeg -i IN OUT.wav).",
    )


def _reason(error: Exception) -> str:
    text = (getattr(error, "error_string", None) or str(error)).strip() or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _by_libsndfile(path: Path) -> _Decoded:
    try:
        # libsndfile guesses by the suffix, so it gets the name, unless the header must be repaired.
        file = SequentialSound(cast(str, mended_wav(path) or str(path)))
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        # soundfile takes a .raw file to be headerless and asks for its rate with a TypeError.
        raise _Undecodable(_reason(error)) from error

    def blocks() -> Iterator[np.ndarray]:
        with file:
            yield from file.read_blocks()

    return _Decoded(file.samplerate, blocks())


def mended_wav(path: Path) -> BinaryIO | None:
    """A wav file with the true length of its samples; None where the length is true already.

    A recorder writes the length when it ends. Where it was killed, the header says 0, or what was
    so at some time, and the samples go on behind that.
    """
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return None
        size, place = path.stat().st_size, 12
        while place + 8 <= size:
            file.seek(place)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"data":
                if _are_chunks(file, place + 8 + length, size):
                    return None
                file.seek(0)
                content = bytearray(file.read())
                struct.pack_into("<I", content, 4, min(size - 8, 0xFFFFFFFF))
                struct.pack_into("<I", content, place + 4, min(size - place - 8, 0xFFFFFFFF))
                return io.BytesIO(content)
            place += 8 + length + length % 2
    return None


def _are_chunks(file: BinaryIO, place: int, size: int) -> bool:
    """Whether there is nothing from `place` to the end of a file but chunks with a name."""
    if place >= size:
        return True
    while place + 8 <= size:
        file.seek(place + place % 2)
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = struct.unpack("<4sI", head)
        if not all(0x20 <= byte < 0x7F for byte in name):
            return False
        place += place % 2 + 8 + length
    return place <= size + 1


def _by_pyav(path: Path) -> _Decoded:
    import av

    def frames() -> Iterator[av.AudioFrame]:
        try:
            options = {"format_whitelist": _SINGLE_FILES}
            with av.open(
                str(path.resolve()), metadata_errors="ignore", options=options
            ) as container:
                if not container.streams.audio:
                    raise _Undecodable("it holds no sound.")
                yield from container.decode(container.streams.audio[0])
        except av.ArgumentError as error:  # FFmpeg's word for a format that it may not open
            raise _Undecodable("it is in no format of recordings.") from error
        except (av.FFmpegError, IndexError) as error:
            # Its text names the file, which may be a temporary one.
            raise _Undecodable(_reason(Exception(getattr(error, "strerror", None)))) from error

    def blocks(first: av.AudioFrame) -> Iterator[np.ndarray]:
        unpack = av.AudioResampler(format="fltp", layout=first.layout, rate=first.sample_rate)
        for frame in (first, *rest):
            yield from (part.to_ndarray().T.copy() for part in unpack.resample(frame))
        yield from (part.to_ndarray().T.copy() for part in unpack.resample(None))

    rest = frames()
    first = next(rest, None)
    if first is None:
        raise _Undecodable("it holds no sound.")
    return _Decoded(first.sample_rate, blocks(first))


def _by_ffmpeg(path: Path) -> _Decoded:
    program = shutil.which("ffmpeg")
    if program is None:
        raise ImportError("ffmpeg")
    with tempfile.TemporaryDirectory() as folder:
        # Alone in a folder: lists of files, as FFmpeg knows them, shall not find any.
        source = Path(folder) / f"recording{path.suffix}"
        shutil.copyfile(path, source)
        target = Path(folder) / "sound.wav"
        done = subprocess.run(
            [program, "-v", "error", "-nostdin", "-protocol_whitelist", "file",
             "-i", f"file:{source}", "-map", "0:a:0", "-c:a", "pcm_f32le", str(target)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not target.exists():
            lines = done.stderr.strip().splitlines() or ["ffmpeg failed"]
            raise _Undecodable(_reason(Exception(lines[-1].rpartition(": ")[2])))
        with SequentialSound(str(target)) as file:
            return _Decoded(file.samplerate, iter(list(file.read_blocks())))


def save_audio(
    path: str | Path, waveform: Tensor, sample_rate: int, *, comment: str | None = None
) -> None:
    """Write a waveform to a wav, flac, ogg, mp3 or opus file (by its suffix), whole or not at all.

    Samples beyond full scale are clipped, with a warning in the log. Wav and flac hold 16 bits.

    Args:
        path: the file; missing folders are made.
        waveform: (S,), full scale is -1 .. 1.
        sample_rate: in hertz.
        comment: written to the comment field of the file's metadata.

    Raises:
        AudioError: for another suffix, another shape, or samples that are not finite numbers.
    """
    save_pieces(path, [waveform], sample_rate, comment=comment)


def save_pieces(
    path: str | Path,
    pieces: Iterable[Tensor],
    sample_rate: int,
    *,
    comment: str | None = None,
) -> None:
    """Write a waveform that arrives in pieces, for those that memory does not hold.

    The file is whole or not there, also where the pieces end with an error. See `save_audio`.

    Args:
        path: the file; missing folders are made.
        pieces: (S,) each, full scale is -1 .. 1.
        sample_rate: in hertz.
        comment: written to the comment field of the file's metadata.

    Raises:
        AudioError: for another suffix, another shape, or samples that are not finite numbers.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise AudioError(f"{path}: audio is written as one of {', '.join(_WRITERS)} files.")
    container, encoding = _WRITERS[path.suffix.lower()]
    if encoding == "OPUS" and sample_rate not in _OPUS_RATES:
        raise AudioError(
            f"{path}: opus has the rates {', '.join(map(str, _OPUS_RATES))} Hz, not {sample_rate}."
        )
    num_clipped = 0

    def tables() -> Iterator[np.ndarray]:
        nonlocal num_clipped
        for piece in pieces:
            samples = _checked_samples(path, piece)
            num_clipped += int((np.abs(samples) > 1.0).sum())
            data = to_pcm16(piece) if encoding == "PCM_16" else np.clip(samples, -1.0, 1.0)
            yield data[:, None]

    tags = {} if comment is None else {"comment": comment}
    _write_tables(path, tables(), 1, sample_rate, container, encoding, tags)
    if num_clipped:
        _log.warning("%s: %d samples beyond full scale were clipped", path, num_clipped)


def _checked_samples(path: Path, waveform: Tensor) -> np.ndarray:
    if waveform.ndim != 1:
        raise AudioError(
            f"{path}: a waveform of shape (samples,) is written, not {tuple(waveform.shape)}."
        )
    samples = waveform.detach().float().cpu().numpy()
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: the waveform holds samples that are not finite numbers.")
    return samples


def write_samples(
    path: Path,
    samples: np.ndarray,
    sample_rate: int,
    container: str,
    encoding: str,
    tags: Mapping[str, str],
) -> None:
    """Write samples as they are, whole or not at all.

    Args:
        path: the file; missing folders are made.
        samples: (S, C), of a type that libsndfile takes.
        sample_rate: in hertz.
        container: of libsndfile, such as "WAV".
        encoding: of libsndfile, such as "PCM_16".
        tags: metadata, by the names of libsndfile; default software is "tokenlm".

    Raises:
        AudioError: libsndfile cannot write it.
    """
    _write_tables(path, [samples], samples.shape[1], sample_rate, container, encoding, tags)


def _write_tables(
    path: Path,
    tables: Iterable[np.ndarray],
    num_channels: int,
    sample_rate: int,
    container: str,
    encoding: str,
    tags: Mapping[str, str],
) -> None:
    if not soundfile.check_format(container, encoding):
        raise AudioError(f"{path}: the libsndfile that is installed does not write {encoding}.")
    try:
        with (
            atomic_path(path) as temporary,
            soundfile.SoundFile(
                str(temporary), "w", int(sample_rate), num_channels, encoding, format=container
            ) as file,
        ):
            for name, value in {"software": "tokenlm", **tags}.items():
                setattr(file, name, value)
            for samples in tables:
                for start in range(0, len(samples), _WRITE_BLOCK):
                    file.write(samples[start : start + _WRITE_BLOCK])
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path} cannot be written: {error.error_string}") from error
