"""Whether what clients heard is what was said to them: logged tokens, rendered again alone.

Shapes: S samples.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from inference.server.checks.clients import Outcome
from tokenlm.audio.encoders import build_encoder
from tokenlm.audio.io import SequentialSound
from tokenlm.synthesis import Synthesizer

TOLERANCE = 1e-4
"""Largest difference of a sample, besides half a step of 16 bits."""
HALF_STEP = 0.5 / 32768
MAX_LOSS_DB = 1.0
"""A lossy format may be further from the replay than its encoder brings it anyway by so much: an
encoder takes other decisions after a sample that was rounded to the other side."""
MAX_DELAY = 4096
"""Samples that an encoder may put before the first."""


@dataclass(frozen=True)
class Comparison:
    """One request, heard and replayed."""

    request_id: str
    audio_format: str
    num_samples: int
    """Samples that were compared."""
    difference: float
    """Largest difference of a sample; 0 for lossy formats."""
    loss_db: float
    """See `_loss`; 0 for formats without loss."""
    problem: str
    """Empty where both are the same."""


def compare(synthesizer: Synthesizer, outcome: Outcome, logged: dict[str, Any]) -> Comparison:
    """Renders the tokens of a request again and compares with what its client got.

    A client that left is compared over what it got before.
    """
    wish = outcome.wish
    alone = synthesizer.render(
        logged["speech_tokens"],
        pauses=logged["pauses"],
        voice=logged["voice"],
        seed=logged["seed"],
        speed=logged["speed"],
    )
    heard = _decode(bytes(outcome.data), wish.audio_format)
    expected = alone.clamp(-1.0, 1.0).numpy()
    difference, loss, problem = 0.0, 0.0, ""
    if wish.audio_format in ("mp3", "opus"):
        coded = _encode(alone, wish.audio_format, synthesizer.sample_rate)
        again = _decode(coded, wish.audio_format)
        size, loss = _loss(heard, again, expected)
        expected = again
        if loss > MAX_LOSS_DB:
            problem = f"{loss:.1f} dB further away than the encoder alone"
    else:
        size = min(heard.shape[0], expected.shape[0])
        if size:
            difference = float(np.abs(heard[:size] - expected[:size]).max())
        if difference > TOLERANCE + HALF_STEP:
            problem = f"differs by {difference:.2g}"
    num_heard, num_expected = heard.shape[0], expected.shape[0]
    if num_heard > num_expected or (outcome.is_whole and num_heard < num_expected):
        problem = problem or f"{num_heard} samples heard, {num_expected} replayed"
    return Comparison(
        request_id=outcome.request_id,
        audio_format=wish.audio_format,
        num_samples=size,
        difference=difference,
        loss_db=loss,
        problem=problem,
    )


def _loss(heard: np.ndarray, again: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """Samples compared, and how far, in dB, beyond what the encoder does to the replay anyway."""
    delay = _delay(again, expected)
    size = min(heard.shape[0] - delay, again.shape[0] - delay, expected.shape[0])
    if size <= 0:
        return 0, 0.0
    target = expected[:size].astype(np.float64)
    mine = np.square(heard[delay : delay + size] - target).sum()
    own = np.square(again[delay : delay + size] - target).sum()
    # Below a step of 16 bits everything is near.
    floor = size * HALF_STEP**2
    return size, float(10 * np.log10((mine + floor) / (own + floor)))


def _delay(again: np.ndarray, expected: np.ndarray) -> int:
    """Samples by which an encoder has moved a waveform, found by correlation."""
    size = again.shape[0] + expected.shape[0]
    product = np.fft.rfft(again, size) * np.fft.rfft(expected, size).conj()
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
