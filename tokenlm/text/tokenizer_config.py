"""The `config.yaml` of a text tokenizer's folder. To read it loads no model and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenlm.config import ConfigError, read_config
from tokenlm.text.normalize import NormalizerName

FORMAT_VERSION = 1
TokenizerKind = Literal["sentencepiece", "transformers", "phonemes"]
ModelType = Literal["unigram", "bpe", "char"]


class TokenizerError(ValueError):
    """A text tokenizer cannot be trained, read or used as asked."""


@dataclass(frozen=True, kw_only=True)
class TextTokenizerConfig:
    """Describes the tokenizer in a folder."""

    format_version: int = FORMAT_VERSION
    """Layout of the folder; another one than this code knows is refused."""
    kind: TokenizerKind = "sentencepiece"
    """What reads the other files of the folder: a library of that name, or `PhonemeTokenizer`."""
    vocab_size: int
    """Number of ids; embeddings have as many rows."""
    normalizer: NormalizerName = "english"
    """Name of the `Frontend` that texts go through before they are encoded."""
    model_type: ModelType | None = None
    """How a sentencepiece model was trained; None for other kinds."""

    def __post_init__(self) -> None:
        """Check the values against each other."""
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"format_version {self.format_version} is not known; this version of tokenlm "
                f"reads {FORMAT_VERSION}"
            )
        if self.vocab_size < 1:
            raise ValueError(f"vocab_size must be positive, got {self.vocab_size}")
        if self.normalizer == "none" and self.kind != "transformers":
            raise ValueError(f"a {self.kind} tokenizer reads what normalizer english makes")
        if self.kind == "sentencepiece" and self.model_type is None:
            raise ValueError("a sentencepiece tokenizer needs a model_type")


def read_tokenizer_config(folder: str | Path) -> TextTokenizerConfig:
    """Read `config.yaml` of a tokenizer folder.

    Raises:
        TokenizerError: if the folder or the file is missing, or the file is not valid.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TokenizerError(f"{folder} is not a folder of a text tokenizer")
    try:
        return read_config(TextTokenizerConfig, folder / "config.yaml")
    except ConfigError as error:
        raise TokenizerError(f"no text tokenizer can be read from {folder}: {error}") from error
