"""An edit of a recording as the options of a command or the fields of a form say it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenlm.synthesis.editing import EditRequest, Side

_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*")


def edit_request(
    *,
    replace: tuple[str, str] | None = None,
    insert: str | None = None,
    before: str | None = None,
    after: str | None = None,
    at: float | None = None,
    delete: str | None = None,
    span: str | None = None,
    continue_with: str | None = None,
    occurrence: int | None = None,
) -> EditRequest:
    """What is to be done.

    Args:
        replace: old words and new ones.
        insert: words; exactly one of `before`, `after` and `at` says where.
        before, after: words of the recording.
        at: second.
        delete, continue_with, occurrence: see `EditRequest`.
        span: two seconds with a dash between.

    Raises:
        ValueError: the options do not fit.
    """
    from tokenlm.synthesis.editing import EditRequest

    insertion: tuple[Side, str | float, str] | None = None
    places: list[tuple[Side, str | float]] = []
    if before is not None:
        places.append(("before", before))
    if after is not None:
        places.append(("after", after))
    if at is not None:
        places.append(("at", at))
    if insert is None and places:
        raise ValueError("before, after and at say where to insert words: give these, too.")
    if insert is not None:
        if len(places) != 1:
            raise ValueError("insert takes one of before, after and at.")
        insertion = (*places[0], insert)
    return EditRequest(
        replace=replace,
        insert=insertion,
        delete=delete,
        span=None if span is None else _read_span(span),
        continue_with=continue_with,
        occurrence=occurrence,
    )


def _read_span(text: str) -> tuple[float, float]:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"a span is seconds from and to, such as 1.2-1.6, not {text!r}.")
    return float(match[1]), float(match[2])
