"""Learning from WordNet, on a small database in its format."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlm.text.pronunciation import (
    TABLE_FILE,
    HomographTagger,
    load_tagger,
    parse_homographs,
    parse_weights,
)
from training.recipes import homographs
from training.recipes.homographs import Settings, WordNet, fit, is_test, main, split, write_weights

NOUNS = "record dog house plan road cup life".split()
VERBS = "record carry house like move live".split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nouns stand behind "the", verbs behind "they", each in sentences of its own."""
    counter = iter(range(1, 1000))

    def line(word: str, kind: str, text: str) -> str:
        return f'{next(counter):08d} 00 {kind} 01 {word} 0 000 | a meaning; "{text}"  '

    # Ever different synsets of one word, so that some of them are kept apart.
    nouns = [line(w, "n", f"the {w} was here {i} times") for i in range(12) for w in NOUNS]
    nouns.append(line("life", "n", "a cat has nine lives"))
    verbs = [line(w, "v", f"they {w} it {i} times") for i in range(12) for w in VERBS]
    verbs += [line("carry", "v", "he carried it"), line("live", "v", "she lives here")]
    verbs.append(line("cut", "v", "they cut it"))
    adjectives = [line("live", "s", "a live band"), line("content(p)", "a", "he is content")]
    for part, lines in (("noun", nouns), ("verb", verbs), ("adj", adjectives), ("adv", [])):
        text = "\n".join(["  1 This software is provided to you", *lines])
        (tmp_path / f"data.{part}").write_text(text + "\n")
        (tmp_path / f"{part}.exc").write_text("lives life\n" if part == "noun" else "")
    (tmp_path / "cntlist.rev").write_text("record%1:10:00:: 1 30\nrecord%2:32:00:: 1 10\n")
    return tmp_path


def test_forms_of_a_word(folder: Path) -> None:
    wordnet = WordNet(folder)
    found = {(e.parts[e.at], e.kind) for e in wordnet.examples()}
    assert {("lives", "nouns"), ("lives", "verbs"), ("carried", "past"), ("live", "adj"),
            ("content", "adj"), ("record", "noun"), ("record", "verb")} <= found  # fmt: skip
    # A verb whose past is spelt alike teaches nothing.
    assert not [word for word, _ in found if word == "cut"]
    assert wordnet.counts()["record"] == {"noun": 30, "verb": 10}
    assert wordnet.kind("recording", "record", "verb") is None


def test_sentences_of_the_test_are_never_learned_from(folder: Path) -> None:
    table = parse_homographs("record noun=noun verb=verb\nhouse noun=noun verb=verb\n")
    parts = split(WordNet(folder), table)
    assert parts.test and parts.training
    assert not {e.synset for e, _ in parts.test} & {e.synset for e in parts.training}
    assert not {e.text for e, _ in parts.test} & {e.text for e in parts.training}
    assert all(is_test(e.synset) for e, _ in parts.test)
    assert {variant for _, variant in parts.test} == {"noun", "verb"}


def test_contexts_of_other_words_teach_a_homograph(folder: Path, tmp_path: Path) -> None:
    table = parse_homographs("permit noun=noun verb=verb\n")
    tagger = HomographTagger(table, {})
    wordnet = WordNet(folder)
    weights = fit(split(wordnet, table).training, tagger, wordnet.counts(), Settings(min_count=2))
    path = tmp_path / "weights.tsv"
    assert write_weights(weights, 0.05, path) > 10
    learned = HomographTagger(table, parse_weights(path.read_text()))
    assert learned.variant("the permit was here".split(), 1) == "noun"
    assert learned.variant("they permit it".split(), 1) == "verb"


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, tests = tmp_path / "weights.tsv", tmp_path / "tests.tsv"
    arguments = ["--wordnet", str(folder), "--output", str(output), "--write-tests", str(tests)]
    assert main(arguments) == 0
    assert "sentences that were kept apart" in capsys.readouterr().out
    text = tests.read_text()
    assert "Copyright 2006 by Princeton University" in text and "\trecord\tnoun\t" in text
    first = output.read_bytes()
    assert main(arguments) == 0 and output.read_bytes() == first
    assert main(["--wordnet", str(tmp_path / "none")]) == 1
    assert "apt-get install wordnet-base" in capsys.readouterr().err


def test_senses_have_variants_of_the_table() -> None:
    table = parse_homographs((homographs.TEXT / TABLE_FILE).read_text())
    tagger = load_tagger()
    forms = {"use": "used"}  # of which the table has one form alone
    for (lemma, _), variant in homographs.SENSES.items():
        named = {meaning.variant for meaning in table.get(forms.get(lemma, lemma), ())}
        assert variant in named, (lemma, variant)
    assert len(tagger.words) > 2 * 100
