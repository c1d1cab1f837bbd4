"""Fits a voice to its own prompt.

A flow that has heard few people renders a new one as a mixture of those: pitch and formants come
out too near to theirs. The prompt shows by how much, for its tokens and its mel are both known.
First the speaker embedding moves down the gradient of the flow matching loss on the prompt, the
models as they are (textual inversion, Gal et al. 2022, with a speaker in place of an object). What
then still lies between the prompt and its rendering, on average over the frames, is added to all
that the voice says.

Shapes: B draws, N prompt tokens, T mel frames, M mel bins, E speaker channels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.models.flow import FlowDecoder
from tokenlm.models.flow.matching import path
from tokenlm.modules.context import Context
from tokenlm.synthesis.voice import Voice

WINDOW_TOKENS = 100
"""Longest part of the prompt that a step looks at, so that long prompts cost no more."""
MAX_PROMPT_SHARE = 0.5
"""Of a window, the most that the flow is shown as its prompt."""
LOUD_SHARE = 0.7
"""Of the frames, the loudest ones that count for the offset: pauses say nothing of a voice."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How voices are fitted; by default not at all."""

    num_steps: int = 0
    """Gradient steps on the speaker embedding; 0 leaves it as the speaker encoder gives it."""
    num_draws: int = 4
    """Points of the flow in each step."""
    learning_rate: float = 0.03
    """Of Adam; the embedding has the length 1."""
    offset_share: float = 0.0
    """Of the mean log-mel between the prompt and its rendering, what is added to the speech."""
    max_offset: float = 1.0
    """Root mean square of the offset, in log-mel, above which a voice is not fitted. A voice is
    rendered nearer than that; what is farther is noise or a narrow band of the recording."""
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
        _log.warning(
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
    x_t, velocity = path(draw.noise.to(mel), x1, times)
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
    tokens = voice.prompt_tokens[None].to(device)
    rendered = flow.generate(
        tokens,
        prompt_tokens=tokens,
        prompt_mel=voice.prompt_mel[None].to(device),
        speaker_embedding=voice.speaker_embedding[None].to(device),
        seed=voice.seed,
        prompt_seed=voice.seed,
        context=context,
        num_steps=num_steps,
        guidance_scale=guidance_scale,
    )
    return rendered[0].cpu()
