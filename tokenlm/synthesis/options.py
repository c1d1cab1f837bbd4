"""Options of a request."""

from __future__ import annotations

import logging
import operator
import secrets
from typing import Literal, TypedDict

from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.modules.context import Context
from tokenlm.synthesis.voice import Voice

_log = logging.getLogger(__name__)

ContextChoice = Context | Literal["default", "full"]
LayoutChoice = Literal["auto", "one_shot", "interleaved"]


class StreamOptions(TypedDict, total=False):
    """Options of `Synthesizer.stream`."""

    voice: Voice | str | None
    seed: int | None
    speed: float
    sampling: SamplingConfig | None
    context: ContextChoice
    num_steps: int | None
    guidance_scale: float | None
    layout: LayoutChoice
    instruction: str


def chosen_seed(seed: int | None) -> int:
    """The seed of a request; where it is None one is drawn, and logged to be used again.

    Raises:
        ValueError: it is something else than a whole number.
    """
    if seed is None:
        seed = secrets.randbelow(1 << 31)
        _log.info("drew the seed %d", seed)
    try:
        return operator.index(seed)
    except TypeError:
        told = f"a seed is a whole number, or None for a random one, not {seed!r}."
        raise ValueError(told) from None
