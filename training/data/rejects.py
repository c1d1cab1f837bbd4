"""Rejects: rows and files that cannot be used, with where they stand and why.

The rejects file has one JSON object per line, `{"file": ..., "line": ..., "reason": ...}`; `line`
is null where a whole file is meant. It is written as it goes, so that nothing is lost when a run is
stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REJECTS = "rejects.jsonl"
"""Name of the rejects file of a run."""
EARLIEST_STOP = 200
"""Rows that must have been seen before a run is stopped; at its end the share is final."""


class TooManyRejects(ValueError):
    """More than the allowed share of the data cannot be used."""


@dataclass(frozen=True)
class Reject:
    """One row or file that cannot be used."""

    file: str
    """Where it stands."""
    line: int | None
    """Line number from 1, None for a whole file."""
    reason: str
    """What is wrong, as a sentence."""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"


class Rejects:
    """Collects rejects, and stops a run whose data are bad.

    Attributes:
        found: All rejects so far.
        num_seen: Rows so far, good and bad.
        num_bad: Bad rows so far; a bad shard counts as all that it should hold.
        num_expected: Rows that there are, where that is known, else 0.
    """

    def __init__(self, path: Path | None, max_share: float, *, num_expected: int = 0) -> None:
        """Begin with nothing.

        Args:
            path: The rejects file, emptied here; None keeps the rejects in memory only.
            max_share: Share of all rows that may be bad, 0 to 1.
            num_expected: Rows that there are, where that is known: the share is then one of them
                from the start, whatever order or process the bad ones come in.

        Raises:
            ValueError: If the share is not between 0 and 1.
        """
        if not 0 <= max_share <= 1:
            raise ValueError(f"the share of rejects must be between 0 and 1, not {max_share}")
        self.found: list[Reject] = []
        self.num_seen = self.num_bad = 0
        self.num_expected = num_expected
        self._path, self._max_share = path, max_share
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")

    def accept(self, num_rows: int = 1) -> None:
        """Count good rows."""
        self.num_seen += num_rows

    def reject(self, reject: Reject, num_rows: int = 1) -> None:
        """Count a row that cannot be used.

        Args:
            reject: The row, or a file of `num_rows` of them.
            num_rows: Rows that are lost with it.

        Raises:
            TooManyRejects: If the share of bad rows is over the limit, after `EARLIEST_STOP` rows
                where it is not known how many there are.
        """
        self.num_seen += num_rows
        self.num_bad += num_rows
        self.found.append(reject)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(reject), ensure_ascii=False) + "\n")
        if self.num_expected or self.num_seen >= EARLIEST_STOP:
            self.check()

    def check(self) -> None:
        """Compare the share of bad rows with the limit.

        Raises:
            TooManyRejects: If it is over; names the first few.
        """
        num_rows = max(self.num_seen, self.num_expected)
        if self.num_bad > self._max_share * num_rows:
            first = "\n".join(str(reject) for reject in self.found[:5])
            where = f"; all of them: {self._path}" if self._path is not None else ""
            raise TooManyRejects(
                f"{self.num_bad} of {num_rows} rows cannot be used, more than the allowed "
                f"share of {self._max_share:g}{where}. The first ones:\n{first}"
            )

    def report(self, *, limit: int = 20) -> str:
        """Say how many rows are good and what is wrong with the first bad ones."""
        lines = [f"{self.num_seen - self.num_bad} of {self.num_seen} rows are good."]
        lines += [str(reject) for reject in self.found[:limit]]
        if len(self.found) > limit:
            lines.append(f"... and {len(self.found) - limit} more.")
        return "\n".join(lines)


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Write a rejects file in one piece, for a part of the work that is done as a whole."""
    path.write_text(rejects_text(rejects), encoding="utf-8")


def rejects_text(rejects: Sequence[Reject]) -> str:
    """The text of a rejects file."""
    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in rejects)


def read_rejects(path: Path) -> list[Reject]:
    """Read a rejects file."""
    return parse_rejects(path.read_text(encoding="utf-8"))


def parse_rejects(text: str) -> list[Reject]:
    """The rejects of the text of a rejects file."""
    lines = text.split("\n")  # a reason may hold other ends of lines
    return [Reject(**json.loads(line)) for line in lines if line.strip()]


def add_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Add to a rejects file what it does not hold yet, as when a run is started again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = set(read_rejects(path)) if path.exists() else set()
    new = [reject for reject in rejects if reject not in old]
    write_rejects(path, [*(read_rejects(path) if old else ()), *new])
