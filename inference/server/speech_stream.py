"""A speech stream on its way to a client, and where it comes from.

Shapes: S samples of one chunk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from urllib.parse import quote

from torch import Tensor

from inference.engine import EngineStream
from inference.server.errors import ApiError, as_sentence
from inference.server.script_stream import ScriptStream
from tokenlm import __version__
from tokenlm.synthesis.words import Speech
from tokenlm.text.markup import PLAIN


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What every response and file says about itself: that it is synthesised, and by what."""

    bundle: str
    voice: str
    seed: int
    request_id: str

    @property
    def comment(self) -> str:
        """One line of text, for the comment field of a sound file."""
        return (
            f"Synthesised speech, not a recording: tokenlm {__version__}, bundle {self.bundle}, "
            f"voice {self.voice}, seed {self.seed}"
        )

    @property
    def headers(self) -> dict[str, str]:
        """Headers of an HTTP response; bundle and voice are percent-encoded."""
        return {
            "X-Synthesised": f"tokenlm/{__version__}",
            "X-Tokenlm-Bundle": quote(self.bundle, safe=" "),
            "X-Tokenlm-Voice": quote(self.voice, safe=" "),
            "X-Tokenlm-Seed": str(self.seed),
            "X-Request-Id": self.request_id,
        }

    def fields(self) -> dict[str, str | int | bool]:
        """The same facts as an object of JSON, in events and messages."""
        return {"synthesised": True, "by": f"tokenlm/{__version__}", **asdict(self)}


def words_of(chunk: Tensor) -> list[dict[str, str | float | int]]:
    """The timed words that come with a chunk, for JSON: the fields of `TimedWord`."""
    return [asdict(word) for word in chunk.words] if isinstance(chunk, Speech) else []


class SpeechStream(AsyncIterator[Tensor]):
    """Chunks of a waveform, (S,) each, with what the client and the logs learn about them."""

    def __init__(
        self,
        stream: EngineStream | ScriptStream,
        provenance: Provenance,
        sample_rate: int,
        requested_at: float,
        stall_seconds: float,
        *,
        reports_unlisted: bool = False,
    ) -> None:
        """Wraps a stream of the engine.

        Args:
            stream: the stream.
            provenance: where it comes from.
            sample_rate: in hertz.
            requested_at: `time.perf_counter()` of the request.
            stall_seconds: longest time that the engine may take for a chunk.
            reports_unlisted: whether the words that no lexicon lists are reported.
        """
        self.provenance = provenance
        self.sample_rate = sample_rate
        self.num_samples = 0
        """Samples so far."""
        self.first_audio_seconds: float | None = None
        """From the request to the first chunk."""
        self.waited_seconds = 0.0
        """Time spent waiting for the models."""
        self._stream = stream
        self._requested_at = requested_at
        self._stall_seconds = stall_seconds
        self._reports_unlisted = reports_unlisted

    @property
    def seconds(self) -> float:
        """Length of the speech so far, in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Speech tokens of every segment so far."""
        return [list(segment) for segment in self._stream.speech_tokens]

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment so far."""
        return list(self._stream.pauses)

    @property
    def style_fields(self) -> dict[str, list[dict[str, str | float]]]:
        """Styles of every segment so far, for a log; nothing where all are plain."""
        styles = self._stream.styles
        return (
            {"styles": [asdict(style) for style in styles]}
            if any(style != PLAIN for style in styles)
            else {}
        )

    @property
    def foreign_words(self) -> list[str]:
        """Words so far that are left out, being in a script that the bundle does not read."""
        return list(self._stream.foreign_words)

    @property
    def word_reports(self) -> dict[str, list[str]]:
        """Words so far that the client is to know of, for JSON."""
        reports = {"foreign_words": self.foreign_words}
        if self._reports_unlisted:
            reports["unlisted_words"] = list(self._stream.unlisted_words)
        return reports

    @property
    def usage(self) -> dict[str, int]:
        """Token counts in the form of OpenAI's API."""
        speech = sum(len(segment) for segment in self._stream.speech_tokens)
        text = self._stream.num_text_tokens
        return {"input_tokens": text, "output_tokens": speech, "total_tokens": text + speech}

    @property
    def timings(self) -> dict[str, float | int | None]:
        """Seconds for JSON: of the speech, until its first chunk, spent waiting for the models."""
        return {
            "seconds": round(self.seconds, 4),
            "first_audio_seconds": self.first_audio_seconds,
            "waited_seconds": round(self.waited_seconds, 4),
        }

    async def __anext__(self) -> Tensor:
        """The next chunk (S,).

        Raises:
            ApiError: before the first chunk, 400 for a text that cannot be said; 500 if the models
                stall.
        """
        # If neither the models nor the client are waited for, other tasks still get a turn.
        await asyncio.sleep(0)
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._stall_seconds) as timeout:
                chunk = await anext(self._stream)
        except ValueError as error:
            if self.num_samples:
                raise
            raise ApiError(400, as_sentence(error), param="input") from error
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ApiError(
                500, f"The models gave nothing for {self._stall_seconds:g} s.", code="stalled"
            ) from None
        now = time.perf_counter()
        self.waited_seconds += now - start
        if self.first_audio_seconds is None and chunk.shape[0]:
            self.first_audio_seconds = now - self._requested_at
        self.num_samples += chunk.shape[0]
        return chunk


__all__ = ["Provenance", "SpeechStream", "words_of"]
