"""The text of a request, whole or while it comes in: segments and their text tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenlm.models.lm.layout import LayoutName
from tokenlm.text.frontend import Frontend, frontend
from tokenlm.text.segmentation import (
    GreedySegmenter,
    IncrementalSegmenter,
    PartialSegment,
    Segmenter,
)
from tokenlm.text.symbols import ForeignWords
from tokenlm.text.written import WrittenWords

_PROBES = (" a", ".")
"""What may follow a text: tokens that it changes are not final."""
_CLOSING = tuple(".?!,…。？！，、")
"""Marks behind which a segment may end as it is."""


@dataclass
class TextSegment:
    """A part of the text that is spoken in one go, as far as it is known."""

    tokens: list[int] = field(default_factory=list)
    """Text tokens so far."""
    text: str = ""
    """The words of these, normalised where the front-end does."""
    words: list[str] = field(default_factory=list)
    """The words without a final mark that was added."""
    is_complete: bool = False
    pause_seconds: float = 0.0
    """Silence after it; not to be relied on before the next segment is there."""


class SegmentedText:
    """Splits text, whole or in pieces, into segments of text tokens.

    In the one-shot layout a segment is added when it is complete, in the interleaved one as soon as
    it begins. Segments do not depend on how the text is cut into pieces.

    One thread may read the segments while another one feeds: tokens, pauses and segments are only
    appended, and flags that say that something is complete are written last; read those first.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        *,
        max_length: int,
        layout: LayoutName,
        text_frontend: Frontend | None = None,
        instruction_end: str = "",
        encode_prefix: Callable[[str], list[int]] | None = None,
        keep_written: bool = False,
    ) -> None:
        """Creates an empty text.

        Args:
            encode: of the text tokenizer.
            max_length: most characters of a segment.
            layout: of text and speech in the LM.
            text_frontend: default that of English.
            instruction_end: what ends an instruction, which is an error in a text: only the first
                of its segments would follow what stands before it.
            encode_prefix: of a tokenizer whose tokens depend on the following words: those that are
                final. Without it, tokens are final that a further word or mark does not change.
            keep_written: whether to find the written word of each spoken one.
        """
        self.layout: LayoutName = layout
        self.segments: list[TextSegment] = []
        self.is_finished = False
        """Whether the text is complete."""
        self._encode, self._encode_prefix = encode, encode_prefix
        self._instruction_end = instruction_end
        self._frontend = text_frontend or frontend("english")
        self.written = WrittenWords(self._frontend) if keep_written else None
        """The written words, where they are kept."""
        self._reader = self._frontend.reader()
        self._foreign = ForeignWords() if self._frontend.drops_foreign_words else None
        kind = GreedySegmenter if layout == "interleaved" else IncrementalSegmenter
        self._segmenter: Segmenter = kind(max_length=max_length, rules=self._frontend.rules)

    @property
    def foreign_words(self) -> list[str]:
        """Words so far that are left out because the front-end does not read their script.

        A warning that names them is logged when the text is complete.
        """
        return [] if self._foreign is None else self._foreign.words

    @property
    def num_text_tokens(self) -> int:
        """Text tokens of all segments so far."""
        return sum(len(part.tokens) for part in self.segments)

    def read(self, text: str) -> None:
        """Sets the whole text, in place of `feed` and `finish`.

        Raises:
            ValueError: it holds nothing that can be said.
        """
        if self._foreign is not None:
            self._foreign.feed(text)
        if self.written is not None:
            self.written.feed(text)
        self._add(self._frontend.words(text))
        self.finish()

    def feed(self, piece: str) -> None:
        """Appends the next piece of the text."""
        assert not self.is_finished
        if self._foreign is not None:
            self._foreign.feed(piece)
        if self.written is None:
            self._add(self._reader.feed(piece))
            return
        for character in piece:  # one by one, so that it does not matter how the text is cut
            self.written.feed(character)
            self._add(self._reader.feed(character))

    def finish(self) -> None:
        """Marks the text as complete.

        Raises:
            ValueError: it holds nothing that can be said.
        """
        if self.is_finished:
            return
        if self._foreign is not None:
            self._foreign.finish()
        self._add(self._reader.finish())
        if self.written is not None:
            self.written.finish()
        self._segmenter.finish()
        self._tokenize()
        if not any(c.isalnum() for part in self.segments for c in part.text):
            raise ValueError("the text holds nothing that can be said.")
        self.is_finished = True

    def _add(self, words: list[str]) -> None:
        if self.written is not None and words:
            self.written.add(words)
        for word in words:
            self._segmenter.add(word)
        if words:
            self._tokenize()

    def _tokenize(self) -> None:
        known = self._segmenter.segments
        # The last segment of before may have grown or been given another pause.
        for number in range(max(len(self.segments) - 1, 0), len(known)):
            is_new = number == len(self.segments)
            segment = TextSegment() if is_new else self.segments[number]
            self._update(segment, known[number])
            if is_new:
                self.segments.append(segment)

    def _update(self, segment: TextSegment, source: PartialSegment) -> None:
        segment.pause_seconds = source.pause_seconds
        if segment.is_complete:
            return
        text = source.text
        if self._instruction_end and self._instruction_end in text:
            raise ValueError(
                f"the text holds {self._instruction_end}: give what stands before it apart, as the "
                "instruction of the request (--instruct)."
            )
        if source.is_complete:
            text = add_final_mark(text, may_replace=not segment.tokens)
        segment.text, segment.words = text, list(source.words)
        tokens = self._encode(text)
        count = len(tokens)
        if not source.is_complete and self._encode_prefix:
            count = len(self._encode_prefix(text))
        elif not source.is_complete:
            others = [text + probe for probe in _PROBES]
            if self._frontend.rules.lookahead_words:
                others.append(self._without_tail(source.words))
            count = min(_agreeing(tokens, self._encode(other)) for other in others)
        segment.tokens += tokens[len(segment.tokens) : count]
        segment.is_complete = source.is_complete

    def _without_tail(self, words: list[str]) -> str:
        """Words without the last ones that no space parts: what follows may change their tokens."""
        rules, end = self._frontend.rules, len(words)
        first = max(len(words) - rules.lookahead_words, 0)
        while end > first and not words[end - 1].startswith(" "):
            end -= 1
        return rules.join(words[:end]).strip()


def _agreeing(tokens: list[int], others: list[int]) -> int:
    """Length of the longest common start."""
    pairs = enumerate(zip(tokens, others, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(tokens), len(others)))


def add_final_mark(text: str, *, may_replace: bool = True) -> str:
    """Adds a full stop to a segment that has no mark at its end.

    Speech LMs learn from sentences. Without a final mark they do not know where to stop, and invent
    further words.

    Args:
        text: normalised text of a segment.
        may_replace: whether a semicolon, colon or dash at the end gives way to a full stop. Where
            it has been spoken to the LM already, it stays.

    Returns:
        The text, or the text with a full stop (of its script).
    """
    bare = text.rstrip("\"'”’»)]」』")
    if bare.endswith(_CLOSING) or not bare:
        return text
    if not bare[-1].isalnum():
        if not may_replace:
            return text
        text = bare.rstrip(";:-–—；： ")
        if not text:
            return bare
        if text.endswith(_CLOSING):
            return text
    return text + ("。" if "\u3040" <= text[-1] <= "\u9fff" else ".")
