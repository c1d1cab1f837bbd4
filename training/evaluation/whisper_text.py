"""Words of texts and of Whisper's transcripts, so that only what was said differs.

Whisper writes figures, American spellings and contractions as it likes. Figures are spelled out
first, on both sides; then its own English normaliser (Radford et al., 2022, appendix C) makes
spellings, contractions and numbers alike. That normaliser joins "one, two, three" to 123, in which
a lost word cannot be seen, so lists of numbers (counts, telephone numbers) go without its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from training.evaluation.config import WHISPER
from training.evaluation.error_rate import Clean, CleanFor, clean_plainly, spoken_words
from training.evaluation.judges import require

_UNITS = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "oh zero twenty thirty forty fifty sixty seventy eighty ninety".split()
"""What a digit may follow within a number, the zero of a year among them."""
_SCALES = "hundred thousand million billion".split()
_MARKS = re.compile(r"(?<=\d)[,.-](?=\d)")
_LONG_FIGURES = re.compile(r"\d{3,}")


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
