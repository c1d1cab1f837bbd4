"""English text as written to the words that a person says.

`normalize` gives lower-case words and the marks , . ? ! ; : and -. A text is folded to a small
alphabet, read line by line (headings, lists, tables, wrapped prose), and each line goes through the
passes of `PASSES`, in this order.

Every pass keeps the stable-prefix property, on which text that arrives in pieces depends: what it
makes of the beginning of a text no longer changes once `LOOKAHEAD_WORDS` further words are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tokenlm.text import calendar, letters, measures, numbers, symbols
from tokenlm.text.symbols import Line, fold_characters, read_layout, warn_of_foreign_words

LOOKAHEAD_WORDS = 4
"""Words behind a word that may change how it is read."""


class Pass(NamedTuple):
    """One step of normalisation: a rewriting of a line."""

    rewrite: Callable[[str], str]
    written: str
    """An example,"""
    result: str
    """and what the pass makes of it."""
    trigger: re.Pattern[str] | None = None
    """A line in which it is not found is left as it is."""

    def __call__(self, text: str) -> str:
        """Rewrite a line."""
        return self.rewrite(text) if self.trigger is None or self.trigger.search(text) else text


_DIGIT = numbers.DIGIT

# The order is the grammar: a pass may count on everything above it being words already (a number
# with a unit is gone before bare numbers are read), and case is kept until acronyms, names and
# Roman numerals have been told apart by it.
PASSES: tuple[Pass, ...] = (
    Pass(letters.lower_shouting, "LOOK OUT BELOW!", "look out below!"),
    Pass(numbers.join_groups, "1.234.567,8", "1,234,567.8", _DIGIT),
    Pass(symbols.expand_web, "see a.com", "see a dot com"),
    Pass(letters.expand_verses, "Gen. 1:2", "Genesis one two", _DIGIT),
    Pass(calendar.expand_dates, "May 5, 2024", "may fifth, twenty twenty four"),
    Pass(calendar.expand_times, "at 9:30 am", "at nine thirty a m", _DIGIT),
    Pass(letters.expand_codes, "call 911", "call nine one one", _DIGIT),
    Pass(measures.expand_signs, "it is -5", "it is minus 5"),
    Pass(measures.expand_money, "cost $3", "cost  three dollars"),
    Pass(letters.expand_abbreviations, "Dr. Lee", "doctor Lee"),
    Pass(measures.expand_units, "5 km", "five kilometers"),
    Pass(numbers.expand_ordinals, "the 22nd", "the twenty second", _DIGIT),
    Pass(measures.expand_formulas, "1/2", "one half"),
    Pass(letters.expand_roman, "Henry VIII", "Henry the eighth"),
    Pass(symbols.expand_symbols, "you & me", "you and me"),
    Pass(numbers.expand_ranges, "3-4", "three to 4"),
    Pass(symbols.shape_pauses, "so (it is)", "so , it is, "),
    Pass(letters.expand_acronyms, "FBI", "f b i"),
    Pass(numbers.expand_numbers, "12 of us", " twelve  of us"),
    Pass(symbols.settle, "Twenty-one , we said..", "twenty one, we said."),
)


def normalize_paragraphs(text: str, *, line_start: str = "") -> list[str]:
    """Normalise a text paragraph by paragraph; blank lines and headings separate them.

    Args:
        text: any string.
        line_start: for a text that is the rest of a longer one, what stands before it in its first
            line. It is not read; it tells what kind of line that is, and how long.

    Returns:
        The paragraphs as `normalize` gives them; those without anything to say are left out.
        Joined by newlines they are what `segment` takes for a text with paragraphs.
    """
    layout = read_layout(fold_characters(text), fold_characters(line_start))
    spoken = (_normalize_lines(lines) for lines in layout)
    return [part for part in spoken if part]


def normalize(text: str) -> str:
    """Turn written English into what a person says.

    Words of other scripts are left out; the logger of `tokenlm.text.symbols` warns of them.

    Args:
        text: any string, of any script; never an error.

    Returns:
        Lower-case words of a-z and apostrophes, single spaces, and of marks only , . ? ! ; : and
        a hyphen inside words. '' when there is nothing to say.

    Example:
        >>> normalize("Dr. Smith paid $3.50 on May 5, 2024.")
        'doctor smith paid three dollars and fifty cents on may fifth, twenty twenty four.'
    """
    warn_of_foreign_words(text)
    paragraphs = normalize_paragraphs(text)
    # A blank line ends a sentence: a heading does not run into the text below it.
    closed = [part if part[-1] in ".?!" else f"{part.rstrip(',;:-')}." for part in paragraphs[:-1]]
    return " ".join([*closed, *paragraphs[-1:]])


def _normalize_lines(lines: Sequence[Line]) -> str:
    """The lines of a paragraph in one, each closed as a sentence or with its own mark."""
    said = [(spoken, line.end) for line in lines if (spoken := _normalize_line(line.text))]
    last = len(said) - 1
    for number, (spoken, end) in enumerate(said):
        mark = end or "." if number < last else end.strip(",")
        said[number] = (spoken if spoken[-1] in ".?!;:" else spoken + mark, end)
    return " ".join(spoken for spoken, _ in said)


def _normalize_line(text: str) -> str:
    for rewrite in PASSES:
        text = rewrite(text)
    return text
