"""Samples of 16 bits, wav headers, and files that are encoded piece by piece."""

from __future__ import annotations

import io
import wave

import pytest
import soundfile
import torch

from tokenlm.audio.encoders import available_formats, build_encoder, to_pcm16, wav_header
from tokenlm.audio.io import SequentialSound


def test_samples_of_16_bits() -> None:
    waveform = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0, -2.0])
    samples = to_pcm16(waveform)
    assert samples.dtype.str == "<i2"
    assert samples.tolist() == [0, 16384, 32767, 32767, -32768, -32768]


@pytest.mark.parametrize("comment", [None, "", "even", "grüße"])
def test_a_header_can_be_read(comment: str | None) -> None:
    samples = to_pcm16(torch.full((480,), 0.25)).tobytes()
    header = wav_header(24_000, comment)
    assert (len(header) == 44) == (comment is None) and len(header) % 2 == 0
    read, rate = soundfile.read(io.BytesIO(header + samples))
    assert rate == 24_000 and read.shape == (480,) and abs(read[0] - 0.25) < 1e-4
    with wave.open(io.BytesIO(wav_header(24_000, comment, num_samples=480) + samples)) as file:
        assert file.getnframes() == 480 and file.getframerate() == 24_000


@pytest.mark.parametrize("name", available_formats())
def test_files_that_are_encoded_piece_by_piece(name: str) -> None:
    sound = 0.5 * torch.sin(torch.arange(48_000) * 0.1)
    encoder = build_encoder(name, 24_000, "made by a machine")
    pieces = [encoder.encode(piece) for piece in sound.split(1000)]
    assert sum(map(len, pieces)) > 1000, "nothing has come after two seconds"
    data = b"".join([*pieces, encoder.finish()])
    if name == "pcm":
        assert data == to_pcm16(sound).tobytes()
        return
    with SequentialSound(io.BytesIO(data)) as file:
        assert file.comment == "made by a machine"
        assert abs(sum(len(block) for block in file.read_blocks()) - 48_000) < 3000


def test_a_format_without_encoder() -> None:
    with pytest.raises(ValueError, match="no encoder for 'aac' here; there is: "):
        build_encoder("aac", 24_000)
