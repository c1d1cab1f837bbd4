"""What all routes share: engine, voices, admission, keys, figures; and how an utterance is spoken.

Shapes: S samples of one chunk.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.requests import HTTPConnection

from inference.server.auth import Keys
from inference.server.errors import ApiError, sentence
from inference.server.hosts import Hosts
from inference.server.limits import Admission
from inference.server.metrics import Metrics
from inference.server.provenance import Provenance
from inference.server.self_check import SelfCheck
from inference.server.settings import ServeConfig
from inference.server.token_log import TokenLog
from inference.server.utterance import SpeechStream, Utterance
from inference.server.voice_store import VoiceStore
from tokenlm.synthesis import Synthesizer, Voice, VoiceError
from tokenlm.text.frontend import frontend

CACHED_VOICES = 64
"""Voices that stay in memory."""
CHECK_TEXT = "Hello."
"""What a server says to itself to know whether it can."""


class SpeechEngine(Protocol):
    """What the server needs of `inference.engine.StreamEngine`."""

    @property
    def sample_rate(self) -> int:
        """Of the chunks, in hertz."""
        ...

    @property
    def num_live(self) -> int:
        """Sessions that are open."""
        ...

    async def open(
        self,
        text: str | AsyncIterable[str],
        *,
        voice: Voice | str | None = None,
        seed: int = 0,
        speed: float = 1.0,
        max_buffer_seconds: float = 10.0,
    ) -> SpeechStream:
        """Begins an utterance."""
        ...

    async def close(self, drain_seconds: float | None = None) -> None:
        """Ends the engine."""
        ...


class Service:
    """One server's state. The voices folder is all of it that outlives the process."""

    def __init__(
        self, config: ServeConfig, synthesizer: Synthesizer, engine: SpeechEngine, keys: Keys
    ) -> None:
        self.config = config
        self.synthesizer = synthesizer
        synthesizer.prompts.max_bytes = config.limits.max_prompt_bytes
        self.engine = engine
        self.keys = keys
        self.hosts = Hosts(config)
        self.bundle = synthesizer.components.manifest.name
        self.bundle_voices = tuple(synthesizer.voices)
        normalizer = synthesizer.components.text_tokenizer.config.normalizer
        self.words = frontend(normalizer).words
        """The words of a text as the bundle speaks them."""
        self.store = VoiceStore(config.voices, max_voices=config.limits.max_voices)
        self.admission = Admission(config.limits)
        self.metrics = Metrics()
        self.metrics.live_streams.set_function(lambda: self.admission.num_live)
        self.metrics.queue_length.set_function(lambda: self.admission.num_waiting)
        self.metrics.engine_sessions.set_function(lambda: self.engine.num_live)
        self.token_log = TokenLog(config.token_log)
        self.uploads = asyncio.Semaphore(1)
        self.num_uploads = 0
        self.num_sockets = 0
        self.metrics.sockets.set_function(lambda: self.num_sockets)
        self.self_check = SelfCheck(self._say_something, config.limits.stall_timeout_seconds)
        self._voices: OrderedDict[str, tuple[object, Voice]] = OrderedDict()

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the bundle: its own, and those that the settings give it."""
        return tuple(dict.fromkeys((self.bundle, *self.config.model_aliases)))

    def check_model(self, name: str | None) -> None:
        """Checks the name of a model that a client asks for.

        Raises:
            ApiError: 404.
        """
        if name is not None and name not in self.model_names:
            raise ApiError(
                404,
                f"The model {name[:80]!r} does not exist; this server has {self.bundle!r}.",
                param="model",
                code="model_not_found",
            )

    async def voice(self, name: str | None) -> tuple[str, Voice]:
        """A voice and its name; by default the first of the bundle.

        Raises:
            ApiError: 404, there is none of this name.
        """
        if name is None:
            if not self.bundle_voices:
                raise ApiError(400, "Name a voice: the bundle has none of its own.", param="voice")
            name = self.bundle_voices[0]
        try:
            return await asyncio.to_thread(self._find_voice, name)
        except VoiceError as error:
            raise ApiError(404, sentence(error), param="voice", code="voice_not_found") from error

    def _find_voice(self, name: str) -> tuple[str, Voice]:
        """A voice by its name or by another one that the settings give it, capital or small."""
        if self._has_voice(name):
            return name, self._load_voice(name)
        small = name.lower()
        for known in self.bundle_voices:
            if known.lower() == small:
                return known, self._load_voice(known)
        for alias, meant in self.config.voice_aliases.items():
            if alias.lower() == small:
                if not self._has_voice(meant):
                    raise VoiceError(
                        f"the voice {name[:80]!r} stands for {meant!r} here, which there is not; "
                        "see the setting voice_aliases."
                    )
                return meant, self._load_voice(meant)
        for known in self.store.names():
            if known.lower() == small:
                return known, self._load_voice(known)
        return name, self._load_voice(name)

    def _has_voice(self, name: str) -> bool:
        return name in self.bundle_voices or name in self.store

    def look_around(self) -> list[str]:
        """What whoever starts the server should know, a sentence each."""
        found = []
        if self.config.uploads and (reason := self.store.why_read_only()) is not None:
            found.append(f"clients cannot add voices: {reason}")
        aliases = self.config.voice_aliases.items()
        lost = [f"{alias}: {meant}" for alias, meant in aliases if not self._has_voice(meant)]
        if lost:
            found.append(f"voice_aliases name voices that are not there: {', '.join(lost)}")
        return found

    def _load_voice(self, name: str) -> Voice:
        """Never passes a name on that the lists do not have: it would be taken for a path."""
        builtin = name in self.bundle_voices
        version = () if builtin else self.store.version(name)
        known = self._voices.get(name)
        if known is not None and known[0] == version:
            return known[1]
        if version is None:
            shown = ", ".join(self.bundle_voices)
            raise VoiceError(
                f"there is no voice {name[:80]!r}; the bundle has {shown or 'none'}, and "
                "GET /v1/audio/voices lists all."
            )
        voice = self.synthesizer.voice(name) if builtin else self.store.load(name)
        self._voices[name] = version, voice
        while len(self._voices) > CACHED_VOICES:
            self._voices.popitem(last=False)
        return voice

    @asynccontextmanager
    async def speak(
        self,
        text: str | AsyncIterable[str],
        *,
        voice: str | None,
        seed: int,
        speed: float,
        request_id: str,
        asked_at: float,
        patience_seconds: float,
    ) -> AsyncIterator[Utterance]:
        """Waits for a slot and speaks a text while the block runs.

        Args:
            text: all of it, or the pieces in which it comes.
            voice: name of a voice.
            seed: of all draws.
            speed: 1 is that of the voice.
            request_id: for the log.
            asked_at: `time.perf_counter()` when the request came.
            patience_seconds: longest time between two chunks.

        Raises:
            ApiError: the client is refused; see `Admission.slot`.
        """
        name, prepared = await self.voice(voice)
        limits = self.config.limits
        async with self.admission.slot():
            try:
                stream = await self.engine.open(
                    text,
                    voice=prepared,
                    seed=seed,
                    speed=speed,
                    max_buffer_seconds=limits.max_buffer_seconds,
                )
            except VoiceError as error:  # made with other models, as when the bundle was changed
                raise ApiError(400, sentence(error), param="voice") from error
            except ValueError as error:
                raise ApiError(400, sentence(error), param="input") from error
            except Exception as error:
                self.self_check.note(error)
                raise
            provenance = Provenance(
                bundle=self.bundle, voice=name, seed=seed, request_id=request_id
            )
            utterance = Utterance(
                stream, provenance, self.engine.sample_rate, asked_at, patience_seconds
            )
            end = "left"
            try:
                async with asyncio.timeout(limits.stream_timeout_seconds):
                    yield utterance
                end = "done"
                if utterance.num_samples:
                    self.self_check.note(None)
            except ClientGoneError:
                raise
            except Exception as error:
                end = "failed"
                self.self_check.note(error)
                raise
            finally:
                try:
                    await stream.aclose()
                finally:
                    self._note(utterance, end, text, speed)

    async def _say_something(self) -> None:
        """Speaks a short sentence to nobody, past admission, figures and logs."""
        if not self.bundle_voices:
            return  # and no voice of a client need be there
        voice = await asyncio.to_thread(self._load_voice, self.bundle_voices[0])
        stream = await self.engine.open(CHECK_TEXT, voice=voice)
        try:
            heard = [chunk.shape[0] async for chunk in stream]
        finally:
            await stream.aclose()
        if not sum(heard):
            raise ApiError(500, "Nothing was heard.")

    def _note(
        self, utterance: Utterance, end: str, text: str | AsyncIterable[str], speed: float
    ) -> None:
        metrics = self.metrics
        metrics.utterances.labels(end=end).inc()
        metrics.audio_seconds.inc(utterance.seconds)
        if utterance.first_audio_seconds is not None:
            metrics.first_audio.observe(utterance.first_audio_seconds)
        if utterance.seconds > 0:
            metrics.real_time_factor.observe(utterance.waited_seconds / utterance.seconds)
        self.token_log.write(
            **utterance.provenance.facts(),
            end=end,
            speed=speed,
            text=text if isinstance(text, str) else None,
            num_samples=utterance.num_samples,
            speech_tokens=utterance.speech_tokens,
            pauses=utterance.pauses,
            time=time.time(),
        )


class ClientGoneError(Exception):
    """The client left, or takes nothing any more."""


def service_of(connection: HTTPConnection) -> Service:
    """The service of the app that handles a connection."""
    return connection.app.state.service
