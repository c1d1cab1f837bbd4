"""Word error rate and speaker similarity of streamed speech, with bootstrap intervals.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from inference.benchmark.measurements import Row
from inference.benchmark.subject import SENTENCE, Subject
from tokenlm.audio.resample import resample
from tokenlm.report import bootstrap_interval
from tokenlm.text.normalize import normalize

SENTENCES: tuple[str, ...] = (
    SENTENCE,
    "Please leave your shoes by the front door.",
    "My sister bought a new car last week.",
)

MODES: dict[str, dict[str, Any]] = {
    "default context, one-shot": {},
    "full context, one-shot": {"context": "full"},
    "default context, interleaved": {"layout": "interleaved"},
}
"""Options of `Synthesizer.generate` by mode. The first is how streams are spoken; the others are
compared with it."""


@dataclass(frozen=True)
class Judges:
    """Judges of words and voices. Both take a waveform (S,) at 16 kHz."""

    name: str
    """As the report names them."""
    transcribe: Callable[[Tensor], str]
    """The words of a waveform; '' where there are none."""
    embed: Callable[[Tensor], Tensor]
    """The speaker embedding (E,) of a waveform."""


def own_judges(subject: Subject) -> Judges:
    """The recogniser and the speaker encoder of the bundle itself: no package is needed for them.

    They are loaded when they are first called.
    """
    components = subject.synthesizer.components

    def transcribe(waveform: Tensor) -> str:
        try:
            return subject.synthesizer.transcribe(waveform, sample_rate=16_000)
        except ValueError:  # silence, which says nothing
            return ""

    return Judges(
        name="the bundle's own recogniser and speaker encoder",
        transcribe=transcribe,
        embed=lambda waveform: components.speaker_encoder.embed_recording(waveform),
    )


def read_sentences(path: Path | None, limit: int) -> list[str]:
    """Reads sentences from a file, one a line; lines that begin with # are comments.

    Args:
        path: the file; None for the sentences of `SENTENCES`.
        limit: most sentences.

    Raises:
        ValueError: the file cannot be read, or holds none.
    """
    if path is None:
        return list(SENTENCES)[:limit]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    sentences = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not sentences:
        raise ValueError(f"{path} holds no sentence.")
    return sentences[:limit]


def judge(
    subject: Subject, judges: Judges, sentences: Sequence[str], on_part: Callable[[str], None]
) -> list[Row]:
    """Word error rate and speaker similarity of every mode of `MODES`.

    Similarity is the cosine between the embedding of a sentence and the mean embedding of all other
    sentences in the first mode, so that no sentence is compared with itself.

    Args:
        subject: what speaks. The seed of a sentence is its number, the same in every mode.
        judges: of words and voices.
        sentences: what is said, at least one.
        on_part: called with the name of the part that begins.

    Returns:
        For every mode a row of its word error rate (errors per word) and one of its mean
        similarity, then the differences of the first mode and each other one, paired by sentence.
        Notes give 95 % bootstrap intervals over sentences.
    """
    waveforms: dict[str, list[Tensor]] = {}
    for mode, options in MODES.items():
        on_part(f"words: {mode}")
        waveforms[mode] = [
            _at_16_khz(subject, sentence, seed, options) for seed, sentence in enumerate(sentences)
        ]
    references = [normalize(sentence).split() for sentence in sentences]
    errors = {
        mode: [
            Levenshtein.distance(_letters(reference), _letters(judges.transcribe(waveform).split()))
            for reference, waveform in zip(references, spoken, strict=True)
        ]
        for mode, spoken in waveforms.items()
    }
    embeddings = {
        mode: torch.stack([judges.embed(waveform).float() for waveform in spoken])
        for mode, spoken in waveforms.items()
    }
    base = next(iter(MODES))
    similarities = {
        mode: _similarities(rows, embeddings[base]) for mode, rows in embeddings.items()
    }
    counts = [len(reference) for reference in references]
    rows = []
    for mode in MODES:
        rows.append(_rate_row(f"word error rate, {mode}", errors[mode], counts))
        rows.append(_mean_row(f"similarity to the mean voice, {mode}", similarities[mode]))
    for mode in list(MODES)[1:]:
        rows.append(
            _difference(f"word error rate, {base} minus {mode}", errors[base], errors[mode], counts)
        )
        rows.append(
            _difference(
                f"similarity, {base} minus {mode}", similarities[base], similarities[mode], None
            )
        )
    return rows


def _similarities(rows: Tensor, base: Tensor) -> list[float]:
    """Cosine of each row (N, E) and the mean of all other rows of `base` (N, E)."""
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


def _interval(errors: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    return bootstrap_interval(len(errors), lambda indices: _rate(errors, counts, indices.tolist()))


def _note(low: float, high: float, count: int) -> str:
    return f"95 % interval {low:.3f} to {high:.3f}; {count} sentences"


def _rate_row(name: str, errors: Sequence[float], counts: Sequence[int]) -> Row:
    everything = range(len(errors))
    low, high = _interval(errors, counts)
    return Row(name, _rate(errors, counts, everything), note=_note(low, high, len(errors)))


def _mean_row(name: str, values: Sequence[float]) -> Row:
    ones = [1] * len(values)
    return _rate_row(name, values, ones)


def _difference(
    name: str, first: Sequence[float], second: Sequence[float], counts: Sequence[int] | None
) -> Row:
    """The row of `first` minus `second`, paired: the same sentences are drawn for both."""
    each = [a - b for a, b in zip(first, second, strict=True)]
    row = _rate_row(name, each, counts or [1] * len(each))
    low, high = _interval(each, counts or [1] * len(each))
    verdict = "no significant difference" if low <= 0.0 <= high else "significant"
    return Row(name, row.value, note=f"{row.note}; paired; {verdict}")
