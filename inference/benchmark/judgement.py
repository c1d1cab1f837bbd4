"""Whether the words and the voice suffer from streaming: judged, with intervals.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from inference.benchmark.rows import Row
from inference.benchmark.subject import Subject
from tokenlm.audio.resample import resample
from tokenlm.text.normalize import normalize

NUM_RESAMPLES = 2000

MODES: dict[str, dict[str, Any]] = {
    "default context, one-shot": {},
    "full context, one-shot": {"context": "full"},
    "default context, interleaved": {"layout": "interleaved"},
}
"""What is compared; the first is what a stream is."""


@dataclass(frozen=True)
class Judges:
    """Who hears words and voices. Both get a waveform (S,) at 16 kHz."""

    name: str
    hear: Callable[[Tensor], str]
    embed: Callable[[Tensor], Tensor]


def own_judges(subject: Subject) -> Judges:
    """The recogniser and the speaker encoder of the bundle itself."""
    components = subject.synthesizer.components

    def hear(waveform: Tensor) -> str:
        try:
            return subject.synthesizer.transcribe(waveform, sample_rate=16_000)
        except ValueError:  # silence, which says nothing
            return ""

    return Judges(
        name="the bundle's own recogniser and speaker encoder",
        hear=hear,
        embed=lambda waveform: components.speaker_encoder.embed_recording(waveform),
    )


def judge(
    subject: Subject, judges: Judges, sentences: Sequence[str], tell: Callable[[str], None]
) -> list[Row]:
    """Word error rate and similarity to the default, of every mode.

    Similarity is the cosine between what is said and the mean voice of all other sentences in the
    default mode, so that no mode is measured against itself.
    """
    said: dict[str, list[Tensor]] = {}
    for mode, options in MODES.items():
        tell(f"words: {mode}")
        said[mode] = [
            _at_16_khz(subject, sentence, seed, options) for seed, sentence in enumerate(sentences)
        ]
    references = [normalize(sentence).split() for sentence in sentences]
    errors = {
        mode: [
            (word_errors(_letters(reference), _letters(judges.hear(waveform).split())))
            for reference, waveform in zip(references, waveforms, strict=True)
        ]
        for mode, waveforms in said.items()
    }
    embeddings = {
        mode: torch.stack([judges.embed(waveform).float() for waveform in waveforms])
        for mode, waveforms in said.items()
    }
    base = next(iter(MODES))
    alike = {mode: _similarities(rows, embeddings[base]) for mode, rows in embeddings.items()}
    counts = [len(reference) for reference in references]
    rows = []
    for mode in MODES:
        rows.append(_rate_row(f"word error rate, {mode}", errors[mode], counts))
        rows.append(_mean_row(f"similarity to the mean voice, {mode}", alike[mode]))
    for mode in list(MODES)[1:]:
        rows.append(
            _difference(f"word error rate, {base} minus {mode}", errors[base], errors[mode], counts)
        )
        rows.append(_difference(f"similarity, {base} minus {mode}", alike[base], alike[mode], None))
    return rows


def word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest words to be changed, left out or put in (Levenshtein distance)."""
    return Levenshtein.distance(reference, heard)


def interval(
    statistic: Callable[[Sequence[int]], float], size: int, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of the indices 0 … size - 1 (Efron, 1979)."""
    generator = random.Random(seed)
    values = sorted(
        statistic([generator.randrange(size) for _ in range(size)]) for _ in range(NUM_RESAMPLES)
    )
    return values[int(0.025 * NUM_RESAMPLES)], values[int(0.975 * NUM_RESAMPLES) - 1]


def _similarities(rows: Tensor, base: Tensor) -> list[float]:
    base = torch.nn.functional.normalize(base, dim=-1)
    others = base.sum(dim=0, keepdim=True) - base if base.shape[0] > 1 else base
    return torch.nn.functional.cosine_similarity(rows, others, dim=-1).tolist()


def _at_16_khz(subject: Subject, sentence: str, seed: int, options: dict[str, Any]) -> Tensor:
    waveform = subject.synthesizer.generate(sentence, voice=subject.voice, seed=seed, **options)
    return resample(waveform, subject.synthesizer.sample_rate, 16_000)


def _letters(words: Sequence[str]) -> list[str]:
    stripped = ("".join(sign for sign in word.lower() if sign.isalnum()) for word in words)
    return [word for word in stripped if word]


def _rate(errors: Sequence[float], counts: Sequence[int], indices: Sequence[int]) -> float:
    return sum(errors[i] for i in indices) / max(sum(counts[i] for i in indices), 1)


def _told(low: float, high: float, count: int) -> str:
    return f"95 % interval {low:.3f} to {high:.3f}; {count} sentences"


def _rate_row(name: str, errors: Sequence[float], counts: Sequence[int]) -> Row:
    everything = range(len(errors))
    low, high = interval(lambda indices: _rate(errors, counts, indices), len(errors))
    return Row(name, _rate(errors, counts, everything), note=_told(low, high, len(errors)))


def _mean_row(name: str, values: Sequence[float]) -> Row:
    ones = [1] * len(values)
    return _rate_row(name, values, ones)


def _difference(
    name: str, first: Sequence[float], second: Sequence[float], counts: Sequence[int] | None
) -> Row:
    """Paired: the same sentences are drawn for both."""
    each = [a - b for a, b in zip(first, second, strict=True)]
    row = _rate_row(name, each, counts or [1] * len(each))
    low, high = interval(lambda indices: _rate(each, counts or [1] * len(each), indices), len(each))
    told = "no significant difference" if low <= 0.0 <= high else "significant"
    return Row(name, row.value, note=f"{row.note}; paired; {told}")
