"""Endless English text from a grammar and word lists, in spoken form (no digits)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from training.rl.texts import inflection
from training.rl.texts.spoken_numbers import SPOKEN

DATA = Path(__file__).parent
MAX_WORDS = 25
_SLOT = re.compile(r"<([a-z_]+)(?:\.([a-z]+))?>")
_START = re.compile(r"(?:^|[.!?] )[a-z]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou]|hour|honest)(?!uni[^n]|use|usual|euro|one\b|once)")
_WEIGHT = re.compile(r"^(\d+): ")


class TextGrammar:
    """Draws utterances; the same generator state gives the same text."""

    def __init__(
        self,
        rules: Mapping[str, Sequence[str]],
        words: Mapping[str, str],
        rare: Sequence[str],
        proper: Sequence[str] = (),
    ) -> None:
        """Take the data of a grammar.

        Args:
            rules: alternatives of every rule, as in grammar.yaml.
            words: words of every class, as in words.yaml.
            rare: words that `<rare>` is drawn from; empty takes them from the common words.
            proper: names that `<proper>` is drawn from; empty takes the rare words.

        Raises:
            ValueError: a rule names a slot that does not exist.
        """
        self.words = {name: text.split() for name, text in words.items()}
        common = [word.split("/")[0] for group in self.words.values() for word in group]
        self.rare = list(rare) or sorted({word for word in common if "-" not in word})
        self.proper = list(proper) or self.rare
        self.rules: dict[str, tuple[list[str], list[int]]] = {}
        for name, alternatives in rules.items():
            texts, weights = [], []
            for alternative in alternatives:
                match = _WEIGHT.match(alternative)
                texts.append(alternative[match.end() :] if match else alternative)
                weights.append(int(match[1]) if match else 1)
                for slot, form in _SLOT.findall(texts[-1]):
                    self._check(slot, form, rules, f"rule {name}: {alternative!r}")
            self.rules[name] = (texts, weights)

    def _check(self, slot: str, form: str, rules: Mapping[str, Sequence[str]], where: str) -> None:
        built_in = slot in SPOKEN or slot in ("rare", "proper")
        known = slot in rules or slot in self.words or built_in
        if not known or (form and (slot not in self.words or form not in inflection.FORMS)):
            raise ValueError(f"{where}: there is no <{slot}{'.' + form if form else ''}>")

    def draw(self, rng: random.Random, symbol: str = "utterance") -> str:
        """Draw one utterance, with punctuation and a capital first letter.

        Args:
            rng: source of choices.
            symbol: the rule that utterances are drawn from.
        """
        while True:
            text = self.expand(symbol, rng)
            if len(text.split()) <= MAX_WORDS:
                return _START.sub(lambda match: match[0].upper(), text)

    def expand(self, symbol: str, rng: random.Random, form: str = "") -> str:
        """Expand a rule, word class or built-in slot.

        Args:
            symbol: its name.
            rng: source of choices.
            form: form of a word ("past", "plural", ...), or empty.
        """
        if symbol in self.rules:
            texts, weights = self.rules[symbol]
            chosen = rng.choices(texts, weights)[0]
            text = _SLOT.sub(lambda match: self.expand(match[1], rng, match[2] or ""), chosen)
            return _ARTICLE.sub(r"\1n ", text)
        if symbol in self.words:
            word = rng.choice(self.words[symbol])
            return inflection.inflect(word, form).replace("-", " ")
        if symbol == "rare":
            return rng.choice(self.rare)
        if symbol == "proper":
            return rng.choice(self.proper)
        return SPOKEN[symbol](rng)


def load_grammar(word_lists: Sequence[Path] = (), documents: Path | None = None) -> TextGrammar:
    """The grammar of grammar.yaml over words.yaml, rare words and names from what the machine has.

    Args:
        word_lists: files of one word per line; those that do not exist are passed over.
        documents: folder of text files whose words are taken too, or None.
    """
    rules = yaml.safe_load((DATA / "grammar.yaml").read_text(encoding="utf-8"))
    words = yaml.safe_load((DATA / "words.yaml").read_text(encoding="utf-8"))
    rare: set[str] = set()
    proper: set[str] = set()
    for path in word_lists:
        if path.exists():
            listed = path.read_text(encoding="utf-8", errors="ignore")
            rare.update(speakable(listed))
            names = re.findall(r"^[A-Z][a-z]{2,13}$", listed, re.MULTILINE)
            proper.update(name for name in names if speakable(name.lower()))
    if documents is not None and documents.exists():
        rare.update(document_words(documents))
    return TextGrammar(rules, words, sorted(rare), sorted(proper))


def speakable(text: str) -> list[str]:
    """Words of a text that an engine can read: lower-case letters, 3 to 14, with a vowel."""
    found = re.findall(r"(?<![A-Za-z0-9_'./-])[a-z]{3,14}(?![A-Za-z0-9_'/-])", text)
    return [
        word
        for word in found
        if re.search("[aeiouy]", word) and not re.search(r"[^aeiouy]{5}|(.)\1\1", word)
    ]


@lru_cache(maxsize=2)
def document_words(folder: Path, num_files: int = 300, num_times: int = 3) -> tuple[str, ...]:
    """Words that occur at least `num_times` in the plain documents of a folder."""
    counts: dict[str, int] = {}
    paths = sorted(path for path in folder.glob("*/*") if path.name.lower().startswith("readme"))
    for path in paths[:num_files]:
        if path.is_file() and path.suffix in ("", ".md", ".txt", ".rst"):
            for word in speakable(path.read_text(encoding="utf-8", errors="ignore")):
                counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(word for word, count in counts.items() if count >= num_times))
