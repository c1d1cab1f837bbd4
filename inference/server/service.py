"""The state that all routes share, and how speech is made with it.

Shapes: S samples of one chunk.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.requests import HTTPConnection

from inference.consent.manager import ConsentManager
from inference.engine import EngineStream, StreamEngine
from inference.server.admission import Admission
from inference.server.errors import ApiError, as_sentence
from inference.server.monitoring import HealthCheck, Metrics, TokenLog
from inference.server.script_stream import ScriptStream
from inference.server.settings import ServeConfig
from inference.server.speech_stream import Provenance, SpeechStream
from inference.server.voice_store import VoiceStore
from tokenlm.checkpoint.adapter import AdapterError
from tokenlm.checkpoint.bundle import BundleError
from tokenlm.checkpoint.resolve import ResolveError, mixture_parts
from tokenlm.synthesis import Synthesizer, Voice, VoiceError
from tokenlm.synthesis.script import check_lines
from tokenlm.synthesis.voice_space import ATTRIBUTES, DescriptionError
from tokenlm.text.normalize import frontend
from tokenlm.text.pronunciation import LexiconError, UserLexicon
from tokenlm.text.script import ScriptLine

logger = logging.getLogger(__name__)

CACHED_VOICES = 64
"""Voices that are kept in memory."""
CHECK_TEXT = "Hello."
"""Text of the health check."""


class ClientGoneError(Exception):
    """The client left, or has not taken anything for too long."""


class VoiceDesignError(ValueError):
    """A voice that cannot be designed as asked."""


class BrokenVoiceError(ValueError):
    """A voice of the server whose adapter cannot be used; the log says why."""


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("it is a number, not true or false.")
    return value


Number = Annotated[float, BeforeValidator(_no_truth_value)]
Whole = Annotated[int, BeforeValidator(_no_truth_value)]


class RequestBody(BaseModel):
    """What a client sends; null is the same as nothing, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, values: Any) -> Any:
        """Drops null, which many clients send for what they do not set."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in fields or fields[name].is_required()
        }


class VoiceDesign(RequestBody):
    """How to design a voice that nobody has."""

    description: Annotated[
        str, Field(max_length=500, description="In words: a calm older man.")
    ] = ""
    attributes: Annotated[
        dict[str, Number],
        Field(max_length=16, description="Of the bundle, in standard deviations, -3 to 3."),
    ] = {}
    base: Annotated[str | None, Field(description="A voice that is changed; else a new one.")] = (
        None
    )
    seed: Annotated[Whole, Field(ge=0, lt=2**31, description="Of what is left open.")] = 0


def _file_version(path: Path) -> tuple[int, int] | None:
    """Changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def describe_attributes(synthesizer: Synthesizer) -> dict[str, str]:
    """Attributes by which voices can be designed, and what they mean; none of most bundles."""
    try:
        names = synthesizer.voice_space.names
    except BundleError:
        return {}
    return {name: ATTRIBUTES.get(name, "") for name in names}


class Service:
    """State of one server. The folder of voices is all of it that outlives the process."""

    def __init__(self, config: ServeConfig, synthesizer: Synthesizer, engine: StreamEngine) -> None:
        """Creates the state of a server that has not spoken yet.

        Args:
            config: limits, folders and names.
            synthesizer: the bundle, for voices and for checks of scripts.
            engine: speaks requests with the same models.
        """
        self.config = config
        self.synthesizer = synthesizer
        synthesizer.prompts.max_bytes = config.limits.max_prompt_bytes
        synthesizer.adapters.max_bytes = config.limits.max_adapter_bytes
        self.engine = engine
        self.bundle = synthesizer.components.manifest.name
        self.bundle_voices = tuple(dict.fromkeys((*synthesizer.voices, *config.voice_files)))
        """Voices that clients cannot change: those of the bundle and of the settings."""
        self.voice_attributes = describe_attributes(synthesizer)
        normalizer = synthesizer.components.text_tokenizer.config.normalizer
        self.spoken_words = frontend(normalizer).words
        """Function from a text to its words as they are spoken."""
        self.store = VoiceStore(config.voices, max_voices=config.limits.max_voices)
        self.consent = ConsentManager(
            config.consent,
            config.consent_policy,
            lambda: synthesizer.components,
            key=config.voices / ".key",
        )
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
        self.health = HealthCheck(self._speak_check_text, config.limits.stall_timeout_seconds)
        self._voices: OrderedDict[str, tuple[object, Voice]] = OrderedDict()

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the bundle: its own and its aliases."""
        return tuple(dict.fromkeys((self.bundle, *self.config.model_aliases)))

    @property
    def times_words(self) -> bool:
        """Whether the bundle can time words: it has a token recogniser."""
        return self.synthesizer.components.has_token_recognizer

    def check_word_times(self, word_times: bool) -> None:
        """Checks that the bundle can time words, if a request asks for that.

        Raises:
            ApiError: 400.
        """
        if word_times and not self.times_words:
            raise ApiError(
                400,
                f"The model {self.bundle!r} has no token recogniser, which times of words need.",
                param="word_times",
                code="unsupported",
            )

    @property
    def follows_instructions(self) -> bool:
        """Whether the bundle can be told in words how to speak."""
        return bool(self.synthesizer.components.generation.instruction_end)

    def check_instruction(self, text: str | None, param: str = "instructions") -> str:
        """Checks that the bundle can follow what a field of this path asks for.

        Returns:
            The instruction; empty where there is none.

        Raises:
            ApiError: 400.
        """
        instruction = (text or "").strip()
        if instruction and not self.follows_instructions:
            place = "" if param == "instructions" else f"{param}: "
            raise ApiError(
                400,
                f"{place}The model {self.bundle!r} cannot follow instructions; leave them out.",
                param=param,
                code="unsupported",
            )
        return instruction

    def check_model(self, name: str | None) -> None:
        """Checks the name of a model in a request.

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

    async def voice(self, name: str | VoiceDesign | None) -> tuple[str, Voice]:
        """A voice and its name; by default the first of the bundle.

        Args:
            name: of a voice, of a mixture such as `ann:0.7+bob:0.3`, or how to design one.

        Raises:
            ApiError: 404, there is none of this name; 400, none can be designed so; 500, its
                adapter cannot be used.
        """
        if name is None:
            if not self.bundle_voices:
                raise ApiError(400, "Name a voice: the bundle has none of its own.", param="voice")
            name = self.bundle_voices[0]
        try:
            if isinstance(name, VoiceDesign):
                return await asyncio.to_thread(self._design_voice, name)
            return await asyncio.to_thread(self._find_voice, name)
        except BrokenVoiceError as error:
            raise ApiError(500, str(error), param="voice") from error
        except (ResolveError, BundleError, DescriptionError, VoiceDesignError) as error:
            raise ApiError(400, as_sentence(error), param="voice") from error
        except VoiceError as error:
            raise ApiError(
                404, as_sentence(error), param="voice", code="voice_not_found"
            ) from error

    def _find_voice(self, name: str) -> tuple[str, Voice]:
        """Finds a voice by its name or an alias, in capital or small letters."""
        if self._has_voice(name):
            return name, self._load_voice(name)
        if "+" in name or ":" in name:  # no name has either
            parts = mixture_parts(name, may_be_paths=False)
            found = [(self._find_voice(part)[1], weight) for part, weight in parts]
            return name, self.synthesizer.mix_voices(found, name=name)
        lower = name.lower()
        for known in self.bundle_voices:
            if known.lower() == lower:
                return known, self._load_voice(known)
        for alias, target in self.config.voice_aliases.items():
            if alias.lower() == lower:
                if not self._has_voice(target):
                    raise VoiceError(
                        f"the voice {name[:80]!r} stands for {target!r} here, which there is not; "
                        "see the setting voice_aliases."
                    )
                return target, self._load_voice(target)
        for known in self.store.names():
            if known.lower() == lower:
                return known, self._load_voice(known)
        return name, self._load_voice(name)

    def _design_voice(self, design: VoiceDesign) -> tuple[str, Voice]:
        """Designs a voice, or finds it among the latest."""
        key = design.model_dump_json()
        cached = self._voices.get(key)
        if cached is not None:
            return "designed", cached[1]
        base = None if design.base is None else self._find_voice(design.base)[1]
        try:
            voice = self.synthesizer.design_voice(
                design.attributes,
                description=design.description,
                base=base,
                seed=design.seed,
            )
        except VoiceError as error:
            raise VoiceDesignError(str(error)) from error
        self._keep_voice(key, (), voice)
        return "designed", voice

    def _keep_voice(self, name: str, version: object, voice: Voice) -> None:
        self._voices[name] = version, voice
        while len(self._voices) > CACHED_VOICES:
            self._voices.popitem(last=False)

    def _has_voice(self, name: str) -> bool:
        return name in self.bundle_voices or name in self.store

    def startup_warnings(self) -> list[str]:
        """What the operator should know at the start, a sentence each."""
        warnings = []
        if self.config.uploads and (reason := self.store.why_read_only()) is not None:
            warnings.append(f"clients cannot add voices: {reason}")
        elif self.config.uploads and self.consent.policy == "required":
            if (reason := self.consent.why_not_verifiable()) is not None:
                warnings.append(f"clients cannot add voices: {reason}")
            elif not self.consent.verifier.detects_synthetic:
                warnings.append(
                    "nothing says whether a spoken consent is itself synthetic: the setting "
                    "consent.synthetic_detector names no model."
                )
        for name, path in self.config.voice_files.items():
            if not path.is_file():
                warnings.append(f"voice_files: {name} is {path}, which is not there")
                continue
            try:
                self.synthesizer.voice(path)
            except (AdapterError, VoiceError) as error:
                warnings.append(f"voice_files: {name} cannot be used: {error}")
        aliases = self.config.voice_aliases.items()
        missing = [f"{alias}: {target}" for alias, target in aliases if not self._has_voice(target)]
        if missing:
            warnings.append(f"voice_aliases name voices that are not there: {', '.join(missing)}")
        return warnings

    def _load_voice(self, name: str) -> Voice:
        """Loads a voice of the bundle or the store; another name would be taken for a path."""
        builtin, file = name in self.bundle_voices, self.config.voice_files.get(name)
        version: object = ()
        if file is not None:
            version = _file_version(file)
        elif not builtin:
            version = self.store.version(name)
        if version is None and builtin:
            raise VoiceError(f"the file of the voice {name!r} is not there.")
        if version is None:
            shown = ", ".join(self.bundle_voices)
            raise VoiceError(
                f"there is no voice {name[:80]!r}; the bundle has {shown or 'none'}, and "
                "GET /v1/audio/voices lists all."
            )
        cached = self._voices.get(name)
        try:
            if cached is not None and cached[0] == version:
                self.synthesizer.components.models(cached[1].adapter)  # replaced since, it may fail
                return cached[1]
            voice = self.synthesizer.voice(file or name) if builtin else self.store.load(name)
        except AdapterError as error:
            logger.error("the voice %s cannot be used: %s", name, error)
            raise BrokenVoiceError(
                f"The adapter of the voice {name!r} cannot be used; the log of the server says why."
            ) from error
        self._keep_voice(name, version, voice)
        return voice

    @asynccontextmanager
    async def speak(
        self,
        text: str | AsyncIterable[str] | Sequence[ScriptLine],
        *,
        voice: str | VoiceDesign | None,
        seed: int,
        speed: float,
        lexicon: UserLexicon | None = None,
        word_times: bool = False,
        duration: float | None = None,
        instruction: str = "",
        request_id: str,
        requested_at: float,
        stall_seconds: float,
        markup: bool = True,
        sentence_gap: float | None = None,
        paragraph_gap: float | None = None,
    ) -> AsyncIterator[SpeechStream]:
        """Waits for a slot and speaks a text while the block runs.

        Args:
            text: all of it, its pieces as they arrive, or the lines of a script.
            voice: name of a voice or of a mixture, or how to design one; None is the first of the
                bundle.
            seed: of all draws.
            speed: 1 is that of the voice.
            lexicon: pronunciations of the request.
            word_times: whether to time the words.
            duration: seconds that a whole text is to last; None is as long as it takes.
            instruction: how to speak, in words; a line of a script may have its own style.
            request_id: for the log.
            requested_at: `time.perf_counter()` of the request.
            stall_seconds: longest time between two chunks.
            markup, sentence_gap, paragraph_gap: as for `Synthesizer.generate`.

        Raises:
            ApiError: the request is refused; see `Admission.slot`.
        """
        name, prepared = await self.voice(voice)
        limits = self.config.limits
        reading: dict[str, Any] = {
            "lexicon": lexicon,
            "sentence_gap": sentence_gap,
            "paragraph_gap": paragraph_gap,
            "find_voice": lambda name: self._find_voice(name)[1],
        }

        def open_line(line: ScriptLine) -> Awaitable[EngineStream]:
            return self.engine.open(
                line.text,
                voice=self._find_voice(line.voice)[1] if line.voice else prepared,
                seed=seed if line.seed is None else line.seed,
                speed=speed * line.speed,
                instruction=line.style or instruction,
                max_buffer_seconds=limits.max_buffer_seconds,
                markup=markup,
                **reading,
            )

        async with self.admission.slot():
            try:
                if isinstance(text, (str, AsyncIterable)):
                    stream = await self.engine.open(
                        text,
                        voice=prepared,
                        seed=seed,
                        speed=speed,
                        word_times=word_times,
                        duration=duration,
                        instruction=instruction,
                        max_buffer_seconds=limits.max_buffer_seconds,
                        markup=markup,
                        **reading,
                    )
                else:
                    lines = [
                        replace(line, markup=markup, style=line.style or instruction)
                        for line in text
                    ]
                    is_over = threading.Event()
                    check = partial(
                        check_lines,
                        self.synthesizer,
                        lines,
                        voice=prepared,
                        seed=seed,
                        speed=speed,
                        should_stop=is_over.is_set,
                        **reading,
                    )
                    try:
                        await asyncio.to_thread(check)
                    finally:
                        is_over.set()  # where the client has gone, the thread ends, too
                    names = [
                        self._find_voice(line.voice)[0] if line.voice else name for line in lines
                    ]
                    name = ", ".join(dict.fromkeys(names))
                    stream = ScriptStream(lines, open_line, self.engine.sample_rate)
            except VoiceError as error:  # made with other models, as when the bundle was changed
                raise ApiError(400, as_sentence(error), param="voice") from error
            except LexiconError as error:
                raise ApiError(400, as_sentence(error), param="lexicon") from error
            except ValueError as error:
                raise ApiError(400, as_sentence(error), param="input") from error
            except Exception as error:
                self.health.record(error)
                raise
            provenance = Provenance(
                bundle=self.bundle, voice=name, seed=seed, request_id=request_id
            )
            speech = SpeechStream(
                stream,
                provenance,
                self.engine.sample_rate,
                requested_at,
                stall_seconds,
                reports_unlisted=bool(lexicon),
            )
            end = "left"
            try:
                async with asyncio.timeout(limits.stream_timeout_seconds):
                    yield speech
                end = "done"
                if speech.num_samples:
                    self.health.record(None)
            except ClientGoneError:
                raise
            except Exception as error:
                end = "failed"
                self.health.record(error)
                raise
            finally:
                try:
                    await stream.aclose()
                finally:
                    self._log(speech, end, text, speed)

    async def _speak_check_text(self) -> None:
        """Speaks a short text and discards it, without admission, metrics and logs."""
        if not self.bundle_voices:
            return  # voices of clients need not be there
        voice = await asyncio.to_thread(self._load_voice, self.bundle_voices[0])
        stream = await self.engine.open(CHECK_TEXT, voice=voice)
        try:
            num_samples = [chunk.shape[0] async for chunk in stream]
        finally:
            await stream.aclose()
        if not sum(num_samples):
            raise ApiError(500, "Nothing was heard.")

    def _log(
        self,
        speech: SpeechStream,
        end: str,
        text: str | AsyncIterable[str] | Sequence[ScriptLine],
        speed: float,
    ) -> None:
        metrics = self.metrics
        metrics.utterances.labels(end=end).inc()
        metrics.audio_seconds.inc(speech.seconds)
        if speech.first_audio_seconds is not None:
            metrics.first_audio.observe(speech.first_audio_seconds)
        if speech.seconds > 0:
            metrics.real_time_factor.observe(speech.waited_seconds / speech.seconds)
        lines = {}
        if not isinstance(text, (str, AsyncIterable)):
            lines["lines"] = [asdict(line) for line in text]
        self.token_log.write(
            **speech.provenance.fields(),
            end=end,
            speed=speed,
            text=text if isinstance(text, str) else None,
            **lines,
            num_samples=speech.num_samples,
            speech_tokens=speech.speech_tokens,
            pauses=speech.pauses,
            **speech.style_fields,
            time=time.time(),
        )


def service_of(connection: HTTPConnection) -> Service:
    """The service of the app that handles a connection."""
    return connection.app.state.service
