"""A voice: the features of a prompt recording in one small file, and their fit to the flow.

A flow trained on few speakers renders a new one as a mixture of those: pitch and formants come out
too near to theirs. The prompt shows by how much, as both its tokens and its mel are known. So the
speaker embedding moves down the gradient of the flow matching loss on the prompt, with the models
fixed (textual inversion, Gal et al. 2022, with a speaker in place of an object). The difference
that remains between the prompt and its rendering, on average over the frames, is added to all that
the voice says.

Shapes: N prompt tokens, T prompt mel frames, M mel bins, E speaker channels, B draws.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from tokenlm.atomic import atomic_path
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.flow.matching import path as flow_path
from tokenlm.modules.context import Context

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
        """Writes the voice to one safetensors file, whole or not at all."""
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
            return cls(
                name=str(facts["name"]),
                prompt_text=str(facts["prompt_text"]),
                tokenizer=str(facts["tokenizer"]),
                description=str(facts.get("description", "")),
                lexicon=str(facts.get("lexicon", "")),
                prompt_tokens=tensors["prompt_tokens"].long(),
                prompt_mel=tensors["prompt_mel"].float(),
                speaker_embedding=tensors["speaker_embedding"].float(),
                mel_offset=tensors.get("mel_offset"),
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


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How voices are fitted to their prompts; by default not at all."""

    num_steps: int = 0
    """Gradient steps on the speaker embedding; 0 leaves it as the speaker encoder gives it."""
    num_draws: int = 4
    """Points of the flow in each step."""
    learning_rate: float = 0.03
    """Of Adam; the embedding has the length 1."""
    offset_share: float = 0.0
    """Share of the mean log-mel difference between prompt and rendering that is added to speech."""
    max_offset: float = 1.0
    """Root mean square of the offset, in log-mel, above which a voice is not fitted. A voice is
    rendered nearer than that; a larger difference is noise or a narrow band of the recording."""
    offset_tokens: int = 10
    """Prompt tokens at which half of that share is added: short prompts say little."""

    def __post_init__(self) -> None:
        if self.num_steps < 0 or self.num_draws < 1:
            raise ValueError(
                "num_steps of a fit must be at least 0 and num_draws at least 1, got "
                f"{self.num_steps} and {self.num_draws}"
            )
        if self.learning_rate <= 0 or self.max_offset <= 0 or self.offset_tokens < 0:
            raise ValueError(
                "learning_rate and max_offset of a fit must be positive and offset_tokens not "
                f"negative, got {self.learning_rate}, {self.max_offset} and {self.offset_tokens}"
            )
        if not 0 <= self.offset_share <= 1:
            raise ValueError(f"offset_share must be between 0 and 1, got {self.offset_share}")


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
    frames = size * flow.config.frames_per_token
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
    factor, count = flow.config.frames_per_token, draw.times.shape[0]
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
