"""What a recording loses on its way through a telephone, a coarse converter or a music codec.

Shapes: S samples. Every function returns as many samples as it was given, aligned with them.
"""

from __future__ import annotations

import io
import math

import soundfile
import torch
from torch import Tensor

from tokenlm.audio.resample import resample

_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_MP3_RATES = (16000, 22050, 24000, 32000, 44100, 48000)


def mu_law(waveform: Tensor) -> Tensor:
    """Round samples in [-1, 1] to the 255 levels of the mu-law curve of ITU-T G.711 (mu = 255)."""
    compressed = torch.log1p(255.0 * waveform.abs().clamp(max=1.0)) / math.log(256.0)
    rounded = torch.round(compressed * 127.0) / 127.0
    return waveform.sign() * torch.expm1(rounded * math.log(256.0)) / 255.0


def mu_law_telephone(waveform: Tensor, sample_rate: int) -> Tensor:
    """Pass a waveform (S,) through a telephone line: 8 kHz and mu-law."""
    if sample_rate <= 8000:
        return mu_law(waveform)
    narrow = mu_law(resample(waveform, sample_rate, 8000))
    return _fit(resample(narrow, 8000, sample_rate), len(waveform))


def quantize(waveform: Tensor, bits: int) -> Tensor:
    """Round a waveform (S,) to `2^bits` even steps between its peaks."""
    peak = float(waveform.abs().max()) if len(waveform) else 0.0
    if peak == 0.0:
        return waveform
    step = 2 * peak / (2**bits - 1)
    return torch.round(waveform / step) * step


def codec_available(kind: str) -> bool:
    """Say whether the installed libsndfile writes "mp3" or "opus"."""
    if kind == "mp3":
        return "MP3" in soundfile.available_formats()
    return "OPUS" in soundfile.available_subtypes("OGG")


def encode_decode(waveform: Tensor, sample_rate: int, kind: str, compression: float) -> Tensor:
    """Pass a waveform (S,) through mp3 or opus, which libsndfile writes from 1.1 on.

    Args:
        waveform: (S,).
        sample_rate: In Hz; rates that the codec does not have are resampled to the next higher.
        kind: "mp3" or "opus".
        compression: 0 (best) to 1 (smallest).

    Raises:
        ValueError: If libsndfile was built without the codec.
    """
    if not codec_available(kind):
        raise ValueError(f"The installed libsndfile writes no {kind}; leave it out of `codecs`.")
    if len(waveform) == 0:
        return waveform
    rates = _MP3_RATES if kind == "mp3" else _OPUS_RATES
    rate = min((r for r in rates if r >= sample_rate), default=rates[-1])
    samples = resample(waveform, sample_rate, rate) if rate != sample_rate else waveform
    stream = io.BytesIO()
    soundfile.write(
        stream,
        samples.clamp(-1.0, 1.0).numpy(),
        rate,
        format="MP3" if kind == "mp3" else "OGG",
        subtype="MPEG_LAYER_III" if kind == "mp3" else "OPUS",
        compression_level=compression,
    )
    stream.seek(0)
    decoded, decoded_rate = soundfile.read(stream, dtype="float32")
    coded = torch.from_numpy(decoded)
    if decoded_rate != sample_rate:
        coded = resample(coded, decoded_rate, sample_rate)
    return _fit(coded, len(waveform))


def _fit(waveform: Tensor, num_samples: int) -> Tensor:
    if len(waveform) >= num_samples:
        return waveform[:num_samples]
    return torch.nn.functional.pad(waveform, (0, num_samples - len(waveform)))
