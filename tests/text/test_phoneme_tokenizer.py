from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tokenlm.text.endings import ENDING_PHONES
from tokenlm.text.phoneme_tokenizer import PhonemeTokenizer
from tokenlm.text.pronouncer import LETTERS, PLACES_PER_LETTER, Pronouncer, pad_words
from tokenlm.text.tokenizer import load_text_tokenizer
from tokenlm.text.tokenizer_config import TokenizerError

PHONES = ("ax", "hh", "l", "ow1")
LEXICON = {"hello": ("hh", "ax", "l", "ow1"), "a": ("ax",), "o'hell": ("ow1", "hh", "ax", "l")}


@pytest.fixture
def tokenizer() -> PhonemeTokenizer:
    torch.manual_seed(0)
    return PhonemeTokenizer(PHONES, dict(LEXICON), Pronouncer(len(PHONES), dim=8))


def test_ids_are_phones_boundaries_and_marks(tokenizer: PhonemeTokenizer) -> None:
    # 0 <pad>, 1 <unk>, 2 |, 3 to 8 the marks , . ? ! ; :, then the phones.
    assert tokenizer.vocab_size == 13
    assert tokenizer.encode("hello, a hello.") == [10, 9, 11, 12, 3, 2, 9, 2, 10, 9, 11, 12, 4]
    assert tokenizer.decode([10, 9, 11, 12, 3, 2, 9, 0]) == "hh ax l ow1 , | ax"


def test_a_text_cut_between_words_has_the_ids_of_its_pieces(tokenizer: PhonemeTokenizer) -> None:
    first, second = "hello, a zebra", "quickly said o'hell!"
    joined = [*tokenizer.encode(first), 2, *tokenizer.encode(second)]
    assert tokenizer.encode(f"{first} {second}") == joined


def test_hyphens_part_words_and_foreign_letters_are_passed_over(
    tokenizer: PhonemeTokenizer,
) -> None:
    assert tokenizer.encode("a-hello") == tokenizer.encode("a hello")
    assert tokenizer.encode("你好 😀") == []
    assert tokenizer.encode("") == []


def test_words_that_are_not_listed_are_pronounced(tokenizer: PhonemeTokenizer) -> None:
    [said] = tokenizer.pronouncer.pronounce(["zebra"])
    assert tokenizer.encode("zebra") == [phone + 9 for phone in said]


def test_saving_keeps_every_id(tokenizer: PhonemeTokenizer, tmp_path: Path) -> None:
    for parameter in tokenizer.pronouncer.parameters():
        parameter.data = parameter.data.half().float()
    tokenizer.save(tmp_path)
    loaded = load_text_tokenizer(tmp_path)
    assert isinstance(loaded, PhonemeTokenizer)
    text = "hello, unheard of words"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.lexicon == tokenizer.lexicon


def test_damaged_folders_are_errors(tokenizer: PhonemeTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
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
        tokenizer.decode([13])


def test_padding_of_a_batch_changes_no_word(tokenizer: PhonemeTokenizer) -> None:
    words = ["a", "hello", "unpronounceable"]
    together = tokenizer.pronouncer(*pad_words(words))
    for row, word in zip(together, words, strict=True):
        alone = tokenizer.pronouncer(*pad_words([word]))[0]
        assert alone.shape[0] == len(word) * PLACES_PER_LETTER
        torch.testing.assert_close(row[: alone.shape[0]], alone)
    assert tokenizer.pronouncer.pronounce([]) == []
    assert len(LETTERS) == 27


def variants() -> PhonemeTokenizer:
    """A tokenizer with the phones of two homographs."""
    lexicon = {
        "live(verb)": ("l", "ih1", "v"), "live(adj)": ("l", "ay1", "v"),
        "use(noun)": ("y", "uw1", "s"), "use(verb)": ("y", "uw1", "z"),
        "they": ("dh", "ey1"), "the": ("dh", "ax"), "a": ("ax",), "band": ("b", "ae1", "n", "d"),
    }  # fmt: skip
    phones = sorted({phone for said in lexicon.values() for phone in said} | ENDING_PHONES)
    torch.manual_seed(0)
    return PhonemeTokenizer(phones, lexicon, Pronouncer(len(phones), dim=8))


def test_homographs_are_said_as_their_context_asks() -> None:
    tokenizer = variants()
    assert tokenizer.decode(tokenizer.encode("they live")) == "dh ey1 | l ih1 v"
    assert tokenizer.decode(tokenizer.encode("a live band")) == "ax | l ay1 v | b ae1 n d"
    # A plural that is not listed is the word and its ending.
    said = tokenizer.decode(tokenizer.encode("the uses of a band"))
    assert said.startswith("dh ax | y uw1 s ax z | ")
    assert tokenizer.decode(tokenizer.encode("a band uses")).endswith("y uw1 z ax z")


def test_ids_of_a_text_that_goes_on_are_those_of_the_whole() -> None:
    tokenizer = variants()
    whole = "they live, the band and they use a live band. use it".split()
    for count in range(len(whole) + 1):
        for further in ("", " a", " band they live the", "."):
            text = " ".join(whole[:count])
            settled = tokenizer.encode_open(text)
            longer = tokenizer.encode(text + further)
            assert longer[: len(settled)] == settled
    # Nothing is held longer than four words, or than its sentence.
    assert tokenizer.encode_open("they live") == tokenizer.encode("they")
    for text in ("they live.", "they live a band, a band"):
        assert tokenizer.encode_open(text) == tokenizer.encode(text)


def test_a_lexicon_without_variants_says_every_word_alike(tokenizer: PhonemeTokenizer) -> None:
    assert tokenizer.encode("live hello use") == [
        *tokenizer.encode("live"), 2, *tokenizer.encode("hello"), 2, *tokenizer.encode("use")
    ]  # fmt: skip
    assert tokenizer.encode_open("hello live") == tokenizer.encode("hello live")


def test_threads_share_a_tokenizer_when_its_memory_is_full(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PhonemeTokenizer
) -> None:
    monkeypatch.setattr("tokenlm.text.phoneme_tokenizer._MAX_CACHED", 3)
    texts = [f"hello {''.join(letters)} a" for letters in itertools.product("abcd", repeat=3)]
    expected = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokenizer.encode, texts)) == expected
