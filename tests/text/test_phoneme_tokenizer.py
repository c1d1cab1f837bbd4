from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
