"""Reading and writing audio files, good and bad ones."""

from __future__ import annotations

import logging
import math
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from phone_recordings import CONTAINERS, PHONE_RATE, write_by_ffmpeg

from tokenlm.audio import AudioError, load_audio, save_audio
from tokenlm.audio import io as audio_io
from tokenlm.audio.io import save_pieces

RATE = 16000


def tone(rate: int = RATE, seconds: float = 0.25, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * math.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 1 / 100),
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 1e-4),
        ("flac", "PCM_24", 1e-6),
        ("ogg", "VORBIS", 0.05),
        ("mp3", "MPEG_LAYER_III", None),
    ],
)
def test_formats(tmp_path: Path, suffix: str, subtype: str, tolerance: float | None) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(), RATE, subtype=subtype)
    waveform = load_audio(path, RATE)
    assert waveform.dtype == torch.float32 and waveform.ndim == 1
    if tolerance is None:  # the encoder adds samples at both ends
        assert waveform.abs().max() == pytest.approx(0.5, abs=0.05)
    else:
        assert waveform.shape == (4000,)
        np.testing.assert_allclose(waveform.numpy(), tone(), rtol=0, atol=tolerance)


def test_a_flac_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    """As it is where a file is sent while it is made."""
    path = tmp_path / "streamed.flac"
    samples = np.stack([tone(seconds=5.0), np.zeros(80_000, np.float32)], axis=1)
    soundfile.write(path, samples, RATE)
    data = bytearray(path.read_bytes())
    # The last 36 of the first 144 bits of STREAMINFO, which comes after 8 bytes.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(bytes(data))
    waveform = load_audio(path, RATE)
    assert waveform.shape == (80_000,)
    np.testing.assert_allclose(waveform.numpy(), samples.mean(axis=1), atol=1e-4)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), np.zeros(4000)], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path, RATE).numpy(), tone() / 2, atol=1e-7)


@pytest.mark.parametrize("file_rate", [8000, 11025, 44100, 48000])
def test_any_rate_becomes_the_asked_one(tmp_path: Path, file_rate: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(file_rate), file_rate, subtype="FLOAT")
    waveform = load_audio(path, RATE)
    assert waveform.shape == (4000,)
    np.testing.assert_allclose(waveform[800:-800].numpy(), tone()[800:-800], atol=2e-3)


def message(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(path, RATE)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such audio file" in message(tmp_path / "none.wav")
    assert "is a folder" in message(tmp_path)


@pytest.mark.parametrize("name", ["empty.wav", "empty.mp3", "empty.raw"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "is an empty file" in message(tmp_path / name)


@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text.txt", "text.raw", "text"])
def test_not_audio(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is no sound at all. " * 100)
    assert "cannot be read as audio" in message(tmp_path / name)


def test_corrupt_flac(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(seconds=2.0), RATE)
    data = bytearray(path.read_bytes())
    data[20:60] = b"\xff" * 40
    path.write_bytes(bytes(data))
    message(path)


def test_header_only(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), RATE)
    path.write_bytes(path.read_bytes()[:20])
    message(path)


def test_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros(0, np.float32), RATE)
    assert "holds no samples" in message(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    samples = tone()
    samples[7] = bad
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert "not finite" in message(path)
    with pytest.raises(AudioError, match="not finite"):
        save_audio(tmp_path / "out.wav", torch.from_numpy(samples), RATE)
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("suffix", [".mp3", ".opus"])
def test_save_as_browsers_like_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone{suffix}"
    save_audio(path, torch.from_numpy(tone(seconds=1.0)), RATE, comment="made by a machine")
    with soundfile.SoundFile(path) as file:
        assert file.comment == "made by a machine"
        assert file.subtype == ("OPUS" if suffix == ".opus" else "MPEG_LAYER_III")
    waveform = load_audio(path, RATE)
    assert abs(waveform.shape[0] - RATE) < 3000
    assert waveform[4000:12000].std() == pytest.approx(0.5 / math.sqrt(2), abs=0.03)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".WAV"])
def test_save(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"tone{suffix}"
    save_audio(path, torch.from_numpy(tone()), RATE, comment="made by a machine")
    with soundfile.SoundFile(path) as file:
        assert file.samplerate == RATE and file.channels == 1 and file.frames == 4000
        assert file.comment == "made by a machine"
        assert file.software.startswith("tokenlm")
        assert file.subtype == ("VORBIS" if suffix == ".ogg" else "PCM_16")
    tolerance = 0.05 if suffix == ".ogg" else 1e-4
    np.testing.assert_allclose(load_audio(path, RATE).numpy(), tone(), atol=tolerance)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_save_clips_without_wrapping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "loud.wav"
    with caplog.at_level(logging.WARNING, logger="tokenlm"):
        save_audio(path, torch.tensor([0.5, 1.0, -1.0, 1.7, -9.0]), RATE)
    samples, _ = soundfile.read(path, dtype="int16")
    assert samples.tolist() == [16384, 32767, -32768, 32767, -32768]
    assert "2 samples beyond full scale" in caplog.text


def test_sixteen_bits_survive_reading_and_writing(tmp_path: Path) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    every = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    soundfile.write(first, every, RATE)
    save_audio(second, load_audio(first, RATE), RATE)
    assert np.array_equal(soundfile.read(second, dtype="int16")[0], every)


def test_save_takes_gradients_and_long_files(tmp_path: Path) -> None:
    waveform = (torch.zeros(200_000) + 0.1).requires_grad_()
    save_audio(tmp_path / "long.ogg", waveform, RATE)
    assert load_audio(tmp_path / "long.ogg", RATE).shape == (200_000,)


def test_save_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"\.wav, \.flac, \.ogg"):
        save_audio(tmp_path / "tone.m4a", torch.zeros(10), RATE)
    with pytest.raises(AudioError, match="opus has the rates 8000, 12000"):
        save_audio(tmp_path / "tone.opus", torch.zeros(10), 22_050)
    with pytest.raises(AudioError, match=r"not \(1, 10\)"):
        save_audio(tmp_path / "tone.wav", torch.zeros(1, 10), RATE)
    with pytest.raises(AudioError, match="cannot be written"):
        save_audio(tmp_path / "tone.wav", torch.zeros(10), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    save_audio(path, torch.from_numpy(tone()), RATE)
    with pytest.raises(AudioError):
        save_audio(path, torch.zeros(10), -1)
    assert load_audio(path, RATE).shape == (4000,)
    assert [item.name for item in tmp_path.iterdir()] == ["tone.wav"]


DECODERS = {"pyav": ("_by_ffmpeg",), "ffmpeg": ("_by_pyav",), "neither": ("_by_pyav", "_by_ffmpeg")}


def only(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves one way to what libsndfile does not read."""

    def absent(path: Path, **settings: object) -> None:
        raise ImportError

    for name in DECODERS[decoder]:
        monkeypatch.setattr(audio_io, name, absent)


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_what_phones_and_browsers_record(
    tmp_path: Path, suffix: str, num_channels: int, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "ffmpeg":
        fake_ffmpeg(tmp_path, monkeypatch)
    path = tmp_path / f"memo.{suffix}"
    mono = tone(PHONE_RATE, seconds=1.0)
    write_by_ffmpeg(path, np.stack([mono] * num_channels, axis=1))
    only(decoder, monkeypatch)
    waveform = load_audio(path, RATE)
    assert abs(waveform.shape[0] - RATE) < 2000
    assert waveform[4000:12000].std() == pytest.approx(0.5 / math.sqrt(2), abs=0.03)


def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name that knows the arguments it is given, for machines without it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(
        f"""#!{sys.executable}
import sys
import av, numpy, soundfile
arguments = sys.argv[1:]
assert arguments[arguments.index("-map") + 1] == "0:a:0" and "-nostdin" in arguments
source, target = arguments[arguments.index("-i") + 1], arguments[-1]
try:
    with av.open(source.removeprefix("file:")) as file:
        unpack = av.AudioResampler(format="fltp")
        parts = [p.to_ndarray() for f in file.decode(audio=0) for p in unpack.resample(f)]
        rate = file.streams.audio[0].rate
except Exception as error:
    sys.exit(f"{{source}}: Invalid data found when processing input")
soundfile.write(target, numpy.concatenate(parts, axis=1).T, rate, subtype="FLOAT")
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    "playlist",
    [
        b"ffconcat version 1.0\n# \xff\nfile 'secret.wav'\n",
        b"#EXTM3U\n#EXTINF:1,\n# \xff\nsecret.wav\n#EXT-X-ENDLIST\n",
        b" #EXTM3U\n# \xff\n",
    ],
)
def test_a_recording_never_names_another_file(tmp_path: Path, playlist: bytes) -> None:
    save_audio(tmp_path / "secret.wav", torch.from_numpy(tone(RATE)).float(), RATE)
    for name in ("list.m4a", "list.mp3", "list.m3u8"):
        (tmp_path / name).write_bytes(playlist)
        with pytest.raises(AudioError):
            audio_io.read_recording(tmp_path / name, programs=False)


@pytest.mark.parametrize("suffix", [*CONTAINERS, "wav", "flac"])
def test_rate_and_length_of_what_is_read(tmp_path: Path, suffix: str) -> None:
    path, sound = tmp_path / f"memo.{suffix}", tone(PHONE_RATE, seconds=1.0)
    if suffix in CONTAINERS:
        write_by_ffmpeg(path, sound[:, None])
    else:
        soundfile.write(path, sound, PHONE_RATE)
    waveform, rate = audio_io.read_recording(path)
    assert rate == audio_io.recording_rate(path)
    assert audio_io.recording_seconds(path) == pytest.approx(waveform.shape[0] / rate)
    assert waveform.shape[0] / rate == pytest.approx(1.0, abs=0.15)


def test_the_length_of_a_killed_wav_is_that_of_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "killed.wav"
    soundfile.write(path, tone(RATE, seconds=1.0), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = bytes(4)
    path.write_bytes(content)
    assert audio_io.recording_seconds(path) == pytest.approx(1.0)


def test_too_much_stops_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros((60 * RATE, 2)), RATE)
    told = []

    def accept(rate: int, channels: int, seconds: float) -> None:
        told.append((rate, channels, seconds))
        if seconds > 10:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        audio_io.read_recording(path, accept=accept)
    assert {row[:2] for row in told} == {(RATE, 2)} and told[-1][2] < 20


def test_without_a_decoder_the_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memo.m4a"
    write_by_ffmpeg(path, tone(PHONE_RATE)[:, None])
    only("neither", monkeypatch)
    told = message(path)
    assert "wav, flac, ogg, opus, mp3" in told and "m4a, mp4, aac, webm, mka" in told
    assert "[audio]'" in told and "ffmpeg -i" in told


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("name", ["broken.m4a", "broken.webm", "broken.bin"])
def test_what_no_decoder_knows(
    tmp_path: Path, name: str, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "ffmpeg":
        fake_ffmpeg(tmp_path, monkeypatch)
    only(decoder, monkeypatch)
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(0).bytes(4000))
    told = message(path)
    # By chance such bytes look like a kind of film.
    reasons = ("Invalid data found when processing input.", "no sound.", "no format of recordings.")
    assert told.endswith(reasons)
    with pytest.raises(AudioError) as caught:
        load_audio(path, RATE, name="the upload")
    assert str(caught.value).startswith("the upload cannot") and name not in str(caught.value)


def test_a_film_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert message(path) == f"{path} cannot be read as audio: it holds no sound."


@pytest.mark.parametrize("name", ["speech.mp3", "speech.wav", "speech.m4a", "speech"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page and starts with '<!DOC"),
        (b"\xef\xbb\xbf<HTML lang='\xc3\xa9'>" + b"\xff" * 50, "a web page and starts with '<HTML"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"<Error><Code>AccessDenied</Code></Error>", "a web page or XML document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "a pointer of Git LFS"),
        (b"%PDF-1.7\n\x00\x01", "a PDF document"),
        (b"PK\x03\x04\x00\x00", "a ZIP archive"),
        (b"#EXTM3U\nhttp://example.org/a.mp3", "a playlist"),
        (b"\x89PNG\r\n\x1a\n\x00", "a picture"),
        (b"Not found", "text and starts with 'Not found'"),
        ("Не найдено, ".encode() * 200, "text and starts with 'Не найдено"),
    ],
)
def test_what_is_something_else_is_told(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert f"{path} cannot be read as audio: it is {kind}" in message(path)


def riff(riff_size: int, data_size: int, body: bytes, *, before: bytes = b"") -> bytes:
    facts = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE")
    return head + facts + before + struct.pack("<4sI", b"data", data_size) + body


LIST = struct.pack("<4sI4s", b"LIST", 4, b"INFO")
JUNK = struct.pack("<4sI", b"JUNK", 28) + bytes(28)


@pytest.mark.parametrize("before", [b"", LIST, JUNK])
@pytest.mark.parametrize("sizes", ["none", "stale", "data", "riff", "endless", "half a sample"])
def test_a_wav_whose_recorder_was_killed(tmp_path: Path, sizes: str, before: bytes) -> None:
    pcm = (tone(seconds=1.0) * 32767).astype("<i2").tobytes()
    told = {
        "none": (0, 0),
        "stale": (36 + 800, 800),
        "data": (36 + len(pcm), 0),
        "riff": (0, len(pcm)),
        "endless": (0xFFFFFFFF, 0xFFFFFFFF),
        "half a sample": (36, 0),
    }[sizes]
    body = pcm[:-1] if sizes == "half a sample" else pcm
    path = tmp_path / "killed.wav"
    path.write_bytes(riff(*told, body, before=before))
    waveform = load_audio(path, RATE)
    assert waveform.shape[0] == len(body) // 2
    np.testing.assert_allclose(waveform.numpy(), tone(seconds=1.0)[: len(body) // 2], atol=1e-3)


def test_an_empty_wav_with_facts_behind_it_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(riff(36 + len(LIST), 0, LIST))
    assert "holds no samples" in message(path)
    pcm = (tone() * 32767).astype("<i2").tobytes()
    path.write_bytes(riff(36 + len(pcm) + len(LIST), len(pcm), pcm + LIST))
    assert load_audio(path, RATE).shape[0] == len(pcm) // 2


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a"])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_channels_in_opposite_phase(
    tmp_path: Path, suffix: str, offset: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"turned.{suffix}"
    left = tone(PHONE_RATE, seconds=1.0)
    samples = np.stack([0.9 * left + offset, offset - left], axis=1) * 0.5
    if suffix == "m4a":
        write_by_ffmpeg(path, samples)
    else:
        soundfile.write(path, samples, PHONE_RATE)
    with caplog.at_level(logging.WARNING, logger="tokenlm"):
        waveform = load_audio(path, RATE)
    assert "in opposite phase" in caplog.text and "only channel 2" in caplog.text
    assert waveform[4000:12000].std() == pytest.approx(0.25 / math.sqrt(2), abs=0.02)


def test_channels_of_different_sounds_are_still_averaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "wide.wav"
    samples = np.stack([tone(seconds=1.0), tone(seconds=1.0, frequency=300.0)], axis=1)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING, logger="tokenlm"):
        waveform = load_audio(path, RATE)
    np.testing.assert_allclose(waveform.numpy(), samples.mean(axis=1), atol=1e-6)
    assert not caplog.text


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("lead", [b"", b"\n"])
def test_a_list_of_files_opens_none(
    tmp_path: Path, decoder: str, lead: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "ffmpeg" and shutil.which("ffmpeg") is None:
        fake_ffmpeg(tmp_path, monkeypatch)
    only(decoder, monkeypatch)
    write_by_ffmpeg(tmp_path / "private.m4a", tone(PHONE_RATE, seconds=1.0)[:, None])
    path = tmp_path / "memo"
    for text in (
        b"ffconcat version 1.0\n# \x01\xff\nfile private.m4a\n",
        b"#EXTM3U\n#\xff\x01\n#EXTINF:1,\nprivate.m4a\n#EXT-X-ENDLIST\n",
    ):
        path.write_bytes(lead + text)
        assert "cannot be read as audio: it is a playlist" in message(path)
        # Past that look at the first bytes, the decoder itself opens nothing else.
        with pytest.raises(audio_io._Undecodable):
            getattr(audio_io, f"_by_{decoder}")(path)


def test_a_waveform_is_written_in_pieces(tmp_path: Path) -> None:
    waveform = 0.1 * torch.randn(1_000, generator=torch.Generator().manual_seed(0))
    for suffix in (".wav", ".flac"):
        save_audio(tmp_path / f"whole{suffix}", waveform, 8_000, comment="yes")
        save_pieces(tmp_path / f"parts{suffix}", waveform.split(300), 8_000, comment="yes")
        whole, parts = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("whole", "parts"))
        assert whole == parts

    def broken() -> Iterator[torch.Tensor]:
        yield waveform
        raise AudioError("the recording ends here.")

    with pytest.raises(AudioError, match="ends here"):
        save_pieces(tmp_path / "gone.wav", broken(), 8_000)
    assert not (tmp_path / "gone.wav").exists()
