"""Where speech goes."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from inference import sinks
from inference.sinks import FileSink, PipeSink, PlayerSink, pcm16, wav_header


def test_samples_of_16_bits() -> None:
    waveform = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0, -2.0])
    values = torch.frombuffer(bytearray(pcm16(waveform)), dtype=torch.int16).tolist()
    assert values == [0, 16384, 32767, 32767, -32768, -32768]


def test_pipe_writes_at_once() -> None:
    stream = io.BytesIO()
    with PipeSink(stream, 24_000, "wav") as sink:
        assert stream.getvalue() == wav_header(24_000)
        sink.write(torch.zeros(3))
        assert len(stream.getvalue()) == 44 + 6
    bare = io.BytesIO()
    PipeSink(bare, 24_000).write(torch.full((2,), 0.5))
    assert bare.getvalue() == b"\x00\x40\x00\x40"


def test_the_header_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_header(24_000) + pcm16(torch.full((480,), 0.25)))
    samples, rate = soundfile.read(str(path))
    assert rate == 24_000 and samples.shape == (480,) and abs(samples[0] - 0.25) < 1e-4


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
    assert path.read_bytes() == pcm16(torch.tensor([0.5] * 4 + [0.0] * 2))


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
