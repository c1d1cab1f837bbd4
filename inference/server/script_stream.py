"""A script on its way to a client: line after line, each at the same loudness.

Shapes: S samples of one chunk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import torch
from torch import Tensor

from inference.engine import EngineStream
from tokenlm.synthesis.script import even_line
from tokenlm.text.markup import Style
from tokenlm.text.script import ScriptLine


class ScriptStream(AsyncIterator[Tensor]):
    """Chunks of a waveform, float32 (S,): a line with the silence after it, or nothing.

    How loud a line is is known when it ends, so a line is sent as a whole. While it is being made,
    empty chunks come, which say that the models are at work.
    """

    def __init__(
        self,
        lines: Sequence[ScriptLine],
        open_line: Callable[[ScriptLine], Awaitable[EngineStream]],
        sample_rate: int,
    ) -> None:
        """Creates a stream; nothing is spoken yet.

        Args:
            lines: of the script.
            open_line: begins to speak a line.
            sample_rate: in hertz.
        """
        self._lines, self._open_line, self._sample_rate = list(lines), open_line, sample_rate
        self._streams: list[EngineStream] = []
        """Of the lines so far."""
        self._chunks: list[Tensor] = []
        """Of the line that is being spoken."""
        self._is_within_line = False

    async def __anext__(self) -> Tensor:
        """The next chunk (S,)."""
        if not self._is_within_line:
            if len(self._streams) == len(self._lines):
                raise StopAsyncIteration
            self._streams.append(await self._open_line(self._lines[len(self._streams)]))
            self._is_within_line, self._chunks = True, []
        stream = self._streams[-1]
        try:
            self._chunks.append(await anext(stream))
            return torch.zeros(0)
        except StopAsyncIteration:
            await stream.aclose()
        self._is_within_line = False
        line = self._lines[len(self._streams) - 1]
        waveform = even_line(
            torch.cat(self._chunks), self._sample_rate, stream.speech_tokens, stream.styles
        )
        pause = torch.zeros(round(line.pause * self._sample_rate))
        return torch.cat([waveform, pause])

    async def aclose(self) -> None:
        """Ends the stream; returns when everything of it is freed."""
        if self._streams:
            await self._streams[-1].aclose()

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Speech tokens of each segment so far."""
        return [tokens for stream in self._streams for tokens in stream.speech_tokens]

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment of a line, and at its end, line after line."""
        return [pause for stream in self._streams for pause in stream.pauses]

    @property
    def styles(self) -> list[Style]:
        """Styles of each segment so far."""
        return [style for stream in self._streams for style in stream.styles]

    @property
    def num_text_tokens(self) -> int:
        """Text tokens so far."""
        return sum(stream.num_text_tokens for stream in self._streams)

    @property
    def foreign_words(self) -> list[str]:
        """Words so far that are left out, each once."""
        return _once(word for stream in self._streams for word in stream.foreign_words)

    @property
    def unlisted_words(self) -> list[str]:
        """Words so far that no lexicon lists, each once."""
        return _once(word for stream in self._streams for word in stream.unlisted_words)


def _once(words: object) -> list[str]:
    return list(dict.fromkeys(words))  # type: ignore[call-overload]


__all__ = ["ScriptStream"]
