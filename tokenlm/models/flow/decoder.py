"""Flow decoder: speech tokens, a prompt and a speaker to a mel spectrogram.

Shapes: B batch, N tokens, P prompt tokens, T mel frames (N * frames_per_token), M mel bins,
E speaker channels. Chunk-aware causal conditional flow matching, after CosyVoice 2 (Du et al.,
2024, section 2.4), with a transformer as estimator and caches for every solver step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.models.flow.config import FlowConfig
from tokenlm.models.flow.encoder import TokenEncoder
from tokenlm.models.flow.estimator import EstimatorState, VelocityEstimator
from tokenlm.models.flow.matching import (
    Velocity,
    cosine_schedule,
    guided,
    solve,
    solve_euler,
)
from tokenlm.models.flow.state import FlowState, join_states, part_states
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.noise import frame_noise


class FlowDecoder(nn.Module):
    """Tokens to mel."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TokenEncoder(
            codebook_size=config.codebook_size,
            dim=config.encoder_dim,
            out_dim=config.mel.num_mels,
            num_layers=config.encoder_layers,
            num_heads=config.encoder_heads,
            expansion=4.0,
            dropout=config.dropout,
            lookahead_tokens=config.lookahead_tokens,
            frames_per_token=config.frames_per_token,
        )
        self.speaker = nn.Linear(config.speaker_dim, config.speaker_condition_dim)
        self.estimator = VelocityEstimator(
            num_mels=config.mel.num_mels,
            condition_dim=config.condition_dim,
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            expansion=config.expansion,
            dropout=config.dropout,
            patch_frames=config.patch_frames,
        )

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
        encoded = self.encoder(tokens, context, mask=mask, pinned_tokens=pinned_tokens)
        condition = self._condition(encoded, prompt_mel, self._speaker(speaker_embedding))
        if dropped is not None:
            condition = condition * ~dropped[:, None, None]
        factor = self.config.frames_per_token
        return self.estimator(
            x_t,
            t,
            condition,
            context.scaled(factor),
            mask=None if mask is None else mask.repeat_interleave(factor, dim=1),
            pinned_frames=None if pinned_tokens is None else pinned_tokens * factor,
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
        num_steps: int = 6,
        guidance_scale: float = 0.7,
        method: str = "euler",
    ) -> Tensor:
        """Log-mel (B, T, M) of tokens (B, N) in the voice of the prompt.

        Args:
            tokens: (B, N) to be rendered.
            prompt_tokens: (B, P), P may be 0.
            prompt_mel: (B, P * frames_per_token, M) log-mel of the prompt.
            speaker_embedding: (B, E).
            seed: of the noise of the rendered frames.
            prompt_seed: of the noise of the prompt's frames.
            context: in tokens, default the model's; the prompt length is set here.
            num_steps: solver steps.
            guidance_scale: strength of classifier-free guidance; 0 turns it off.
            method: solver; other than "euler" needs torchdiffeq.
        """
        prompt_length = prompt_tokens.shape[1]
        factor = self.config.frames_per_token
        self._check_prompt(prompt_tokens, prompt_mel)
        context = (context or self.config.default_context).pinned(prompt_length)
        joined = torch.cat([prompt_tokens, tokens], dim=1)
        encoded = self.encoder(joined, context)
        prompt = functional.pad(self.normalize(prompt_mel), (0, 0, 0, tokens.shape[1] * factor))
        condition = self._condition(encoded, prompt, self._speaker(speaker_embedding))
        frames = prompt_length * factor
        noise = [
            self._noise(prompt_seed, 0, frames, joined),
            self._noise(seed, 0, tokens.shape[1] * factor, joined),
        ]
        velocity = self._velocity(condition, context.scaled(factor), guidance_scale, None)
        times = cosine_schedule(num_steps).to(condition)
        x0 = torch.cat(noise, dim=1).to(condition)
        if method == "euler":
            x1 = solve_euler(velocity, x0, times)
        else:
            x1 = solve(velocity, x0, times, method)
        return self.denormalize(x1[:, frames:])

    @torch.inference_mode()
    def start(
        self,
        *,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker_embedding: Tensor,
        prompt_seed: int = 0,
        context: Context | None = None,
        num_steps: int = 6,
        guidance_scale: float = 0.7,
    ) -> FlowState:
        """State of a stream after its prompt; arguments as for `generate`.

        Raises:
            ValueError: the full context, which has no chunks.
        """
        context = (context or self.config.default_context).pinned(prompt_tokens.shape[1])
        if context.is_full:
            raise ValueError("the full context cannot be streamed; use generate")
        self._check_prompt(prompt_tokens, prompt_mel)
        batch = prompt_tokens.shape[0]
        rows = batch if guidance_scale == 0 else 2 * batch
        state = FlowState(
            encoder=self.encoder.init_state(batch),
            steps=[self.estimator.init_state(rows) for _ in range(num_steps)],
            speaker=self._speaker(speaker_embedding),
            pending=prompt_tokens[:, :0],
            fed_tokens=0,
            next_frame=0,
            guidance_scale=guidance_scale,
            context=context,
        )
        if prompt_tokens.shape[1]:
            encoded = self.encoder(prompt_tokens, context, state.encoder, flush=True)
            noise = self._noise(prompt_seed, 0, encoded.shape[1], prompt_tokens)
            self._render(encoded, self.normalize(prompt_mel), noise, state)
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
            (B, T, M), T a multiple of the chunk unless flushed; possibly 0.
        """
        fed = self._take(tokens, state, flush)
        if fed.shape[1] == 0 and not flush:
            return tokens.new_zeros(tokens.shape[0], 0, self.config.mel.num_mels).float()
        encoded = self.encoder(fed, state.context, state.encoder, flush=flush)
        if encoded.shape[1] == 0:
            return encoded.new_zeros(tokens.shape[0], 0, self.config.mel.num_mels)
        noise = self._noise(seed, state.next_frame, encoded.shape[1], tokens)
        state.next_frame += encoded.shape[1]
        return self.denormalize(self._render(encoded, torch.zeros_like(noise), noise, state))

    def tokens_to_next_chunk(self, state: FlowState) -> int:
        """Tokens that are still needed before a step renders the next chunk."""
        end = state.context.chunk_end(state.next_frame // self.config.frames_per_token)
        given = state.fed_tokens + state.pending.shape[1]
        return end + self.config.lookahead_tokens - given

    def _take(self, tokens: Tensor, state: FlowState, flush: bool) -> Tensor:
        """The tokens (B, N) that the encoder is given now; the others wait."""
        state.pending = torch.cat([state.pending, tokens], dim=1)
        waiting = self.config.lookahead_tokens
        available = state.fed_tokens + state.pending.shape[1]
        if flush:
            take = state.pending.shape[1]
        else:
            whole = state.context.whole_chunks(max(available - waiting, 0))
            take = max(whole + waiting - state.fed_tokens, 0) if whole else 0
        fed, state.pending = state.pending[:, :take], state.pending[:, take:]
        state.fed_tokens += take
        return fed

    @torch.inference_mode()
    def step_together(
        self,
        tokens: Sequence[Tensor],
        states: Sequence[FlowState],
        *,
        seeds: Sequence[int],
        flush: Sequence[bool],
    ) -> list[Tensor]:
        """The same as `step` for several streams of one item each, wherever they stand.

        Streams whose next chunks have the same size are computed in one batch.

        Args:
            tokens: (1, N) of each stream, a chunk and no more unless flushed.
            states: of the streams, with one item each, advanced in place.
            seeds: of the noise of each.
            flush: whether the speech of each ends.

        Returns:
            Log-mel (1, T, M) of each.
        """
        groups: dict[Hashable, list[int]] = {}
        for index, state in enumerate(states):
            size = state.pending.shape[1] + tokens[index].shape[1]
            key = (size, state.encoder.lookahead.waiting.shape[1], len(state.steps)) + (
                state.guidance_scale,
                state.context.pinned(0),
                flush[index],
            )
            groups.setdefault(key, []).append(index)
        mels: list[Tensor] = [torch.empty(0, dtype=torch.float32)] * len(states)
        for group in groups.values():
            chosen = [states[index] for index in group]
            seed_of = [seeds[index] for index in group]
            given = [tokens[index] for index in group]
            if len(group) == 1:
                out = [self.step(given[0], chosen[0], seed=seed_of[0], flush=flush[group[0]])]
            else:
                out = self._step_group(given, chosen, seed_of, flush[group[0]])
            for index, mel in zip(group, out, strict=True):
                mels[index] = mel
        return mels

    def _step_group(
        self, tokens: list[Tensor], states: list[FlowState], seeds: list[int], flush: bool
    ) -> list[Tensor]:
        """`step` of streams with equally many tokens."""
        fed = [self._take(row, state, flush) for row, state in zip(tokens, states, strict=True)]
        assert len({row.shape[1] for row in fed}) == 1
        batch = torch.cat(fed)
        if batch.shape[1] == 0 and not flush:
            return list(batch.new_zeros(len(states), 0, self.config.mel.num_mels).float().split(1))
        joined = join_states(states)
        pinned = torch.tensor([state.context.pinned_frames for state in states])
        pinned = pinned.to(batch.device)
        encoded = self.encoder(
            batch, joined.context, joined.encoder, pinned_tokens=pinned, flush=flush
        )
        if encoded.shape[1]:
            noise = torch.cat(
                [
                    self._noise(seed, state.next_frame, encoded.shape[1], row)
                    for seed, state, row in zip(seeds, states, fed, strict=True)
                ]
            )
            mel = self._render(encoded, torch.zeros_like(noise), noise, joined, pinned)
        else:
            mel = encoded.new_zeros(len(states), 0, self.config.mel.num_mels)
        factor = self.config.frames_per_token
        part_states(joined, states, factor, self.config.patch_frames, encoded.shape[1])
        return list(self.denormalize(mel).split(1))

    def _render(
        self,
        encoded: Tensor,
        prompt: Tensor,
        noise: Tensor,
        state: FlowState,
        pinned_tokens: Tensor | None = None,
    ) -> Tensor:
        condition = self._condition(encoded, prompt.to(encoded), state.speaker)
        factor = self.config.frames_per_token
        velocity = self._velocity(
            condition,
            state.context.scaled(factor),
            state.guidance_scale,
            state.steps,
            None if pinned_tokens is None else pinned_tokens * factor,
        )
        times = cosine_schedule(len(state.steps)).to(condition)
        return solve_euler(velocity, noise.to(condition), times)

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
            # The rows of an item stand together, so that a state can be unstacked.
            condition = torch.stack([condition, torch.zeros_like(condition)], dim=1).flatten(0, 1)
            pinned = None if pinned is None else pinned.repeat_interleave(2)

        def velocity(step: int, t: Tensor, x: Tensor) -> Tensor:
            state = states[step] if states is not None else None
            if not guidance_scale:
                times = t.expand(x.shape[0])
                return self.estimator(x, times, condition, context, state, pinned_frames=pinned)
            doubled = x.repeat_interleave(2, dim=0)
            times = t.expand(doubled.shape[0])
            both = self.estimator(doubled, times, condition, context, state, pinned_frames=pinned)
            conditional, unconditional = both.unflatten(0, (-1, 2)).unbind(dim=1)
            return guided(conditional, unconditional, guidance_scale)

        return velocity

    def _condition(self, encoded: Tensor, prompt_mel: Tensor, speaker: Tensor) -> Tensor:
        spread = speaker[:, None].expand(-1, encoded.shape[1], -1)
        return torch.cat([encoded, prompt_mel, spread], dim=-1)

    def _speaker(self, embedding: Tensor) -> Tensor:
        return self.speaker(functional.normalize(embedding, dim=-1))

    def _noise(self, seed: int, start: int, num_frames: int, like: Tensor) -> Tensor:
        noise = frame_noise(seed, start, num_frames, self.config.mel.num_mels)
        return noise.to(like.device).expand(like.shape[0], -1, -1)

    def _check_prompt(self, prompt_tokens: Tensor, prompt_mel: Tensor) -> None:
        expected = prompt_tokens.shape[1] * self.config.frames_per_token
        if prompt_mel.shape[1] != expected:
            raise ValueError(
                f"the prompt has {prompt_tokens.shape[1]} tokens, which is {expected} mel frames, "
                f"but its mel has {prompt_mel.shape[1]}"
            )
