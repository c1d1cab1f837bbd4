"""Speech tokens to waveforms: whole segments, or chunk by chunk.

Shapes: S samples, N tokens, T mel frames, M mel bins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from tokenlm.audio.mel import MelTempo, check_speed
from tokenlm.models.flow import FlowDecoder, FlowState
from tokenlm.modules.streaming import FULL_CONTEXT, Context, batched
from tokenlm.synthesis.adapters import VoiceModels
from tokenlm.synthesis.components import Components, Solver, check_solver
from tokenlm.synthesis.voice import PromptCache, Voice, add_offset, flow_prompt

ContextChoice = Context | Literal["default", "full"]

WHOLE_TOKENS = 500
"""Longer segments are rendered by chunks of tokens also as a whole, so that memory stays flat."""
CHUNK_TOKENS = 100
"""Size of those chunks."""


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """How speech tokens become sound."""

    voice: Voice
    models: VoiceModels
    """What speaks the voice."""
    context: Context
    num_steps: int
    guidance_scale: float
    solver: Solver = "euler"
    speed: float = 1.0


def render_settings(
    components: Components,
    voice: Voice,
    context: ContextChoice = "default",
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    solver: str | None = None,
    speed: float = 1.0,
) -> RenderSettings:
    """The settings of a request; None stands for the bundle's.

    Raises:
        ValueError: a setting is out of range.
    """
    generation = components.generation
    # Made anew, for its checks.
    checked = replace(
        generation,
        num_steps=generation.num_steps if num_steps is None else num_steps,
        guidance_scale=generation.guidance_scale if guidance_scale is None else guidance_scale,
    )
    if isinstance(context, str):
        if context not in ("default", "full"):
            raise ValueError(f"context must be 'default', 'full' or a Context, got {context!r}")
        context = FULL_CONTEXT if context == "full" else components.flow.default_context
    elif not isinstance(context, Context):
        raise ValueError(f"context must be 'default', 'full' or a Context, got {context!r}")
    return RenderSettings(
        voice=voice,
        models=components.models(voice.adapter),
        context=context,
        num_steps=checked.num_steps,
        guidance_scale=checked.guidance_scale,
        solver=check_solver(generation.solver if solver is None else solver),
        speed=check_speed(speed),
    )


class SegmentRenderer:
    """Renders the tokens of one segment, as a whole or chunk by chunk.

    Tokens wait until they fill a chunk of the context and the look-ahead behind it; then the chunk
    is rendered, once.
    """

    def __init__(
        self,
        components: Components,
        prompts: PromptCache,
        settings: RenderSettings,
        seed: int,
        flow: FlowState | None = None,
    ) -> None:
        """Creates a renderer without tokens.

        Args:
            components: the models.
            prompts: prompt states of voices.
            settings: of the request.
            seed: of the noise of the segment.
            flow: state of the flow after the prompt, which the renderer will change; by default it
                is taken from `prompts` when it is needed.
        """
        # Any: each kind of flow and vocoder has a state of its own.
        self.models = settings.models
        self.vocoder: Any = self.models.vocoder.init_state(1)
        self.seed = seed
        self._flow: Any = flow
        self._components, self._prompts, self._settings = components, prompts, settings
        self._tempo = MelTempo(settings.speed)
        self._waiting: list[int] = []

    @property
    def flow(self) -> Any:
        """State of the flow."""
        if self._flow is None:
            settings = self._settings
            self._flow = self._prompts.flow_state(
                settings.voice,
                settings.context,
                settings.num_steps,
                settings.guidance_scale,
                models=settings.models,
            )
        return self._flow

    @property
    def num_bytes(self) -> int:
        """Memory of the states."""
        return self.flow.num_bytes + self.vocoder.num_bytes

    def add(self, tokens: Sequence[int]) -> None:
        """Appends tokens; nothing is rendered yet."""
        self._waiting += tokens

    @property
    def ready_tokens(self) -> int:
        """Number of waiting tokens that the next chunk takes; 0 where they are too few."""
        needed = self.models.flow.tokens_to_next_chunk(self.flow)
        return needed if 0 < needed <= len(self._waiting) else 0

    def take(self) -> Tensor:
        """The tokens (1, N) of the next chunk, or all that are left where they fill none."""
        count = self.ready_tokens or len(self._waiting)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return torch.tensor([taken], dtype=torch.long, device=self._components.device)

    @torch.no_grad()
    def render_whole(self) -> Tensor:
        """Waveform (S,) of all tokens at once; for a renderer that has rendered nothing."""
        components, settings = self._components, self._settings
        tokens = torch.tensor([self._waiting], device=components.device)
        self._waiting = []
        # Any: each kind of flow has a state of its own.
        flow: Any = self.models.flow
        # Without a window, caches would take more memory than the whole does; and the caches are
        # those of Euler steps.
        if (
            tokens.shape[1] <= WHOLE_TOKENS
            or settings.context.left_frames is None
            or settings.solver != "euler"
        ):
            mel = flow.generate(
                tokens,
                **flow_prompt(settings.voice, components.device),
                seed=self.seed,
                context=settings.context,
                num_steps=settings.num_steps,
                guidance_scale=settings.guidance_scale,
                method=settings.solver,
                additions=self.models.additions.get("flow"),
            )
        else:
            parts = tokens.split(CHUNK_TOKENS, dim=1)
            mels = [flow.step(part, self.flow, seed=self.seed) for part in parts]
            mels.append(flow.step(tokens[:, :0], self.flow, seed=self.seed, flush=True))
            mel = torch.cat(mels, dim=1)
        return self.models.vocoder(self.finish(mel, final=True))[0].cpu()

    def snapshot(self) -> Callable[[], None]:
        """A function that restores the state in which the renderer is now."""
        flow, vocoder = self.flow.shared(), self.vocoder.shared()
        tempo, waiting = copy.copy(self._tempo), [*self._waiting]

        def restore() -> None:
            self._flow, self.vocoder = flow, vocoder
            self._tempo, self._waiting = tempo, waiting

        return restore

    def finish(self, mel: Tensor, *, final: bool) -> Tensor:
        """Mel (1, T', M) of the flow's next frames (1, T, M), with the voice's offset and speed."""
        return self._tempo.push(add_offset(mel, self._settings.voice), final=final)


def _flow_chunks(renderers: Sequence[SegmentRenderer], flush: Sequence[bool]) -> list[Tensor]:
    """Log-mel (1, T, M) of the next chunk of each renderer, batched by flow."""
    groups: dict[FlowDecoder, list[int]] = {}
    for index, renderer in enumerate(renderers):
        groups.setdefault(renderer.models.flow, []).append(index)
    mels = [torch.zeros(0, dtype=torch.float32)] * len(renderers)
    for flow, group in groups.items():
        own = [renderers[index] for index in group]
        found = flow.step_batch(
            [renderer.take() for renderer in own],
            [renderer.flow for renderer in own],
            seeds=[renderer.seed for renderer in own],
            flush=[flush[index] for index in group],
        )
        for index, mel in zip(group, found, strict=True):
            mels[index] = mel
    return mels


@torch.inference_mode()
def render_chunks(renderers: Sequence[SegmentRenderer]) -> list[Tensor]:
    """Waveform (S,) of the next chunk of each renderer, batched by size.

    Where the waiting tokens fill no chunk, all of them are rendered, and the segment ends.
    """
    flush = [renderer.ready_tokens == 0 for renderer in renderers]
    mels = _flow_chunks(renderers, flush)
    timed = [
        renderer.finish(mel, final=final)
        for renderer, mel, final in zip(renderers, mels, flush, strict=True)
    ]
    # Any: each kind of vocoder has a state of its own.
    groups: dict[tuple[int, Hashable, bool, Any], list[int]] = {}
    for index, renderer in enumerate(renderers):
        vocoder: Any = renderer.models.vocoder
        geometry = vocoder.geometry(renderer.vocoder)
        key = (timed[index].shape[1], geometry, flush[index], vocoder)
        groups.setdefault(key, []).append(index)
    sounds = [torch.zeros(0, dtype=torch.float32)] * len(renderers)
    for (num_frames, _, final, vocoder), group in groups.items():
        pieces = []
        with batched([renderers[index].vocoder for index in group]) as state:
            if num_frames:
                mel = torch.cat([timed[index] for index in group])
                pieces.append(vocoder(mel, state))
            if final:
                pieces.append(vocoder.flush(state))
        for row, index in enumerate(group):
            if pieces:
                sounds[index] = torch.cat([piece[row] for piece in pieces]).cpu()
    return sounds
