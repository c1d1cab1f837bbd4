"""Homographs: words that are spelt alike and said otherwise, told apart by the words around them.

Which one is meant is decided here, how it is said is the matter of a lexicon: `live` is the variant
`verb` or `adj`, whatever the phones of a voice are called. `homographs.txt` lists the words with
their variants, and what tells senses apart that are the same part of speech; the weights that tell
parts of speech apart are learned by `python -m training.recipes.homographs`. A word counts on the
words before it in its text and on at most `WORDS_AHEAD` after it, so that texts may come in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from tokenlm.text.homograph_features import POSITIONED, context, cue_words, features

TABLE_FILE = "homographs.txt"
WEIGHTS_FILE = "homograph_weights.tsv"
CLASSES = ("noun", "verb", "past", "adj", "adv", "nouns", "verbs")
"""Parts of speech that differ in sound: `past` is a past form of a verb, `nouns` a plural, `verbs`
the third person."""
_PLURALS = {"noun": "nouns", "verb": "verbs"}
_CUE = 3.0
_POSITIONED_CUE = 6.0
_MAX_CUES = 2


@dataclass(frozen=True)
class Meaning:
    """One of the ways to take a homograph."""

    variant: str
    """What a lexicon calls the sound of it."""
    name: str
    """A part of speech, or one and a sense of it: `noun.metal`."""
    bias: float = 0.0
    cues: Mapping[str, float] = field(default_factory=dict)
    """Words nearby that speak for it, with their weights; `+1:to` stands right behind."""

    @property
    def part(self) -> str:
        """The part of speech."""
        return self.name.partition(".")[0]


Homographs = dict[str, tuple[Meaning, ...]]


def parse_homographs(text: str) -> Homographs:
    """Read the table.

    A line `lead  lead=verb,noun metal=noun.metal` names the variants of a word and what they are.
    Indented lines below it, `noun.metal -1 pipe paint`, are a bias and the words nearby that speak
    for a meaning (with `!` before them: against it). Lines that begin with # are comments.

    Raises:
        ValueError: a line is not of this form; it is named.
    """
    found: Homographs = {}
    word = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        first, *rest = line.split()
        try:
            if line[0].isspace():
                found[word] = _with_cues(found[word], first, float(rest[0]), rest[1:])
                continue
            word = first
            named = [(part.split("=")[0], part.split("=")[1].split(",")) for part in rest]
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"homographs, line {number}: {error}") from error
        meanings = tuple(Meaning(name, what) for name, many in named for what in many)
        if len(named) < 2 or any(meaning.part not in CLASSES for meaning in meanings):
            raise ValueError(
                f"homographs, line {number}: {word!r} needs two variants or more, each of {CLASSES}"
            )
        found[word] = meanings
    return found


def _with_cues(
    meanings: Sequence[Meaning], name: str, bias: float, words: Sequence[str]
) -> tuple[Meaning, ...]:
    cues = {
        word.removeprefix("!"): (-1 if word.startswith("!") else 1)
        * (_POSITIONED_CUE if POSITIONED in word else _CUE)
        for word in words
    }
    if name not in {meaning.name for meaning in meanings}:
        raise ValueError(f"there is no {name!r}")
    return tuple(Meaning(m.variant, m.name, bias, cues) if m.name == name else m for m in meanings)


class HomographTagger:
    """Tells which variant of a homograph is meant.

    Args:
        homographs: the words.
        weights: of features of the context, one for each of `CLASSES`.
    """

    def __init__(self, homographs: Homographs, weights: Mapping[str, Sequence[float]]) -> None:
        self._weights = weights
        self._meanings: Homographs = {}
        self._lemmas = {s_form(word): word for word in homographs}
        for word, meanings in homographs.items():
            plural = tuple(
                Meaning(m.variant, m.name.replace(m.part, _PLURALS[m.part], 1), m.bias, m.cues)
                for m in meanings
                if m.part in _PLURALS
            )
            if plural:
                self._meanings[s_form(word)] = plural
        self._meanings |= homographs

    def __contains__(self, word: str) -> bool:
        return word in self._meanings

    @property
    def words(self) -> tuple[str, ...]:
        """All homographs, with their forms in s."""
        return tuple(self._meanings)

    def lemma(self, word: str) -> str:
        """The word of the table that a homograph is a form of."""
        return self._lemmas.get(word, word)

    def meanings(self, word: str) -> tuple[Meaning, ...]:
        """The ways to take a word; none where it is no homograph."""
        return self._meanings.get(word, ())

    def is_settled(self, parts: Sequence[str], at: int) -> bool:
        """Whether no further words could change the variant of `parts[at]`."""
        return parts[at] not in self._meanings or context(parts, at).is_closed

    def variant(self, parts: Sequence[str], at: int) -> str | None:
        """The variant of `parts[at]`, None for a word that is no homograph.

        Args:
            parts: lower-case words and marks of a normalised text.
            at: index of the word.
        """
        meanings = self._meanings.get(parts[at])
        if meanings is None:
            return None
        if len(meanings) == 1:
            return meanings[0].variant
        around = context(parts, at)
        totals = [0.0] * len(CLASSES)
        for feature in features(parts[at], around):
            for column, weight in enumerate(self._weights.get(feature, ())):
                totals[column] += weight
        near = cue_words(parts, at)

        def score(meaning: Meaning) -> float:
            hits = sorted((meaning.cues[word] for word in near if word in meaning.cues), key=abs)
            return totals[CLASSES.index(meaning.part)] + meaning.bias + sum(hits[-_MAX_CUES:])

        return max(meanings, key=score).variant


def s_form(word: str) -> str:
    """The plural of a noun or the third person of a verb, as it is spelt."""
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


@cache
def load_tagger() -> HomographTagger:
    """The tagger that comes with the package; read once, when it is first needed."""
    folder = files("tokenlm.text")
    table = parse_homographs((folder / TABLE_FILE).read_text(encoding="utf-8"))
    weights = parse_weights((folder / WEIGHTS_FILE).read_text(encoding="utf-8"))
    return HomographTagger(table, weights)


def parse_weights(text: str) -> dict[str, tuple[float, ...]]:
    """Feature -> its weight for each of `CLASSES`, from lines of hundredths; # begins a comment."""
    weights: dict[str, tuple[float, ...]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            feature, *values = line.split("\t")
            weights[feature] = tuple(int(value or 0) / 100 for value in values)
    return weights
