"""Sentences that people wrote, from packages of the machine, read when a corpus is made.

Sources: the example sentences of WordNet (Debian `wordnet-base`, the WordNet licence), fortunes
(Debian `fortunes` and `fortune-mod`; quotations, see their copyright file), and the documentation
under /usr/share/doc (the licences of its packages). A sentence is taken if it is made of words
alone: what has digits, symbols, addresses or abbreviations in it is left to the reading rules.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

MAX_WORDS = 40
MIN_LETTERS_SHARE = 0.6
"""Of the characters of a sentence; the rest are spaces and marks."""
_ALLOWED = re.compile(r"[A-Za-z',.?!;:\"-]+(?: [A-Za-z',.?!;:\"-]+)*")
_EXAMPLE = re.compile(r'"([^"]{4,300})"')
_ATTRIBUTION = re.compile(r"\n\s*--.*", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.?!])\"? +(?=[\"A-Z])")
_SHOUTED = re.compile(r"(?<![A-Za-z'])[A-Z][A-Z'-]+(?![a-z])")
_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]\.|Mr|Mrs|Ms|Dr|St|Prof|Jr|Sr|vs|etc|Inc|Ltd|Co|Corp|Gen|Col|Rev|Hon|No|Vol)\."
)
_LETTER = re.compile(r"(?<![A-Za-z'])(?:[b-hj-zB-HJ-Z](?![A-Za-z'])|[AI](?=[:.]))")
_FUNCTION_WORDS = frozenset(
    "a an the of to in on at by for with from and or but is are was were be been have has had do "
    "does did will would can could may might must shall should not no you he she it we they me him "
    "her us them my your his its our their this that these those who what when where why how if as "
    "than so there i".split()
)


def clean(sentence: str) -> str:
    """A sentence with one space between words, a capital in front and a mark at its end.

    Returns:
        '' if it is not made of words alone, or too long.
    """
    text = " ".join(sentence.replace("``", '"').replace("''", '"').replace("`", "'").split())
    text = re.sub(r"(?: |^)-+(?: |$)|--+", ", ", text).replace("...", ".").replace(" ,", ",")
    text = " ".join(text.split()).strip(" ,;:-").lstrip(".?! ")
    if text.count('"') % 2 or not _ALLOWED.fullmatch(text):
        return ""
    words = re.findall(r"[A-Za-z'-]+", text)
    if not 1 <= len(words) <= MAX_WORDS or any(len(word) > 20 for word in words):
        return ""
    if _SHOUTED.search(text) or _ABBREVIATION.search(text) or _LETTER.search(text):
        return ""
    if sum(map(str.isalpha, text)) < MIN_LETTERS_SHARE * len(text):
        return ""
    first = re.search("[A-Za-z]", text)
    assert first is not None
    text = text[: first.start()] + first.group().upper() + text[first.end() :]
    return text if text.rstrip('"')[-1] in ".?!" else text + "."


def wordnet_examples(folder: Path = Path("/usr/share/wordnet")) -> list[str]:
    """Example sentences of WordNet; none where it is not installed."""
    found: dict[str, None] = {}
    for path in sorted(folder.glob("data.*")):
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
            gloss = line.partition(" | ")[2]
            for example in _EXAMPLE.findall(gloss):
                sentence = clean(example)
                if len(sentence.split()) >= 2:
                    found[sentence] = None
    return list(found)


def fortunes(folder: Path = Path("/usr/share/games/fortunes")) -> list[str]:
    """Sentences of the fortunes, alone and up to three in a row as they stand together."""
    found: dict[str, None] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix or not path.is_file():
            continue
        for entry in path.read_text(encoding="utf-8", errors="ignore").split("\n%\n"):
            for paragraph in re.split(r"\n\s*\n", _ATTRIBUTION.sub("", entry)):
                _take(paragraph, found)
    return list(found)


def documentation(folder: Path = Path("/usr/share/doc"), num_files: int = 3000) -> list[str]:
    """Sentences of the documentation, of paragraphs that are prose."""
    found: dict[str, None] = {}
    paths = [
        path for path in sorted(folder.glob("*/*")) if path.name.startswith(("README", "NEWS"))
    ]
    for path in paths[:num_files]:
        if not path.is_file() or path.suffix == ".gz":
            continue
        for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="ignore")):
            words = re.findall(r"[a-z']+", paragraph.lower())
            told = sum(word in _FUNCTION_WORDS for word in words)
            if len(words) >= 8 and told > 0.3 * len(words):
                _take(paragraph, found)
    return list(found)


def _take(paragraph: str, found: dict[str, None]) -> None:
    sentences = [clean(part) for part in _SENTENCE_END.split(" ".join(paragraph.split()))]
    for start, sentence in enumerate(sentences):
        if not sentence:
            continue
        told = {word.lower() for word in re.findall(r"[A-Za-z']+", sentence)}
        if told & _FUNCTION_WORDS or len(told) <= 3:
            found[sentence] = None
        for end in (start + 2, start + 3):
            together = sentences[start:end]
            text = " ".join(together)
            if len(together) == end - start and all(together) and len(text.split()) <= MAX_WORDS:
                found[text] = None


def chosen_from(sentences: Iterable[str], emphasis: float = 3.0) -> Callable[[random.Random], str]:
    """Draws of sentences; questions, exclamations and quotations, which are few, more often.

    Raises:
        ValueError: there are none.
    """
    pool = list(sentences)
    if not pool:
        raise ValueError(
            "texts: the machine has no sentences to read; on Debian or Ubuntu: "
            "apt-get install wordnet-base fortunes"
        )
    marked = [sentence for sentence in pool if re.search(r"[?!\"]", sentence)] or pool
    share = min(emphasis * len(marked) / len(pool), 0.4)

    def draw(rng: random.Random) -> str:
        return rng.choice(marked if rng.random() < share else pool)

    return draw
