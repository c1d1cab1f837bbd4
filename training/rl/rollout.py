"""Rollouts: what a policy says when it is asked, and the layout that its log-probabilities need.

Shapes: N rollouts, L positions of all of them behind one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenlm.models.lm.decoding import SamplingConfig, SpeechRequest, generate_speech, speech_bounds
from tokenlm.models.lm.layout import IGNORE, Layout, one_shot
from tokenlm.models.lm.model import LayoutBatch, SpeechLM


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One answer to a request."""

    request: SpeechRequest
    tokens: tuple[int, ...]
    """Speech tokens, without the prompt's and without eos."""
    has_ended: bool
    """Whether the policy ended it; else it ran into the bound of its length."""


def roll_out(
    model: SpeechLM, requests: Sequence[SpeechRequest], sampling: SamplingConfig
) -> list[Rollout]:
    """Let a policy answer requests, all of them in one batch with a cache."""
    with evaluating(model):
        spoken = generate_speech(model, requests, sampling)
    return [
        Rollout(
            request=request,
            tokens=tuple(tokens),
            has_ended=len(tokens) < speech_bounds(model, len(request.text_tokens))[1],
        )
        for request, tokens in zip(requests, spoken, strict=True)
    ]


def rollout_layout(rollout: Rollout, codebook_size: int) -> Layout:
    """The layout of a rollout: its own speech, and eos where it ended, are predicted.

    Text and the prompt's speech are given, not said: they have no targets. It is that of training,
    the same for policy and reference policy.
    """
    request = rollout.request
    text = [*request.prompt_text_tokens, *request.text_tokens]
    layout = one_shot(text, [*request.prompt_tokens, *rollout.tokens], codebook_size)
    first = len(layout) - len(rollout.tokens) - 1
    layout.targets[:first] = [IGNORE] * first
    if not rollout.has_ended:
        layout.targets[-1] = IGNORE
    return layout


@dataclass(frozen=True, kw_only=True)
class PackedRollouts:
    """The layouts of rollouts in one row.

    Answers to a single word and to two sentences stand in one batch: padded to one length, the
    short ones would be mostly padding.
    """

    batch: LayoutBatch
    """(1, L), of which no layout sees another."""
    owner: Tensor
    """(L,) number of the rollout that each position belongs to."""
    starts: Tensor
    """(N,) first position of each rollout."""

    @classmethod
    def of(cls, rollouts: Sequence[Rollout], codebook_size: int) -> PackedRollouts:
        """Lay the layouts of rollouts behind one another."""
        layouts = [rollout_layout(rollout, codebook_size) for rollout in rollouts]
        sizes = torch.tensor([len(layout) for layout in layouts])
        return cls(
            batch=LayoutBatch.in_rows(layouts, [len(layouts)]),
            owner=torch.arange(len(layouts)).repeat_interleave(sizes),
            starts=sizes.cumsum(0) - sizes,
        )

    @property
    def targets(self) -> Tensor:
        """(1, L), IGNORE where nothing is predicted."""
        return self.batch.targets

    def spread(self, values: Tensor) -> Tensor:
        """A value of each rollout (N,) at all of its positions, (1, L)."""
        return values[self.owner][None]

    def sums(self, values: Tensor) -> Tensor:
        """The sum of the positions (1, L) of each rollout, (N,)."""
        return values.new_zeros(len(self.starts)).index_add(0, self.owner, values[0])

    def to(self, device: torch.device | str) -> PackedRollouts:
        """The same on another device."""
        return PackedRollouts(
            batch=self.batch.to(device),
            owner=self.owner.to(device),
            starts=self.starts.to(device),
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
