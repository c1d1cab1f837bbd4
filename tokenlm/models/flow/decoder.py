"""Flow decoder: speech tokens, a prompt and a speaker to a mel spectrogram.

Chunk-aware causal conditional flow matching (Du et al., 2024, CosyVoice 2, section 2.4): an encoder
of tokens, an estimator of the velocity, and caches of both for every solver step of a stream.

Shapes: B batch, N tokens, P prompt tokens, T mel frames (N * frames_per_token), M mel bins,
E speaker channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.installation import install_command
from tokenlm.models.flow.config import FlowConfig
from tokenlm.models.flow.dit import DiT, DiTState
from tokenlm.models.flow.encoder import ENCODERS, Encoder, EncoderState
from tokenlm.models.flow.unet import UNet, UNetState
from tokenlm.modules.attention import Caches, Plan
from tokenlm.modules.exact import frame_noise
from tokenlm.modules.low_rank import Additions, adapted
from tokenlm.modules.streaming import FULL_CONTEXT, Context, State, batched

# --- Flow matching: the path, the solver and guidance ---
#
# The path is the optimal-transport one of Lipman et al. (2023), from noise x0 at t = 0 to data x1
# at t = 1.

SIGMA_MIN = 1e-6
"""Deviation that the path keeps around the data."""

TOLERANCE = 1e-5
"""Of adaptive solvers; the defaults of `torchdiffeq` are too fine for float32."""

Velocity = Callable[[int, Tensor, Tensor], Tensor]
"""(solver step, time (), x_t (B, T, M)) to velocity (B, T, M)."""


def path(x0: Tensor, x1: Tensor, t: Tensor, sigma_min: float = SIGMA_MIN) -> tuple[Tensor, Tensor]:
    """The point x_t of the path and its velocity.

    Args:
        x0: (B, T, M) noise.
        x1: (B, T, M) data.
        t: (B,) times in [0, 1].
        sigma_min: deviation that is kept around the data.

    Returns:
        x_t = (1 - (1 - sigma) t) x0 + t x1 and x1 - (1 - sigma) x0, both (B, T, M).
    """
    time = t[:, None, None]
    return (1 - (1 - sigma_min) * time) * x0 + time * x1, x1 - (1 - sigma_min) * x0


def cosine_schedule(num_steps: int) -> Tensor:
    """Times (num_steps + 1,) from 0 to 1, dense near 0: 1 - cos(pi s / 2) of an even grid."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    grid = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    return (1 - (grid * math.pi / 2).cos()).to(torch.float32)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): (1 + w) v(cond) - w v(uncond)."""
    return (1 + scale) * conditional - scale * unconditional


def solve_euler(velocity: Velocity, x0: Tensor, times: Tensor) -> Tensor:
    """Integrates the flow from `x0` (B, T, M) along the grid `times` by Euler steps."""
    x = x0
    for step in range(times.shape[0] - 1):
        x = x + (times[step + 1] - times[step]) * velocity(step, times[step], x)
    return x


def solve(velocity: Velocity, x0: Tensor, times: Tensor, method: str = "euler") -> Tensor:
    """Integrates with a method of `torchdiffeq` on the grid `times`; for whole sequences.

    Args:
        velocity: as for `solve_euler`; its step number is the interval that the time lies in.
        x0: (B, T, M).
        times: increasing grid from 0 to 1.
        method: "euler", "midpoint", "rk4", or an adaptive method such as "dopri5".

    Raises:
        ValueError: `torchdiffeq` is missing or does not know the method.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ValueError(
            f"solver {method!r} needs torchdiffeq: {install_command('train')}"
        ) from error

    def function(t: Tensor, x: Tensor) -> Tensor:
        step = int(torch.searchsorted(times, t, right=True)) - 1
        return velocity(min(max(step, 0), times.shape[0] - 2), t, x)

    points = odeint(function, x0, times, method=method, rtol=TOLERANCE, atol=TOLERANCE)
    assert isinstance(points, Tensor)
    return points[-1]


NOISE_FRAMES = 15_000
"""Frames that the fixed noise has: 300 s."""

EstimatorState: TypeAlias = DiTState | UNetState


class Estimator(Protocol):
    """What the estimators of the velocity have in common; see `DiT.forward`."""

    def init_state(self, batch_size: int) -> EstimatorState:
        """State before the first frame."""
        ...

    def plan(
        self,
        x: Tensor,
        context: Context,
        caches: Caches | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
    ) -> Plan:
        """Positions and mask of frames (B, T, any), shared by all solver steps."""
        ...

    def __call__(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor,
        context: Context = FULL_CONTEXT,
        state: EstimatorState | None = None,
        *,
        mask: Tensor | None = None,
        pinned_frames: Tensor | None = None,
        plan: Plan | None = None,
    ) -> Tensor:
        """Velocity (B, T, M)."""
        ...


ESTIMATORS: dict[str, Callable[[FlowConfig], nn.Module]] = {
    "dit": DiT,
    "f5_dit": DiT,
    "unet": UNet,
}
"""Estimator class of each name in a config."""


@dataclass
class FlowState(State):
    """What a stream remembers: caches of the encoder and of every solver step."""

    encoder: EncoderState
    steps: list[EstimatorState]
    """With guidance two rows for each item, with and without condition."""
    speaker: Tensor
    """(B, speaker_condition_dim)"""
    pending: Tensor
    """(B, fewer than a chunk and its look-ahead) tokens that do not fill a chunk yet."""
    prompt_mel: Tensor
    """(B, P * frames_per_token, M) in the scale of the flow."""
    fed_tokens: int
    """Tokens given to the encoder, those of the prompt among them."""
    next_frame: int
    """Number of the next frame to render, counted from the start of the prompt."""
    prompt_seed: int
    guidance_scale: float
    context: Context
    additions: Additions | None = None
    """Of an adapter, to the flow."""


class FlowDecoder(nn.Module):
    """Tokens to mel."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.default_context = config.default_context
        self.frames_per_token = config.frames_per_token
        self.encoder = cast("Encoder", ENCODERS[config.encoder](config))
        self.speaker = nn.Linear(config.speaker_dim, config.speaker_condition_dim)
        # Any: the protocol says what is called, and the module has weights besides.
        self.estimator: Any = ESTIMATORS[config.estimator](config)

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in. Mel and the state of the solver are float32."""
        return self.speaker.weight.dtype

    def normalize(self, mel: Tensor) -> Tensor:
        """Log-mel to the scale of the flow."""
        return (mel - self.config.mel_mean) / self.config.mel_std

    def denormalize(self, x: Tensor) -> Tensor:
        """The scale of the flow to log-mel."""
        return x * self.config.mel_std + self.config.mel_mean

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        *,
        tokens: Tensor,
        prompt_mel: Tensor,
        speaker_embedding: Tensor,
        context: Context = FULL_CONTEXT,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Velocity of whole sequences, for training.

        Args:
            x_t: (B, T, M) points of the flow.
            t: (B,) times.
            tokens: (B, N).
            prompt_mel: (B, T, M) in the scale of the flow, zero after the prompt.
            speaker_embedding: (B, E).
            context: in tokens.
            mask: (B, N) True where valid.
            pinned_tokens: (B,) prompt lengths.
            dropped: (B,) True where the condition is dropped (classifier-free guidance).
        """
        pinned = pinned_tokens
        if self.config.chunks_from == "prompt_start" and pinned is not None:
            pinned = None if context.left_frames is None else _whole_chunks(self, pinned, context)
        encoded = self.encoder(tokens, context, mask=mask, pinned_tokens=pinned)
        x_t, prompt_mel = x_t.to(self.dtype), prompt_mel.to(self.dtype)
        condition = self.condition(encoded, prompt_mel, self.project_speaker(speaker_embedding))
        if dropped is not None:
            condition = condition * ~dropped[:, None, None]
        factor = self.frames_per_token
        return self.estimator(
            x_t,
            t,
            condition,
            context.scaled(factor),
            mask=None if mask is None else mask.repeat_interleave(factor, dim=1),
            pinned_frames=None if pinned is None else pinned * factor,
        )

    @torch.inference_mode()
    def generate(
        self,
        tokens: Tensor,
        *,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker_embedding: Tensor,
        seed: int,
        prompt_seed: int = 0,
        context: Context | None = None,
        num_steps: int | None = None,
        guidance_scale: float = 0.7,
        method: str = "euler",
        has_ended: bool = True,
        additions: Additions | None = None,
    ) -> Tensor:
        """Log-mel (B, T, M) of tokens (B, N) in the voice of the prompt.

        Args:
            tokens: (B, N) to be rendered.
            prompt_tokens: (B, P), P may be 0.
            prompt_mel: (B, P * frames_per_token, M) log-mel of the prompt.
            speaker_embedding: (B, E).
            seed: of the noise of the rendered frames, where the config says that it is seeded.
            prompt_seed: of the noise of the prompt's frames, likewise.
            context: in tokens, default the model's; the prompt length is set here.
            num_steps: solver steps, default the model's.
            guidance_scale: strength of classifier-free guidance; 0 turns it off.
            method: solver; other than "euler" needs torchdiffeq.
            has_ended: whether the speech ends with these tokens. Otherwise the last
                `lookahead_tokens` of them are not rendered, only looked at.
            additions: of an adapter, to the flow.

        Raises:
            ValueError: prompt tokens and prompt mel differ in length, there are no more tokens than
                the look-ahead, or the solver is not known.
        """
        self._check_prompt(prompt_tokens, prompt_mel)
        context = self.prompt_context(context, prompt_tokens.shape[1])
        joined, future = torch.cat([prompt_tokens, tokens], dim=1), None
        if not has_ended:
            size = joined.shape[1] - self.config.lookahead_tokens
            if size <= prompt_tokens.shape[1]:
                raise ValueError(
                    f"{tokens.shape[1]} tokens are no more than the look-ahead of "
                    f"{self.config.lookahead_tokens}"
                )
            joined, future = joined[:, :size], joined[:, size:]
        with adapted([additions] * len(joined)) if additions else nullcontext():
            encoded = self.encoder(joined, context, future=future)
            start, total = prompt_mel.shape[1], encoded.shape[1]
            prompt = functional.pad(self.normalize(prompt_mel), (0, 0, 0, total - start))
            speaker = self.project_speaker(speaker_embedding)
            condition = self.condition(encoded, prompt.to(encoded), speaker)
            noise = self.initial_noise(seed, prompt_seed, start, 0, total)
            x0 = noise.to(encoded.device).expand(encoded.shape[0], -1, -1)
            factor = self.frames_per_token
            velocity = self._velocity(condition, context.scaled(factor), guidance_scale, None)
            times = cosine_schedule(num_steps or self.config.num_steps).to(encoded.device)
            if method == "euler":
                x1 = solve_euler(velocity, x0, times)
            else:
                x1 = solve(velocity, x0, times, method)
        return self.denormalize(x1[:, start:])

    @torch.inference_mode()
    def infill(
        self,
        tokens: Tensor,
        mel: Tensor,
        is_known: Tensor,
        *,
        speaker_embedding: Tensor,
        seed: int,
        num_steps: int | None = None,
        guidance_scale: float = 0.7,
        method: str = "euler",
    ) -> Tensor:
        """Log-mel of speech that is known in part; the rest is made to fit it (Le et al., 2023).

        Everything sees everything. Known frames are the condition of a flow that was trained to
        `infill`; of any other one, which has only seen known frames at the start, those before
        the first unknown one are. In either case known frames move along their own path while the
        others are integrated, so at any time they are what training shows there.

        Args:
            tokens: (B, N) of known and unknown frames.
            mel: (B, N * frames_per_token, M) log-mel, of any value where it is not known.
            is_known: (B, N) True where the mel of a token is known.
            speaker_embedding: (B, E).
            seed: of the noise, where the config says that it is seeded.
            num_steps: solver steps, default the model's.
            guidance_scale: strength of classifier-free guidance; 0 turns it off.
            method: solver; other than "euler" needs torchdiffeq.

        Returns:
            (B, N * frames_per_token, M), where it is known the mel that was given.

        Raises:
            ValueError: sizes disagree, or the solver is not known.
        """
        factor = self.frames_per_token
        if mel.shape[:2] != (tokens.shape[0], tokens.shape[1] * factor) or (
            is_known.shape != tokens.shape
        ):
            raise ValueError(
                f"{tuple(tokens.shape)} tokens do not fit a mel of {tuple(mel.shape)} and "
                f"{tuple(is_known.shape)} marks of what is known"
            )
        known = is_known.repeat_interleave(factor, dim=1)[..., None]
        shown = known if self.config.infills else known.long().cumprod(dim=1).bool()
        context = FULL_CONTEXT
        encoded = self.encoder(tokens, context)
        x1 = self.normalize(mel)
        speaker = self.project_speaker(speaker_embedding)
        condition = self.condition(encoded, x1.where(shown, 0.0).to(encoded), speaker)
        noise = self.initial_noise(seed, seed, 0, 0, x1.shape[1])
        x0 = noise.to(x1).expand_as(x1)
        free = self._velocity(condition, context, guidance_scale, None)
        _, known_velocity = path(x0, x1, x1.new_zeros(len(x1)))

        def velocity(step: int, t: Tensor, x: Tensor) -> Tensor:
            return known_velocity.where(known, free(step, t, x))

        times = cosine_schedule(num_steps or self.config.num_steps).to(x1)
        if method == "euler":
            rendered = solve_euler(velocity, x0, times)
        else:
            rendered = solve(velocity, x0, times, method)
        return mel.where(known, self.denormalize(rendered))

    @torch.inference_mode()
    def start(
        self,
        *,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker_embedding: Tensor,
        prompt_seed: int = 0,
        context: Context | None = None,
        num_steps: int | None = None,
        guidance_scale: float = 0.7,
        additions: Additions | None = None,
    ) -> FlowState:
        """State of a stream after its prompt; arguments as for `generate`.

        Where the chunk grid starts with the prompt, its last frames may be left to the first step.

        Raises:
            ValueError: the full context, which has no chunks, or a prompt whose parts disagree.
        """
        context = self.prompt_context(context, prompt_tokens.shape[1])
        if context.is_full:
            raise ValueError("the full context cannot be streamed; use generate")
        self._check_prompt(prompt_tokens, prompt_mel)
        batch = prompt_tokens.shape[0]
        rows = batch if guidance_scale == 0 else 2 * batch
        num_steps = num_steps or self.config.num_steps
        with adapted([additions] * batch) if additions else nullcontext():
            speaker = self.project_speaker(speaker_embedding)
        state = FlowState(
            encoder=self.encoder.init_state(batch),
            steps=[self.estimator.init_state(rows) for _ in range(num_steps)],
            speaker=speaker,
            pending=prompt_tokens[:, :0],
            prompt_mel=self.normalize(prompt_mel).to(speaker),
            fed_tokens=0,
            next_frame=0,
            prompt_seed=prompt_seed,
            guidance_scale=guidance_scale,
            context=context,
            additions=additions,
        )
        if self.config.chunks_from == "prompt_start":
            self.step(prompt_tokens, state, seed=0)
        elif prompt_tokens.shape[1]:
            with adapted([additions] * batch) if additions else nullcontext():
                encoded = self.encoder(prompt_tokens, context, state.encoder, flush=True)
                self._render(encoded, [state], [0], context)
            state.fed_tokens = prompt_tokens.shape[1]
        return state

    @torch.inference_mode()
    def step(self, tokens: Tensor, state: FlowState, *, seed: int, flush: bool = False) -> Tensor:
        """Log-mel of the chunks that the next tokens complete.

        Args:
            tokens: (B, N) the next tokens of the stream, any number of them.
            state: of `start`, advanced in place.
            seed: of the noise, the same for the whole stream.
            flush: the speech ends with these tokens; what waits is rendered too.

        Returns:
            (B, T, M) without frames of the prompt; possibly T = 0.
        """
        return self._advance([self._take(tokens, state, flush)], [state], [seed], flush)[0]

    @torch.inference_mode()
    def step_batch(
        self,
        tokens: Sequence[Tensor],
        states: Sequence[FlowState],
        *,
        seeds: Sequence[int],
        flush: Sequence[bool],
    ) -> list[Tensor]:
        """The same as `step` for several streams of one item each, at any positions.

        Streams whose next pieces have the same size are computed in one batch, in which each
        attends to its own past.

        Args:
            tokens: (1, N) of each stream, a chunk and no more unless flushed.
            states: of the streams, with one item each, advanced in place.
            seeds: of the noise of each.
            flush: whether the speech of each ends.

        Returns:
            Log-mel (1, T, M) of each.
        """
        groups: dict[Hashable, list[int]] = {}
        fed = []
        for index, state in enumerate(states):
            # Of the tokens that were fed, some wait for their future.
            waiting = state.fed_tokens - state.next_frame // self.frames_per_token
            part = self._take(tokens[index], state, flush[index])
            fed.append(part)
            size = (part.shape[1], waiting, len(state.steps))
            key = (*size, state.guidance_scale, state.context.pinned(0), flush[index])
            groups.setdefault(key, []).append(index)
        mels: list[Tensor] = [torch.empty(0, dtype=torch.float32)] * len(states)
        for group in groups.values():
            out = self._advance(
                [fed[index] for index in group],
                [states[index] for index in group],
                [seeds[index] for index in group],
                flush[group[0]],
            )
            for index, mel in zip(group, out, strict=True):
                mels[index] = mel
        return mels

    def tokens_to_next_chunk(self, state: FlowState) -> int:
        """Tokens that are still needed before a step renders the next chunk."""
        context = state.context
        done = state.next_frame // self.frames_per_token - context.pinned_frames
        end = context.pinned_frames + context.chunk_end(max(done, 0))
        given = state.fed_tokens + state.pending.shape[1]
        return end + self.config.lookahead_tokens - given

    def _take(self, tokens: Tensor, state: FlowState, flush: bool) -> Tensor:
        """The tokens (B, N) that the encoder is given now; the others wait."""
        state.pending = torch.cat([state.pending, tokens], dim=1)
        if flush:
            size = state.pending.shape[1]
        else:
            pinned, lookahead = state.context.pinned_frames, self.config.lookahead_tokens
            known = state.fed_tokens + state.pending.shape[1] - lookahead
            ready = pinned + state.context.whole_chunks(known - pinned) if known >= pinned else 0
            is_due = ready > state.next_frame // self.frames_per_token
            size = max(ready + lookahead - state.fed_tokens, 0) if is_due else 0
        fed, state.pending = state.pending[:, :size], state.pending[:, size:]
        state.fed_tokens += size
        return fed

    def _advance(
        self, fed: Sequence[Tensor], states: Sequence[FlowState], seeds: Sequence[int], flush: bool
    ) -> list[Tensor]:
        """Log-mel of streams whose pieces have one size, without frames of their prompts."""
        rows = [state.additions for state in states for _ in range(len(state.speaker))]
        with adapted(rows) if any(rows) else nullcontext():
            return self._advance_rows(fed, states, seeds, flush)

    def _advance_rows(
        self, fed: Sequence[Tensor], states: Sequence[FlowState], seeds: Sequence[int], flush: bool
    ) -> list[Tensor]:
        context, pinned = states[0].context, None
        if len(states) > 1:
            pinned = torch.tensor([state.context.pinned_frames for state in states])
            context = context.pinned(0)
        count = 0
        encoded = torch.zeros(0)
        tokens = torch.cat([*fed])
        if tokens.shape[1] or flush:
            with batched([state.encoder for state in states]) as encoder:
                encoded = self.encoder(tokens, context, encoder, pinned_tokens=pinned, flush=flush)
            count = encoded.shape[1]
        if count == 0:
            num_mels = self.config.mel.num_mels
            return [state.speaker.new_zeros(len(state.speaker), 0, num_mels) for state in states]
        mel = self._render(encoded, states, seeds, context, pinned)
        parts = zip(states, mel.chunk(len(states)), strict=True)
        return [
            self.denormalize(
                part[:, max(state.prompt_mel.shape[1] - state.next_frame + count, 0) :]
            )
            for state, part in parts
        ]

    def _render(
        self,
        encoded: Tensor,
        states: Sequence[FlowState],
        seeds: Sequence[int],
        context: Context,
        pinned_tokens: Tensor | None = None,
    ) -> Tensor:
        """Frames (B, T, M) of the rows of all streams, those of prompts among them."""
        count, first, factor = encoded.shape[1], states[0], self.frames_per_token
        prompts, noises = [], []
        for state, seed in zip(states, seeds, strict=True):
            frame, border = state.next_frame, state.prompt_mel.shape[1]
            prompt = state.prompt_mel[:, frame : frame + count]
            prompts.append(functional.pad(prompt, (0, 0, 0, count - prompt.shape[1])))
            noise = self.initial_noise(seed, state.prompt_seed, border, frame, count)
            noises.append(noise.to(encoded.device).expand(len(prompt), -1, -1))
            state.next_frame += count
        speaker = torch.cat([state.speaker for state in states])
        condition = self.condition(encoded, torch.cat(prompts), speaker)
        pinned = None if pinned_tokens is None else pinned_tokens * factor
        with batched([state.steps for state in states]) as steps:
            velocity = self._velocity(
                condition, context.scaled(factor), first.guidance_scale, steps, pinned
            )
            times = cosine_schedule(len(steps)).to(encoded.device)
            return solve_euler(velocity, torch.cat(noises), times)

    def _velocity(
        self,
        condition: Tensor,
        context: Context,
        guidance_scale: float,
        states: list[EstimatorState] | None,
        pinned_frames: Tensor | None = None,
    ) -> Velocity:
        pinned = pinned_frames
        if guidance_scale:
            # The two rows of an item are neighbours, so that a state can be split by items.
            condition = torch.stack([condition, torch.zeros_like(condition)], dim=1).flatten(0, 1)
            pinned = None if pinned is None else pinned.repeat_interleave(2)
        # The states of all steps are at the same frame.
        caches = None if states is None else states[0].transformer
        plan = self.estimator.plan(condition, context, caches, pinned_frames=pinned)
        rows = condition.shape[0]

        def velocity(step: int, t: Tensor, x: Tensor) -> Tensor:
            state = None if states is None else states[step]
            points = (x.repeat_interleave(2, dim=0) if guidance_scale else x).to(condition.dtype)
            both = self.estimator(points, t.expand(rows), condition, context, state, plan=plan)
            both = both.to(x.dtype)
            if not guidance_scale:
                return both
            conditional, unconditional = both.unflatten(0, (-1, 2)).unbind(dim=1)
            return guided(conditional, unconditional, guidance_scale)

        return velocity

    def condition(self, encoded: Tensor, prompt_mel: Tensor, speaker: Tensor) -> Tensor:
        """What the estimator sees besides x_t, (B, T, condition_dim), in the order of its weights.

        Args:
            encoded: (B, T, M) of the encoder.
            prompt_mel: (B, T, M) in the scale of the flow, zero behind the prompt.
            speaker: (B, speaker_condition_dim).
        """
        spread = speaker[:, None].expand(-1, encoded.shape[1], -1)
        parts = {
            "dit": [encoded, prompt_mel, spread],
            "f5_dit": [prompt_mel, encoded, spread],
            "unet": [encoded, spread, prompt_mel],
        }
        return torch.cat(parts[self.config.estimator], dim=-1)

    def project_speaker(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, E) of any length to (B, speaker_condition_dim)."""
        return self.speaker(functional.normalize(embedding, dim=-1).to(self.dtype))

    def initial_noise(
        self, seed: int, prompt_seed: int, prompt_frames: int, start: int, num_frames: int
    ) -> Tensor:
        """Noise (num_frames, M) of the frames from `start` on, counted from that of the prompt.

        Raises:
            ValueError: the fixed noise ends before.
        """
        num_mels, end = self.config.mel.num_mels, start + num_frames
        if self.config.noise == "fixed":
            if end > NOISE_FRAMES:
                raise ValueError(
                    f"the fixed noise is {NOISE_FRAMES} frames long, prompt and speech have "
                    f"{end}: choose noise 'seeded' in the config of the flow"
                )
            return fixed_noise(num_mels)[start:end]
        border = min(max(prompt_frames, start), end)
        before = frame_noise(prompt_seed, start, border - start, num_mels)
        behind = frame_noise(seed, border - prompt_frames, end - border, num_mels)
        return torch.cat([before, behind])

    def prompt_context(self, context: Context | None, num_prompt_tokens: int) -> Context:
        """The context, default the model's, with what it keeps of a prompt.

        That is the whole prompt, or where the chunk grid starts with the prompt its whole chunks,
        so that the grid stays where it is.
        """
        context = context or self.default_context
        if self.config.chunks_from == "prompt_end":
            return context.pinned(num_prompt_tokens)
        if context.chunk_frames is None or context.left_frames is None:
            return context.pinned(0)
        return context.pinned(int(_whole_chunks(self, torch.tensor(num_prompt_tokens), context)))

    def _check_prompt(self, prompt_tokens: Tensor, prompt_mel: Tensor) -> None:
        expected = prompt_tokens.shape[1] * self.frames_per_token
        if prompt_mel.shape[1] != expected:
            raise ValueError(
                f"the prompt has {prompt_tokens.shape[1]} tokens, which is {expected} mel frames, "
                f"but its mel has {prompt_mel.shape[1]}"
            )


def _whole_chunks(flow: FlowDecoder, num_prompt_tokens: Tensor, context: Context) -> Tensor:
    """Tokens of prompts in whole chunks that are counted from their start."""
    assert context.chunk_frames is not None
    known = (num_prompt_tokens - flow.config.lookahead_tokens).clamp(min=0)
    return known // context.chunk_frames * context.chunk_frames


@lru_cache(maxsize=2)
def fixed_noise(num_mels: int) -> Tensor:
    """The noise (T, M) that CosyVoice starts every flow from: 300 s drawn with seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, num_mels, NOISE_FRAMES, generator=generator, dtype=torch.float32)[
        0
    ].T.contiguous()
