"""Attributes of the voices of a corpus, measured and labelled, and the voice space of a bundle."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.audio.io import AudioError, load_audio
from tokenlm.audio.resample import resample
from tokenlm.checkpoint import finalize_bundle, read_manifest
from tokenlm.checkpoint.registry import SPEAKER_ENCODERS, AnySpeakerEncoder, load_model
from tokenlm.synthesis.voice_space import FILE, VoiceSpace
from training.data.manifest import Utterance
from training.data.pitch import estimate_pitch

SAMPLE_RATE = 16_000
HOP_LENGTH = 160
THRESHOLD = 0.3
"""Aperiodic share up to which a frame has a pitch; that of the vocoder's targets misses voices."""
SPLIT_HZ = 2000.0
"""Brightness is the level above this frequency over that below."""
REFERENCE_HZ = 100.0
UNITS = {
    "pitch": "semitones over 100 Hz",
    "brightness": "dB",
    "liveliness": "semitones",
    "age": "years",
}
_SEXES = {"m": -1.0, "male": -1.0, "man": -1.0, "f": 1.0, "female": 1.0, "woman": 1.0}
_AGES = {"child": 8.0, "teen": 15.0, "teenager": 15.0, "young": 25.0, "adult": 40.0,
         "middle-aged": 50.0, "old": 70.0, "elderly": 75.0, "senior": 70.0}  # fmt: skip
_TEACHER_VOICE = re.compile(r"[a-z]([fm])_[a-z]+(?::([\d.]+))?")


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured of a recording."""

    pitch: float
    """Median, in semitones over 100 Hz; NaN where no frame has a pitch."""
    brightness: float
    """Level above 2 kHz over that below, in dB, where it is loud."""
    liveliness: float
    """Standard deviation of the pitch in semitones; NaN where there is none."""


def measure(waveform: Tensor, sample_rate: int) -> Measures:
    """Measures a recording.

    Args:
        waveform: (S,).
        sample_rate: in hertz, at least 8000.
    """
    waveform = resample(waveform, sample_rate, SAMPLE_RATE)
    size = 2 * HOP_LENGTH * 2
    if waveform.shape[0] < size:
        return Measures(pitch=math.nan, brightness=math.nan, liveliness=math.nan)
    hertz = estimate_pitch(waveform[None], SAMPLE_RATE, HOP_LENGTH, threshold=THRESHOLD)[0]
    pitch = 12.0 * (hertz[hertz > 0] / REFERENCE_HZ).log2()
    deviation = math.nan
    if pitch.shape[0] >= 10:
        middle = pitch.median()
        near = pitch[(pitch - middle).abs() < 9.0]  # without octave errors
        deviation = float(near.std())
    frames = waveform.unfold(0, size, HOP_LENGTH) * torch.hann_window(size)
    power = torch.fft.rfft(frames).abs().square()
    loud = power.sum(dim=1) > power.sum(dim=1).max() * 1e-3
    split = round(SPLIT_HZ * size / SAMPLE_RATE)
    mean = power[loud].mean(dim=0) + 1e-12
    return Measures(
        pitch=float(pitch.median()) if pitch.shape[0] >= 10 else math.nan,
        brightness=float(10.0 * (mean[split:].sum() / mean[:split].sum()).log10()),
        liveliness=deviation,
    )


def labels(row: Utterance) -> dict[str, float]:
    """Sex (-1 male, 1 female) and age of a row, as far as they are labelled."""
    extra: Mapping[str, Any] = row.extra
    found: dict[str, float] = {}
    sex = _SEXES.get(str(extra.get("sex", extra.get("gender", ""))).strip().lower())
    if sex is None and extra.get("engine") == "kokoro":
        # The second letter of a teacher's voice: af_sky is female; voices may be blended.
        parts = _TEACHER_VOICE.findall(row.speaker)
        weights = [float(weight or 1.0) for _, weight in parts]
        if sum(weights) > 0:
            signs = [_SEXES[letter] for letter, _ in parts]
            sex = sum(w * s for w, s in zip(weights, signs, strict=True)) / sum(weights)
    if sex is not None:
        found["sex"] = sex
    age = str(extra.get("age", "")).strip().lower()
    if age in _AGES:
        found["age"] = _AGES[age]
    elif re.fullmatch(r"\d{1,3}(\.\d+)?", age):
        found["age"] = float(age)
    return found


def measure_voices(
    rows: Iterable[Utterance],
    encoder: AnySpeakerEncoder,
    *,
    per_speaker: int,
    max_speakers: int = 0,
    on_progress: Callable[[float], None] = lambda _: None,
) -> tuple[list[str], Tensor, dict[str, Tensor]]:
    """Embeddings and attributes of the speakers of a corpus.

    Args:
        rows: of a manifest. Recordings that cannot be read are left out.
        encoder: the speaker encoder of the bundle.
        per_speaker: recordings of each speaker, at most.
        max_speakers: speakers at most; 0 is all.
        on_progress: called with the share that is done.

    Returns:
        Names of the speakers; their embeddings (V, E); values (V,) of each attribute, NaN where
        they are not known.
    """
    by_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for row in rows:
        if len(by_speaker[row.speaker]) < per_speaker:
            by_speaker[row.speaker].append(row)
    chosen = [*by_speaker.items()][: max_speakers or None]
    rate = encoder.config.mel.sample_rate
    names, embeddings = [], []
    values: dict[str, list[float]] = {
        name: [] for name in ("pitch", "brightness", "liveliness", "age", "sex")
    }
    for number, (speaker, own) in enumerate(chosen):
        vectors, measured = [], defaultdict(list)
        for row in own:
            try:
                waveform = load_audio(row.audio, rate)
            except AudioError:
                continue
            vectors.append(encoder.embed_recording(waveform).cpu())
            for facts in (vars(measure(waveform, rate)), labels(row)):
                for name, value in facts.items():
                    measured[name].append(value)
        on_progress((number + 1) / len(chosen))
        if not vectors:
            continue
        names.append(speaker)
        embeddings.append(functional.normalize(torch.stack(vectors).mean(dim=0), dim=0))
        for name, column in values.items():
            known = [value for value in measured[name] if math.isfinite(value)]
            column.append(sum(known) / len(known) if known else math.nan)
    matrix = torch.stack(embeddings) if embeddings else torch.zeros(0, encoder.config.embedding_dim)
    return names, matrix, {name: torch.tensor(column) for name, column in values.items()}


def add_voice_space(
    rows: Iterable[Utterance],
    bundle: Path,
    *,
    per_speaker: int = 4,
    max_speakers: int = 0,
    source: str = "",
    on_progress: Callable[[float], None] = lambda _: None,
) -> tuple[VoiceSpace, int]:
    """Measures the speakers of a corpus and writes the voice space of a bundle.

    Args:
        rows: of a manifest of the voices that the bundle was trained with.
        bundle: its folder; its manifest is written anew.
        per_speaker, max_speakers, on_progress: see `measure_voices`.
        source: where the voices come from.

    Returns:
        The voice space, and the number of voices.

    Raises:
        ValueError: the folder is no bundle, or there are too few voices.
    """
    manifest = read_manifest(bundle)
    encoder = load_model(bundle / "speaker_encoder", *SPEAKER_ENCODERS)
    names, embeddings, values = measure_voices(
        rows,
        encoder,
        per_speaker=per_speaker,
        max_speakers=max_speakers,
        on_progress=on_progress,
    )
    space = VoiceSpace.fit(embeddings, values, source=source)
    attributes = tuple(replace(part, unit=UNITS.get(part.name, "")) for part in space.attributes)
    space = replace(space, attributes=attributes)
    space.save(bundle / FILE)
    finalize_bundle(bundle, manifest)
    return space, len(names)
