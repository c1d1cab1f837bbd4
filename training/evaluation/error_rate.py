"""Word and character errors between a text and its transcript, and kinds of failure.

A word that is transcribed wrongly says little: judges mishear. A run of words that is missing, or
was never asked for, says that the model lost its place, and how.

Whisper writes figures, American spellings and contractions as it likes. Where it is the judge,
figures are spelled out first, on both sides; then its own English normaliser (Radford et al., 2022,
appendix C) makes spellings, contractions and numbers alike. That normaliser joins "one, two, three"
to 123, in which a lost word cannot be seen, so lists of numbers (counts, telephone numbers) go
without its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import jiwer

from tokenlm.text.normalize import normalize
from tokenlm.text.transcripts import ENGLISH_ALPHABET
from training.evaluation.config import WHISPER
from training.evaluation.judges import require

CATASTROPHIC_RATE = 0.5
"""An utterance has failed when more of its words are wrong than this, and by as much more than in
the source engine's own reading, where there is one."""

FaultKind = Literal["repeat", "skip", "insertion", "early_stop", "late_stop", "prompt_leak"]
FAULTS: tuple[FaultKind, ...] = get_args(FaultKind)

Clean = Callable[[str], str]
"""Brings a text, or its transcript, to lower-case words with single spaces, which are compared."""
CleanFor = Callable[[str], Clean]
"""Chooses how a reference and its transcript are cleaned, by the reference."""

MIN_RUN = 2
"""Words that must be missing, or too many, in a row: single ones are the judge's, often."""
MIN_LEAK = 3
"""Words of the prompt in a row, none of them asked for at this place."""

_UNITS = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "oh zero twenty thirty forty fifty sixty seventy eighty ninety".split()
"""What a digit may follow within a number, the zero of a year among them."""
_SCALES = "hundred thousand million billion".split()
_MARKS = re.compile(r"(?<=\d)[,.-](?=\d)")
_LONG_FIGURES = re.compile(r"\d{3,}")


@dataclass(frozen=True)
class ErrorCount:
    """Substitutions, deletions and insertions, and how long the reference is."""

    errors: int
    length: int

    @property
    def rate(self) -> float:
        """Errors per unit of the reference; may be above 1."""
        return self.errors / self.length


def spoken_words(text: str) -> str:
    """Bring a text to lower-case words with single spaces, without marks."""
    spoken = normalize(text).replace("-", " ")
    return " ".join("".join(c for c in spoken if c in ENGLISH_ALPHABET).split())


def clean_plainly(reference: str) -> Clean:
    """`spoken_words`, whatever the reference."""
    return spoken_words


def word_errors(reference: str, transcript: str, clean: Clean = spoken_words) -> ErrorCount:
    """Count wrong words.

    Args:
        reference: what should be said, as written.
        transcript: what the judge wrote.
        clean: of both.

    Raises:
        ValueError: the reference has no words.
    """
    words, transcript = _spoken_reference(reference, clean), clean(transcript)
    alignment = jiwer.process_words(words, transcript)
    return ErrorCount(
        alignment.substitutions + alignment.deletions + alignment.insertions, len(words.split())
    )


def errors_by_part(
    references: Sequence[str], transcript: str, clean: Clean = spoken_words
) -> list[ErrorCount]:
    """Count wrong words of a long reading, and to which part of the text each belongs.

    The whole is aligned at once, so that it does not matter where the judge was cut off. A word
    that was put in between two parts counts for the second.

    Args:
        references: the parts in their order, as written.
        transcript: what the judge wrote of all of them.
        clean: of both.

    Raises:
        ValueError: a part has no words.
    """
    parts = [_spoken_reference(part, clean) for part in references]
    lengths = [len(part.split()) for part in parts]
    owners = [part for part, length in enumerate(lengths) for _ in range(length)]
    words = " ".join(parts)
    errors = [0] * len(lengths)
    for chunk in jiwer.process_words(words, clean(transcript)).alignments[0]:
        if chunk.type == "insert":
            place = min(chunk.ref_start_idx, len(owners) - 1)
            errors[owners[place]] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            for place in range(chunk.ref_start_idx, chunk.ref_end_idx):
                errors[owners[place]] += 1
    return [ErrorCount(wrong, length) for wrong, length in zip(errors, lengths, strict=True)]


def char_errors(reference: str, transcript: str, clean: Clean = spoken_words) -> ErrorCount:
    """Count wrong characters, spaces among them; see `word_errors`."""
    words, transcript = _spoken_reference(reference, clean), clean(transcript)
    alignment = jiwer.process_characters(words, transcript)
    return ErrorCount(
        alignment.substitutions + alignment.deletions + alignment.insertions, len(words)
    )


def error_rate(counts: Iterable[ErrorCount]) -> float:
    """Errors of all over the length of all: long utterances count for more."""
    counts = list(counts)
    return sum(count.errors for count in counts) / sum(count.length for count in counts)


def is_catastrophic(spoken: ErrorCount, original: ErrorCount | None = None) -> bool:
    """Whether an utterance is lost: an error rate above 0.5, and 0.5 above the engine's own.

    Args:
        spoken: of the speech that is judged.
        original: of the source engine's own reading of the same text, where there is one.
    """
    base = 0.0 if original is None else original.rate
    return spoken.rate > CATASTROPHIC_RATE and spoken.rate - base >= CATASTROPHIC_RATE


def _spoken_reference(reference: str, clean: Clean) -> str:
    words = clean(reference)
    if not words:
        raise ValueError(f"the reference text {reference[:40]!r} holds no words to compare with.")
    return words


def find_faults(
    spoken: str, transcript: str, prompt: str = "", clean: Clean = spoken_words
) -> list[FaultKind]:
    """Kinds of failure of one utterance, in the order of `FAULTS`; none where all is well.

    Args:
        spoken: what should be heard.
        transcript: what the judge wrote.
        prompt: what the prompt says.
        clean: of all three.
    """
    reference = clean(spoken).split()
    hypothesis = clean(transcript).split()
    if not hypothesis:
        return ["early_stop"]
    faults: set[FaultKind] = set()
    if _has_leak(reference, hypothesis, clean(prompt).split()):
        faults.add("prompt_leak")
    for gap in _gaps(reference, hypothesis):
        faults |= _faults_of_gap(gap, reference, hypothesis)
    if "prompt_leak" in faults:
        # Words of the prompt are extra words, too: they are named once.
        faults.discard("insertion")
    return [kind for kind in FAULTS if kind in faults]


def has_lost_or_doubled(spoken: str, transcript: str, clean: Clean = spoken_words) -> bool:
    """Whether a single word is missing, or said twice: what lists and counts fail by.

    A word in place of another is neither.

    Args:
        spoken: what should be heard.
        transcript: what the judge wrote.
        clean: of both.
    """
    reference, hypothesis = clean(spoken).split(), clean(transcript).split()
    for gap in _gaps(reference, hypothesis):
        num_missing, num_extra = gap.ref_stop - gap.ref_start, gap.hyp_stop - gap.hyp_start
        if num_missing > num_extra:
            return True
        if num_extra > num_missing and _repeats(hypothesis, gap.hyp_start, gap.hyp_stop):
            return True
    return False


@dataclass(frozen=True)
class _Gap:
    """Words between two that were heard as they should be: those missing, those there instead."""

    ref_start: int
    ref_stop: int
    hyp_start: int
    hyp_stop: int


def _gaps(reference: list[str], hypothesis: list[str]) -> list[_Gap]:
    """Gaps of the alignment with the most matching words; the earliest where several are as good.

    The alignment of error rates takes a word for another wherever it can, and so hides repeats
    and stops behind substitutions. Of alignments that are equally good the earliest is taken, which
    libraries leave open (rapidfuzz's differs in every second case with few distinct words).
    """
    rows, columns = len(reference), len(hypothesis)
    longest = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            longest[i][j] = (
                longest[i + 1][j + 1] + 1
                if reference[i] == hypothesis[j]
                else max(longest[i + 1][j], longest[i][j + 1])
            )
    gaps, i, j, start = [], 0, 0, (0, 0)
    while i < rows and j < columns:
        if reference[i] == hypothesis[j]:
            gaps.append(_Gap(start[0], i, start[1], j))
            i, j = i + 1, j + 1
            start = (i, j)
        elif longest[i + 1][j] > longest[i][j + 1]:
            i += 1
        else:
            j += 1
    gaps.append(_Gap(start[0], rows, start[1], columns))
    return [gap for gap in gaps if gap.ref_stop > gap.ref_start or gap.hyp_stop > gap.hyp_start]


def _faults_of_gap(gap: _Gap, reference: list[str], hypothesis: list[str]) -> set[FaultKind]:
    num_missing = gap.ref_stop - gap.ref_start
    num_extra = gap.hyp_stop - gap.hyp_start
    faults: set[FaultKind] = set()
    if num_extra and _repeats(hypothesis, gap.hyp_start, gap.hyp_stop):
        faults.add("repeat")
    elif num_extra:
        # A word in place of another was misheard, or badly said: neither missing nor too much.
        num_missing, num_extra = num_missing - num_extra, num_extra - num_missing
        if num_extra >= MIN_RUN:
            faults.add("late_stop" if gap.hyp_stop == len(hypothesis) else "insertion")
    if num_missing >= MIN_RUN:
        faults.add("early_stop" if gap.ref_stop == len(reference) else "skip")
    return faults


def _repeats(hypothesis: Sequence[str], start: int, stop: int) -> bool:
    """Whether a run of extra words is what stands before or after it, or the same again."""
    size = stop - start
    run = list(hypothesis[start:stop])
    before = list(hypothesis[max(start - size, 0) : start])
    after = list(hypothesis[stop : stop + size])
    return run in (before, after) or _is_periodic(run)


def _is_periodic(run: Sequence[str]) -> bool:
    """Whether a run is some words said at least twice in a row, and nothing else."""
    return any(
        len(run) % period == 0 and list(run) == list(run[:period]) * (len(run) // period)
        for period in range(1, len(run) // 2 + 1)
    )


def _has_leak(reference: list[str], hypothesis: list[str], prompt: list[str]) -> bool:
    """Whether words of the prompt are heard in a row that the text does not hold."""
    of_prompt = _grams(prompt)
    return bool((of_prompt - _grams(reference)) & _grams(hypothesis))


def _grams(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + MIN_LEAK]) for i in range(len(words) - MIN_LEAK + 1)}


def find_cleaner(judge: str) -> CleanFor:
    """How texts and the transcripts of a judge of words are brought to words.

    Raises:
        JudgeError: the normaliser of Whisper is needed, and not installed.
    """
    if judge.partition(":")[0] != WHISPER:
        return clean_plainly
    require("whisper_normalizer")
    return clean_for_whisper


def is_number_list(words: str) -> bool:
    """Whether words hold numbers one after another that are no single number.

    A year or a time has two parts at most ("nineteen eighty four", "seven oh five"), unless a digit
    follows a digit.
    """
    before, num_parts = "", 0
    for word in words.split():
        if word not in (*_UNITS, *_TEENS, *_TENS, *_SCALES):
            num_parts = 0
        elif word not in _SCALES and not (word in _UNITS and before in _TENS):
            num_parts += 1
            if num_parts > 2 or (word in _UNITS and before in _UNITS):
                return True
        before = word
    return False


def clean_for_whisper(reference: str) -> Clean:
    """How a reference and its transcript by Whisper are cleaned.

    Raises:
        JudgeError: whisper-normalizer is not installed.
    """
    return _clean_list if is_number_list(spoken_words(reference)) else _clean


def _clean(text: str) -> str:
    with_numbers, _ = _normalizers()
    words = spoken_words(text)
    return with_numbers(words).strip() or words  # it drops "hmm", though nothing else is there


def _clean_list(text: str) -> str:
    # "555-0123" and "5550123" are the same digits; a number of two figures is said as one.
    text = _LONG_FIGURES.sub(lambda figures: " ".join(figures[0]), _MARKS.sub(" ", text))
    _, without_numbers = _normalizers()
    words = without_numbers(spoken_words(text)).split()
    return " ".join("zero" if word == "oh" else word for word in words)


@cache
def _normalizers() -> tuple[Callable[[str], str], Callable[[str], str]]:
    """The normaliser of Whisper, as it is and without its numbers."""
    require("whisper_normalizer")
    from whisper_normalizer.english import EnglishTextNormalizer

    whole, without_numbers = EnglishTextNormalizer(), EnglishTextNormalizer()
    without_numbers.standardize_numbers = lambda text: text  # pyright: ignore
    return whole, without_numbers
