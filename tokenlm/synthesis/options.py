"""Options of a request."""

from __future__ import annotations

from typing import Literal, TypedDict

from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.modules.context import Context
from tokenlm.synthesis.voice import Voice

ContextChoice = Context | Literal["default", "full"]
LayoutChoice = Literal["auto", "one_shot", "interleaved"]


class StreamOptions(TypedDict, total=False):
    """Options of `Synthesizer.stream`."""

    voice: Voice | str | None
    seed: int
    speed: float
    sampling: SamplingConfig | None
    context: ContextChoice
    num_steps: int | None
    guidance_scale: float | None
    layout: LayoutChoice
    instruction: str
