"""The tokens of every utterance, so that it can be made again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


class TokenLog:
    """A file of JSON lines; appended to, one line per utterance, whole or cut short."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **facts: Any) -> None:
        """Adds a line, if there is a file. A disk that is full is no reason to be silent."""
        if self._path is None:
            return
        line = json.dumps(facts, ensure_ascii=False) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            _log.error("the tokens of an utterance are not logged: %s", error)


def read_token_log(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a log by request id.

    Raises:
        ValueError: a line is not what `TokenLog` writes; it is named.
    """
    found: dict[str, dict[str, Any]] = {}
    # Only a line feed ends a line: a text may hold the other characters that `splitlines` takes.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            facts = json.loads(line)
            found[facts["request_id"]] = facts
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number} is no line of a token log: {error}") from error
    return found
