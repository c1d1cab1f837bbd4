"""Speech tokens of many texts at once, from their start to their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tokenlm.models.lm.cache import KeyValueCache
from tokenlm.models.lm.decoding import Decoding, decode_step, speech_bounds
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.lm.layout import Layout, one_shot_prefix
from tokenlm.models.lm.model import SpeechLM
from tokenlm.models.lm.plan import LayoutName, Plan
from tokenlm.models.lm.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """What one sequence is to say."""

    text_tokens: Sequence[int]
    prompt_text_tokens: Sequence[int] = ()
    prompt_tokens: Sequence[int] = ()
    """Speech tokens of the prompt."""
    seed: int = 0
    segment: int = 0
    """Number of the text segment within its request; with `seed` it fixes all draws."""

    layout: LayoutName = "one_shot"

    @property
    def prefix(self) -> Layout:
        """What the model goes on from, in the one-shot layout."""
        return one_shot_prefix([*self.prompt_text_tokens, *self.text_tokens], self.prompt_tokens)

    def plan(self, model: SpeechLM) -> Plan:
        """Order of its positions. Prompt text and text are tokenised apart and joined."""
        plan = Plan(
            self.layout,
            block_text=model.config.block_text_tokens,
            block_speech=model.config.block_speech_tokens,
            prompt_text=self.prompt_text_tokens,
            prompt_tokens=self.prompt_tokens,
            as_reference=model.config.decoded_as_reference,
        )
        plan.add_text(self.text_tokens)
        plan.end_text()
        return plan


def length_bounds(model: SpeechLM, request: SpeechRequest) -> tuple[int, int]:
    """Fewest and most speech tokens of a request, from the length of its text."""
    return speech_bounds(model, len(request.text_tokens))


@torch.inference_mode()
def generate_speech(
    model: SpeechLM,
    requests: Sequence[SpeechRequest],
    sampling: SamplingConfig,
    *,
    guards: GuardConfig | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Speech tokens of every request, without the prompt's and without eos.

    Args:
        model: in evaluation mode.
        requests: decoded together.
        sampling: how tokens are chosen.
        guards: the causal ones watch over every sequence; None has length bounds alone.
        on_step: called with the number of tokens so far after each step, for a progress bar.
    """
    cache = KeyValueCache(model)
    decodings = [
        Decoding(
            model,
            cache,
            request.plan(model),
            sampling=sampling,
            seed=request.seed,
            segment=request.segment,
            guards=guards,
        )
        for request in requests
    ]
    step = 0
    while alive := [decoding for decoding in decodings if decoding.can_step]:
        decode_step(model, alive)
        step += 1
        if on_step is not None:
            on_step(step)
    return [decoding.tokens for decoding in decodings]
