"""Regular English inflection, with the irregular forms written in the word list."""

from __future__ import annotations

import re

FORMS = ("plural", "past", "done", "ing", "s")
"""Plural of a noun; past, participle, -ing and third-person forms of a verb."""


def inflect(entry: str, form: str) -> str:
    """Inflect a word.

    Args:
        entry: "word", "singular/plural" or "base/past/participle".
        form: one of FORMS, or empty for the first word itself.
    """
    word, *irregular = entry.split("/")
    if not form:
        return word
    if form == "plural":
        return irregular[0] if irregular else add_s(word)
    if irregular and form in ("past", "done"):
        return irregular[0] if form == "past" else irregular[1]
    if "-" in word:
        verb, particle = word.split("-", 1)
        return f"{inflect(verb, form)}-{particle}"
    if form == "s":
        return add_s(word)
    if form == "ing":
        return add_ing(word)
    return add_ed(word)


def add_s(word: str) -> str:
    """Add the s of a plural or of the third person."""
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    if re.search(r"(s|x|z|ch|sh)$", word) or word in ("go", "do"):
        return word + "es"
    return word + "s"


def add_ed(word: str) -> str:
    """Add the ed of a regular past."""
    if word.endswith("e"):
        return word + "d"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ied"
    return double(word) + "ed"


def add_ing(word: str) -> str:
    """Add ing."""
    if word.endswith("ie"):
        return word[:-2] + "ying"
    if re.search(r"[^aeiouy]e$|ue$|[aeiou]se$", word) and word != "be":
        return word[:-1] + "ing"
    return double(word) + "ing"


def double(word: str) -> str:
    """Double the last consonant of a one-syllable word with one vowel, or of a known few."""
    one_syllable = re.fullmatch(r"[^aeiou]*(?:qu)?[aeiouy][^aeiouywx]", word)
    if one_syllable or word in ("admit", "begin", "forget", "occur", "permit", "prefer", "refer"):
        return word + word[-1]
    return word
