"""Text of any script that is left as it was written, cut into units while it arrives."""

from __future__ import annotations

import re
import unicodedata

from tokenlm.text.incremental import BLANK_LINE, PARAGRAPH, PARAGRAPH_END
from tokenlm.text.writing import UNIT, UNSPACED

_ENDS_UNSPACED = re.compile(f"[{UNSPACED}]")


class AsWritten:
    """Units of a text that comes in pieces, and `PARAGRAPH` where a blank line stands.

    Letters, digits, marks and tags (`[breath]`) stay as they are. White space becomes one space,
    and a line end between two characters of a script without spaces nothing; control characters
    are left out. What comes out does not depend on how the text is cut.
    """

    def __init__(self) -> None:
        self._text = ""
        self._last = ""
        """The last unit that was given out; '' before the first."""

    def feed(self, piece: str) -> list[str]:
        """The units that the next piece completes."""
        units: list[str] = []
        *ended, rest = piece.split(PARAGRAPH_END)
        for part in ended:
            units += [*self._feed(part), *self.finish()]
            if self._last:
                units.append(PARAGRAPH)
            self._text = self._last = ""
        return units + self._feed(rest)

    def _feed(self, piece: str) -> list[str]:
        self._text += "".join(
            c for c in piece if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf")
        )
        # The last one may go on, or be followed by a mark.
        return self._take(list(UNIT.finditer(self._text))[:-1])

    def finish(self) -> list[str]:
        """The units that are left: the text is complete."""
        return self._take(list(UNIT.finditer(self._text)))

    def _take(self, found: list[re.Match[str]]) -> list[str]:
        units: list[str] = []
        for match in found:
            units += self._place(match[1], match[2])
            self._last = match[2]
        if found:
            self._text = self._text[found[-1].end() :]
        return units

    def _place(self, space: str, body: str) -> list[str]:
        if not self._last or not space:
            return [body]
        if BLANK_LINE.search(space):
            return [PARAGRAPH, body]
        is_inside = bool(_ENDS_UNSPACED.search(self._last) and _ENDS_UNSPACED.search(body))
        is_line_end = "\n" in space or "\r" in space
        return [body if is_inside and is_line_end else " " + body]
