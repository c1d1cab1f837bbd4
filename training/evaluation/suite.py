"""A suite of requests: spoken by a system, scored by judges.

Every section of an evaluation is a suite, and every system that is evaluated speaks suites: a
bundle that clones voices, the vocoder alone, or the recordings themselves.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.io import save_audio
from tokenlm.audio.level import trim_silence
from tokenlm.audio.resample import resample
from training.evaluation.error_rate import (
    Clean,
    CleanFor,
    ErrorCount,
    char_errors,
    clean_plainly,
    find_faults,
    has_lost_or_doubled,
    is_catastrophic,
    word_errors,
)
from training.evaluation.judges import SAMPLE_RATE, SCORES, Embed, Rate
from training.evaluation.prompts import Prompt
from training.evaluation.statistics import Figure, beside, mean_figure

SPLIT_HZ, TOP_HZ = 8000.0, 11_500.0
"""The band in which speech that was learned from 16 kHz has nothing."""
FLOOR_DB = -120.0
"""Energy of that band in a recording with nothing in it."""
MIN_SECONDS = 0.1
"""Shorter speech is padded with silence, so that the judges accept it."""

Row = dict[str, Any]
"""A line of `utterances.jsonl`."""
Advance = Callable[[], object]
"""Called after each utterance."""
Summary = Callable[[Sequence[Row], int], list[Figure]]
HIGH_BAND = "high_band_db"
SOUND = {**SCORES, HIGH_BAND: "energy from 8 to 11.5 kHz over that below, in dB"}
"""Columns of rows that say how speech sounds, and how they are read."""
_OF_SPEECH = (
    "errors", "words", "char_errors", "characters", "word_error_rate", "lost_or_doubled", "faults",
    "similarity", "nearest", "num_candidates", "speaking_rate", "seconds", *SOUND,
)  # fmt: skip
"""Columns that are those of the recording where a recording is summarised in place of speech."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One text to be spoken."""

    id: str | int
    text: str
    """As written, which is what the system is given."""
    spoken: str = ""
    """Words that should be heard, if they are not those of the text."""
    prompt: Prompt
    """The voice that is to be cloned."""
    seed: int = 0
    """Of sampling."""
    reference: Path | None = None
    """Recording of the text itself."""
    target: Prompt | None = None
    """Recording that the voice should be similar to; None: the prompt."""
    baseline: ErrorCount | None = None
    """Word errors of the source engine's own reading, where it is known."""
    parts: tuple[str, ...] = ()
    """Sentences of a long text."""
    file: str = ""
    """Name of the audio file in the folder of the suite, without its suffix."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of its row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Suite:
    """Requests that are evaluated together."""

    section: str
    """What is measured, one of `SECTIONS`."""
    group: str
    """The test set that the texts are from."""
    requests: list[Request]
    folder: str = ""
    """Where audio is kept, in the folder of the test set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Speech:
    """What a system made of a request."""

    request: Request
    waveform: Tensor
    """(S,)"""
    sample_rate: int
    work_seconds: float | None = None
    """By the clock; None where nothing was synthesised."""
    processor_seconds: float | None = None
    """Of all cores; None where another device did the work."""
    first_audio_seconds: float | None = None
    """Until the first sound, where the system streams."""
    path: Path | None = None
    """Where it is kept."""

    @property
    def seconds(self) -> float:
        """Length of the speech."""
        return self.waveform.shape[0] / self.sample_rate

    def samples(self) -> np.ndarray:
        """Samples (S,) at the rate of the judges, `MIN_SECONDS` or more."""
        missing = int(MIN_SECONDS * self.sample_rate) - self.waveform.shape[0]
        waveform = torch.nn.functional.pad(self.waveform, (0, max(missing, 0)))
        return resample(waveform, self.sample_rate, SAMPLE_RATE).numpy()


class System(Protocol):
    """Anything that speaks requests can be evaluated."""

    def speak(self, request: Request) -> Speech:
        """Speak a text; the same seed gives the same speech."""
        ...


class Judges:
    """Judges of words, speakers and naturalness."""

    def __init__(
        self,
        submit: Callable[[np.ndarray], Future[str]],
        embed: Embed,
        naturalness: Rate | None = None,
        clean_for: CleanFor = clean_plainly,
    ) -> None:
        """Take the judges.

        Args:
            submit: samples (S,) at 16 kHz to their transcript, when it is done.
            embed: samples to a speaker embedding (E,).
            naturalness: samples to mean opinion scores, or None.
            clean_for: how texts and transcripts are brought to words that can be compared.
        """
        self.submit, self.embed, self.naturalness = submit, embed, naturalness
        self.clean_for = clean_for
        self._embeddings: dict[Prompt, np.ndarray] = {}

    def embed_prompt(self, prompt: Prompt) -> np.ndarray:
        """Embedding (E,) of a prompt, computed once."""
        if prompt not in self._embeddings:
            self._embeddings[prompt] = self.embed(prompt.samples(SAMPLE_RATE).numpy())
        return self._embeddings[prompt]


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """What the judges say of one utterance."""

    request: Request
    row: Row
    count: ErrorCount
    """Of words."""
    embedding: np.ndarray
    """(E,)"""


def speak(
    system: System, suite: Suite, folder: Path | None = None, advance: Advance = lambda: None
) -> Iterator[Speech]:
    """Let a system speak a suite, one request after another.

    Args:
        system: what is evaluated.
        suite: the requests.
        folder: keeps the speech as `<test set>/<folder of the suite>/<file>.wav`; None keeps
            nothing.
        advance: called after each request.
    """
    for request in suite.requests:
        speech = system.speak(request)
        if folder is not None:
            path = folder / suite.group / suite.folder / f"{request.file}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_audio(path, speech.waveform, speech.sample_rate)
            speech = replace(speech, path=path)
        yield speech
        advance()


def score(
    suite: Suite, speeches: Iterable[Speech], judges: Judges, advance: Advance = lambda: None
) -> list[Score]:
    """Let judges score speech. Words are judged while the next request is spoken.

    Args:
        suite: what was spoken.
        speeches: of `speak`.
        judges: the judges.
        advance: called after each utterance.
    """
    waiting: list[tuple[Request, Row, np.ndarray, Future[str]]] = []
    for speech in speeches:
        request, samples = speech.request, speech.samples()
        embedding = judges.embed(samples)
        target = judges.embed_prompt(request.target or request.prompt)
        row = {
            **_facts(suite, speech),
            "speaking_rate": _speaking_rate(request, samples),
            "similarity": round(similarity(embedding, target), 4),
        }
        high_band = high_band_db(speech.waveform, speech.sample_rate)
        if high_band is not None:
            row["high_band_db"] = round(high_band, 3)
        if judges.naturalness is not None:
            row |= {name: round(value, 4) for name, value in judges.naturalness(samples).items()}
        future = judges.submit(samples)
        future.add_done_callback(lambda _: advance())
        waiting.append((request, row, embedding, future))
    return [
        _with_words(judges, request, row, embedding, future.result())
        for request, row, embedding, future in waiting
    ]


def _with_words(
    judges: Judges, request: Request, row: Row, embedding: np.ndarray, transcript: str
) -> Score:
    spoken = request.spoken or request.text
    clean = judges.clean_for(spoken)
    return Score(
        request=request,
        row={**row, **_word_columns(request, transcript, clean)},
        count=word_errors(spoken, transcript, clean),
        embedding=embedding,
    )


def _facts(suite: Suite, speech: Speech) -> Row:
    """Columns that need no judge."""
    request = speech.request
    row: Row = {
        "section": suite.section,
        "group": suite.group,
        "item": request.id,
        "prompt": request.prompt.name,
        **request.columns,
        "text": request.text,
        "seconds": round(speech.seconds, 3),
        "audio": None if speech.path is None else str(speech.path),
    }
    for name in ("work_seconds", "processor_seconds", "first_audio_seconds"):
        value = getattr(speech, name)
        if value is not None:
            row[name] = round(value, 4)
    return row


def _speaking_rate(request: Request, samples: np.ndarray) -> float:
    """Characters per second of speech, without the silence at its ends."""
    seconds = len(trim_silence(torch.from_numpy(samples), SAMPLE_RATE)) / SAMPLE_RATE
    return round(len(request.spoken or request.text) / max(seconds, MIN_SECONDS), 3)


def _word_columns(request: Request, transcript: str, clean: Clean) -> Row:
    spoken = request.spoken or request.text
    words = word_errors(spoken, transcript, clean)
    characters = char_errors(spoken, transcript, clean)
    row = {
        "heard": transcript,
        "errors": words.errors,
        "words": words.length,
        "char_errors": characters.errors,
        "characters": characters.length,
        "word_error_rate": round(words.rate, 4),
        "catastrophic": is_catastrophic(words, request.baseline),
        "lost_or_doubled": has_lost_or_doubled(spoken, transcript, clean),
        "faults": find_faults(spoken, transcript, request.prompt.text or "", clean),
    }
    if request.baseline is not None:
        row["engine_errors"] = request.baseline.errors
    return row


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine between two embeddings (E,)."""
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def high_band_db(waveform: Tensor, sample_rate: int) -> float | None:
    """Energy from 8 to 11.5 kHz over that below, in decibels.

    Args:
        waveform: (S,).
        sample_rate: in hertz.

    Returns:
        None where the rate is too low for such a band, or where nothing is to be heard.
    """
    if sample_rate < 2 * TOP_HZ or not waveform.shape[0]:
        return None
    # In double precision: single puts the noise of its own rounding where there is nothing.
    power = torch.fft.rfft(waveform.double()).abs().square().numpy()
    hertz = np.arange(len(power)) * sample_rate / waveform.shape[0]
    low = float(power[hertz < SPLIT_HZ].sum())
    high = float(power[(hertz >= SPLIT_HZ) & (hertz < TOP_HZ)].sum())
    if low <= 0.0:
        return None
    return max(10.0 * float(np.log10(max(high / low, 1e-30))), FLOOR_DB)


def voices_of(rows: Sequence[Row]) -> list[str]:
    """The voice that each row was spoken in, as far as rows share voices."""
    return [str(row.get("speaker", row["prompt"])) for row in rows]


def sound_figures(rows: Sequence[Row], prefix: str = "", *, seed: int = 0) -> list[Figure]:
    """Means of the columns `SOUND` that all rows have.

    Args:
        rows: of one section and set.
        prefix: of the names of the figures.
        seed: of the intervals.
    """
    section, group = rows[0]["section"], rows[0]["group"]
    return [
        mean_figure(
            section,
            group,
            f"{prefix}{name}",
            [float(row[name]) for row in rows],
            voices_of(rows),
            seed=seed,
            note=note,
        )
        for name, note in SOUND.items()
        if all(name in row for row in rows)
    ]


def summarise_beside(
    summarise: Summary, rows: Sequence[Row], originals: Mapping[str, Row], seed: int = 0
) -> list[Figure]:
    """Figures of rows, each with that of the recordings of the same sentences.

    Args:
        summarise: makes figures of rows.
        rows: whose `original` names the recording of their sentence.
        originals: rows of the recordings, by that name. Where one is missing no figure has another
            one beside it.
        seed: of the intervals.
    """
    figures = summarise(rows, seed)
    if not all(row.get("original") in originals for row in rows):
        return figures
    recorded = [
        {**row, **{key: own[key] for key in _OF_SPEECH if key in own}, "original_errors": 0}
        for row in rows
        for own in [originals[row["original"]]]
    ]
    kept = [figure for figure in summarise(recorded, seed) if not _is_of_both(figure)]
    return beside(figures, kept)


def _is_of_both(figure: Figure) -> bool:
    """Whether a figure is of the system or compares it with something: recordings have none."""
    parts = ("_over_", "to_original", "catastrophic", "real_time_factor", "first_audio", "slope")
    return any(part in figure.name for part in parts)
