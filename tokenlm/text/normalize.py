"""English as written -> English as spoken, in lower-case words and the marks , . ? ! ; : and -.

The rules are passes over the text, each a function `str -> str` in the file named after what it
reads. Their order is the grammar: a pass may count on everything above it being words already
(so a number with a unit is gone before bare numbers are read), and case is kept until acronyms,
names and numerals have been told apart by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenlm.text.abbreviations import expand_abbreviations
from tokenlm.text.acronyms import expand_acronyms, lower_shouting
from tokenlm.text.characters import fold_characters, warn_of_foreign_words
from tokenlm.text.codes import expand_codes, expand_verses
from tokenlm.text.dates import expand_dates
from tokenlm.text.formulas import expand_formulas, expand_signs
from tokenlm.text.markup import Line, read_layout
from tokenlm.text.money import expand_money
from tokenlm.text.numbers import expand_numbers, expand_ordinals, expand_ranges, join_groups
from tokenlm.text.punctuation import expand_symbols, settle, shape_pauses
from tokenlm.text.roman import expand_roman
from tokenlm.text.times import expand_times
from tokenlm.text.units import expand_units
from tokenlm.text.web import expand_web

_PASSES: tuple[Callable[[str], str], ...] = (
    lower_shouting,
    join_groups,
    expand_web,
    expand_verses,
    expand_dates,
    expand_times,
    expand_codes,
    expand_signs,
    expand_money,
    expand_abbreviations,
    expand_units,
    expand_ordinals,
    expand_formulas,
    expand_roman,
    expand_symbols,
    expand_ranges,
    shape_pauses,
    expand_acronyms,
    expand_numbers,
    settle,
)


def normalize_paragraphs(text: str, *, line_start: str = "") -> list[str]:
    """Normalise a text paragraph by paragraph (they are parted by blank lines and headings).

    Args:
        text: any string.
        line_start: of a text that is the rest of a longer one, what stands before it in its first
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

    Words of other scripts are left out; a warning of the logger of `tokenlm.text.characters` names
    them.

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
    # The blank line was a full stop to the eye: a heading does not run into the text below it.
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
    for expand in _PASSES:
        text = expand(text)
    return text
