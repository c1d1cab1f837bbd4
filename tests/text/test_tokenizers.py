"""The kinds of text tokenizer, and their config."""

from __future__ import annotations

import itertools
import math
import random
import string
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tokenlm.text.pronunciation import (
    ENDING_PHONES,
    LETTERS,
    PLACES_PER_LETTER,
    Pronouncer,
    pad_words,
)
from tokenlm.text.tokenizer_config import TextTokenizerConfig, read_tokenizer_config
from tokenlm.text.tokenizers import (
    PhonemeTokenizer,
    SentencePieceTokenizer,
    TokenizerError,
    TransformersTokenizer,
    load_text_tokenizer,
)


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
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(TEXTS, 200)


def test_round_trip(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.vocab_size == 200
    for text in [*TEXTS[:50], "hello, world! don't stop: go - no; well-known.", "q", ""]:
        ids = tokenizer.encode(text)
        assert all(1 < index < 200 for index in ids)
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("") == []


def test_marks_are_pieces_of_their_own(tokenizer: SentencePieceTokenizer) -> None:
    word, other = tokenizer.encode("bade"), tokenizer.encode("koo")
    comma = tokenizer.encode("bade, koo")
    assert comma[: len(word)] == word
    assert comma[len(word) + 1 :] == other


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("vocab_size", [64, 257])
def test_sizes(model_type: str, vocab_size: int) -> None:
    tokenizer = SentencePieceTokenizer.train(TEXTS, vocab_size, model_type=model_type)  # type: ignore[arg-type]
    assert tokenizer.vocab_size == vocab_size
    for char in string.ascii_lowercase + "'-,.?!;:":
        assert tokenizer.unk_id not in tokenizer.encode(f"a{char}a")


def test_larger_vocabularies() -> None:
    texts = make_texts(1_000, 3_000)
    assert SentencePieceTokenizer.train(texts, 1_024).vocab_size == 1_024
    assert SentencePieceTokenizer.train(texts, 4_096, model_type="bpe").vocab_size == 4_096


def test_characters() -> None:
    tokenizer = SentencePieceTokenizer.train(["ab"], 64, model_type="char")
    assert tokenizer.vocab_size == 2 + 26 + 2 + 6 + 1  # pad, unknown; a-z; ' -; marks; space
    assert len(tokenizer.encode("we're in.")) == 1 + 9


def test_training_is_deterministic(tmp_path: Path) -> None:
    for name in ("one", "two"):
        SentencePieceTokenizer.train(TEXTS, 150, seed=3, max_texts=100).save(tmp_path / name)
    first, second = (tmp_path / name / "text_tokenizer.model" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_unknown_text_does_no_harm(tokenizer: SentencePieceTokenizer) -> None:
    generator = torch.Generator().manual_seed(0)
    for text in ["日本語 la", "\ud800", "A\x00B", "\n\n", "▁", "<pad>"]:
        ids = tokenizer.encode(text)
        assert all(0 <= index < 200 for index in ids)
        tokenizer.decode(ids)
        tokenizer.encode_sample(text, generator)
    assert tokenizer.encode("日本").count(tokenizer.unk_id) == 1


def test_decode_passes_over_padding_and_refuses_strange_ids(
    tokenizer: SentencePieceTokenizer,
) -> None:
    ids = tokenizer.encode("la la")
    assert tokenizer.pad_id == 0
    assert tokenizer.decode([*ids, 0, 0]) == "la la"
    for index in (-1, 200):
        with pytest.raises(TokenizerError, match=str(index)):
            tokenizer.decode([index])


def test_samples_are_other_ways_to_write_the_same(tokenizer: SentencePieceTokenizer) -> None:
    text = TEXTS[0]
    generator = torch.Generator().manual_seed(0)
    samples = [tokenizer.encode_sample(text, generator, 0.1) for _ in range(20)]
    assert len({tuple(sample) for sample in samples}) > 10
    assert all(tokenizer.decode(sample) == text for sample in samples)
    generator = torch.Generator().manual_seed(0)
    assert tokenizer.encode_sample(text, generator, 0.1) == samples[0]
    assert tokenizer.encode_sample(text, generator, 500.0) == tokenizer.encode(text)


def test_samples_are_drawn_in_proportion(tokenizer: SentencePieceTokenizer) -> None:
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


def test_sampling_that_cannot_be(tokenizer: SentencePieceTokenizer) -> None:
    generator = torch.Generator()
    with pytest.raises(TokenizerError, match="alpha"):
        tokenizer.encode_sample("a", generator, -1.0)
    pairs = SentencePieceTokenizer.train(TEXTS, 64, model_type="bpe")
    with pytest.raises(TokenizerError, match="unigram"):
        pairs.encode_sample("a", generator)


def test_training_that_cannot_be() -> None:
    with pytest.raises(TokenizerError, match="no text"):
        SentencePieceTokenizer.train(["", " "], 64)
    with pytest.raises(TokenizerError, match="at least 64"):
        SentencePieceTokenizer.train(TEXTS, 30)
    with pytest.raises(TokenizerError, match="at most"):
        SentencePieceTokenizer.train(["a few words only"], 4_096)


def test_save_and_load(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    assert {path.name for path in (tmp_path / "tokenizer").iterdir()} == {
        "config.yaml",
        "text_tokenizer.model",
    }
    for loaded in (
        SentencePieceTokenizer.from_folder(tmp_path / "tokenizer"),
        load_text_tokenizer(tmp_path / "tokenizer"),
    ):
        assert loaded.config == tokenizer.config
        assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_folders_that_are_not_right(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="not a folder"):
        SentencePieceTokenizer.from_folder(tmp_path / "absent")
    with pytest.raises(TokenizerError, match=r"config\.yaml"):
        SentencePieceTokenizer.from_folder(tmp_path)
    tokenizer.save(tmp_path)
    model = tmp_path / "text_tokenizer.model"
    content = model.read_bytes()
    for broken in (b"", b"no model", content[: len(content) // 2]):
        model.write_bytes(broken)
        with pytest.raises(TokenizerError, match=r"text_tokenizer\.model cannot be read"):
            SentencePieceTokenizer.from_folder(tmp_path)
    model.unlink()
    with pytest.raises(TokenizerError, match="is missing"):
        SentencePieceTokenizer.from_folder(tmp_path)
    model.write_bytes(content)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("200", "201"))
    with pytest.raises(TokenizerError, match="200 ids"):
        SentencePieceTokenizer.from_folder(tmp_path)


def test_reads_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "format_version: 1\nvocab_size: 512\nnormalizer: english\nmodel_type: unigram\n"
    )
    assert read_tokenizer_config(tmp_path) == TextTokenizerConfig(
        vocab_size=512, model_type="unigram"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("format_version: 9\nvocab_size: 5\nmodel_type: bpe", "format_version 9"),
        ("vocab_size: 0\nmodel_type: bpe", "vocab_size must be positive"),
        ("vocab_size: 5", "model_type"),
        ("vocab_size: 5\nnormalizer: german\nmodel_type: bpe", "normalizer"),
        ("model_type: bpe", "vocab_size"),
        ("[", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(TokenizerError, match=message):
        read_tokenizer_config(tmp_path)


SENTENCE = "hello, world! it's a well-known thing."


@pytest.fixture(scope="module")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer of bytes, of the family that Qwen2.5's is of."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([SENTENCE] * 3, trainer)
    path = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<|endoftext|>").save_pretrained(path)
    return path


def test_transformers_round_trip(transformers_folder: Path) -> None:
    tokenizer = TransformersTokenizer.from_folder(transformers_folder)
    ids = tokenizer.encode(SENTENCE)
    assert ids
    assert max(ids) < tokenizer.vocab_size
    assert tokenizer.decode(ids) == SENTENCE
    assert tokenizer.decode([*ids, tokenizer.pad_id]) == SENTENCE
    assert tokenizer.encode("") == []
    assert tokenizer.encode_sample(SENTENCE, torch.Generator()) == ids
    assert tokenizer.unk_id is None
    assert tokenizer.decode(tokenizer.encode("日本")) == "日本"
    tokenizer.encode("\ud800")


def test_transformers_save_and_load(transformers_folder: Path, tmp_path: Path) -> None:
    tokenizer = TransformersTokenizer.from_folder(transformers_folder)
    tokenizer.save(tmp_path)
    loaded = load_text_tokenizer(tmp_path)
    assert isinstance(loaded, TransformersTokenizer)
    assert loaded.config == tokenizer.config
    assert loaded.encode(SENTENCE) == tokenizer.encode(SENTENCE)
    with pytest.raises(TokenizerError, match="not a sentencepiece one"):
        SentencePieceTokenizer.from_folder(tmp_path)


def test_transformers_folders_that_are_not_right(transformers_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="not a folder"):
        TransformersTokenizer.from_folder(tmp_path / "absent")
    with pytest.raises(TokenizerError, match="no text tokenizer"):
        TransformersTokenizer.from_folder(tmp_path)
    TransformersTokenizer.from_folder(transformers_folder).save(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("vocab_size: ", "vocab_size: 1"))
    with pytest.raises(TokenizerError, match=r"config\.yaml"):
        TransformersTokenizer.from_folder(tmp_path)
    config.write_text("vocab_size: 9\nmodel_type: bpe\n")
    with pytest.raises(TokenizerError, match="not a transformers one"):
        TransformersTokenizer.from_folder(tmp_path)


def test_strange_ids_are_refused(transformers_folder: Path) -> None:
    tokenizer = TransformersTokenizer.from_folder(transformers_folder)
    with pytest.raises(TokenizerError, match="outside"):
        tokenizer.decode([tokenizer.vocab_size])


PHONES = ("ax", "hh", "l", "ow1")
LEXICON = {"hello": ("hh", "ax", "l", "ow1"), "a": ("ax",), "o'hell": ("ow1", "hh", "ax", "l")}


@pytest.fixture
def phonemes() -> PhonemeTokenizer:
    torch.manual_seed(0)
    return PhonemeTokenizer(PHONES, dict(LEXICON), Pronouncer(len(PHONES), dim=8))


def test_ids_are_phones_boundaries_and_marks(phonemes: PhonemeTokenizer) -> None:
    # 0 <pad>, 1 <unk>, 2 |, 3 to 8 the marks , . ? ! ; :, then the phones.
    assert phonemes.vocab_size == 13
    assert phonemes.encode("hello, a hello.") == [10, 9, 11, 12, 3, 2, 9, 2, 10, 9, 11, 12, 4]
    assert phonemes.decode([10, 9, 11, 12, 3, 2, 9, 0]) == "hh ax l ow1 , | ax"


def test_a_text_cut_between_words_has_the_ids_of_its_pieces(phonemes: PhonemeTokenizer) -> None:
    first, second = "hello, a zebra", "quickly said o'hell!"
    joined = [*phonemes.encode(first), 2, *phonemes.encode(second)]
    assert phonemes.encode(f"{first} {second}") == joined


def test_hyphens_part_words_and_foreign_letters_are_passed_over(
    phonemes: PhonemeTokenizer,
) -> None:
    assert phonemes.encode("a-hello") == phonemes.encode("a hello")
    assert phonemes.encode("你好 😀") == []
    assert phonemes.encode("") == []


def test_words_that_are_not_listed_are_pronounced(phonemes: PhonemeTokenizer) -> None:
    [said] = phonemes.pronouncer.pronounce(["zebra"])
    assert phonemes.encode("zebra") == [phone + 9 for phone in said]


def test_saving_keeps_every_id(phonemes: PhonemeTokenizer, tmp_path: Path) -> None:
    for parameter in phonemes.pronouncer.parameters():
        parameter.data = parameter.data.half().float()
    phonemes.save(tmp_path)
    loaded = load_text_tokenizer(tmp_path)
    assert isinstance(loaded, PhonemeTokenizer)
    text = "hello, unheard of words"
    assert loaded.encode(text) == phonemes.encode(text)
    assert loaded.lexicon == phonemes.lexicon


def test_damaged_folders_are_errors(phonemes: PhonemeTokenizer, tmp_path: Path) -> None:
    phonemes.save(tmp_path)
    (tmp_path / "lexicon.txt").write_text("hello  hh eh1 l ow1\n")
    with pytest.raises(TokenizerError, match=r"phones that are not known: \['eh1'\]"):
        PhonemeTokenizer.from_folder(tmp_path)
    (tmp_path / "pronouncer.safetensors").write_bytes(b"x")
    with pytest.raises(TokenizerError, match="cannot be read"):
        PhonemeTokenizer.from_folder(tmp_path)
    (tmp_path / "pronouncer.safetensors").unlink()
    with pytest.raises(TokenizerError, match="missing"):
        PhonemeTokenizer.from_folder(tmp_path)
    with pytest.raises(TokenizerError, match="outside 0..12"):
        phonemes.decode([13])


def test_padding_of_a_batch_changes_no_word(phonemes: PhonemeTokenizer) -> None:
    words = ["a", "hello", "unpronounceable"]
    together = phonemes.pronouncer(*pad_words(words))
    for row, word in zip(together, words, strict=True):
        alone = phonemes.pronouncer(*pad_words([word]))[0]
        assert alone.shape[0] == len(word) * PLACES_PER_LETTER
        torch.testing.assert_close(row[: alone.shape[0]], alone)
    assert phonemes.pronouncer.pronounce([]) == []
    assert len(LETTERS) == 27


def variants() -> PhonemeTokenizer:
    """A phonemes with the phones of two homographs."""
    lexicon = {
        "live(verb)": ("l", "ih1", "v"), "live(adj)": ("l", "ay1", "v"),
        "use(noun)": ("y", "uw1", "s"), "use(verb)": ("y", "uw1", "z"),
        "they": ("dh", "ey1"), "the": ("dh", "ax"), "a": ("ax",), "band": ("b", "ae1", "n", "d"),
    }  # fmt: skip
    phones = sorted({phone for said in lexicon.values() for phone in said} | ENDING_PHONES)
    torch.manual_seed(0)
    return PhonemeTokenizer(phones, lexicon, Pronouncer(len(phones), dim=8))


def test_homographs_are_said_as_their_context_asks() -> None:
    phonemes = variants()
    assert phonemes.decode(phonemes.encode("they live")) == "dh ey1 | l ih1 v"
    assert phonemes.decode(phonemes.encode("a live band")) == "ax | l ay1 v | b ae1 n d"
    # A plural that is not listed is the word and its ending.
    said = phonemes.decode(phonemes.encode("the uses of a band"))
    assert said.startswith("dh ax | y uw1 s ax z | ")
    assert phonemes.decode(phonemes.encode("a band uses")).endswith("y uw1 z ax z")


def test_ids_of_a_text_that_goes_on_are_those_of_the_whole() -> None:
    phonemes = variants()
    whole = "they live, the band and they use a live band. use it".split()
    for count in range(len(whole) + 1):
        for further in ("", " a", " band they live the", "."):
            text = " ".join(whole[:count])
            settled = phonemes.encode_prefix(text)
            longer = phonemes.encode(text + further)
            assert longer[: len(settled)] == settled
    # Nothing is held longer than four words, or than its sentence.
    assert phonemes.encode_prefix("they live") == phonemes.encode("they")
    for text in ("they live.", "they live a band, a band"):
        assert phonemes.encode_prefix(text) == phonemes.encode(text)


def test_a_lexicon_without_variants_says_every_word_alike(phonemes: PhonemeTokenizer) -> None:
    assert phonemes.encode("live hello use") == [
        *phonemes.encode("live"), 2, *phonemes.encode("hello"), 2, *phonemes.encode("use")
    ]  # fmt: skip
    assert phonemes.encode_prefix("hello live") == phonemes.encode("hello live")


def test_threads_share_a_tokenizer_when_its_memory_is_full(
    monkeypatch: pytest.MonkeyPatch, phonemes: PhonemeTokenizer
) -> None:
    monkeypatch.setattr("tokenlm.text.tokenizers._MAX_CACHED", 3)
    texts = [f"hello {''.join(letters)} a" for letters in itertools.product("abcd", repeat=3)]
    expected = [phonemes.encode(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(phonemes.encode, texts)) == expected
