from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tokenlm.text.hf_tokenizer import HFTextTokenizer
from tokenlm.text.tokenizer import TextTokenizer, load_text_tokenizer
from tokenlm.text.tokenizer_config import TokenizerError

TEXT = "hello, world! it's a well-known thing."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    inner.train_from_iterator([TEXT] * 3, trainer)
    path = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<|endoftext|>").save_pretrained(path)
    return path


def test_round_trip(folder: Path) -> None:
    tokenizer = HFTextTokenizer.from_folder(folder)
    ids = tokenizer.encode(TEXT)
    assert ids
    assert max(ids) < tokenizer.vocab_size
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.decode([*ids, tokenizer.pad_id]) == TEXT
    assert tokenizer.encode("") == []
    assert tokenizer.encode_sample(TEXT, torch.Generator()) == ids
    assert tokenizer.unk_id is None
    assert tokenizer.decode(tokenizer.encode("日本")) == "日本"
    tokenizer.encode("\ud800")


def test_save_and_load(folder: Path, tmp_path: Path) -> None:
    tokenizer = HFTextTokenizer.from_folder(folder)
    tokenizer.save(tmp_path)
    loaded = load_text_tokenizer(tmp_path)
    assert isinstance(loaded, HFTextTokenizer)
    assert loaded.config == tokenizer.config
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    with pytest.raises(TokenizerError, match="not a sentencepiece one"):
        TextTokenizer.from_folder(tmp_path)


def test_folders_that_are_not_right(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="not a folder"):
        HFTextTokenizer.from_folder(tmp_path / "absent")
    with pytest.raises(TokenizerError, match="no text tokenizer"):
        HFTextTokenizer.from_folder(tmp_path)
    HFTextTokenizer.from_folder(folder).save(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("vocab_size: ", "vocab_size: 1"))
    with pytest.raises(TokenizerError, match=r"config\.yaml"):
        HFTextTokenizer.from_folder(tmp_path)
    config.write_text("vocab_size: 9\nmodel_type: bpe\n")
    with pytest.raises(TokenizerError, match="not a transformers one"):
        HFTextTokenizer.from_folder(tmp_path)


def test_strange_ids_are_refused(folder: Path) -> None:
    tokenizer = HFTextTokenizer.from_folder(folder)
    with pytest.raises(TokenizerError, match="outside"):
        tokenizer.decode([tokenizer.vocab_size])
