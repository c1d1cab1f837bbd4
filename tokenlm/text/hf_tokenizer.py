"""Normalised text <-> ids, over a tokenizer of `transformers` (Qwen2.5's, at full size)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tokenlm.config import save_config
from tokenlm.text.frontend import NormalizerName
from tokenlm.text.tokenizer_config import (
    TextTokenizerConfig,
    TokenizerError,
    read_tokenizer_config,
)


class HFTextTokenizer:
    """The methods of `TextTokenizer` over a tokenizer of `transformers`.

    Args:
        tokenizer: a `transformers.PreTrainedTokenizerBase`.
        normalizer: what texts go through before they come here.
    """

    model_type = None

    def __init__(self, tokenizer: Any, normalizer: NormalizerName = "english") -> None:
        self._tokenizer = tokenizer
        self.normalizer: NormalizerName = normalizer

    @classmethod
    def from_folder(cls, folder: str | Path) -> HFTextTokenizer:
        """Read the files of a tokenizer as `transformers` writes them; never uses the network.

        A `config.yaml` of ours beside them is checked where there is one.

        Raises:
            TokenizerError: if there is no tokenizer that `transformers` can read, or it has
                another number of ids than the config says.
            ImportError: if `transformers` is not installed.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise TokenizerError(f"{folder} is not a folder of a text tokenizer")
        config = read_tokenizer_config(folder) if (folder / "config.yaml").exists() else None
        if config is not None and config.kind != "transformers":
            raise TokenizerError(
                f"{folder} holds a {config.kind} tokenizer, not a transformers one"
            )
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ImportError(
                "this text tokenizer needs transformers: pip install transformers"
            ) from error
        try:
            loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the library raises many kinds for a file that is not right
            raise TokenizerError(f"no text tokenizer can be read from {folder}: {error}") from error
        tokenizer = cls(loaded, "english" if config is None else config.normalizer)
        if config is not None and tokenizer.vocab_size != config.vocab_size:
            raise TokenizerError(
                f"the tokenizer in {folder} has {tokenizer.vocab_size} ids, but config.yaml "
                f"beside it says {config.vocab_size}"
            )
        return tokenizer

    def with_tokens(self, tokens: Sequence[str]) -> HFTextTokenizer:
        """This tokenizer with special tokens behind its own; those that it has stay as they are."""
        self._tokenizer.add_tokens(list(tokens), special_tokens=True)
        return self

    def save(self, folder: str | Path) -> None:
        """Write the library's files and `config.yaml`."""
        self._tokenizer.save_pretrained(str(folder))
        save_config(self.config, Path(folder) / "config.yaml")

    @property
    def config(self) -> TextTokenizerConfig:
        """What `config.yaml` says."""
        return TextTokenizerConfig(
            kind="transformers", vocab_size=self.vocab_size, normalizer=self.normalizer
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included (the library's own number leaves those out)."""
        return len(self._tokenizer)

    @property
    def pad_id(self) -> int:
        """The id that fills up batches; 0 for a tokenizer that has none, as masks hide it."""
        pad_id = self._tokenizer.pad_token_id
        return 0 if pad_id is None else int(pad_id)

    @property
    def unk_id(self) -> int | None:
        """The id of unknown text; None for a tokenizer of bytes, which knows every text."""
        return self._tokenizer.unk_token_id

    def encode(self, text: str) -> list[int]:
        """Text to ids, without special tokens."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def encode_sample(self, text: str, generator: torch.Generator, alpha: float = 0.1) -> list[int]:
        """The same as `encode`: a pretrained backbone has seen one way of cutting only."""
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; special tokens are passed over.

        Raises:
            TokenizerError: for an id outside the vocabulary.
        """
        ids = [int(index) for index in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"text token {index} is outside 0..{self.vocab_size - 1}")
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
