"""Rows in Arrow: what a corpus costs a process does not grow with the objects that Python makes.

A small source is converted in memory. A large one is converted once, to a file in the cache folder
that every process maps into its memory: all of them share the pages that are read, and a row
becomes Python objects when it is asked for. The files are those of the `datasets` library, which
opens them and computes columns from columns (`Table.derive`). They may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa

from tokenlm.atomic import atomic_path

if TYPE_CHECKING:
    from datasets import Dataset

MAX_BYTES_IN_MEMORY = 2**23
"""Size of the largest source that is converted in memory; larger ones are cached."""
ROWS_PER_BATCH = 10_000
Columns = dict[str, list[Any]]
"""Some rows, column by column."""


def cache_folder() -> Path:
    """The folder of converted data: `TOKENLM_CACHE`, or `tokenlm` in the cache of the user."""
    if folder := os.environ.get("TOKENLM_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenlm"


def digest(*parts: object) -> str:
    """A name for what `parts` say, by their `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def array_digest(array: np.ndarray) -> str:
    """A name for the numbers in an array, however many there are."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:24]


def files_digest(*files: Path) -> str:
    """A name for what files and folders hold, such as code: what it computed is stale with it."""
    found = [f for path in files for f in ([path] if path.is_file() else sorted(path.rglob("*")))]
    texts = [f.read_bytes() for f in found if f.is_file() and f.suffix != ".pyc"]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:24]


class Table(Sequence[dict[str, Any]]):
    """Rows with named columns, in memory or in a mapped file, or some of them.

    Attributes:
        key: Names what the file was made of; '' where there is no file.
    """

    def __init__(
        self, data: pa.Table | Dataset, key: str = "", indices: np.ndarray | None = None
    ) -> None:
        """Take the rows.

        Args:
            data: A table in memory, or a data set in a file.
            key: See above.
            indices: The rows that are meant; None means all.
        """
        self.key, self._source, self._indices = key, data, indices
        self._open()

    def _open(self) -> None:
        source = self._source
        self._data: pa.Table = source if isinstance(source, pa.Table) else source.data.table
        self._batches = self._data.to_batches()
        self._ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64).tolist()

    def __getstate__(self) -> dict[str, Any]:
        # A data set goes to another process as the path of its file.
        return {k: v for k, v in vars(self).items() if k not in ("_data", "_batches", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    @property
    def selection(self) -> str:
        """Names which rows of what `key` names these are."""
        return "" if self._indices is None else array_digest(self._indices)

    @property
    def num_bytes(self) -> int:
        """Size to convert what belongs to these rows as they were; see `convert`."""
        return MAX_BYTES_IN_MEMORY + 1 if self.key else 0

    @classmethod
    def convert(
        cls, key: str, num_bytes: int, schema: pa.Schema, rows: Callable[[], Iterable[Columns]]
    ) -> Table:
        """Convert a source, or open what was converted before.

        The file appears under its name when it is whole. Of several processes one converts, and
        the others wait for it.

        Args:
            key: Names the source and its state: another key is converted anew.
            num_bytes: Size of the source; small ones are not cached.
            schema: Columns.
            rows: Reads the source, some rows at a time.
        """

        def batches() -> Iterator[pa.RecordBatch]:
            return (pa.RecordBatch.from_pydict(part, schema) for part in rows())

        if num_bytes <= MAX_BYTES_IN_MEMORY:
            return cls(pa.Table.from_batches(batches(), schema))
        from datasets import Dataset
        from filelock import FileLock

        path = cache_folder() / f"{key}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with FileLock(path.with_suffix(".lock")):
                for left in path.parent.glob(f".{key}.*.partial.arrow"):
                    left.unlink()  # by a process that was killed: this one holds the lock
                if not path.exists():
                    with atomic_path(path) as temporary:
                        with pa.OSFile(str(temporary), "wb") as file:
                            with pa.ipc.new_stream(file, schema) as writer:
                                for batch in batches():
                                    writer.write_batch(batch)
        return cls(Dataset.from_file(str(path)), key)

    def forget(self) -> None:
        """Remove the file, so that the source is converted anew at the next start."""
        if self.key:
            (cache_folder() / f"{self.key}.arrow").unlink(missing_ok=True)

    def derive(
        self,
        name: str,
        function: Callable[[Columns], Columns],
        schema: pa.Schema,
        inputs: Sequence[str],
        *,
        num_processes: int = 1,
    ) -> Table:
        """Compute columns of all rows, beside the same rows; cached where the rows are.

        Args:
            name: Names the function and its settings: another name is computed anew.
            function: From some rows of the inputs to the same rows of the new columns.
            schema: The new columns.
            inputs: Columns that the function reads.
            num_processes: Processes that compute, where the rows are in a file.
        """
        if isinstance(self._source, pa.Table):
            parts = self._data.select(inputs).to_batches(ROWS_PER_BATCH)
            made = [pa.RecordBatch.from_pydict(function(p.to_pydict()), schema) for p in parts]
            return Table(pa.Table.from_batches(made, schema), indices=self._indices)
        from datasets import Features
        from filelock import FileLock

        key = digest(self.key, name)
        path = cache_folder() / f"{key}.arrow"
        with FileLock(path.with_suffix(".lock")):
            source = self._source.select_columns(list(inputs)).map(
                function,
                batched=True,
                batch_size=ROWS_PER_BATCH // 10,
                remove_columns=list(inputs),
                features=Features.from_arrow_schema(schema),
                cache_file_name=str(path),
                load_from_cache_file=True,
                new_fingerprint=key,
                num_proc=num_processes if num_processes > 1 else None,
                desc=name.split()[0],
            )
        return Table(source, key, self._indices)

    def __len__(self) -> int:
        return self._data.num_rows if self._indices is None else len(self._indices)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Table:
        if isinstance(index, slice):
            return self.select(np.arange(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self) if self._indices is None else int(self._indices[index])
        number = bisect_right(self._ends, row)
        batch = self._batches[number]
        return batch.slice(row - self._ends[number] + batch.num_rows, 1).to_pylist()[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._indices is None:
            for batch in self._batches:
                for start in range(0, batch.num_rows, 1000):
                    yield from batch.slice(start, 1000).to_pylist()
        else:
            for start in range(0, len(self), 1000):
                part = pa.array(self._indices[start : start + 1000])
                yield from self._data.take(part).to_pylist()

    def parts(self, *names: str) -> Iterator[tuple[list[Any], ...]]:
        """The values of some columns, `ROWS_PER_BATCH` rows at a time."""
        data = self._data.select(names)
        for start in range(0, len(self), ROWS_PER_BATCH):
            if self._indices is None:
                part = data.slice(start, ROWS_PER_BATCH)
            else:
                part = data.take(pa.array(self._indices[start : start + ROWS_PER_BATCH]))
            yield tuple(column.to_pylist() for column in part.columns)

    def select(self, indices: np.ndarray) -> Table:
        """The rows of these indices, or those where a mask is true, in order."""
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        mine = indices if self._indices is None else self._indices[indices]
        return Table(self._source, self.key, mine)

    def detached(self, **columns: Sequence[Any]) -> Table:
        """The same rows in memory, without the file; a column may be given other values."""
        indices = self._indices
        data = self._data if indices is None else self._data.take(pa.array(indices))
        for name, values in columns.items():
            place = data.schema.get_field_index(name)
            data = data.set_column(place, name, pa.array(values, data.schema.field(name).type))
        return Table(data)

    def column(self, name: str) -> np.ndarray:
        """The values of a column (rows,): numbers, or strings as objects."""
        return self._column(name).to_numpy()

    def is_null(self, name: str) -> np.ndarray:
        """Where a column has no value (rows,)."""
        return self._column(name).is_null().to_numpy()

    def _column(self, name: str) -> pa.ChunkedArray:
        column = self._data.column(name)
        return column if self._indices is None else column.take(pa.array(self._indices))

    def distinct_items(self, name: str) -> set[str]:
        """The different items of a column of lists."""
        found: set[str] = set()
        for start in range(0, len(self), ROWS_PER_BATCH):
            part = self._data.column(name).slice(start, ROWS_PER_BATCH)
            if self._indices is not None:
                part = self._data.column(name).take(self._indices[start : start + ROWS_PER_BATCH])
            found.update(part.combine_chunks().flatten().unique().to_pylist())
        return found

    def coded(self, name: str) -> tuple[list[str | None], np.ndarray]:
        """The different values of a column, sorted, and the number (rows,) of that of each row."""
        parts = self._data.column(name).dictionary_encode().unify_dictionaries().chunks
        names = [*parts[0].dictionary.to_pylist(), None] if parts else []
        # What has no value gets the last number.
        codes = [part.indices.fill_null(len(names) - 1).to_numpy() for part in parts]
        # Four bytes a row and no sorting: there may be tens of millions.
        codes = np.concatenate([np.zeros(0, dtype=np.int32), *codes])
        codes = codes if self._indices is None else codes[self._indices]
        counts = np.bincount(codes, minlength=len(names))
        used = sorted(np.flatnonzero(counts).tolist(), key=lambda code: names[code] or "")
        numbers = np.zeros(len(names), dtype=np.int32)
        numbers[used] = np.arange(len(used))
        return [names[code] for code in used], numbers[codes]


def in_columns(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[Columns]:
    """Gather rows into batches of columns; what a row does not have is null."""
    rows = iter(rows)
    while part := list(islice(rows, ROWS_PER_BATCH)):
        yield {name: [row.get(name) for row in part] for name in schema.names}
