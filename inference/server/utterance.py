"""One utterance on its way to a client.

Shapes: S samples of one chunk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Protocol

from torch import Tensor

from inference.server.errors import ApiError, sentence
from inference.server.provenance import Provenance


class SpeechStream(Protocol):
    """What the server needs of `inference.engine.EngineStream`."""

    def __aiter__(self) -> AsyncIterator[Tensor]:
        """Chunks of the waveform, (S,) each."""
        ...

    async def __anext__(self) -> Tensor:
        """The next chunk (S,)."""
        ...

    async def aclose(self) -> None:
        """Frees all that it holds, at its end or before."""
        ...

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Tokens so far, of every segment."""
        ...

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment so far."""
        ...

    @property
    def num_text_tokens(self) -> int:
        """Tokens of the text so far."""
        ...

    @property
    def foreign_words(self) -> list[str]:
        """Words of the text so far that are left out, being in a script that is not read."""
        ...


class Utterance:
    """Chunks of a waveform, and what is to be said about them. Iterate it once."""

    def __init__(
        self,
        stream: SpeechStream,
        provenance: Provenance,
        sample_rate: int,
        asked_at: float,
        patience_seconds: float,
    ) -> None:
        self.provenance = provenance
        self.sample_rate = sample_rate
        self.num_samples = 0
        """Samples that came so far."""
        self.first_audio_seconds: float | None = None
        """From the request to the first chunk."""
        self.waited_seconds = 0.0
        """Time spent waiting for the models."""
        self._stream = stream
        self._asked_at = asked_at
        self._patience_seconds = patience_seconds

    @property
    def seconds(self) -> float:
        """Length of what came so far."""
        return self.num_samples / self.sample_rate

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Tokens so far, of every segment."""
        return [list(segment) for segment in self._stream.speech_tokens]

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment so far."""
        return list(self._stream.pauses)

    @property
    def foreign_words(self) -> list[str]:
        """Words so far that are left out, being in a script that the bundle does not read."""
        return list(self._stream.foreign_words)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens as OpenAI's API counts them."""
        spoken = sum(len(segment) for segment in self._stream.speech_tokens)
        text = self._stream.num_text_tokens
        return {"input_tokens": text, "output_tokens": spoken, "total_tokens": text + spoken}

    def facts(self) -> dict[str, float | int | None]:
        """Timings, for JSON."""
        return {
            "seconds": round(self.seconds, 4),
            "first_audio_seconds": self.first_audio_seconds,
            "waited_seconds": round(self.waited_seconds, 4),
        }

    def __aiter__(self) -> AsyncIterator[Tensor]:
        return self

    async def __anext__(self) -> Tensor:
        """The next chunk (S,).

        Raises:
            ApiError: before the first chunk, 400 for a text that cannot be said; 500 where the
                models give nothing for too long.
        """
        # Where neither the models nor the client are waited for, everybody else still has a turn.
        await asyncio.sleep(0)
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience_seconds) as patience:
                chunk = await anext(self._stream)
        except ValueError as error:
            if self.num_samples:
                raise
            raise ApiError(400, sentence(error), param="input") from error
        except TimeoutError:
            if not patience.expired():
                raise
            raise ApiError(
                500, f"The models gave nothing for {self._patience_seconds:g} s.", code="stalled"
            ) from None
        now = time.perf_counter()
        self.waited_seconds += now - start
        if self.first_audio_seconds is None:
            self.first_audio_seconds = now - self._asked_at
        self.num_samples += chunk.shape[0]
        return chunk
