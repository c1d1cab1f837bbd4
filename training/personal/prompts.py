"""Prompts: sentences to read aloud that cover the sounds of a language soon.

Sentences are chosen one after another, each the one that adds most for the effort of reading it: a
greedy cover, as van Santen and Buchsbaum ("Methods for optimal text selection", 1997) choose texts
for synthesis. They come in blocks of `BLOCK` with the same share of questions, lists and
exclamations in each, so that whoever stops early has read the sentences that matter most.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from tokenlm.atomic import write_text
from tokenlm.report import new_plot
from tokenlm.text.normalize import frontend
from tokenlm.text.pronunciation import load_tagger
from tokenlm.text.tokenizers import PhonemeTokenizer, TextTokenizer
from training.data.exclusion import evaluation_exclusion, read_texts

BLOCK = 20
"""Sentences of a block; the order within one is drawn for each person."""
DEFAULT_PROMPTS = 150
"""About ten minutes of speech."""

Kind = Literal["statement", "question", "list", "exclamation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_SHARES: Mapping[Kind, float] = {
    "statement": 0.5,
    "question": 0.25,
    "list": 0.15,
    "exclamation": 0.1,
}
"""Share of each kind in a block, as far as there are such sentences."""

Sounds = Callable[[str], list[str]]
"""The phones of a sentence, in order."""

MIN_WORDS, MAX_WORDS = 3, 16
"""Sentences of fewer words have no melody of their own; longer ones are not read in one breath."""
MAX_LETTERS = 12
"""Longest word that is read without stumbling."""
_EFFORT = 20
"""Phones whose reading takes as long as what each take costs besides (keys, a breath)."""
_PHONES_SHARE = 0.25
"""Weight of phones in the gain of a sentence; the rest is that of diphones."""
_EDGE = "#"
"""Silence, at both ends of a sentence."""

_CHARACTERS = re.compile(r"[A-Za-z][A-Za-z ,;:'’-]*[.?!]")
_SENTENCE = re.compile(r"[^.?!]+[.?!]+(?=\s|$)")
_WORD = re.compile(r"[A-Za-z'’-]+")
_CAPITALS = frozenset(
    "I I'm I've I'll I'd Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February "
    "March April May June July September October November December".split()
)
"""Words with a capital that everybody reads alike; August, and names, are read in several ways."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A sentence to be read aloud."""

    id: str
    text: str
    kind: Kind
    block: int
    """Number of its block, from 0."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a number of sentences covers of all sentences at hand.

    Shares are weighted by frequency: 0.9 of the diphones means that nine in ten of the diphones
    that are spoken in all sentences have been read, not nine in ten of their kinds.
    """

    num_takes: int
    phones: float
    diphones: float
    kinds: Mapping[Kind, int]
    """Sentences of each kind."""
    missing: tuple[str, ...]
    """The most frequent diphones that have not been read, at most ten."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}s" for kind, count in self.kinds.items())
        return (
            f"{self.num_takes} sentences: {self.phones:.1%} of the phones, {self.diphones:.1%} of "
            f"the diphones; {kinds}"
        )


def kind_of(sentence: str) -> Kind:
    """The prosodic kind of a sentence, by its marks."""
    if sentence.endswith("?"):
        return "question"
    if sentence.endswith("!"):
        return "exclamation"
    has_end = re.search(r"\b(and|or|then|some)\b", sentence.rpartition(",")[2])
    return "list" if sentence.count(",") >= 2 and has_end else "statement"


def difficulty(sentence: str) -> str | None:
    """Why a sentence is not easy to read aloud; None where it is.

    Figures, signs, names, abbreviations and words with two pronunciations are read in several ways,
    so that a recording of them may not say what its text says.
    """
    if not _CHARACTERS.fullmatch(sentence):
        return "it holds a figure or sign, or does not end like a sentence"
    words = [word.strip("'’-") for word in _WORD.findall(sentence)]
    words = [word.replace("’", "'") for word in words if word]
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return f"it has {len(words)} words, not {MIN_WORDS} to {MAX_WORDS}"
    for at, word in enumerate(words):
        if len(word) > MAX_LETTERS:
            return f"{word!r} is long"
        if at and word[0].isupper() and word not in _CAPITALS:
            return f"{word!r} is a name"
        if word[1:] != word[1:].lower() or (len(word) == 1 and word not in "aAI"):
            return f"{word!r} is no word"
        if word.lower() in load_tagger():
            return f"{word!r} is read in several ways"
    return None


def own_sentences() -> list[str]:
    """The sentences that come with the package."""
    text = (files("training.personal") / "sentences.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def sentences_of(paths: Iterable[Path]) -> list[str]:
    """Sentences of files of prose, or of JSONL rows with a `text`.

    Raises:
        ValueError: there is no such file, or it is not UTF-8 text.
    """
    found: dict[str, None] = {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"there is no text at {path}")
        try:
            texts = read_texts(path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text: it is not UTF-8") from error
        # Lines of prose are wrapped anywhere; rows are not.
        joined = texts if path.suffix == ".jsonl" else [" ".join(texts)]
        for text in joined:
            for sentence in _SENTENCE.findall(text):
                found[" ".join(sentence.split()).strip("\"'“”‘ ")] = None
    return list(found)


def candidates(sentences: Iterable[str]) -> list[str]:
    """The sentences that are easy to read, each once; none is a text of an evaluation."""
    exclusion = evaluation_exclusion()
    unique = dict.fromkeys(sentences)
    return [
        sentence
        for sentence in unique
        if difficulty(sentence) is None and not exclusion.excludes(sentence)
    ]


def sounds_of(tokenizer: TextTokenizer) -> Sounds:
    """Phones by the text tokenizer of a bundle; letters where it has none."""
    normalize = frontend(tokenizer.config.normalizer).normalize
    if isinstance(tokenizer, PhonemeTokenizer):
        known = set(tokenizer.sounds)

        def phones(sentence: str) -> list[str]:
            said = tokenizer.pronounce(normalize(sentence))
            return [sound for sound in said if sound in known and sound[0].isalpha()]

        return phones
    return lambda sentence: [c for c in normalize(sentence).lower() if c.isalpha()]


def choose_prompts(
    sentences: Iterable[str], sounds: Sounds, num_prompts: int = DEFAULT_PROMPTS, *, seed: int = 0
) -> list[Prompt]:
    """Choose prompts by coverage.

    Args:
        sentences: to choose from; those that are hard to read or judge are left out (`candidates`).
        sounds: phones of a sentence.
        num_prompts: how many, at most.
        seed: of the order within blocks; which sentences are in a block does not depend on it.

    Raises:
        ValueError: no sentence can be used, or none was asked for.
    """
    if num_prompts < 1:
        raise ValueError(f"the number of prompts must be at least 1, not {num_prompts}")
    pool = candidates(sentences)
    if not pool:
        raise ValueError(
            "no sentence of these texts can be read aloud without doubt: there are none, or all "
            "hold figures, names, or words of several pronunciations"
        )
    chosen = _greedy(pool, [_units(sounds(sentence)) for sentence in pool], num_prompts)
    prompts: list[Prompt] = []
    for start in range(0, len(chosen), BLOCK):
        block = [pool[index] for index in chosen[start : start + BLOCK]]
        random.Random(f"{seed} {start}").shuffle(block)
        for text in block:
            number = len(prompts) + 1
            prompts.append(
                Prompt(id=f"p{number:04d}", text=text, kind=kind_of(text), block=start // BLOCK)
            )
    return prompts


def _units(phones: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Phones and diphones of a sentence, counted."""
    edged = [_EDGE, *phones, _EDGE]
    pairs = (f"{one}-{two}" for one, two in zip(edged, edged[1:], strict=False))
    return Counter(phones), Counter(pairs)


def _greedy(
    pool: Sequence[str], units: Sequence[tuple[Counter[str], Counter[str]]], num_prompts: int
) -> list[int]:
    """Indices of sentences, the best first."""
    weights = [_shares(row[level] for row in units) for level in (0, 1)]
    read: list[Counter[str]] = [Counter(), Counter()]
    kinds: list[Kind] = [kind_of(sentence) for sentence in pool]
    left = set(range(len(pool)))
    chosen: list[int] = []

    def gain(index: int) -> float:
        total = 0.0
        for level, share in ((0, _PHONES_SHARE), (1, 1 - _PHONES_SHARE)):
            for unit in units[index][level]:
                # What was read already counts again, for less: the n-th time 1 / n^2.
                total += share * weights[level][unit] / (1 + read[level][unit]) ** 2
        return total / (_EFFORT + sum(units[index][0].values()))

    bounds = [float("inf")] * len(pool)
    """Gains when they were last computed: they only shrink, so that few are computed again."""
    while left and len(chosen) < num_prompts:
        size = min(BLOCK, num_prompts - len(chosen))
        room = _quotas(size)
        for _ in range(min(size, len(left))):
            allowed = [index for index in left if room[kinds[index]] > 0] or list(left)
            best = -1
            for index in sorted(allowed, key=lambda index: (-bounds[index], index)):
                if best >= 0 and bounds[index] < bounds[best]:
                    break
                bounds[index] = gain(index)
                if best < 0 or (bounds[index], -index) > (bounds[best], -best):
                    best = index
            chosen.append(best)
            left.remove(best)
            room[kinds[best]] -= 1
            for level in (0, 1):
                read[level].update(units[best][level].keys())
    return chosen


def _quotas(size: int) -> dict[Kind, int]:
    """Sentences of each kind in a block; what rounding leaves are statements."""
    quotas: dict[Kind, int] = {kind: int(share * size) for kind, share in KIND_SHARES.items()}
    quotas["statement"] += size - sum(quotas.values())
    return quotas


def _shares(counts: Iterable[Counter[str]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    whole = sum(total.values())
    return {unit: number / whole for unit, number in total.items()}


class CoverageMeter:
    """Says what sentences cover of all sentences at hand."""

    def __init__(self, sentences: Sequence[str], sounds: Sounds) -> None:
        """Count the sounds of all sentences.

        Args:
            sentences: all that there are to choose from.
            sounds: phones of a sentence.
        """
        self._sounds = sounds
        units = [_units(sounds(sentence)) for sentence in sentences]
        self._weights = [_shares(row[level] for row in units) for level in (0, 1)]

    def after(self, texts: Sequence[str]) -> list[Coverage]:
        """The coverage after each of the sentences, read in this order."""
        read: list[set[str]] = [set(), set()]
        kinds: Counter[Kind] = Counter()
        found = []
        for number, text in enumerate(texts, start=1):
            for level, units in enumerate(_units(self._sounds(text))):
                read[level] |= units.keys() & self._weights[level].keys()
            kinds[kind_of(text)] += 1
            found.append(self._coverage(number, read, kinds))
        return found

    def of(self, texts: Sequence[str]) -> Coverage:
        """The coverage of sentences together; of none, it is zero."""
        found = self.after(texts)
        return found[-1] if found else self._coverage(0, [set(), set()], Counter())

    def _coverage(self, number: int, read: list[set[str]], kinds: Counter[Kind]) -> Coverage:
        # The same in whatever order the sets are walked through.
        shares = [math.fsum(self._weights[n][unit] for unit in read[n]) for n in (0, 1)]
        weights = self._weights[1]
        left = sorted(weights.keys() - read[1], key=lambda unit: (-weights[unit], unit))
        return Coverage(
            num_takes=number,
            phones=shares[0],
            diphones=shares[1],
            kinds={kind: kinds[kind] for kind in KINDS},
            missing=tuple(left[:10]),
        )


def coverage_plot(found: Sequence[Coverage]) -> Any:
    """A figure of matplotlib: shares of phones and diphones, and sentences of each kind."""
    plot, (shares, kinds) = new_plot(1, 2, (11, 4))
    takes = [row.num_takes for row in found]
    shares.plot(takes, [100 * row.phones for row in found], label="phones")
    shares.plot(takes, [100 * row.diphones for row in found], label="diphones")
    shares.set_ylim(0, 102)
    shares.set_xlabel("takes")
    shares.set_ylabel("covered (% by frequency)")
    shares.grid(alpha=0.3)
    shares.legend()
    for kind in KINDS:
        kinds.plot(takes, [row.kinds[kind] for row in found], label=f"{kind}s")
    kinds.set_xlabel("takes")
    kinds.set_ylabel("sentences")
    kinds.grid(alpha=0.3)
    kinds.legend()
    return plot


def write_prompts(path: str | Path, prompts: Sequence[Prompt]) -> None:
    """Write prompts as JSONL, whole or not at all."""
    rows = (json.dumps(asdict(prompt), ensure_ascii=False) + "\n" for prompt in prompts)
    write_text(path, "".join(rows))


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts: JSONL of `write_prompts`, or one sentence a line.

    Raises:
        ValueError: the file cannot be read, or a line of it; says which.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the prompts {path} cannot be read: {error}") from error
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (path.suffix != ".jsonl" and line.startswith("#")):
            continue
        at = len(prompts)
        row: Any = {"text": " ".join(line.split())}
        if path.suffix == ".jsonl":
            try:
                row = json.loads(line)
                text = row["text"]
                if not isinstance(text, str) or not text.strip():
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path}, line {number}: no JSON object with a text") from None
        prompts.append(
            Prompt(
                id=str(row.get("id", f"p{at + 1:04d}")),
                text=row["text"],
                kind=kind_of(row["text"]),
                block=int(row.get("block", at // BLOCK)),
            )
        )
    names = Counter(prompt.id for prompt in prompts)
    for name, count in names.items():
        if count > 1 or not re.fullmatch(r"[\w-]+", name):
            told = "stands twice" if count > 1 else "is no name of a file"
            raise ValueError(f"{path}: the id {name!r} {told}")
    if not prompts:
        raise ValueError(f"{path} holds no prompt")
    return prompts
