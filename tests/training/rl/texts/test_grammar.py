from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from training.rl.texts.grammar import (
    MAX_WORDS,
    TextGrammar,
    document_words,
    load_grammar,
    speakable,
)


def test_grammar_speaks_plain_words_and_repeats_itself() -> None:
    grammar = load_grammar()
    texts = [grammar.draw(random.Random(seed)) for seed in range(400)]
    assert texts == [grammar.draw(random.Random(seed)) for seed in range(400)]
    for text in texts:
        assert re.fullmatch(r"[A-Za-z' ,.?!]+", text), text
        assert text[0].isupper() and text[-1] in ".?!"
        assert "  " not in text and " ," not in text
        assert len(text.split()) <= MAX_WORDS
    lengths = {len(text.split()) for text in texts}
    assert {1, 2, 5, 10} <= lengths and max(lengths) > 15
    assert len({word for text in texts for word in text.lower().split()}) > 1000


def test_rare_words_come_from_lists_and_documents(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("xylophone\nzeitgeist\nMcCoy\nqqqqq\nab\nx-ray\n")
    (tmp_path / "docs" / "package").mkdir(parents=True)
    (tmp_path / "docs" / "package" / "README").write_text("quasar " * 3 + "pulsar_x foo.bar once")
    grammar = load_grammar([words, tmp_path / "absent"], tmp_path / "docs")
    assert grammar.rare == ["quasar", "xylophone", "zeitgeist"]
    assert document_words(tmp_path / "nowhere") == ()


def test_speakable_leaves_out_what_is_no_word() -> None:
    assert speakable("the ssh2 path/to file_name brrrrr rhythm 'tis Word aaargh") == [
        "the",
        "rhythm",
    ]


def test_articles_and_capitals() -> None:
    rules = {"utterance": ["a <thing>. a <thing>!"], "thing": ["<word>"]}
    grammar = TextGrammar(rules, {"word": "apple"}, [])
    assert grammar.draw(random.Random(0)) == "An apple. An apple!"
    for word, text in (("hour", "An hour."), ("uniform", "A uniform."), ("uncle", "An uncle.")):
        one = TextGrammar({"utterance": ["a <word>."]}, {"word": word}, [])
        assert one.draw(random.Random(0)) == text


def test_weights_are_obeyed() -> None:
    grammar = TextGrammar({"utterance": ["9: yes.", "no."]}, {}, [])
    drawn = [grammar.draw(random.Random(seed)) for seed in range(500)]
    assert 420 < drawn.count("Yes.") < 480


@pytest.mark.parametrize("slot", ["<nobody>", "<word.sideways>", "<number.past>"])
def test_unknown_slot_is_named(slot: str) -> None:
    with pytest.raises(ValueError, match=re.escape(slot)):
        TextGrammar({"utterance": [f"see {slot}."]}, {"word": "one"}, [])
