"""Texts of phrases and of what sounds close; alignments that manifests have."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tokenlm.models.directedness import USES
from tokenlm.text.tokenizers import PhonemeTokenizer
from training.data.directed_texts import draw_use, read_texts
from training.data.phrases import close_phrases, contains, draw_text, normal_phrase
from training.stages.phrase_detector import filled, given_spans

TOKENIZER = Path(__file__).parents[3] / "checkpoints" / "mini-en" / "text_tokenizer"


@pytest.fixture(scope="module")
def tokenizer() -> PhonemeTokenizer:
    return PhonemeTokenizer.from_folder(str(TOKENIZER))


def test_contains_phones_in_a_row() -> None:
    assert contains("a b c d".split(), "b c".split())
    assert not contains("a b d c".split(), "b c".split())
    assert not contains(["a"], ["a", "b"])


def test_a_phrase_has_letters() -> None:
    assert normal_phrase(" Hey  Token ") == "hey token"
    with pytest.raises(ValueError, match="has no letters"):
        normal_phrase("123 !")


def test_close_phrases_are_close_and_are_not_it(tokenizer: PhonemeTokenizer) -> None:
    found = close_phrases("hey token", tokenizer, ["taken", "spoken", "elephant"], count=30)
    assert 20 < len(found) <= 30 and len(set(found)) == len(found)
    said = tokenizer.pronounce("hey token")
    assert not any(contains(tokenizer.pronounce(text), said) for text in found)
    assert "hey taken" in found and "hey elephant" not in found
    assert found == close_phrases("hey token", tokenizer, ["taken", "spoken", "elephant"], count=30)


def test_texts_are_of_all_kinds() -> None:
    rng = random.Random(0)
    close = {"hey token": ["hey x"], "token": ["y"]}
    texts = [draw_text(rng, ["hey token", "token"], close) for _ in range(200)]
    starts = {text.split(",")[0].rstrip(".!?") for text in texts}
    assert {"Hey token", "Token", "Hey x", "Y"} == starts
    assert 50 < sum("," in text for text in texts) < 120


def test_texts_of_templates_and_of_files(tmp_path: Path) -> None:
    rng = random.Random(0)
    drawn = [draw_use(rng, ["hey token"]) for _ in range(60)]
    assert {use for _, use in drawn} == set(USES)
    assert all("{" not in text for text, _ in drawn)
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "hey token, stop", "use": "directed"}\n\n')
    assert read_texts(path) == [("hey token, stop", "directed")]
    path.write_text('{"text": "hey token", "use": "maybe"}\n')
    with pytest.raises(ValueError, match="texts.jsonl:1: use is one of directed, overheard"):
        read_texts(path)
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="a line has `text` and `use`"):
        read_texts(path)


def test_alignments() -> None:
    aligned = [("pau", 0.1), ("hh", 0.2), ("ey", 0.4), ("t", 0.5)]
    assert given_spans(aligned, ["ey", "t"]) == [(0.2, 0.4), (0.4, 0.5)]
    assert given_spans(aligned, ["pau"]) == [(0.0, 0.1)]
    assert given_spans(aligned, ["t", "ey"]) == ()
    # Peaks of CTC end half-way to the next.
    found = [time for span in filled([(0.1, 0.12), (0.2, 0.22)]) for time in span]
    assert found == pytest.approx([0.06, 0.16, 0.16, 0.26])
    assert filled([]) == []
