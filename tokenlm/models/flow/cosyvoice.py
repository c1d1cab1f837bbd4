"""Flow decoders of CosyVoice 2 and 3 (Du et al., 2024 and 2025): tokens and a prompt to mel.

Shapes: B batch, N tokens, P prompt tokens, T mel frames (N * frames_per_token), M mel bins,
E speaker channels. Unlike in `FlowDecoder`, the chunk grid is counted from the first token of the
prompt, whose frames see their own chunk and what lies before, as these weights were trained.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.models.flow.cosyvoice_config import (
    NOISE_FRAMES,
    CosyVoiceFlowConfig,
    build_encoder,
    build_estimator,
    fixed_noise,
)
from tokenlm.models.flow.cosyvoice_state import CosyVoiceFlowState
from tokenlm.models.flow.dit import DiTState
from tokenlm.models.flow.matching import Velocity, cosine_schedule, guided, solve, solve_euler
from tokenlm.models.flow.unet import UNetState
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.noise import frame_noise
from tokenlm.modules.together import side_by_side
from tokenlm.modules.transformer import reserve


class CosyVoiceFlow(nn.Module):
    """Tokens to mel."""

    def __init__(self, config: CosyVoiceFlowConfig) -> None:
        super().__init__()
        self.config = config
        num_mels, has_projection = config.mel.num_mels, config.encoder == "conformer"
        self.embedding = nn.Embedding(config.codebook_size, config.token_dim)
        self.encoder = build_encoder(config)
        self.project = nn.Linear(config.token_dim, num_mels) if has_projection else nn.Identity()
        self.speaker = nn.Linear(config.speaker_dim, num_mels)
        self.estimator = build_estimator(config)

    def normalize(self, mel: Tensor) -> Tensor:
        """Log-mel to the scale of the flow, which is the same."""
        return mel

    def denormalize(self, x: Tensor) -> Tensor:
        """The scale of the flow to log-mel, which is the same."""
        return x

    def encode(
        self,
        tokens: Tensor,
        context: Context = FULL_CONTEXT,
        *,
        mask: Tensor | None = None,
        pinned_tokens: Tensor | None = None,
        future: Tensor | None = None,
    ) -> Tensor:
        """What the estimator is told of tokens, (B, T, M).

        Args:
            tokens: (B, N) whole sequences.
            context: in tokens.
            mask: (B, N) True where valid.
            pinned_tokens: (B,) tokens that a bounded window keeps, where items have their own.
            future: (B, lookahead_tokens) tokens behind them that only the look-ahead sees.
        """
        x = self.embedding(tokens)
        if mask is not None:
            x = x * mask[..., None]
        ahead = None if future is None else self.embedding(future)
        return self.project(
            self.encoder(x, context, mask=mask, pinned_tokens=pinned_tokens, future=ahead)
        )

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
        """Velocity of whole sequences, for training; arguments as for `FlowDecoder`.

        The chunk grid starts at the first token whatever `pinned_tokens` says: where the window is
        bounded, what is kept are the whole chunks of each prompt, as in a stream.
        """
        pinned = None
        if pinned_tokens is not None and context.left_frames is not None:
            pinned = self._whole_chunks(pinned_tokens, context)
        encoded = self.encode(tokens, context, mask=mask, pinned_tokens=pinned)
        condition = self.condition(encoded, prompt_mel, self.project_speaker(speaker_embedding))
        if dropped is not None:
            condition = condition * ~dropped[:, None, None]
        factor = self.config.frames_per_token
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
        num_steps: int = 10,
        guidance_scale: float = 0.7,
        method: str = "euler",
        has_ended: bool = True,
    ) -> Tensor:
        """Log-mel (B, T, M) of tokens (B, N) in the voice of the prompt.

        Args:
            tokens: (B, N) to be rendered.
            prompt_tokens: (B, P), P may be 0.
            prompt_mel: (B, P * frames_per_token, M) log-mel of the prompt.
            speaker_embedding: (B, E).
            seed: of the noise of the rendered frames, where the config says that it is seeded.
            prompt_seed: of the noise of the prompt's frames, likewise.
            context: in tokens, default the model's.
            num_steps: solver steps.
            guidance_scale: strength of classifier-free guidance; 0 turns it off.
            method: solver; other than "euler" needs torchdiffeq.
            has_ended: whether the speech ends with these tokens. Otherwise the last
                `lookahead_tokens` of them are not rendered, only looked at.
        """
        self._check_prompt(prompt_tokens, prompt_mel)
        context = self._context(context, prompt_tokens.shape[1])
        joined, future = torch.cat([prompt_tokens, tokens], dim=1), None
        if not has_ended:
            size = joined.shape[1] - self.config.lookahead_tokens
            if size <= prompt_tokens.shape[1]:
                raise ValueError(
                    f"{tokens.shape[1]} tokens are no more than the look-ahead of "
                    f"{self.config.lookahead_tokens}"
                )
            joined, future = joined[:, :size], joined[:, size:]
        encoded = self.encode(joined, context, future=future)
        start, total = prompt_mel.shape[1], encoded.shape[1]
        prompt = functional.pad(prompt_mel, (0, 0, 0, total - start)).to(encoded)
        condition = self.condition(encoded, prompt, self.project_speaker(speaker_embedding))
        noise = self.initial_noise(seed, prompt_seed, start, 0, total)
        x0 = noise.to(encoded).expand(encoded.shape[0], -1, -1)
        factor = self.config.frames_per_token
        velocity = self._velocity(condition, context.scaled(factor), guidance_scale, None)
        times = cosine_schedule(num_steps).to(encoded)
        if method == "euler":
            return solve_euler(velocity, x0, times)[:, start:]
        return solve(velocity, x0, times, method)[:, start:]

    @torch.inference_mode()
    def start(
        self,
        *,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker_embedding: Tensor,
        prompt_seed: int = 0,
        context: Context | None = None,
        num_steps: int = 10,
        guidance_scale: float = 0.7,
    ) -> CosyVoiceFlowState:
        """State of a stream whose prompt is rendered as far as its chunks are complete.

        Arguments as for `generate`.

        Raises:
            ValueError: the full context, which has no chunks.
        """
        context = self._context(context, prompt_tokens.shape[1])
        if context.is_full:
            raise ValueError("the full context cannot be streamed; use generate")
        self._check_prompt(prompt_tokens, prompt_mel)
        batch = prompt_tokens.shape[0]
        rows = batch if guidance_scale == 0 else 2 * batch
        speaker = self.project_speaker(speaker_embedding)
        state = CosyVoiceFlowState(
            encoder=self.encoder.init_state(batch),
            steps=[self.estimator.init_state(rows) for _ in range(num_steps)],
            speaker=speaker,
            pending=prompt_tokens[:, :0],
            prompt_mel=prompt_mel.to(speaker),
            fed_tokens=0,
            next_frame=0,
            prompt_seed=prompt_seed,
            guidance_scale=guidance_scale,
            context=context,
        )
        self.step(prompt_tokens, state, seed=0)
        return state

    @torch.inference_mode()
    def step(
        self, tokens: Tensor, state: CosyVoiceFlowState, *, seed: int, flush: bool = False
    ) -> Tensor:
        """Log-mel of the chunks that the next tokens complete.

        Args:
            tokens: (B, N) the next tokens of the stream, any number of them.
            state: of `start`, advanced in place.
            seed: of the noise, the same for the whole stream.
            flush: the speech ends with these tokens; what waits is rendered too.

        Returns:
            (B, T, M) without frames of the prompt; possibly T = 0.
        """
        return self._advance(
            [state.take(tokens, self.config.lookahead_tokens, flush)], [state], [seed], flush
        )[0]

    @torch.inference_mode()
    def step_together(
        self,
        tokens: Sequence[Tensor],
        states: Sequence[CosyVoiceFlowState],
        *,
        seeds: Sequence[int],
        flush: Sequence[bool],
    ) -> list[Tensor]:
        """The same as `step` for several streams of one item each, wherever they stand.

        Streams whose next pieces have the same size are computed in one batch, in which each
        attends to its own past. Arguments as for `FlowDecoder.step_together`.

        Returns:
            Log-mel (1, T, M) of each.
        """
        groups: dict[Hashable, list[int]] = {}
        fed = []
        for index, state in enumerate(states):
            # Of the tokens that were fed, some wait for their future.
            waiting = state.fed_tokens - state.next_frame // self.config.frames_per_token
            part = state.take(tokens[index], self.config.lookahead_tokens, flush[index])
            fed.append(part)
            size = (part.shape[1], waiting, len(state.steps))
            key = (*size, state.guidance_scale, state.context, flush[index])
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

    def _advance(
        self,
        fed: Sequence[Tensor],
        states: Sequence[CosyVoiceFlowState],
        seeds: Sequence[int],
        flush: bool,
    ) -> list[Tensor]:
        """Log-mel of streams whose pieces have one size, without frames of their prompts."""
        embedded = self.embedding(torch.cat([*fed]))
        encoded = embedded[:, :0]
        if embedded.shape[1] or flush:
            with side_by_side([state.encoder for state in states]) as encoder:
                encoded = self.encoder(embedded, states[0].context, encoder, flush=flush)
        if encoded.shape[1] == 0:
            num_mels = self.config.mel.num_mels
            return [state.prompt_mel.new_zeros(len(state.speaker), 0, num_mels) for state in states]
        mel = self._render(self.project(encoded), states, seeds)
        parts = zip(states, mel.chunk(len(states)), strict=True)
        return [
            part[:, max(state.prompt_mel.shape[1] - state.next_frame + part.shape[1], 0) :]
            for state, part in parts
        ]

    def tokens_to_next_chunk(self, state: CosyVoiceFlowState) -> int:
        """Tokens that are still needed before a step renders the next chunk."""
        context = state.context
        done = state.next_frame // self.config.frames_per_token - context.pinned_frames
        end = context.pinned_frames + context.chunk_end(max(done, 0))
        given = state.fed_tokens + state.pending.shape[1]
        return end + self.config.lookahead_tokens - given

    def _render(
        self, encoded: Tensor, states: Sequence[CosyVoiceFlowState], seeds: Sequence[int]
    ) -> Tensor:
        """Frames (B, T, M) of the rows of all streams, those of prompts among them."""
        count, first = encoded.shape[1], states[0]
        prompts, noises = [], []
        for state, seed in zip(states, seeds, strict=True):
            start, frame = state.prompt_mel.shape[1], state.next_frame
            prompts.append(state.prompt_frames(count))
            noise = self.initial_noise(seed, state.prompt_seed, start, frame, count)
            noises.append(noise.to(encoded).expand(len(prompts[-1]), -1, -1))
            state.next_frame += count
        speaker = torch.cat([state.speaker for state in states])
        condition = self.condition(encoded, torch.cat(prompts), speaker)
        context = first.context.scaled(self.config.frames_per_token)
        with side_by_side([state.steps for state in states]) as steps:
            velocity = self._velocity(condition, context, first.guidance_scale, steps)
            times = cosine_schedule(len(steps)).to(encoded)
            return solve_euler(velocity, torch.cat(noises), times)

    def _velocity(
        self,
        condition: Tensor,
        context: Context,
        guidance_scale: float,
        states: list[UNetState | DiTState] | None,
    ) -> Velocity:
        if guidance_scale:
            # The rows of an item stand together, so that a state can be unstacked.
            condition = torch.stack([condition, torch.zeros_like(condition)], dim=1).flatten(0, 1)
        # The states of all steps stand at the same frame.
        past = None if states is None else states[0].transformer
        plan = self.estimator.plan(condition, context, past)
        rows = condition.shape[0]

        def velocity(step: int, t: Tensor, x: Tensor) -> Tensor:
            state = None if states is None else states[step]
            reserve(state and state.transformer, x.shape[1])
            points = x.repeat_interleave(2, dim=0) if guidance_scale else x
            both = self.estimator(points, t.expand(rows), condition, context, state, plan=plan)
            if not guidance_scale:
                return both
            conditional, unconditional = both.unflatten(0, (-1, 2)).unbind(dim=1)
            return guided(conditional, unconditional, guidance_scale)

        return velocity

    def condition(self, encoded: Tensor, prompt_mel: Tensor, speaker: Tensor) -> Tensor:
        """What the estimator sees besides x_t, (B, T, 3 M), in the order of its weights."""
        spread = speaker[:, None].expand(-1, encoded.shape[1], -1)
        if self.config.estimator == "unet":
            return torch.cat([encoded, spread, prompt_mel], dim=-1)
        return torch.cat([prompt_mel, encoded, spread], dim=-1)

    def project_speaker(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, E) of any length to (B, M)."""
        return self.speaker(functional.normalize(embedding, dim=-1))

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

    def _context(self, context: Context | None, num_prompt_tokens: int) -> Context:
        """The context, its prompt kept where the window is bounded."""
        context = context or self.config.default_context
        if context.chunk_frames is None or context.left_frames is None:
            return context.pinned(0)
        kept = self._whole_chunks(torch.tensor(num_prompt_tokens), context)
        return context.pinned(int(kept))

    def _whole_chunks(self, num_prompt_tokens: Tensor, context: Context) -> Tensor:
        """Tokens in whole chunks of prompts, so that the grid stays where it is."""
        assert context.chunk_frames is not None
        known = (num_prompt_tokens - self.config.lookahead_tokens).clamp(min=0)
        return known // context.chunk_frames * context.chunk_frames

    def _check_prompt(self, prompt_tokens: Tensor, prompt_mel: Tensor) -> None:
        expected = prompt_tokens.shape[1] * self.config.frames_per_token
        if prompt_mel.shape[1] != expected:
            raise ValueError(
                f"the prompt has {prompt_tokens.shape[1]} tokens, which is {expected} mel frames, "
                f"but its mel has {prompt_mel.shape[1]}"
            )
