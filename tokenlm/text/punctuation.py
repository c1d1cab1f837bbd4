"""The signs that are left, and the marks that a speaker pauses at: , . ? ! ; : and hyphen."""

from __future__ import annotations

import re

MARKS = ",.?!;:-"
"""The marks that normalised text may hold beside a-z, the apostrophe and the space."""

_STRENGTH = "?!.;:,"
_ELLIPSIS = re.compile(r"\.{2,}|(?:\. ){2,}\.")
_BRACKETS = re.compile(r"[()\[\]{}]+")
_DASHES = re.compile(r" ?(?:[—–]+|-{2,}|(?<= )-+(?= )|(?<=[a-z,.?!]) -(?=[A-Za-z])) ?")
_SLASHED_CAPITALS = re.compile(r"(?<=[A-Z]{2})/(?=[A-Z]{2})")
_SLASHED = re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])")
_WORD_SIGNS = (
    (re.compile(r" ?& ?"), " and "),
    (re.compile(r"(?<=[0-9A-Za-z]) ?@ ?(?=[0-9A-Za-z$])|(?<= )@(?= )"), " at "),
    (re.compile(r"°"), " degrees "),
    (re.compile(r"©|\(c\)(?= ?[0-9])"), " copyright "),
    (re.compile(r"§+"), " section "),
    (re.compile(r"#(?=[0-9])"), " number "),
    (re.compile(r"(?<=[A-Za-z])\*(?=[A-Za-z])"), ""),
)
_APOSTROPHE = re.compile(r"(?<![a-z])'+|'+(?![a-z])")
_UNKNOWN = re.compile(r"[^a-z',.?!;:-]+")
_STRAY_HYPHEN = re.compile(r"(?<![a-z])-+|-+(?![a-z])|-{2,}")
_MARK_RUN = re.compile(r" ?[,.?!;:](?: ?[,.?!;:])* ?")
_TENS_HYPHEN = re.compile(
    r"\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-(?=(?:one|two|three|four|five|"
    r"six|seven|eight|nine|"
    r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)\b)"
)


def expand_symbols(text: str) -> str:
    """Say the signs that stand for a word; run before numbers and acronyms are looked at."""
    for pattern, words in _WORD_SIGNS:
        text = pattern.sub(words, text)
    return text


def shape_pauses(text: str) -> str:
    """Ellipses, brackets and dashes become commas or full stops; run while case is kept."""
    text = _ELLIPSIS.sub(_ellipsis, text)
    text = _BRACKETS.sub(", ", text)
    text = _DASHES.sub(", ", text)
    return _SLASHED.sub(" slash ", _SLASHED_CAPITALS.sub(" ", text))


def _ellipsis(match: re.Match[str]) -> str:
    rest = match.string[match.end() : match.end() + 4].lstrip("\"') ")
    return ", " if rest[:1].islower() or rest[:2] in ("I ", "I'") or rest[:1].isdigit() else ". "


def settle(text: str) -> str:
    """The last step: only a-z, inner apostrophes, marks and single spaces are left.

    Runs of marks become the strongest of them, marks without a word before them go.
    """
    text = _UNKNOWN.sub(" ", text.lower())
    text = _STRAY_HYPHEN.sub(" ", _APOSTROPHE.sub("", text))
    text = _TENS_HYPHEN.sub(r"\1 ", text)
    text = " ".join(text.split())
    text = _MARK_RUN.sub(_strongest, text)
    text = text.strip(" -',.?!;:") + _final_mark(text)
    return text if any("a" <= char <= "z" for char in text) else ""


def _strongest(match: re.Match[str]) -> str:
    run = match.group()
    return next(mark for mark in _STRENGTH if mark in run) + " "


def _final_mark(text: str) -> str:
    end = text.rstrip()
    return end[-1] if end and end[-1] in ".?!;:" else ""
