"""Where speech goes."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import soundfile
import torch

from inference import sinks
from inference.sinks import FileSink, PipeSink, PlayerSink, StreamFormat
from tokenlm.audio.encoders import to_pcm16, wav_header
from tokenlm.audio.io import load_audio


def test_pipe_writes_at_once() -> None:
    stream = io.BytesIO()
    with PipeSink(stream, 24_000, "wav") as sink:
        assert stream.getvalue() == wav_header(24_000)
        sink.write(torch.zeros(3))
        assert len(stream.getvalue()) == 44 + 6
    bare = io.BytesIO()
    PipeSink(bare, 24_000).write(torch.full((2,), 0.5))
    assert bare.getvalue() == b"\x00\x40\x00\x40"


def test_a_header_tells_the_length_where_the_output_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as stream, PipeSink(stream, 24_000, "wav") as sink:
        sink.write(torch.full((480,), 0.25))
        sink.write(torch.full((20,), 0.5))
    data = path.read_bytes()
    assert struct.unpack("<I", data[4:8]) == (len(data) - 8,) == (36 + 1000,)
    assert struct.unpack("<I", data[40:44]) == (1000,)
    with wave.open(str(path)) as file:
        assert file.getnframes() == 500
    with path.open("r+b") as stream:  # behind something else
        stream.seek(0, 2)
        with PipeSink(stream, 24_000, "wav") as sink:
            sink.write(torch.zeros(3))
    assert path.read_bytes()[: len(data)] == data
    assert struct.unpack("<I", path.read_bytes()[len(data) + 40 : len(data) + 44]) == (6,)


@pytest.mark.slow
def test_what_cannot_be_written_again_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with path.open("ab") as stream, PipeSink(stream, 24_000, "wav") as sink:
        sink.write(torch.zeros(3))
    assert path.read_bytes() == wav_header(24_000) + bytes(6)
    program = (
        "import sys, torch\n"
        "from inference.sinks import PipeSink\n"
        "with PipeSink(sys.stdout.buffer, 24_000, 'wav') as sink:\n"
        "    sink.write(torch.zeros(3))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == wav_header(24_000) + bytes(6)


@pytest.mark.parametrize("form", ["flac", "mp3", "opus"])
def test_encoded_speech_is_piped_as_it_is_made(form: StreamFormat, tmp_path: Path) -> None:
    stream = io.BytesIO()
    sound = 0.5 * torch.sin(torch.arange(24_000) * 0.1)
    with PipeSink(stream, 24_000, form, "made by a machine") as sink:
        sink.write(sound)
        assert stream.tell() > 0, "nothing has come after a second"
        sink.write(sound)
    path = tmp_path / f"a.{form}"
    path.write_bytes(stream.getvalue())
    assert abs(load_audio(path, 24_000).shape[0] - 48_000) < 3000


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(RuntimeError), FileSink(path, 24_000, "made") as sink:
        sink.write(torch.zeros(10))
        raise RuntimeError
    assert not path.exists()
    with FileSink(path, 24_000, "made") as sink:
        sink.write(torch.zeros(10))
        sink.write(torch.ones(5))
    assert soundfile.info(str(path)).frames == 15


def player(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(sinks, "player_command", lambda rate: [sys.executable, "-c", program])


def test_a_player_gets_every_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "played"
    program = f"import sys; open({str(path)!r}, 'wb').write(sys.stdin.buffer.read())"
    player(monkeypatch, program)
    with PlayerSink(24_000) as sink:
        sink.write(torch.full((4,), 0.5))
        sink.write(torch.zeros(2))
    assert path.read_bytes() == to_pcm16(torch.tensor([0.5] * 4 + [0.0] * 2)).tobytes()


def test_a_player_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    player(monkeypatch, "import sys; sys.exit(3)")
    with pytest.raises(ValueError, match="ended with status 3"), PlayerSink(24_000) as sink:
        for _ in range(100):
            sink.write(torch.zeros(24_000))


def test_players(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks.shutil, "which", lambda name: name == "ffplay")
    command = sinks.player_command(16_000)
    assert command[0] == "ffplay" and "16000" in command
    monkeypatch.setattr(sinks.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs one of these programs: aplay, "):
        sinks.check_player()
