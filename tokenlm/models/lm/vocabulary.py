"""One vocabulary for text, special positions and speech, as LLM engines have it.

A `SpeechLM` looks text, specials and speech up in tables of their own. An engine knows one table
and one head: here the tables lie behind one another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokenlm.models.lm.layout import SOS, SPEECH, TEXT, TOS, eos_class, fill_class
from tokenlm.models.lm.model import SpeechLMConfig

PADDED_TO = 128
"""The size of the vocabulary is a multiple of this, which engines split over devices."""

_SPEECH_NAME = re.compile(r"<\|s_(\d+)\|>")


@dataclass(frozen=True, kw_only=True)
class MergedVocabulary:
    """Ids of text, then start of sequence and turn of speech, then speech classes, then padding."""

    num_text: int
    """Ids of text: rows of the backbone's table."""
    codebook_size: int
    num_classes: int
    """Speech classes: codes, eos, fill, reserved ones."""
    any_special_ends: bool = False
    """Whether every class that is no code ends one-shot speech."""

    @classmethod
    def of(cls, config: SpeechLMConfig) -> MergedVocabulary:
        """The vocabulary of a model."""
        return cls(
            num_text=config.backbone.vocab_size,
            codebook_size=config.codebook_size,
            num_classes=config.num_classes,
            any_special_ends=config.any_special_ends,
        )

    @property
    def sos_id(self) -> int:
        """Start of sequence."""
        return self.num_text + SOS

    @property
    def turn_id(self) -> int:
        """Turn of speech."""
        return self.num_text + TOS

    @property
    def speech_offset(self) -> int:
        """Id of the first code."""
        return self.num_text + 2

    @property
    def size(self) -> int:
        """Number of ids with padding."""
        return -(-(self.speech_offset + self.num_classes) // PADDED_TO) * PADDED_TO

    @property
    def end_classes(self) -> range:
        """Speech classes that end one-shot speech."""
        eos = eos_class(self.codebook_size)
        return range(eos, self.num_classes if self.any_special_ends else eos + 1)

    def ids(self, kinds: Sequence[int], ids: Sequence[int]) -> list[int]:
        """Merged ids of positions given by kind and id (`layout`)."""
        starts = {TEXT: 0, SPEECH: self.speech_offset}
        return [
            starts.get(kind, self.num_text) + index for kind, index in zip(kinds, ids, strict=True)
        ]

    def speech_class(self, merged_id: int) -> int | None:
        """The speech class of a merged id; None for any other id."""
        index = merged_id - self.speech_offset
        return index if 0 <= index < self.num_classes else None

    def names(self) -> list[str]:
        """A name for each special position and speech class, from `sos_id` on."""
        named = {
            eos_class(self.codebook_size): "<|eos|>",
            fill_class(self.codebook_size): "<|fill|>",
        }
        classes = [named.get(index, f"<|s_{index}|>") for index in range(self.num_classes)]
        return ["<|sos|>", "<|turn|>", *classes]

    def classes_named(self, text: str) -> list[int]:
        """Speech classes that a text of `names` spells, for servers that answer no ids."""
        eos, fill = eos_class(self.codebook_size), fill_class(self.codebook_size)
        spelled = text.replace("<|eos|>", f"<|s_{eos}|>").replace("<|fill|>", f"<|s_{fill}|>")
        return [int(number) for number in _SPEECH_NAME.findall(spelled)]
