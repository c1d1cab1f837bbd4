"""The text of a request as it comes in: segments to be spoken, and their text tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenlm.models.lm.plan import LayoutName
from tokenlm.text.normalize import normalize_paragraphs
from tokenlm.text.segment import segment


@dataclass
class ScriptSegment:
    """A piece of text to be spoken in one go, as far as it is known."""

    tokens: list[int] = field(default_factory=list)
    """Text tokens so far."""
    is_complete: bool = False
    pause_seconds: float = 0.0
    """Silence after it; not to be relied on before the next segment is there."""


class Script:
    """Turns text into segments of text tokens."""

    def __init__(
        self, encode: Callable[[str], list[int]], *, max_length: int, layout: LayoutName
    ) -> None:
        self.layout: LayoutName = layout
        self.segments: list[ScriptSegment] = []
        self.is_finished = False
        self._encode, self._max_length = encode, max_length
        self._text = ""

    @property
    def num_text_tokens(self) -> int:
        """Text tokens of all segments so far."""
        return sum(len(part.tokens) for part in self.segments)

    def feed(self, text: str) -> None:
        """Takes the next piece of the text."""
        self._text += text

    def finish(self) -> None:
        """The text is complete.

        Raises:
            ValueError: it holds nothing that can be said.
        """
        if self.is_finished:
            return
        self.is_finished = True
        for part in segment(
            "\n".join(normalize_paragraphs(self._text)), max_length=self._max_length
        ):
            self.segments.append(
                ScriptSegment(
                    tokens=self._encode(part.text),
                    is_complete=True,
                    pause_seconds=part.pause_seconds,
                )
            )
        if not self.segments:
            raise ValueError("the text holds nothing that can be said.")
