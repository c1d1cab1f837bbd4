"""Compares what a client received with its logged tokens, rendered again alone.

Shapes: S samples.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from torch import Tensor

from tokenlm.audio.encoders import build_encoder
from tokenlm.audio.io import SequentialSound
from tokenlm.synthesis import Synthesizer
from tokenlm.text.markup import Style

TOLERANCE = 1e-4
"""Largest difference of a sample, besides half a step of 16 bits."""
HALF_STEP = 0.5 / 32768
MAX_LOSS_DB = 1.0
"""Distance from the replay beyond what the encoder itself causes, in a lossy format: an encoder
decides otherwise after a sample that was rounded to the other side."""
MAX_DELAY = 4096
"""Samples that an encoder may put before the first."""


Behaviour = Literal["patient", "leaves", "slow"]
"""Of a client: reads to the end, leaves before it, or reads slowly."""


@dataclass(frozen=True)
class Request:
    """A request for speech."""

    audio_format: str
    behaviour: Behaviour
    text: str
    voice: str
    seed: int
    speed: float


@dataclass
class Result:
    """What a client received."""

    request: Request
    request_id: str = ""
    status: int = 0
    problem: str = ""
    """Why it failed; empty if it did not."""
    is_whole: bool = False
    """Whether the end came; a client that leaves does not get it."""
    first_audio_seconds: float | None = None
    seconds: float = 0.0
    """From the request to the end."""
    data: bytearray = field(default_factory=bytearray)
    """Bytes of the file, or samples."""


@dataclass(frozen=True)
class Comparison:
    """One request, received and replayed."""

    request_id: str
    audio_format: str
    num_samples: int
    """Samples that were compared."""
    difference: float
    """Largest difference of a sample; 0 for lossy formats."""
    loss_db: float
    """See `_loss`; 0 for formats without loss."""
    problem: str
    """Empty if both are the same."""


def compare(synthesizer: Synthesizer, result: Result, logged: dict[str, Any]) -> Comparison:
    """Renders the tokens of a request again and compares with what its client received.

    Of a client that left, what it received before is compared.
    """
    request = result.request
    alone = synthesizer.render(
        logged["speech_tokens"],
        pauses=logged["pauses"],
        styles=[Style(**style) for style in logged.get("styles", [])],
        voice=logged["voice"],
        seed=logged["seed"],
        speed=logged["speed"],
    )
    received = _decode(bytes(result.data), request.audio_format)
    expected = alone.clamp(-1.0, 1.0).numpy()
    difference, loss, problem = 0.0, 0.0, ""
    if request.audio_format in ("mp3", "opus"):
        coded = _encode(alone, request.audio_format, synthesizer.sample_rate)
        replayed = _decode(coded, request.audio_format)
        size, loss = _loss(received, replayed, expected)
        expected = replayed
        if loss > MAX_LOSS_DB:
            problem = f"{loss:.1f} dB further away than the encoder alone"
    else:
        size = min(received.shape[0], expected.shape[0])
        if size:
            difference = float(np.abs(received[:size] - expected[:size]).max())
        if difference > TOLERANCE + HALF_STEP:
            problem = f"differs by {difference:.2g}"
    num_received, num_expected = received.shape[0], expected.shape[0]
    if num_received > num_expected or (result.is_whole and num_received < num_expected):
        problem = problem or f"{num_received} samples received, {num_expected} replayed"
    return Comparison(
        request_id=result.request_id,
        audio_format=request.audio_format,
        num_samples=size,
        difference=difference,
        loss_db=loss,
        problem=problem,
    )


def _loss(received: np.ndarray, replayed: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """Samples compared, and how far, in dB, beyond what the encoder does to the replay anyway."""
    delay = _delay(replayed, expected)
    size = min(received.shape[0] - delay, replayed.shape[0] - delay, expected.shape[0])
    if size <= 0:
        return 0, 0.0
    target = expected[:size].astype(np.float64)
    mine = np.square(received[delay : delay + size] - target).sum()
    own = np.square(replayed[delay : delay + size] - target).sum()
    # Below a step of 16 bits everything is near.
    floor = size * HALF_STEP**2
    return size, float(10 * np.log10((mine + floor) / (own + floor)))


def _delay(replayed: np.ndarray, expected: np.ndarray) -> int:
    """Samples by which an encoder has moved a waveform, found by correlation."""
    size = replayed.shape[0] + expected.shape[0]
    product = np.fft.rfft(replayed, size) * np.fft.rfft(expected, size).conj()
    return int(np.fft.irfft(product, size)[:MAX_DELAY].argmax())


def _encode(waveform: Tensor, audio_format: str, rate: int) -> bytes:
    encoder = build_encoder(audio_format, rate, "replay")
    return encoder.encode(waveform) + encoder.finish()


def _decode(data: bytes, audio_format: str) -> np.ndarray:
    """Samples (S,) of a file, or of the beginning of one."""
    if audio_format in ("pcm", "sse", "socket"):
        whole = data[: len(data) // 2 * 2]
        return np.frombuffer(whole, dtype="<i2").astype(np.float32) / 32768
    pieces = []
    try:
        with SequentialSound(io.BytesIO(data)) as file:
            # Small blocks: the one in which a file breaks off is lost.
            for block in file.read_blocks(4096):
                pieces.append(block[:, 0])
    except soundfile.LibsndfileError:
        pass  # it was cut off, in its header or after
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)


def load_synthesizer(bundle: str) -> Synthesizer:
    """The models that the replay uses, in this process."""
    torch.set_num_threads(1)
    return Synthesizer.from_pretrained(bundle)
