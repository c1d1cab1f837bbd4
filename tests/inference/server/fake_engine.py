"""An engine without models: tones, made when they are asked for, and mischief on demand."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable

import torch
from torch import Tensor

from inference.server.service import CHECK_TEXT
from tokenlm.synthesis import Voice
from tokenlm.synthesis.words import Speech, TimedWord
from tokenlm.text.markup import Style
from tokenlm.text.pronunciation import LexiconSource

SAMPLE_RATE = 24_000
CHUNK_SAMPLES = 2_400


def tone(seed: int, num_chunks: int) -> Tensor:
    """What the fake engine says (S,) with this seed, in so many chunks."""
    time = torch.arange(num_chunks * CHUNK_SAMPLES) / SAMPLE_RATE
    return 0.3 * torch.sin(2 * math.pi * (200.0 + 50.0 * seed) * time)


class FakeStream:
    """A chunk of 0.1 s for every word of the text.

    Words that do more: `wait`: until the gate of the engine is open. `break`: an error of the
    models. `stall`: nothing comes any more.
    """

    def __init__(
        self, engine: FakeEngine, text: str | AsyncIterable[str], seed: int, word_times: bool
    ) -> None:
        self.engine = engine
        self.seed = seed
        self.word_times = word_times
        self.words: list[str] = []
        self.num_made = 0
        self.duration: float | None = None
        self.is_closed = False
        self.text = text if isinstance(text, str) else ""
        self._words = self._read(text)

    async def _read(self, text: str | AsyncIterable[str]) -> AsyncIterator[str]:
        rest = ""
        if isinstance(text, str):
            rest = text
        else:
            async for piece in text:
                self.text += piece
                *whole, rest = (rest + piece).split(" ")
                for word in whole:
                    yield word
        for word in rest.split():
            yield word

    @property
    def speech_tokens(self) -> list[list[int]]:
        return [[number % 27 for number in range(3 * self.num_made)]]

    @property
    def pauses(self) -> list[float]:
        return [0.0]

    @property
    def styles(self) -> list[Style]:
        return [Style()]

    @property
    def num_text_tokens(self) -> int:
        return len(self.words)

    @property
    def foreign_words(self) -> list[str]:
        return [word for word in self.text.split() if not word.isascii()]

    @property
    def unlisted_words(self) -> list[str]:
        return [word for word in self.text.split() if word.isascii()]

    def __aiter__(self) -> AsyncIterator[Tensor]:
        return self

    async def __anext__(self) -> Tensor:
        assert not self.is_closed
        word = await anext(self._words)
        self.words.append(word)
        if word == "wait":
            await asyncio.to_thread(self.engine.gate.wait, 20.0)
        elif word == "break":
            raise RuntimeError("the models broke")
        elif word == "stall":
            await asyncio.sleep(1000.0)
        elif word == "unsayable":
            raise ValueError("the text holds nothing that can be said.")
        self.num_made += 1
        chunk = tone(self.seed, self.num_made)[-CHUNK_SAMPLES:]
        return Speech.of(chunk, [self._timed(word)]) if self.word_times else chunk

    def _timed(self, word: str) -> TimedWord:
        """A word that fills its chunk."""
        place = sum(len(before) + 1 for before in self.words[:-1])
        return TimedWord(
            text=word,
            spoken=word,
            start_seconds=0.1 * (self.num_made - 1),
            end_seconds=0.1 * self.num_made,
            text_start=place,
            text_end=place + len(word),
        )

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.engine.live.discard(self)


class FakeEngine:
    """See `FakeStream`. Nothing is said by one that is broken."""

    breaks_at_start = False

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.live: set[FakeStream] = set()
        self.opened: list[FakeStream] = []
        self.voices: list[Voice | str | None] = []
        self.is_closed = False
        self.num_checks = 0
        self.is_broken = self.breaks_at_start

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def num_live(self) -> int:
        return len(self.live)

    async def open(
        self,
        text: str | AsyncIterable[str],
        *,
        voice: Voice | str | None = None,
        seed: int = 0,
        speed: float = 1.0,
        lexicon: LexiconSource = None,
        word_times: bool = False,
        duration: float | None = None,
        instruction: str = "",
        max_buffer_seconds: float = 10.0,
        markup: bool = True,
        sentence_gap: float | None = None,
        paragraph_gap: float | None = None,
        find_voice: Callable[[str], Voice] | None = None,
    ) -> FakeStream:
        if isinstance(text, str) and not text.strip():
            raise ValueError("the text holds nothing that can be said.")
        if duration == 0.01:
            raise ValueError("this text cannot be spoken in 0.01 s.")
        if self.is_broken:
            raise RuntimeError("the models broke")
        stream = FakeStream(self, text, seed, word_times)
        stream.duration = duration
        self.live.add(stream)
        if text == CHECK_TEXT:  # what the server says to itself
            self.num_checks += 1
        else:
            self.opened.append(stream)
            self.voices.append(voice)
        return stream

    async def close(self, drain_seconds: float | None = None) -> None:
        self.is_closed = True
