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
STARTERS = frozenset(
    "He She It The They This That These Those But And In We I You A An So Then There What "
    "When Where Why How If As At On My Our His Her Their Its No Yes For After Before While "
    "However Although Now Not Some Many Most All Both Each Who Which Do Did Is Are Was Were "
    "Can Could Bye Thanks Thank Please Let Also Maybe Perhaps Later Soon Hello Does Have Has "
    "Had".split()
)
"""Words that commonly open a sentence."""
_NO_SENTENCE = re.compile(
    r"(?:^|[.?!][\"')]{0,2} )[\"'(]?(?:The|A|An|This|That|My|Our|His|Her|Their|Your|At|By|From|"
    r"Around|Until|After|Before|Since) $|[;,] (?:at|by) $"
)
"""So far nothing is said: 'The dept. I joined', 'At 9 a.m. Tom rose.'"""
_GOES_ON = frozenset(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Eastern Pacific Central Mountain "
    "Greenwich Sharp".split()
)
"""What stands behind a time of day without a comma."""
_NEXT_WORD = re.compile(r"[\"')\]]{0,3} +[\"'(]?([A-Z][a-z]*)")
_TENS_HYPHEN = re.compile(
    r"\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-(?=(?:one|two|three|four|five|"
    r"six|seven|eight|nine|"
    r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)\b)"
)


def sentence_stop(match: re.Match[str], *, strict: bool = False) -> str:
    """'.' when the full stop of an abbreviation also ends the sentence, else ''.

    Args:
        match: the abbreviation with its full stop.
        strict: names may follow the abbreviation (U.S. Army): only a word that commonly opens a
            sentence counts, not any capital.
    """
    rest = match.string[match.end() : match.end() + 40]
    if not rest.strip("\"')] "):
        return "."
    following = _NEXT_WORD.match(rest)
    if not following:
        return ""
    after = rest[following.end() : following.end() + 1]
    if following.group(1) in _GOES_ON and match.group()[-2:].lower() == "m.":
        return ""
    if _NO_SENTENCE.search(match.string, max(match.start() - 12, 0), match.start()):
        return ""
    if after.isupper() or (after == "." and len(following.group(1)) == 1):  # 5 p.m. EST, A.D.
        return ""
    return "." if not strict or following.group(1) in STARTERS else ""


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
