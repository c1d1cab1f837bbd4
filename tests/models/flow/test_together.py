"""Streams of the flow that stand at different places, in one batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.models.flow import FlowConfig, FlowDecoder, FlowState

CONFIG = FlowConfig(
    codebook_size=11,
    speaker_dim=6,
    speaker_condition_dim=4,
    encoder_dim=16,
    encoder_layers=1,
    encoder_heads=2,
    dim=16,
    num_layers=2,
    num_heads=2,
    chunk_tokens=4,
    chunk_step_tokens=(2, 3, 9),
    left_tokens=6,
)
NUM_TOKENS = 40


@pytest.fixture(scope="module")
def flow() -> FlowDecoder:
    torch.manual_seed(0)
    model = FlowDecoder(CONFIG)
    nn.init.normal_(model.estimator.project.weight, std=0.2)
    return model.eval().requires_grad_(False)


def prompt(pinned: int, seed: int, guidance_scale: float) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "prompt_tokens": torch.randint(11, (1, pinned), generator=generator),
        "prompt_mel": torch.randn(1, pinned * 2, 80, generator=generator) - 5,
        "speaker_embedding": torch.randn(1, 6, generator=generator),
        "prompt_seed": seed,
        "num_steps": 3,
        "guidance_scale": guidance_scale,
    }


class Walk:
    """A stream that takes one chunk after the other."""

    def __init__(self, flow: FlowDecoder, options: dict[str, Any], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(11, (1, NUM_TOKENS), generator=generator)
        self.whole = flow.generate(self.tokens, seed=seed, **options)
        self.state: FlowState = flow.start(**options)
        self.seed = seed
        self.mels: list[Tensor] = []
        self.is_done = False

    def next(self, flow: FlowDecoder) -> Tensor:
        size = flow.tokens_to_next_chunk(self.state)
        taken, self.tokens = self.tokens[:, :size], self.tokens[:, size:]
        self.is_done = taken.shape[1] < size
        return taken


def step(flow: FlowDecoder, walks: list[Walk]) -> None:
    tokens = [walk.next(flow) for walk in walks]
    mels = flow.step_batch(
        tokens,
        [walk.state for walk in walks],
        seeds=[walk.seed for walk in walks],
        flush=[walk.is_done for walk in walks],
    )
    for walk, mel in zip(walks, mels, strict=True):
        walk.mels.append(mel)


def test_default_grid_leaves_out_steps_that_are_no_smaller() -> None:
    assert CONFIG.default_context.chunk_step_frames == (2, 3)
    assert FlowConfig().default_context.chunk_step_frames == (6, 12)


@pytest.mark.parametrize("guidance_scale", [0.0, 0.7])
def test_together_equals_alone(flow: FlowDecoder, guidance_scale: float) -> None:
    """Prompts of other lengths, other beginnings, other ends."""
    walks = [Walk(flow, prompt(n, n, guidance_scale), seed=n) for n in (5, 9, 0)]
    for group in ([0], [0], [0, 1], [1, 0], [1, 2, 0], [2], [2, 1]):
        step(flow, [walks[index] for index in group])
    sizes = {walk.state.num_bytes for walk in walks[:1]}
    while live := [walk for walk in walks if not walk.is_done]:
        step(flow, live)
    for walk in walks:
        joined = torch.cat(walk.mels, dim=1)
        torch.testing.assert_close(joined, walk.whole, atol=1e-4, rtol=0)
    assert len(sizes) == 1


def test_together_keeps_states_small(flow: FlowDecoder) -> None:
    """What one stream is padded with for another does not stay with it."""
    walks = [Walk(flow, prompt(n, n, 0.7), seed=n) for n in (3, 30)]
    alone = Walk(flow, prompt(3, 3, 0.7), seed=3)
    for _ in range(6):
        step(flow, walks)
        step(flow, [alone])
    assert walks[0].state.num_bytes == alone.state.num_bytes


def test_no_streams(flow: FlowDecoder) -> None:
    assert flow.step_batch([], [], seeds=[], flush=[]) == []
