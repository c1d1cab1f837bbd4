"""The texts of a corpus as models are trained with them: normalised, in characters or in tokens.

Each is a column beside the rows (`Table.derive`), computed once for a large corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

import tokenlm.text
from tokenlm.config import ConfigError
from tokenlm.text.normalize import NormalizerName, frontend
from tokenlm.text.transcripts import encode_characters
from training.data.table import Columns, Table, digest, files_digest

TEXT_CODE = Path(tokenlm.text.__path__[0])
"""The package that reads texts: what it computed is stale when it changes."""


def normalize_texts(table: Table, normalizer: NormalizerName, num_processes: int = 1) -> Table:
    """The column `text` as a normalizer reads it."""
    normalize = frontend(normalizer).normalize

    def read(rows: Columns) -> Columns:
        return {"text": [normalize(text or "") for text in rows["text"]]}

    name = f"text {normalizer} {files_digest(TEXT_CODE)}"
    schema = pa.schema({"text": pa.string()})
    return table.derive(name, read, schema, ["text"], num_processes=num_processes)


def number_texts(
    table: Table,
    name: str,
    encode: Callable[[str], Sequence[int]],
    folder: Path | None = None,
    num_processes: int = 1,
) -> Table:
    """The column `text` in numbers: the columns `numbers` and `count`.

    Args:
        table: Rows with texts.
        name: Of the numbers, with the settings of `encode`.
        encode: Numbers of a text.
        folder: What `encode` was made of.
        num_processes: See `Table.derive`.
    """

    def number(rows: Columns) -> Columns:
        numbers = [list(encode(text or "")) for text in rows["text"]]
        return {"numbers": numbers, "count": [len(row) for row in numbers]}

    schema = pa.schema({"numbers": pa.list_(pa.int32()), "count": pa.int32()})
    name = f"{name} {files_digest(TEXT_CODE, *([folder] if folder else []))}"
    return table.derive(name, number, schema, ["text"], num_processes=num_processes)


def spell(
    table: Table, alphabet: str, split: str, max_share: float, num_processes: int = 1
) -> Table:
    """Texts in the alphabet of a recogniser that is to be trained with them (see `number_texts`).

    Args:
        table: Rows with texts as the front-end gives them.
        alphabet: Of the recogniser.
        split: Where they come from, for the message.
        max_share: Of texts that may have no character of it.
        num_processes: See `Table.derive`.

    Raises:
        ConfigError: More of them have none, or all.
    """
    found = number_texts(
        table,
        f"characters {digest(alphabet)}",
        lambda text: encode_characters(text, alphabet),
        num_processes=num_processes,
    )
    empty = found.column("count") == 0
    if empty.sum() > max_share * len(empty) or empty.all():
        first = table[int(empty.argmax())]["text"]
        raise ConfigError(
            f"data.{split}: {empty.sum()} of {len(empty)} texts have no character of the "
            f"alphabet {shortened(alphabet)}, such as {shortened(first)}: train "
            "with the alphabet of their language"
        )
    return found


def shortened(text: str) -> str:
    """A text for a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
