"""Learns from WordNet what tells the parts of speech of homographs apart.

    apt-get install wordnet-base
    python -m training.recipes.homographs     # writes homograph_weights.tsv of tokenlm/text
    python -m training.recipes.homographs --write-tests FILE   # and the sentences kept apart

WordNet's example sentences carry the part of speech of one word each. What stands around a noun
stands around other nouns too, so nearly all sentences teach, whatever their word; how often a
homograph is which comes from WordNet's counts of senses. Sentences with homographs are split by
synset: those of three synsets in four are never learned from, they are the test.

Of WordNet nothing is kept but weights of features of contexts.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize, sparse

from tokenlm.atomic import atomic_path
from tokenlm.text.normalize import normalize
from tokenlm.text.pronunciation import (
    CLASSES,
    TABLE_FILE,
    WEIGHTS_FILE,
    Homographs,
    HomographTagger,
    context,
    features,
    parse_homographs,
    parse_weights,
    s_form,
)
from tokenlm.text.tokenizers import split_parts

TEXT = Path(__file__).resolve().parents[2] / "tokenlm" / "text"
WORDNET = Path("/usr/share/wordnet")
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
TEST_SHARE = 0.75
_EXAMPLE = re.compile(r'"([^"]+)"')
_PLAIN = re.compile(r"[A-Za-z',;:?! -]*\.?")
# Verbs whose past is spelt as they are: what they are in a sentence is not known.
_SAME_PAST = frozenset(
    "beat bet bid burst cast cost cut fit forecast hit hurt knit let put quit read reset rid set "
    "shed shut slit split spread sweat thrust wed wet".split()
)
# Senses of one part of speech that sound unlike the others: their places in WordNet's files.
SENSES: dict[tuple[str, str], str] = {
    **dict.fromkeys([("lead", o) for o in ("03651084", "03651265", "14643467")], "metal"),
    **dict.fromkeys([("bass", o) for o in ("02565573", "07777512", "07777945")], "fish"),
    **dict.fromkeys(
        [("bow", o) for o in ("00547765", "02879517", "02879718", "02880189", "02880308",
                              "13896100", "01729313")], "knot"),
    ("tear", "05405324"): "drop",
    ("tear", "00066977"): "drop",
    ("row", "07184149"): "quarrel",
    ("sewer", "10584318"): "tailor",
    ("wind", "00345641"): "verb",
    ("wound", "02318208"): "past",
    ("content", "14412882"): "happy",
    ("polish", "06944720"): "nation",
    ("learned", "01637032"): "past",
    ("use", "02370149"): "habit",
    **dict.fromkeys(
        [("aged", o) for o in ("01071794", "01493423", "01644541", "02581048")], "past"),
}  # fmt: skip

# WordNet does not say whether a `read` is past. Synsets whose sentences with it are past, those
# whose are not, and those that have both, one letter a sentence; where nobody can tell, none.
_READ_PAST = frozenset("""
    noun-00344259 noun-04363991 noun-05639651 noun-06267145 noun-06366391 noun-06396142
    noun-06523641 noun-06597204 noun-07277384 noun-14461231 verb-00625741 verb-00627538
    verb-00922885 verb-00980006 adj-00501313 adj-01308259 adj-01854703 adj-01855622
    adv-00066190 adv-00267137
""".split())  # fmt: skip
_READ_PRESENT = frozenset("""
    noun-06346220 noun-06387332 noun-06590065 noun-06678506 noun-06825120 noun-09294984
    noun-11484975 noun-14412882 verb-00593852 verb-00626446 verb-01207420 verb-01777228
    verb-02374300 adj-00307794 adj-01325451 adj-01801030 adj-01840122 adj-01930513
    adj-02414032 adj-02649126 adv-00021212 adv-00069346 adv-00069771 adv-00104990
    adv-00240707 adv-00285854 adv-00478821
""".split())  # fmt: skip
_READ_BOTH = {"verb-00625137": "vp", "verb-00627109": "pvp"}


@dataclass(frozen=True)
class Example:
    """A sentence of WordNet and the word that it is there for."""

    synset: str
    """Part of speech and place in WordNet's file: `noun-03651084`."""
    lemma: str
    text: str
    parts: tuple[str, ...]
    at: int
    """Which of the parts the word is."""
    kind: str
    """One of `CLASSES`."""


class WordNet:
    """The parts of the database that are read here."""

    def __init__(self, folder: Path) -> None:
        """Read it.

        Raises:
            ValueError: it is not there.
        """
        if not (folder / "data.noun").exists():
            raise ValueError(
                f"{folder} holds no WordNet; on Debian or Ubuntu: apt-get install wordnet-base"
            )
        self.folder = folder
        self.irregular: dict[str, dict[str, list[str]]] = {}
        """Part of speech -> irregular form -> its lemmas."""
        for part in PARTS_OF_SPEECH:
            forms: dict[str, list[str]] = {}
            for line in (folder / f"{part}.exc").read_text(encoding="utf-8").splitlines():
                form, *lemmas = line.split()
                forms[form] = lemmas
            self.irregular[part] = forms

    def synsets(self) -> Iterator[tuple[str, str, list[str], list[str]]]:
        """Part of speech, place, lower-case words, examples of each."""
        for part in PARTS_OF_SPEECH:
            text = (self.folder / f"data.{part}").read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                if line.startswith("  "):
                    continue
                body, _, gloss = line.partition(" | ")
                fields = body.split(" ")
                count = int(fields[3], 16)
                words = [re.sub(r"\(.*\)$", "", w).lower() for w in fields[4 : 4 + 2 * count : 2]]
                yield part, fields[0], words, _EXAMPLE.findall(gloss)

    def counts(self) -> dict[str, Counter[str]]:
        """How often each lemma was found as which part of speech in texts tagged by hand."""
        parts = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for line in (self.folder / "cntlist.rev").read_text(encoding="utf-8").splitlines():
            key, _, count = line.split()
            lemma, _, rest = key.partition("%")
            found[lemma][parts[rest[0]]] += int(count)
        return found

    def examples(self) -> Iterator[Example]:
        """Sentences in which the word is found once."""
        for part, place, words, texts in self.synsets():
            for text in texts:
                parts = tuple(_parts(text))
                for lemma in words:
                    hits = [
                        (at, kind)
                        for at, word in enumerate(parts)
                        if (kind := self.kind(word, lemma, part))
                    ]
                    if len(hits) == 1:
                        yield Example(f"{part}-{place}", lemma, text, parts, *hits[0])

    def readings(self) -> Iterator[tuple[Example, str]]:
        """Sentences with `read`, and which of its variants it is."""
        for part, place, _, texts in self.synsets():
            synset = f"{part}-{place}"
            found = [(text, parts) for text in texts if (parts := _parts(text)).count("read") == 1]
            for index, (text, parts) in enumerate(found):
                letter = _READ_BOTH.get(synset, "")[index : index + 1]
                if synset in _READ_PAST or letter == "p":
                    kind = "past"
                elif synset in _READ_PRESENT or letter == "v":
                    kind = "verb"
                else:
                    continue
                example = Example(synset, "read", text, tuple(parts), parts.index("read"), kind)
                yield example, kind

    def kind(self, word: str, lemma: str, part: str) -> str | None:
        """Which of `CLASSES` a word is as a form of a lemma, None where it is none that counts."""
        if word[0] != lemma[0]:
            return None
        if part == "adv":
            return "adv" if word == lemma else None
        if part == "adj":
            return "adj" if word in (lemma, f"{lemma}er", f"{lemma}est") else None
        if word == lemma:
            return None if part == "verb" and lemma in _SAME_PAST else part
        irregular = lemma in self.irregular[part].get(word, ())
        if word == s_form(lemma) or (part == "noun" and irregular):
            return f"{part}s"
        if part == "verb" and (irregular or word in _past_forms(lemma)):
            return None if word.endswith("ing") else "past"
        return None


def _past_forms(lemma: str) -> set[str]:
    if lemma.endswith("e"):
        return {f"{lemma}d"}
    if lemma.endswith("y") and lemma[-2:-1] not in "aeiou":
        return {f"{lemma[:-1]}ied"}
    return {f"{lemma}ed", f"{lemma}{lemma[-1]}ed"}


def _parts(text: str) -> list[str]:
    # Most examples are words and marks alone, which the normaliser leaves as they are.
    plain = _PLAIN.fullmatch(text)
    return split_parts(text if plain else normalize(text))


def is_test(synset: str) -> bool:
    """Whether the sentences of a synset are kept apart."""
    return int(hashlib.blake2b(synset.encode(), digest_size=4).hexdigest(), 16) < TEST_SHARE * 2**32


def true_variant(example: Example, homographs: Homographs, tagger: HomographTagger) -> str | None:
    """What WordNet says of the homograph that an example is there for; None if it is none."""
    word = example.parts[example.at]
    if word not in tagger:
        return None
    sense = SENSES.get((example.lemma, example.synset.partition("-")[2]))
    senses = tagger.senses(word)
    if sense in {one.variant for one in senses}:
        return sense
    by_lemma = {("axes", "axis"): "axis", ("axes", "ax"): "ax", ("axes", "axe"): "ax",
                ("bases", "base"): "base", ("bases", "basis"): "basis"}  # fmt: skip
    if (word, example.lemma) in by_lemma:
        return by_lemma[word, example.lemma]
    return next((one.variant for one in senses if one.name == example.kind), None)


@dataclass(frozen=True)
class Settings:
    """Of the fit."""

    min_count: int = 3
    """A feature that is rarer is left out."""
    l2: float = 1.0
    prior: float = 0.7
    """How far counts of senses are believed."""
    smallest: float = 0.12
    """Weights nearer to zero are left out."""


def fit(
    examples: Sequence[Example],
    tagger: HomographTagger,
    counts: dict[str, Counter[str]],
    settings: Settings,
) -> dict[str, np.ndarray]:
    """Multinomial logistic regression: weights (7,) of each feature, one for each of `CLASSES`."""
    rows = []
    for example in examples:
        word = example.parts[example.at]
        names = features(word, context(example.parts, example.at))
        rows.append([n for n in names if not n.startswith("w ") or word in tagger])
    seen = Counter(name for row in rows for name in row)
    names = sorted(n for n, c in seen.items() if c >= settings.min_count or n.startswith("w "))
    numbers = {name: number for number, name in enumerate(names)}
    pairs = [(i, numbers[n]) for i, row in enumerate(rows) for n in row if n in numbers]
    at, column = np.array(pairs).T
    matrix = sparse.csr_matrix((np.ones(len(at)), (at, column)), (len(rows), len(names)))
    kinds = np.array([CLASSES.index(example.kind) for example in examples])
    # Forms with an s compete with one another only: the spelling tells them from the others.
    is_s = np.array([name in ("nouns", "verbs") for name in CLASSES])
    mask = np.where(is_s[None] == is_s[kinds][:, None], 0.0, -1e9)
    offsets = np.zeros((len(rows), len(CLASSES)))
    for index, example in enumerate(examples):
        word = example.parts[example.at]
        if word in tagger:
            offsets[index] = settings.prior * prior(word, tagger, counts)
    # Every part of speech teaches alike, however many sentences it has.
    share = np.bincount(kinds, minlength=len(CLASSES))
    weight = np.where(share > 0, share.sum() / len(CLASSES) / np.maximum(share, 1), 0.0) ** 0.5
    weight = weight[kinds]
    truth = np.eye(len(CLASSES))[kinds]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        values = flat.reshape(len(names), len(CLASSES))
        scores = matrix @ values + offsets + mask
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        value = -(weight[:, None] * truth * logs).sum() + 0.5 * settings.l2 * (flat**2).sum()
        slope = matrix.T @ (weight[:, None] * (np.exp(logs) - truth)) + settings.l2 * values
        return float(value), slope.ravel()

    start = np.zeros(len(names) * len(CLASSES))
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 120})
    values = found.x.reshape(len(names), len(CLASSES))
    weights = {name: values[numbers[name]] for name in names}
    for word in tagger.words:
        before = weights.get(f"w {word}", np.zeros(len(CLASSES)))
        weights[f"w {word}"] = before + settings.prior * prior(word, tagger, counts)
    return weights


def prior(word: str, tagger: HomographTagger, counts: dict[str, Counter[str]]) -> np.ndarray:
    """Logarithms (7,) of how often a homograph is which part of speech."""
    lemma = tagger.lemma(word)
    found = counts.get(lemma, Counter())
    sizes = {"noun": found["noun"], "nouns": found["noun"], "verb": found["verb"],
             "verbs": found["verb"], "past": found["verb"], "adj": found["adj"],
             "adv": found["adv"]}  # fmt: skip
    known = {sense.part for sense in tagger.senses(word)}
    total = sum(sizes[name] for name in known)
    return np.array(
        [
            math.log((sizes[name] + 2) / (total + 2 * len(known))) if name in known else 0.0
            for name in CLASSES
        ]
    )


def write_weights(weights: dict[str, np.ndarray], smallest: float, path: Path) -> int:
    """Write hundredths of the weights that count; return how many features are left."""
    lines = []
    for name in sorted(weights):
        values = [0 if abs(v) < smallest else round(100 * float(v)) for v in weights[name]]
        if any(values):
            lines.append("\t".join([name, *(str(v) if v else "" for v in values)]).rstrip("\t"))
    head = (
        f"# Hundredths of weights for {', '.join(CLASSES)}; learned from the example sentences of\n"
        "# WordNet 3.0 (Copyright 2006 by Princeton University) by recipes/homographs.py.\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


@dataclass(frozen=True)
class Split:
    """What is learned from, and what is not."""

    training: list[Example]
    test: list[tuple[Example, str]]
    """Examples of homographs, and the variant of each."""


def split(wordnet: WordNet, homographs: Homographs) -> Split:
    """Sentences to learn from and to test with; none is in both, nor is any synset of the test."""
    tagger = HomographTagger(homographs, {})
    examples = list(wordnet.examples())
    test = [
        (example, variant)
        for example in examples
        if is_test(example.synset)
        and example.parts[example.at] != "read"
        and (variant := true_variant(example, homographs, tagger))
    ]
    # Examples of several words of one synset are one sentence.
    test = list({(e.text, e.at): (e, v) for e, v in [*test, *wordnet.readings()]}.values())
    synsets = {example.synset for example, _ in test}
    texts = {example.text for example, _ in test}
    training = [e for e in examples if e.synset not in synsets and e.text not in texts]
    return Split(training, test)


NOTICE = """\
# Homographs in example sentences of WordNet 3.0, none of which the weights were learned from.
# Written by recipes/homographs.py.--write-tests; columns: synset, which word counted from
# 0, the word, its variant (of `read` by hand, of the others by the synset), sentence.
#
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
# Permission to use, copy, modify and distribute this software and database and its documentation
# for any purpose and without fee or royalty is hereby granted, provided that you agree to comply
# with the following copyright notice and statements, including the disclaimer, and that the same
# appear on ALL copies of the software, database and documentation, including modifications that
# you make for internal use or for distribution.
# THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS
# OR WARRANTIES, EXPRESS OR IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON UNIVERSITY
# MAKES NO REPRESENTATIONS OR WARRANTIES OF MERCHANTABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE
# OR THAT THE USE OF THE LICENSED SOFTWARE, DATABASE OR DOCUMENTATION WILL NOT INFRINGE ANY THIRD
# PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS.
# The name of Princeton University or Princeton may not be used in advertising or publicity
# pertaining to distribution of the software and/or database. Title to copyright in this software,
# database and any associated documentation shall at all times remain with Princeton University and
# LICENSEE agrees to preserve same.
"""


def write_tests(test: Sequence[tuple[Example, str]], path: Path) -> None:
    """Write the sentences of the test, with what WordNet's licence asks for."""
    rows = sorted((e.parts[e.at], e.synset, str(e.at), variant, e.text) for e, variant in test)
    lines = ["\t".join((row[1], row[2], row[0], row[3], row[4])) + "\n" for row in rows]
    with atomic_path(path) as temporary:
        temporary.write_text(NOTICE + "".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.recipes.homographs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--wordnet", type=Path, default=WORDNET)
    parser.add_argument("--output", type=Path, default=TEXT / WEIGHTS_FILE)
    parser.add_argument("--write-tests", type=Path)
    options = parser.parse_args(arguments)
    try:
        wordnet = WordNet(options.wordnet)
        homographs = parse_homographs((TEXT / TABLE_FILE).read_text(encoding="utf-8"))
        parts = split(wordnet, homographs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    settings = Settings()
    tagger = HomographTagger(homographs, {})
    weights = fit(parts.training, tagger, wordnet.counts(), settings)
    count = write_weights(weights, settings.smallest, options.output)
    tagger = HomographTagger(homographs, parse_weights(options.output.read_text(encoding="utf-8")))
    right = sum(tagger.variant(e.parts, e.at) == variant for e, variant in parts.test)
    print(
        f"{options.output}: {count} features of {len(parts.training)} examples; right in {right} "
        f"of {len(parts.test)} sentences that were kept apart"
    )
    if options.write_tests:
        write_tests(parts.test, options.write_tests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
