"""A voice: the features of a prompt recording in one small file, and how it is made and used.

`prepare_voice` makes a `Voice` of a recording, `fit_voice` fits it to the flow, and `PromptCache`
keeps the states of the models after its prompt.

A flow trained on few speakers renders a new one as a mixture of those: pitch and formants come out
too near to theirs. The prompt shows by how much, as both its tokens and its mel are known. So the
speaker embedding moves down the gradient of the flow matching loss on the prompt, with the models
fixed (textual inversion, Gal et al. 2022, with a speaker in place of an object). The difference
that remains between the prompt and its rendering, on average over the frames, is added to all that
the voice says.

Shapes: S samples, N prompt tokens, T prompt mel frames, M mel bins, E speaker channels, B draws.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypedDict, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from tokenlm.arguments import check_kind, check_number
from tokenlm.atomic import atomic_path
from tokenlm.audio.io import load_audio
from tokenlm.audio.level import high_pass, is_silent, rms_dbfs, trim_silence
from tokenlm.audio.mel import MelSpectrogram
from tokenlm.audio.resample import resample
from tokenlm.checkpoint.adapter import is_adapter
from tokenlm.checkpoint.bundle import is_bundle_name
from tokenlm.models.flow import FlowDecoder, FlowState
from tokenlm.models.flow.decoder import path as flow_path
from tokenlm.models.lm.decoding import Prefix, prefill
from tokenlm.models.lm.layout import InputSequence, LayoutName, fits_interleaved
from tokenlm.modules.streaming import Context, State, allocated_bytes
from tokenlm.synthesis.adapters import VoiceModels
from tokenlm.synthesis.components import Components, FitConfig
from tokenlm.text.normalize import frontend

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1

METADATA_KEY = "tokenlm_voice"
"""Entry of the file's metadata that holds everything but the tensors, as JSON."""

WINDOW_TOKENS = 100
"""Longest part of the prompt that a step of a fit looks at, so that long prompts cost no more."""
MAX_PROMPT_SHARE = 0.5
"""Of a window, the most that the flow is shown as its prompt."""
LOUD_SHARE = 0.7
"""Of the frames, the loudest ones that count for the offset: pauses say nothing of a voice."""


class VoiceError(ValueError):
    """A recording or file that no voice can be made of; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A prepared prompt. Made by `Synthesizer.prepare_voice`, or loaded."""

    name: str
    prompt_text: str
    """What the prompt says, normalised; empty where that is not known."""
    prompt_tokens: Tensor
    """(N,) speech tokens."""
    prompt_mel: Tensor
    """(T, M) log-mel."""
    speaker_embedding: Tensor
    """(E,)"""
    tokenizer: str
    """Fingerprint of the speech tokenizer that made the tokens."""
    description: str = ""
    mel_offset: Tensor | None = None
    """(M,) added to the log-mel of all that the voice says; None adds nothing."""
    lexicon: str = ""
    """Pronunciations for all that the voice says, as a lexicon file has them."""
    adapter: str = ""
    """Folder or name of the adapter that speaks the voice; empty is the bundle alone. A voice file
    holds the name of the folder, which lies beside it."""
    consent: Mapping[str, Any] | None = None
    """Evidence that the person agreed, as `inference.consent` stores it; it changes no speech."""

    def __post_init__(self) -> None:
        tensors = (self.prompt_tokens, self.prompt_mel, self.speaker_embedding)
        if tuple(tensor.ndim for tensor in tensors) != (1, 2, 1):
            raise VoiceError(
                "a voice needs prompt_tokens (N,), prompt_mel (T, M) and speaker_embedding (E,)"
            )
        if self.prompt_tokens.is_floating_point() or bool((self.prompt_tokens < 0).any()):
            raise VoiceError("the prompt_tokens of a voice are numbers of codes, 0 and up")
        if not (self.prompt_mel.isfinite().all() and self.speaker_embedding.isfinite().all()):
            raise VoiceError("a voice holds numbers that are not finite")
        offset = self.mel_offset
        if offset is not None and (
            offset.shape != self.prompt_mel.shape[1:] or not offset.isfinite().all()
        ):
            raise VoiceError("the mel_offset of a voice is one finite number for each mel bin")

    @property
    def seed(self) -> int:
        """Seed of the noise under the prompt, a function of the prompt alone."""
        digest = hashlib.sha256(self.prompt_tokens.to(torch.int64).numpy().tobytes())
        digest.update(self.speaker_embedding.half().numpy().tobytes())
        return int.from_bytes(digest.digest()[:7], "big")

    @property
    def digest(self) -> str:
        """Hash of everything that the models see of the voice; its name is not part of it."""
        digest = hashlib.sha256(f"{self.tokenizer}\n{self.prompt_text}\n".encode())
        for tensor in (self.prompt_tokens.to(torch.int64), self.prompt_mel, self.speaker_embedding):
            digest.update(tensor.contiguous().numpy().tobytes())
        if self.mel_offset is not None:
            digest.update(self.mel_offset.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the voice to one safetensors file, whole or not at all.

        Raises:
            VoiceError: the folder of its adapter does not lie beside the file.
        """
        adapter = Path(self.adapter).expanduser()
        if self.adapter:
            beside = Path(path).parent / adapter.name
            if beside.resolve() != adapter.resolve() or not is_adapter(beside):
                raise VoiceError(
                    f"{path}: the voice {self.name!r} is spoken by the adapter {self.adapter}, "
                    "which does not lie beside this file: copy the folder there first, and name it "
                    "in `adapter`."
                )
        tensors = {
            "prompt_tokens": self.prompt_tokens.to(torch.int32),
            "prompt_mel": self.prompt_mel.to(torch.float16).contiguous(),
            "speaker_embedding": self.speaker_embedding.to(torch.float32).contiguous(),
        }
        if self.mel_offset is not None:
            tensors["mel_offset"] = self.mel_offset.to(torch.float32).contiguous()
        facts = {
            "name": self.name,
            "prompt_text": self.prompt_text,
            "tokenizer": self.tokenizer,
            "description": self.description,
            **({"lexicon": self.lexicon} if self.lexicon else {}),
            **({} if not self.adapter else {"adapter": adapter.name}),
            **({} if self.consent is None else {"consent": self.consent}),
        }
        # A single entry: the library writes several in any order, and files would differ by chance.
        facts = {"format_version": FORMAT_VERSION, **facts}
        data = save(tensors, metadata={METADATA_KEY: json.dumps(facts)})
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, path: str | Path) -> Voice:
        """Reads a voice.

        Raises:
            VoiceError: there is no such file, or it is not a voice.
        """
        if not Path(path).is_file():
            raise VoiceError(f"{path}: there is no such voice file.")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise VoiceError(f"{path} is not a voice file, or is damaged: {error}") from error
        if METADATA_KEY not in metadata:
            raise VoiceError(f"{path} is not a voice file.")
        try:
            facts = json.loads(metadata[METADATA_KEY])
            if facts["format_version"] != FORMAT_VERSION:
                raise VoiceError(
                    f"it is of format {facts['format_version']}; this version of tokenlm reads "
                    f"{FORMAT_VERSION}"
                )
            consent = facts.get("consent")
            if not isinstance(consent, dict | NoneType):
                raise VoiceError("its evidence of consent is damaged")
            adapter = str(facts.get("adapter", ""))
            # Whoever made the file must not choose what else is read.
            if adapter and not is_bundle_name(adapter):
                raise VoiceError(f"its adapter {adapter[:80]!r} is not the name of a folder")
            return cls(
                name=str(facts["name"]),
                prompt_text=str(facts["prompt_text"]),
                tokenizer=str(facts["tokenizer"]),
                description=str(facts.get("description", "")),
                lexicon=str(facts.get("lexicon", "")),
                adapter=str(Path(path).parent / adapter) if adapter else "",
                prompt_tokens=tensors["prompt_tokens"].long(),
                prompt_mel=tensors["prompt_mel"].float(),
                speaker_embedding=tensors["speaker_embedding"].float(),
                mel_offset=tensors.get("mel_offset"),
                consent=consent,
            )
        except VoiceError as error:
            raise VoiceError(f"{path}: {error}") from error
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise VoiceError(f"{path} is not a complete voice file: {error}") from error


class FlowPrompt(TypedDict):
    """Arguments of a flow's `generate` and `start` that belong to the voice."""

    prompt_tokens: Tensor
    """(1, N)"""
    prompt_mel: Tensor
    """(1, T, M)"""
    speaker_embedding: Tensor
    """(1, E)"""
    prompt_seed: int


def flow_prompt(voice: Voice, device: torch.device | str) -> FlowPrompt:
    """The prompt of a voice for the flow, on a device."""
    return {
        "prompt_tokens": voice.prompt_tokens[None].to(device),
        "prompt_mel": voice.prompt_mel[None].to(device),
        "speaker_embedding": voice.speaker_embedding[None].to(device),
        "prompt_seed": voice.seed,
    }


def fit_voice(
    flow: FlowDecoder,
    voice: Voice,
    config: FitConfig,
    *,
    context: Context,
    num_steps: int,
    guidance_scale: float,
    device: torch.device | str = "cpu",
) -> Voice:
    """A voice whose embedding and offset make the flow render its prompt best.

    The same voice gives the same result. The flow is not changed.

    Args:
        flow: whose parameters need no gradient.
        voice: as prepared.
        config: how.
        context: of the flow, in tokens, as the voice will be rendered.
        num_steps: solver steps of the flow, likewise.
        guidance_scale: guidance of the flow, likewise.
        device: where the flow is.

    Returns:
        The voice itself, where there is nothing to be done, its prompt is empty, or the recording
        differs from its rendering by more than a voice does.
    """
    idle = config.num_steps == 0 and config.offset_share == 0
    if idle or voice.prompt_tokens.shape[0] < 2:
        return voice

    def missing(voice: Voice) -> Tensor:
        rendered = _render_prompt(flow, voice, context, num_steps, guidance_scale, device)
        return mean_difference(voice.prompt_mel, rendered)

    offset = missing(voice)
    size = float(offset.square().mean().sqrt())
    if size > config.max_offset:
        logger.warning(
            "%s: the recording is noisy or of a narrow band (%.1f in log-mel, at most %.1f), so "
            "its voice is not fitted to it",
            voice.name,
            size,
            config.max_offset,
        )
        return voice
    if config.num_steps:
        embedding = _fit_embedding(flow, voice, config, context, device)
        voice = replace(voice, speaker_embedding=embedding)
        offset = missing(voice)
    if config.offset_share:
        count = voice.prompt_tokens.shape[0]
        share = config.offset_share * count / (count + config.offset_tokens)
        voice = replace(voice, mel_offset=(share * offset).clone())
    return voice


def add_offset(mel: Tensor, voice: Voice) -> Tensor:
    """Log-mel (B, T, M) of a flow as the voice sounds."""
    return mel if voice.mel_offset is None else mel + voice.mel_offset.to(mel)


def mean_difference(mel: Tensor, rendered: Tensor) -> Tensor:
    """Mean of `mel` minus `rendered` (T, M) over the loud frames of `mel`, (M,)."""
    level = mel.mean(dim=1)
    loud = level >= level.quantile(1.0 - LOUD_SHARE)
    return (mel - rendered)[loud].mean(dim=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draw:
    """What one gradient step looks at."""

    window: slice
    """Of the prompt tokens, N of them."""
    pinned: Tensor
    """(B,) tokens of the window that are shown as prompt."""
    times: Tensor
    """(B,) one in each of B equal parts of the path."""
    noise: Tensor
    """(B, T, M)"""


def _fit_embedding(
    flow: FlowDecoder,
    voice: Voice,
    config: FitConfig,
    context: Context,
    device: torch.device | str,
) -> Tensor:
    """The fitted embedding (E,): the mean over the second half of the steps."""
    # Voices may be prepared under `inference_mode`, whose tensors no gradient goes through.
    with torch.inference_mode(False), torch.enable_grad():
        embedding = functional.normalize(voice.speaker_embedding.clone().to(device), dim=0)
        mel = flow.normalize(voice.prompt_mel.clone().to(device))
        tokens = voice.prompt_tokens.clone().to(device)
        total = torch.zeros_like(embedding)
        embedding.requires_grad_()
        optimizer = torch.optim.Adam([embedding], lr=config.learning_rate)
        for step, draw in enumerate(_draws(flow, len(tokens), config, voice.seed)):
            loss = _matching_loss(flow, tokens, mel, embedding, draw, context)
            (embedding.grad,) = torch.autograd.grad(loss, [embedding])
            optimizer.step()
            if step >= config.num_steps // 2:
                total += embedding.detach()
        return functional.normalize(total, dim=0).cpu()


def _draws(flow: FlowDecoder, num_tokens: int, config: FitConfig, seed: int) -> Iterator[_Draw]:
    generator = torch.Generator().manual_seed(seed)
    size, count = min(num_tokens, WINDOW_TOKENS), config.num_draws
    frames = size * flow.frames_per_token
    for _ in range(config.num_steps):
        start = int(torch.randint(num_tokens - size + 1, (), generator=generator))
        shares = torch.rand(2, count, generator=generator, dtype=torch.float32)
        yield _Draw(
            window=slice(start, start + size),
            pinned=(MAX_PROMPT_SHARE * shares[0] * size).long(),
            times=(torch.arange(count) + shares[1]) / count,
            noise=torch.randn(
                count,
                frames,
                flow.config.mel.num_mels,
                generator=generator,
                dtype=torch.float32,
            ),
        )


def _matching_loss(
    flow: FlowDecoder,
    tokens: Tensor,
    mel: Tensor,
    embedding: Tensor,
    draw: _Draw,
    context: Context,
) -> Tensor:
    """Mean square error of the velocity behind what is shown as prompt.

    Args:
        flow: the model.
        tokens: (N,) of the whole prompt.
        mel: (T, M) of the whole prompt, in the scale of the flow.
        embedding: (E,)
        draw: of the step.
        context: in tokens.
    """
    factor, count = flow.frames_per_token, draw.times.shape[0]
    frames = slice(draw.window.start * factor, draw.window.stop * factor)
    x1 = mel[frames].expand(count, -1, -1)
    times, pinned = draw.times.to(mel), draw.pinned.to(tokens)
    x_t, velocity = flow_path(draw.noise.to(mel), x1, times)
    shown = torch.arange(x1.shape[1], device=mel.device) < (pinned * factor)[:, None]
    predicted = flow(
        x_t,
        times,
        tokens=tokens[draw.window].expand(count, -1),
        prompt_mel=x1 * shown[..., None],
        speaker_embedding=embedding.expand(count, -1),
        context=context,
        pinned_tokens=pinned,
    )
    error = (predicted.float() - velocity).square().mean(dim=-1)
    return error[~shown].mean()


@torch.inference_mode()
def _render_prompt(
    flow: FlowDecoder,
    voice: Voice,
    context: Context,
    num_steps: int,
    guidance_scale: float,
    device: torch.device | str,
) -> Tensor:
    """Log-mel (T, M) of the tokens of the prompt, in its own voice."""
    prompt = flow_prompt(voice, device)
    rendered = flow.generate(
        prompt["prompt_tokens"],
        **prompt,
        seed=voice.seed,
        context=context,
        num_steps=num_steps,
        guidance_scale=guidance_scale,
    )
    return rendered[0].cpu()


# --- From a recording to a voice ---

LEVEL_DBFS = -22.0
"""Level of the training corpus; prompts are brought to it."""
MIN_SECONDS = 0.4
"""A shorter prompt, silence cut off, says too little about a voice."""


def read_recording(source: str | Path | Tensor, sample_rate: int | None, target: int) -> Tensor:
    """A recording (S,) at `target` Hz, from a file or from samples (S,) at `sample_rate`.

    Raises:
        AudioError: the file cannot be read.
        VoiceError: samples of another shape, not finite, or without their rate.
    """
    if isinstance(source, str | Path):
        return load_audio(source, target)
    check_kind("a recording", source, str, Path, Tensor)
    if sample_rate is None:
        raise VoiceError("samples need their sample_rate.")
    check_number("sample_rate", sample_rate)
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
    enhance: bool = False,
) -> Voice:
    """Makes a voice of a recording; see `Synthesizer.prepare_voice`."""
    components.check_tokenizer()
    check_kind("a recording", source, str, Path, Tensor)
    check_kind("prompt_text", prompt_text, str, NoneType)
    mel_config = components.flow.config.mel
    tokenizer = components.speech_tokenizer
    voice_name = name or (Path(source).stem if not isinstance(source, Tensor) else "voice")
    title = "the recording" if isinstance(source, Tensor) else str(source)
    rate = mel_config.sample_rate
    recording = read_recording(source, sample_rate, rate)
    if enhance:
        recording = _enhance(components, recording, title)
    whole = clean_recording(recording, rate, title)
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
    factor = components.flow.frames_per_token
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
        context=components.flow.default_context,
        num_steps=generation.num_steps,
        guidance_scale=generation.guidance_scale,
        device=components.device,
    )


def _enhance(components: Components, recording: Tensor, title: str) -> Tensor:
    """The recording (S,) at the rate of the mel, without its noise."""
    # Here alone: a voice is seldom made of a noisy recording.
    from tokenlm.synthesis.enhancing import Enhancer

    rate = components.flow.config.mel.sample_rate
    enhanced = Enhancer.of(components).enhance(recording, sample_rate=rate)
    for problem in enhanced.condition.problems():
        logger.warning("%s: %s", title, problem)
    logger.info("%s: %s; %s", title, enhanced.condition, enhanced.method or "left as it is")
    return enhanced.waveform


def check_voice(components: Components, voice: Voice) -> None:
    """Checks that a voice can be used with a bundle.

    Raises:
        VoiceError: it is none, was made with another speech tokenizer, or its sizes are not those
            of the flow.
        AdapterError: its adapter cannot be read, or was learned on another bundle.
    """
    if not isinstance(voice, Voice):
        raise VoiceError(f"a voice is a Voice, not {type(voice).__name__}.")
    if voice.tokenizer != components.fingerprint:
        raise VoiceError(
            f"the voice {voice.name!r} was made with the speech tokenizer {voice.tokenizer}, "
            f"but this bundle has {components.fingerprint}: prepare it again."
        )
    components.models(voice.adapter)
    flow = components.flow.config
    num_tokens = voice.prompt_tokens.shape[0]
    fits = (
        voice.prompt_mel.shape == (num_tokens * components.flow.frames_per_token, flow.mel.num_mels)
        and voice.speaker_embedding.shape == (flow.speaker_dim,)
        and (num_tokens == 0 or int(voice.prompt_tokens.max()) < flow.codebook_size)
    )
    if not fits:
        raise VoiceError(
            f"the voice {voice.name!r} does not fit the flow of this bundle: prepare it again."
        )


# --- The prompt in the models ---

MAX_CACHE_BYTES = 1 << 30
"""Default memory limit of a `PromptCache`."""

ValueT = TypeVar("ValueT", FlowState, Prefix)
Key = tuple[Any, ...]
"""What an entry depends on; its first part is the kind, "lm" or "flow"."""


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
        self,
        voice: Voice,
        context: Context,
        num_steps: int,
        guidance_scale: float,
        *,
        models: VoiceModels | None = None,
    ) -> FlowState:
        """State of the flow after the prompt of a voice.

        Args:
            voice: whose prompt it is.
            context: of the flow.
            num_steps: of the solver.
            guidance_scale: of the flow.
            models: what speaks the voice; a session gives those that it began with, as the adapter
                may have been dropped or replaced since. Default those of the voice's adapter now.

        Raises:
            ValueError: the context is the full one, which has no chunks.
        """
        components = self._components
        models = models or components.models(voice.adapter)

        def start() -> FlowState:
            return models.flow.start(
                **flow_prompt(voice, components.device),
                context=context,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                additions=models.additions.get("flow"),
            )

        key = ("flow", voice.digest, context, num_steps, guidance_scale, models.adapter)
        return self._get(key, start).shared()

    def prefix(
        self,
        voice: Voice,
        layout: LayoutName,
        instruction: str = "",
        *,
        models: VoiceModels | None = None,
    ) -> Prefix:
        """The prefilled start of an LM sequence; copy its sequence before it is continued.

        `models` as for `flow_state`.
        """
        components = self._components
        models = models or components.models(voice.adapter)

        def read() -> Prefix:
            sequence = prompt_sequence(components, voice, layout, instruction)
            return prefill(models.speech_lm, sequence, models.additions.get("speech_lm"))

        continues_prompt = (
            components.generation.prompt_in_lm and voice.prompt_text and not instruction
        )
        digest = voice.digest if continues_prompt else ""
        return self._get(("lm", digest, layout, instruction, models.adapter), read)

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
