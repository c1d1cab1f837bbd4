"""Speech tokens of one segment to sound, chunk by chunk.

Shapes: S samples, N tokens, T mel frames.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tokenlm.audio.tempo import MelTempo, check_speed
from tokenlm.models.flow import FlowState
from tokenlm.modules.context import FULL_CONTEXT, Context
from tokenlm.modules.streaming import batched
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.fitting import add_offset
from tokenlm.synthesis.options import ContextChoice
from tokenlm.synthesis.voice import Voice


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """How speech tokens become sound."""

    context: Context
    num_steps: int
    guidance_scale: float
    speed: float = 1.0


def render_settings(
    components: Components,
    context: ContextChoice,
    num_steps: int | None,
    guidance_scale: float | None,
    speed: float = 1.0,
) -> RenderSettings:
    """What a request chooses, and where it leaves the choice what the bundle says.

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
        context = FULL_CONTEXT if context == "full" else components.flow.config.default_context
    return RenderSettings(
        context=context,
        num_steps=checked.num_steps,
        guidance_scale=checked.guidance_scale,
        speed=check_speed(speed),
    )


class SegmentRenderer:
    """The flow and vocoder states of one segment.

    Tokens wait in it until they fill a chunk of the context and the look-ahead behind it; then the
    chunk is rendered, once.
    """

    def __init__(
        self,
        components: Components,
        flow: FlowState,
        *,
        voice: Voice,
        seed: int,
        speed: float,
    ) -> None:
        """Takes a state of the flow after the prompt of the voice; the state becomes its own."""
        self.flow: Any = flow
        # Any: each kind of flow and vocoder has a state of its own, which only it looks into.
        self.vocoder: Any = components.vocoder.init_state(1)
        self.seed = seed
        self.has_sounded = False
        """Whether anything of it has been rendered."""
        self._components = components
        self._voice = voice
        self._tempo = MelTempo(speed)
        self._waiting: list[int] = []

    @property
    def num_bytes(self) -> int:
        """Memory of the states."""
        return self.flow.num_bytes + self.vocoder.num_bytes

    def add(self, tokens: Sequence[int]) -> None:
        """Takes the next tokens; nothing is rendered yet."""
        self._waiting += tokens

    @property
    def ready_tokens(self) -> int:
        """Of the waiting tokens, as many as the next chunk takes; 0 where they are too few."""
        needed = self._components.flow.tokens_to_next_chunk(self.flow)
        return needed if 0 < needed <= len(self._waiting) else 0

    def take(self) -> Tensor:
        """The tokens (1, N) of the next chunk, or all that are left where they fill none."""
        count = self.ready_tokens or len(self._waiting)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return torch.tensor([taken], dtype=torch.long, device=self._components.device)

    def render(self) -> Tensor:
        """Sound (S,) of the next chunk; of all that is left, where that fills none."""
        return render_together(self._components, [self])[0]

    def saved(self) -> Callable[[], None]:
        """Remembers where the renderer stands; what it gives puts it back there."""
        flow, vocoder = self.flow.shared(), self.vocoder.shared()
        tempo, waiting = copy.copy(self._tempo), [*self._waiting]
        has_sounded = self.has_sounded

        def restore() -> None:
            self.flow, self.vocoder, self.has_sounded = flow, vocoder, has_sounded
            self._tempo, self._waiting = tempo, waiting

        return restore

    def finish(self, mel: Tensor, *, final: bool) -> Tensor:
        """The next frames (1, T, M) of the flow, in the voice and at the speed of the speech."""
        return self._tempo.push(add_offset(mel, self._voice), final=final)


@torch.inference_mode()
def render_together(components: Components, renderers: Sequence[SegmentRenderer]) -> list[Tensor]:
    """Sound (S,) of the next chunk of each renderer; those of one size are computed together."""
    flush = [renderer.ready_tokens == 0 for renderer in renderers]
    mels = components.flow.step_batch(
        [renderer.take() for renderer in renderers],
        [renderer.flow for renderer in renderers],
        seeds=[renderer.seed for renderer in renderers],
        flush=flush,
    )
    timed = [
        renderer.finish(mel, final=final)
        for renderer, mel, final in zip(renderers, mels, flush, strict=True)
    ]
    groups: dict[tuple[int, Hashable, bool], list[int]] = {}
    for index, renderer in enumerate(renderers):
        geometry = components.vocoder.geometry(renderer.vocoder)
        groups.setdefault((timed[index].shape[1], geometry, flush[index]), []).append(index)
    sounds = [torch.zeros(0, dtype=torch.float32)] * len(renderers)
    for (num_frames, _, final), group in groups.items():
        pieces = []
        with batched([renderers[index].vocoder for index in group]) as state:
            if num_frames:
                mel = torch.cat([timed[index] for index in group])
                pieces.append(components.vocoder(mel, state))
            if final:
                pieces.append(components.vocoder.flush(state))
        for row, index in enumerate(group):
            if pieces:
                sounds[index] = torch.cat([piece[row] for piece in pieces]).cpu()
    return sounds
