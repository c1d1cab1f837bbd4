from __future__ import annotations

import math
import random
import string
from collections import Counter
from pathlib import Path

import pytest
import torch

from tokenlm.text.tokenizer import TextTokenizer, load_text_tokenizer
from tokenlm.text.tokenizer_config import TokenizerError


def make_texts(num_texts: int, num_words: int) -> list[str]:
    choose = random.Random(0)
    syllables = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "ou", "ee")]
    words = ["".join(choose.choices(syllables, k=choose.randint(1, 4))) for _ in range(num_words)]
    return [
        f"{' '.join(choose.choices(words, k=6))}, {choose.choice(words)}, isn't it?"
        for _ in range(num_texts)
    ]


TEXTS = make_texts(200, 300)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 200)


def test_round_trip(tokenizer: TextTokenizer) -> None:
    assert tokenizer.vocab_size == 200
    for text in [*TEXTS[:50], "hello, world! don't stop: go - no; well-known.", "q", ""]:
        ids = tokenizer.encode(text)
        assert all(1 < index < 200 for index in ids)
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("") == []


def test_marks_are_pieces_of_their_own(tokenizer: TextTokenizer) -> None:
    word, other = tokenizer.encode("bade"), tokenizer.encode("koo")
    comma = tokenizer.encode("bade, koo")
    assert comma[: len(word)] == word
    assert comma[len(word) + 1 :] == other


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("vocab_size", [64, 257])
def test_sizes(model_type: str, vocab_size: int) -> None:
    tokenizer = TextTokenizer.train(TEXTS, vocab_size, model_type=model_type)  # type: ignore[arg-type]
    assert tokenizer.vocab_size == vocab_size
    for char in string.ascii_lowercase + "'-,.?!;:":
        assert tokenizer.unk_id not in tokenizer.encode(f"a{char}a")


def test_larger_vocabularies() -> None:
    texts = make_texts(1_000, 3_000)
    assert TextTokenizer.train(texts, 1_024).vocab_size == 1_024
    assert TextTokenizer.train(texts, 4_096, model_type="bpe").vocab_size == 4_096


def test_characters() -> None:
    tokenizer = TextTokenizer.train(["ab"], 64, model_type="char")
    assert tokenizer.vocab_size == 2 + 26 + 2 + 6 + 1  # pad, unknown; a-z; ' -; marks; space
    assert len(tokenizer.encode("we're in.")) == 1 + 9


def test_training_is_deterministic(tmp_path: Path) -> None:
    for name in ("one", "two"):
        TextTokenizer.train(TEXTS, 150, seed=3, max_texts=100).save(tmp_path / name)
    first, second = (tmp_path / name / "text_tokenizer.model" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_unknown_text_does_no_harm(tokenizer: TextTokenizer) -> None:
    generator = torch.Generator().manual_seed(0)
    for text in ["日本語 la", "\ud800", "A\x00B", "\n\n", "▁", "<pad>"]:
        ids = tokenizer.encode(text)
        assert all(0 <= index < 200 for index in ids)
        tokenizer.decode(ids)
        tokenizer.encode_sample(text, generator)
    assert tokenizer.encode("日本").count(tokenizer.unk_id) == 1


def test_decode_passes_over_padding_and_refuses_strange_ids(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("la la")
    assert tokenizer.pad_id == 0
    assert tokenizer.decode([*ids, 0, 0]) == "la la"
    for index in (-1, 200):
        with pytest.raises(TokenizerError, match=str(index)):
            tokenizer.decode([index])


def test_samples_are_other_ways_to_write_the_same(tokenizer: TextTokenizer) -> None:
    text = TEXTS[0]
    generator = torch.Generator().manual_seed(0)
    samples = [tokenizer.encode_sample(text, generator, 0.1) for _ in range(20)]
    assert len({tuple(sample) for sample in samples}) > 10
    assert all(tokenizer.decode(sample) == text for sample in samples)
    generator = torch.Generator().manual_seed(0)
    assert tokenizer.encode_sample(text, generator, 0.1) == samples[0]
    assert tokenizer.encode_sample(text, generator, 500.0) == tokenizer.encode(text)


def test_samples_are_drawn_in_proportion(tokenizer: TextTokenizer) -> None:
    pieces = tokenizer._scored_pieces()
    word = "▁la"

    def ways(rest: str) -> list[list[str]]:
        if not rest:
            return [[]]
        heads = [rest[:end] for end in range(1, len(rest) + 1) if rest[:end] in pieces]
        return [[head, *tail] for head in heads for tail in ways(rest[len(head) :])]

    alpha = 0.3
    weights = {
        tuple(pieces[piece][0] for piece in way): math.exp(
            alpha * sum(pieces[piece][1] for piece in way)
        )
        for way in ways(word)
    }
    assert len(weights) > 1
    generator = torch.Generator().manual_seed(0)
    counts = Counter(tuple(tokenizer.encode_sample("la", generator, alpha)) for _ in range(3_000))
    for way, weight in weights.items():
        assert counts[way] / 3_000 == pytest.approx(weight / sum(weights.values()), abs=0.04)


def test_sampling_that_cannot_be(tokenizer: TextTokenizer) -> None:
    generator = torch.Generator()
    with pytest.raises(TokenizerError, match="alpha"):
        tokenizer.encode_sample("a", generator, -1.0)
    pairs = TextTokenizer.train(TEXTS, 64, model_type="bpe")
    with pytest.raises(TokenizerError, match="unigram"):
        pairs.encode_sample("a", generator)


def test_training_that_cannot_be() -> None:
    with pytest.raises(TokenizerError, match="no text"):
        TextTokenizer.train(["", " "], 64)
    with pytest.raises(TokenizerError, match="at least 64"):
        TextTokenizer.train(TEXTS, 30)
    with pytest.raises(TokenizerError, match="at most"):
        TextTokenizer.train(["a few words only"], 4_096)


def test_save_and_load(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    assert {path.name for path in (tmp_path / "tokenizer").iterdir()} == {
        "config.yaml",
        "text_tokenizer.model",
    }
    for loaded in (
        TextTokenizer.from_folder(tmp_path / "tokenizer"),
        load_text_tokenizer(tmp_path / "tokenizer"),
    ):
        assert loaded.config == tokenizer.config
        assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_folders_that_are_not_right(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="not a folder"):
        TextTokenizer.from_folder(tmp_path / "absent")
    with pytest.raises(TokenizerError, match=r"config\.yaml"):
        TextTokenizer.from_folder(tmp_path)
    tokenizer.save(tmp_path)
    model = tmp_path / "text_tokenizer.model"
    content = model.read_bytes()
    for broken in (b"", b"no model", content[: len(content) // 2]):
        model.write_bytes(broken)
        with pytest.raises(TokenizerError, match=r"text_tokenizer\.model cannot be read"):
            TextTokenizer.from_folder(tmp_path)
    model.unlink()
    with pytest.raises(TokenizerError, match="is missing"):
        TextTokenizer.from_folder(tmp_path)
    model.write_bytes(content)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("200", "201"))
    with pytest.raises(TokenizerError, match="200 pieces"):
        TextTokenizer.from_folder(tmp_path)
