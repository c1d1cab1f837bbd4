"""Prompts: from a recording to a `Voice`, and the cached states of the models after a prompt.

Shapes: S samples, N tokens, T mel frames.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.audio.io import load_audio
from tokenlm.audio.level import high_pass, is_silent, rms_dbfs, trim_silence
from tokenlm.audio.mel import MelSpectrogram
from tokenlm.audio.resample import resample
from tokenlm.models.flow import FlowState
from tokenlm.models.lm.decoding import Prefix, prefill
from tokenlm.models.lm.layout import InputSequence, LayoutName, fits_interleaved
from tokenlm.modules.context import Context
from tokenlm.modules.streaming import State, allocated_bytes
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.voice import Voice, VoiceError, fit_voice, flow_prompt
from tokenlm.text.frontend import frontend

logger = logging.getLogger(__name__)

LEVEL_DBFS = -22.0
"""Level of the training corpus; prompts are brought to it."""
MIN_SECONDS = 0.4
"""A shorter prompt, silence cut off, says too little about a voice."""

MAX_CACHE_BYTES = 1 << 30
"""Default memory limit of a `PromptCache`."""

ValueT = TypeVar("ValueT", FlowState, Prefix)
Key = tuple[Any, ...]
"""What an entry depends on; its first part is the kind, "lm" or "flow"."""


def read_recording(source: str | Path | Tensor, sample_rate: int | None, target: int) -> Tensor:
    """A recording (S,) at `target` Hz, from a file or from samples (S,) at `sample_rate`.

    Raises:
        AudioError: the file cannot be read.
        VoiceError: samples of another shape, not finite, or without their rate.
    """
    if not isinstance(source, Tensor):
        return load_audio(source, target)
    if sample_rate is None:
        raise VoiceError("samples need their sample_rate.")
    if source.ndim != 1 or source.shape[0] == 0:
        raise VoiceError(f"a recording has the shape (samples,), not {tuple(source.shape)}.")
    if not source.isfinite().all():
        raise VoiceError("the recording holds samples that are not finite numbers.")
    return resample(source.float(), sample_rate, target)


def clean_recording(
    waveform: Tensor, sample_rate: int, name: str, *, is_padded: bool = False
) -> Tensor:
    """Cuts silence off both ends, takes out rumble, and sets the level.

    Args:
        waveform: (S,).
        sample_rate: in hertz.
        name: what error messages call the recording.
        is_padded: whether a recording that is too short gets silence around it. A single word can
            be listened to, though it says too little about a voice.

    Raises:
        VoiceError: the recording is silent, or too short.
    """
    # Without its mean first, the ends of the recording would be steps, and ring in the filter.
    waveform = high_pass(waveform - waveform.mean(), sample_rate)
    if is_silent(waveform, -70.0):
        raise VoiceError(f"{name} is silent.")
    waveform = trim_silence(waveform, sample_rate)
    seconds = waveform.shape[0] / sample_rate
    if seconds < MIN_SECONDS and not is_padded:
        raise VoiceError(
            f"{name} holds only {seconds:.2f} s of sound; at least {MIN_SECONDS} s are needed."
        )
    gain = 10.0 ** ((LEVEL_DBFS - rms_dbfs(waveform)) / 20.0)
    waveform = (waveform * gain).clamp(-1.0, 1.0)
    missing = max(round(MIN_SECONDS * sample_rate) - waveform.shape[0], 0)
    return functional.pad(waveform, (missing // 2, missing - missing // 2))


def quietest_cut(waveform: Tensor, sample_rate: int, limit_seconds: float) -> Tensor:
    """The first `limit_seconds` of a recording (S,), cut in its last pause before that."""
    limit = int(limit_seconds * sample_rate)
    if waveform.shape[0] <= limit:
        return waveform
    size = sample_rate // 20
    start = limit // 2
    energy = waveform[start:limit].unfold(0, size, size).square().mean(dim=-1)
    # Later cuts are better as long as they are as quiet as any.
    quiet = torch.nonzero(energy <= 4.0 * energy.min() + 1e-8)[-1, 0]
    return waveform[: start + int(quiet) * size + size // 2]


def prepare_voice(
    components: Components,
    source: str | Path | Tensor,
    prompt_text: str | None,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
) -> Voice:
    """Makes a voice of a recording; see `Synthesizer.prepare_voice`."""
    components.check_tokenizer()
    mel_config = components.flow.config.mel
    tokenizer = components.speech_tokenizer
    voice_name = name or (Path(source).stem if not isinstance(source, Tensor) else "voice")
    title = "the recording" if isinstance(source, Tensor) else str(source)
    rate = mel_config.sample_rate
    whole = clean_recording(read_recording(source, sample_rate, rate), rate, title)
    waveform = quietest_cut(whole, rate, components.generation.max_prompt_seconds)
    normalize = frontend(components.text_tokenizer.config.normalizer).normalize
    text = normalize(prompt_text or "")
    if prompt_text and not text:
        raise VoiceError(f"the prompt text {prompt_text[:40]!r} holds nothing that can be said.")
    if text and waveform.shape[0] < whole.shape[0]:
        logger.warning(
            "%s is longer than %.0f s: only its start is used, without its text",
            title,
            components.generation.max_prompt_seconds,
        )
        text = ""
    speech = resample(waveform, rate, tokenizer.config.mel.sample_rate).to(components.device)
    tokens = tokenizer.encode(speech[None])[0][0]
    factor = components.flow.config.frames_per_token
    with torch.inference_mode():
        mel = MelSpectrogram(mel_config)(waveform[None])[0]
        count = min(mel.shape[0] // factor, tokens.shape[0])
        embedding = components.speaker_encoder.embed_recording(speech)
    voice = Voice(
        name=voice_name,
        prompt_text=text,
        prompt_tokens=tokens[:count].cpu().clone(),
        # To the precision of a voice file: the voice is the same before and after it is saved.
        prompt_mel=mel[: count * factor].half().float().clone(),
        speaker_embedding=embedding.cpu().clone(),
        tokenizer=components.fingerprint,
    )
    generation = components.generation
    return fit_voice(
        components.flow,
        voice,
        generation.voice_fit,
        context=components.flow.config.default_context,
        num_steps=generation.num_steps,
        guidance_scale=generation.guidance_scale,
        device=components.device,
    )


def check_voice(components: Components, voice: Voice) -> None:
    """Checks that a voice can be used with a bundle.

    Raises:
        VoiceError: it was made with another speech tokenizer, or its sizes are not those of the
            flow.
    """
    if voice.tokenizer != components.fingerprint:
        raise VoiceError(
            f"the voice {voice.name!r} was made with the speech tokenizer {voice.tokenizer}, "
            f"but this bundle has {components.fingerprint}: prepare it again."
        )
    flow = components.flow.config
    num_tokens = voice.prompt_tokens.shape[0]
    fits = (
        voice.prompt_mel.shape == (num_tokens * flow.frames_per_token, flow.mel.num_mels)
        and voice.speaker_embedding.shape == (flow.speaker_dim,)
        and (num_tokens == 0 or int(voice.prompt_tokens.max()) < flow.codebook_size)
    )
    if not fits:
        raise VoiceError(
            f"the voice {voice.name!r} does not fit the flow of this bundle: prepare it again."
        )


class PromptCache:
    """Caches prompt prefills, bounded in number and memory; results are identical without it.

    Of the LM the start of a sequence up to the text to be said; of the flow the state after the
    prompt, one for each context, number of solver steps and guidance. Callers get copies.
    Thread-safe; an entry that several threads ask for at once is computed once.
    """

    def __init__(
        self, components: Components, *, max_entries: int = 32, max_bytes: int = MAX_CACHE_BYTES
    ) -> None:
        """Creates an empty cache.

        Args:
            components: the models.
            max_entries: most entries.
            max_bytes: most memory that is allocated for all entries. May be changed at any time.
                The newest entry of each kind is kept whatever its size is: without it every request
                would prefill its prompt again.
        """
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._components = components
        self._entries: OrderedDict[Key, FlowState | Prefix] = OrderedDict()
        self._pending: dict[Key, Future[Any]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory that is allocated for the entries."""
        return allocated_bytes([_state(value) for value in [*self._entries.values()]])

    def clear(self) -> None:
        """Removes all entries."""
        with self._lock:
            self._entries.clear()

    def flow_state(
        self, voice: Voice, context: Context, num_steps: int, guidance_scale: float
    ) -> FlowState:
        """State of the flow after the prompt of a voice.

        Raises:
            ValueError: the context is the full one, which has no chunks.
        """
        components = self._components

        def start() -> FlowState:
            return components.flow.start(
                **flow_prompt(voice, components.device),
                context=context,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
            )

        key = ("flow", voice.digest, context, num_steps, guidance_scale)
        return self._get(key, start).shared()

    def prefix(self, voice: Voice, layout: LayoutName, instruction: str = "") -> Prefix:
        """The prefilled start of an LM sequence; copy its sequence before it is continued."""
        components = self._components

        def read() -> Prefix:
            sequence = prompt_sequence(components, voice, layout, instruction)
            return prefill(components.speech_lm, sequence)

        continues_prompt = (
            components.generation.prompt_in_lm and voice.prompt_text and not instruction
        )
        return self._get(
            ("lm", voice.digest if continues_prompt else "", layout, instruction), read
        )

    def _get(self, key: Key, make: Callable[[], ValueT]) -> ValueT:
        """The entry, computed if need be; other threads that ask for it meanwhile wait."""
        while True:
            with self._lock:
                if key in self._entries:
                    self._entries.move_to_end(key)
                    # Any: the key says which kind it is.
                    cached: Any = self._entries[key]
                    return cached
                running = self._pending.get(key)
                if running is None:
                    own: Future[Any] = Future()
                    self._pending[key] = own
                    break
            # A failure is raised to the thread that computed; the next one tries itself.
            if running.exception() is None:
                return running.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            own.set_exception(error)
            raise
        with self._lock:
            del self._pending[key]
            self._entries[key] = value
            self._shrink()
        own.set_result(value)
        return value

    def _shrink(self) -> None:
        """Evicts the least recently used, but the newest of each kind; with the lock held."""
        newest = {key[0]: key for key in self._entries}
        for key in [*self._entries]:
            if len(self._entries) <= self.max_entries and self.num_bytes <= self.max_bytes:
                return
            if key not in newest.values():
                del self._entries[key]


def _state(value: FlowState | Prefix) -> State:
    return value.key_values if isinstance(value, Prefix) else value


def prompt_sequence(
    components: Components, voice: Voice, layout: LayoutName, instruction: str = ""
) -> InputSequence:
    """The start of an LM sequence up to the text to be said."""
    config = components.speech_lm.config
    blocks = (config.block_text_tokens, config.block_speech_tokens)
    text, tokens = prompt_of(components, voice, instruction)
    if layout == "interleaved" and not fits_interleaved(len(text), len(tokens), *blocks):
        # The prompt is so fast that its speech would end before its text.
        text, tokens = [], []
    return components.speech_lm.sequence(layout, prompt_text=text, prompt_tokens=tokens)


def prompt_of(
    components: Components, voice: Voice, instruction: str = ""
) -> tuple[list[int], list[int]]:
    """Text tokens and speech tokens of a prompt, as far as the LM continues them.

    The instruction of a request replaces the prompt, whose way of speaking the LM would continue
    otherwise; it stands behind that of the bundle, as CosyVoice 3 was trained.
    """
    encode, generation = components.text_tokenizer.encode, components.generation
    if instruction:
        before = generation.instruction.removesuffix(generation.instruction_end)
        return encode(f"{before} {instruction}".strip() + generation.instruction_end), []
    first = encode(generation.instruction) if generation.instruction else []
    # The LM cannot continue a prompt whose text is not known.
    if not (voice.prompt_text and generation.prompt_in_lm):
        return first, []
    return [*first, *encode(voice.prompt_text)], voice.prompt_tokens.tolist()
