"""Texts in the alphabet of a recogniser that is to be trained with them."""

from __future__ import annotations

from collections.abc import Sequence

from tokenlm.config import ConfigError
from tokenlm.text.alphabet import encode_characters


def spell(texts: Sequence[str], alphabet: str, split: str, max_share: float) -> list[list[int]]:
    """Characters of each text, none of one that has nothing in the alphabet.

    Args:
        texts: as the front-end gives them.
        alphabet: of the recogniser.
        split: where they come from, for the message.
        max_share: of texts that may have nothing.

    Raises:
        ConfigError: more of them have nothing, or all.
    """
    rows = [encode_characters(text, alphabet) for text in texts]
    empty = [text for text, row in zip(texts, rows, strict=True) if not row]
    if len(empty) > max_share * len(rows) or len(empty) == len(rows):
        raise ConfigError(
            f"data.{split}: {len(empty)} of {len(rows)} texts have no character of the alphabet "
            f"{shortened(alphabet)}, such as {shortened(empty[0])}: train with the alphabet of "
            "their language"
        )
    return rows


def shortened(text: str) -> str:
    """A text for a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
