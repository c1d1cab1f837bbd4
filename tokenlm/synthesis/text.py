"""The text of a request, whole or while it comes in: segments and their text tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenlm.models.lm.layout import LayoutName
from tokenlm.text.markup import (
    PLAIN,
    MarkupReader,
    Pause,
    SentenceEnd,
    Span,
    Style,
    Text,
    joined_spans,
)
from tokenlm.text.normalize import BLANK_LINE, Frontend, WrittenWords, frontend
from tokenlm.text.pronunciation import Respeller
from tokenlm.text.segmentation import (
    GreedySegmenter,
    IncrementalSegmenter,
    PartialSegment,
    SegmentationRules,
    Segmenter,
)
from tokenlm.text.symbols import ForeignWords

MIN_LENGTH = 20
"""Characters of the shortest segment; a shorter sentence is joined to a neighbour."""
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
    """Silence after it, at a speed of 1; not to be relied on before the next segment is there, or
    the text is finished."""
    style: Style = PLAIN


class SegmentedText:
    """Splits text, whole or in pieces, into segments of text tokens.

    What markup parts (a pause, a change of the style) is split apart.

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
        respeller: Respeller | None = None,
        markup: MarkupReader | None = None,
        sentence_gap: float | None = None,
        paragraph_gap: float | None = None,
        exact_pause: Callable[[float], float] = float,
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
            respeller: writes words of a user's lexicon; default none.
            markup: reads the markup of the text; default it has none.
            sentence_gap: seconds of silence after each sentence, each then being a segment; default
                those of the front-end.
            paragraph_gap: seconds after each paragraph, likewise.
            exact_pause: gives the pause at a speed of 1 that lasts so many seconds in the end.
            keep_written: whether to find the written word of each spoken one.
        """
        self._respeller = respeller
        self.layout: LayoutName = layout
        self.segments: list[TextSegment] = []
        self.is_finished = False
        """Whether the text is complete."""
        self.lead_seconds = 0.0
        """Silence before the first segment, at a speed of 1."""
        self._encode, self._encode_prefix = encode, encode_prefix
        self._instruction_end = instruction_end
        self._frontend = text_frontend or frontend("english")
        self.written: WrittenWords | None = None
        """The written words, where they are kept."""
        if keep_written:
            self.written = WrittenWords(
                self._frontend,
                respell=respeller,
                unspell=str if markup is None else markup.as_written,
            )
        self._foreign = ForeignWords() if self._frontend.drops_foreign_words else None
        self._markup, self._exact_pause = markup, exact_pause
        self._rules: SegmentationRules = self._frontend.rules.with_gaps(
            *(None if gap is None else exact_pause(gap) for gap in (sentence_gap, paragraph_gap))
        )
        self._max_length = max_length
        # What is to be parted by a gap is not joined, however short it is.
        self._min_length = MIN_LENGTH if sentence_gap is None else 0
        self._style = PLAIN
        self._pause: float | None = None
        """Seconds of the pauses behind the last segment, where there are any."""
        self._blank = ""
        """White space that the text so far ends with."""
        self._begin_stretch()

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

    def read(self, text: str, *, warns: bool = True) -> None:
        """Sets the whole text, in place of `feed` and `finish`.

        Args:
            text: all of it.
            warns: whether to log the words that are left out; not where the same text is read
                again.

        Raises:
            ValueError: it holds nothing that can be said, or markup that is not understood.
        """
        if self._markup is None:
            spans: list[Span] = [Text(text)]
        else:
            spans = joined_spans([*self._markup.feed(text), *self._markup.finish()])
        self._keep_written(text)
        for span in spans:
            self._add_span(span, is_whole=True)
        self._complete(warns=warns)

    def feed(self, piece: str) -> None:
        """Appends the next piece of the text.

        Raises:
            MarkupError: it holds markup that is not understood.
            ValueError: it is no string.
        """
        assert not self.is_finished
        if not isinstance(piece, str):
            raise ValueError(f"pieces of a text are strings, not {type(piece).__name__}.")
        if self.written is None:
            self._feed(piece)
            return
        for character in piece:  # one by one, so that it does not matter how the text is cut
            self._feed(character)

    def _feed(self, piece: str) -> None:
        spans = [Text(piece)] if self._markup is None else self._markup.feed(piece)
        self._keep_written(piece)
        for span in spans:
            self._add_span(span)

    def _keep_written(self, piece: str) -> None:
        """Keeps the words of a piece, or those that the reader of markup has settled with it."""
        words = piece if self._markup is None else self._markup.take_words()
        if self.written is not None:
            self.written.feed(words)

    def finish(self) -> None:
        """Marks the text as complete.

        Raises:
            ValueError: it holds nothing that can be said, or an element that is not closed.
        """
        if self.is_finished:
            return
        spans = [] if self._markup is None else self._markup.finish()
        self._keep_written("")
        for span in spans:
            self._add_span(span)
        self._complete()

    def _complete(self, *, warns: bool = True) -> None:
        self._finish_respelling()
        if self._foreign is not None:
            self._foreign.finish(warns=warns)
        self._end_stretch()
        if self.written is not None:
            self.written.finish()
        if not any(c.isalnum() for part in self.segments for c in part.text):
            raise ValueError("the text holds nothing that can be said.")
        if self._pause is None:
            self.segments[-1].pause_seconds = 0.0
        self.is_finished = True

    # -- stretches: what is spoken in one style, without a pause of the markup -------------------

    def _begin_stretch(self) -> None:
        kind = GreedySegmenter if self.layout == "interleaved" else IncrementalSegmenter
        self._segmenter: Segmenter = kind(
            max_length=self._max_length, min_length=self._min_length, rules=self._rules
        )
        self._reader = self._frontend.reader()
        self._num_before = len(self.segments)
        """Segments of the stretches before."""
        self._silent_words: list[str] | None = []
        """Marks before the first word of the stretch; None behind it."""
        self._is_at_start = True
        """Whether there has been nothing but white space."""

    def _end_stretch(self) -> None:
        """Completes what has been read: what follows is spoken apart."""
        self._finish_respelling()
        self._add(self._reader.finish())
        self._segmenter.close()
        self._tokenize()
        self._begin_stretch()

    def _finish_respelling(self) -> None:
        if self._respeller is not None and (rest := self._respeller.finish()):
            self._read(rest)

    def _add_span(self, span: Span, *, is_whole: bool = False) -> None:
        """Adds a part of the text; `is_whole` says that a text is all of its stretch."""
        if isinstance(span, Text):
            self._note_paragraph(span.text)
            text = span.text
            if self._respeller is not None:
                text = self._respeller(text) if is_whole else self._respeller.feed(text)
            self._read(text, is_whole=is_whole)
            return
        self._end_stretch()
        if isinstance(span, Style):
            self._style = span
        elif isinstance(span, Pause):
            self._pause = (self._pause or 0.0) + span.seconds
            pause = self._exact_pause(self._pause)
            if self.segments:
                self.segments[-1].pause_seconds = pause
            else:
                self.lead_seconds = pause
        elif isinstance(span, SentenceEnd) and self.segments and self._pause is None:
            last = self.segments[-1]
            # The mark that was added to it, if it had none.
            last.pause_seconds = max(last.pause_seconds, self._rules.pause(last.text))

    def _note_paragraph(self, text: str) -> None:
        """Parts stretches as paragraphs where there is a blank line between them."""
        body = text.lstrip()
        self._blank += text[: len(text) - len(body)]
        ends_paragraph = BLANK_LINE.search(self._blank) is not None
        if ends_paragraph:
            self._blank = "\n\n"
        if body:
            if ends_paragraph and self._is_at_start and self.segments and self._pause is None:
                self.segments[-1].pause_seconds = self._rules.paragraph_pause
            self._is_at_start = False
            self._blank = text[len(text.rstrip()) :]

    def _read(self, text: str, *, is_whole: bool = False) -> None:
        if self._foreign is not None:
            self._foreign.feed(text)
        self._add(self._frontend.words(text) if is_whole else self._reader.feed(text))

    def _add(self, words: list[str]) -> None:
        if self._silent_words is not None:
            # Marks alone, such as those between two elements, are no segment.
            is_silent = not any(c.isalnum() for word in words for c in word)
            self._silent_words += words
            if is_silent:
                return
            words, self._silent_words, self._pause = self._silent_words, None, None
        if self.written is not None and words:
            self.written.add(words)
        for word in words:
            self._segmenter.add(word)
        if words:
            self._tokenize()

    def _tokenize(self) -> None:
        known = self._segmenter.segments
        # The last segment of before may have grown or been given another pause.
        before = self._num_before
        for number in range(max(len(self.segments) - 1, before), before + len(known)):
            is_new = number == len(self.segments)
            segment = TextSegment(style=self._style) if is_new else self.segments[number]
            self._update(segment, known[number - before])
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
