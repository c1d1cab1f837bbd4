from __future__ import annotations

from pathlib import Path

import pytest

from tokenlm.text.tokenizer_config import (
    TextTokenizerConfig,
    TokenizerError,
    read_tokenizer_config,
)


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
