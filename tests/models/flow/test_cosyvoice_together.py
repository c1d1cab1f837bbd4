"""Streams of the CosyVoice flows that stand at different places, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config
from tokenlm.modules.streaming import Context

NUM_TOKENS = 33
UNBOUNDED, WINDOW = Context(chunk_frames=4), Context(chunk_frames=4, left_frames=4)


KINDS: dict[str, dict[str, Any]] = {
    "unet": {"encoder_dim": 16, "encoder_layers": 1, "encoder_up_layers": 1, "encoder_heads": 2,
             "blocks_per_level": 1, "num_mid_levels": 1},
    "dit": {"encoder": "lookahead", "estimator": "f5_dit", "num_layers": 2},
}  # fmt: skip


@pytest.fixture(scope="module", params=["unet", "dit"])
def flow(request: pytest.FixtureRequest) -> FlowDecoder:
    torch.manual_seed(0)
    config = cosyvoice_flow_config(
        codebook_size=27, speaker_dim=8, encoder_hidden_dim=24, dim=16, num_heads=2, head_dim=8,
        chunk_tokens=4, noise="seeded", **KINDS[request.param],
    )  # fmt: skip
    return FlowDecoder(config).eval().requires_grad_(False)


def given(num_prompt: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "prompt_tokens": torch.randint(27, (1, num_prompt), generator=generator),
        "prompt_mel": torch.randn(1, 2 * num_prompt, 80, generator=generator),
        "speaker_embedding": torch.randn(1, 8, generator=generator),
        "prompt_seed": seed,
        "num_steps": 2,
        "context": UNBOUNDED,
    }


class Walk:
    """A stream that takes one chunk after the other, with words, voice and noise of its own."""

    def __init__(self, flow: FlowDecoder, num_prompt: int, seed: int, **changes: Any) -> None:
        options = given(num_prompt, seed) | changes
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(27, (1, NUM_TOKENS - seed % 3), generator=generator)
        self.whole = flow.generate(tokens, seed=seed, **options)
        self.state = flow.start(**options)
        self.rest, self.seed = tokens, seed
        self.mels: list[Tensor] = []

    @property
    def is_done(self) -> bool:
        return self.rest.shape[1] == 0

    @property
    def mel(self) -> Tensor:
        return torch.cat(self.mels, dim=1)


def step(flow: FlowDecoder, walks: Sequence[Walk]) -> None:
    parts = []
    for walk in walks:
        size = flow.tokens_to_next_chunk(walk.state)
        part, walk.rest = walk.rest[:, :size], walk.rest[:, size:]
        parts.append(part)
    mels = flow.step_batch(
        parts,
        [walk.state for walk in walks],
        seeds=[walk.seed for walk in walks],
        flush=[walk.is_done for walk in walks],
    )
    for walk, mel in zip(walks, mels, strict=True):
        assert mel.shape[0] == 1
        walk.mels.append(mel)


class Counter:
    """Rows that the estimator is given at each call."""

    def __init__(self, flow: FlowDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        original = flow.estimator.forward

        def counted(x: Tensor, *args: Any, **options: Any) -> Tensor:
            self.rows.append(x.shape[0])
            return original(x, *args, **options)

        monkeypatch.setattr(flow.estimator, "forward", counted)


@pytest.mark.parametrize("guidance_scale", [0.0, 0.7])
@pytest.mark.parametrize("context", [UNBOUNDED, WINDOW], ids=["unbounded", "window"])
def test_together_equals_alone(
    flow: FlowDecoder, guidance_scale: float, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of other lengths, other beginnings, other ends; rows that change their order."""
    walks = [
        Walk(flow, num_prompt, seed, guidance_scale=guidance_scale, context=context)
        for num_prompt, seed in ((13, 1), (9, 2), (0, 3), (9, 4))
    ]
    for first, second in zip(walks, walks[1:], strict=False):
        size = min(first.whole.shape[1], second.whole.shape[1])
        apart = (first.whole[:, :size] - second.whole[:, :size]).abs().amax(dim=2)
        assert apart.min() > 1e-2, "streams that differ in every frame"
    counter = Counter(flow, monkeypatch)
    for group in ([0], [0], [0, 1], [1, 0], [1, 3, 0], [2], [3, 1], [3, 2, 1]):
        step(flow, [walks[index] for index in group])
    while live := [walk for walk in walks if not walk.is_done]:
        step(flow, live[::-1])
    for walk in walks:
        torch.testing.assert_close(walk.mel, walk.whole, rtol=0, atol=1e-4)
    assert max(counter.rows) >= 2 * (2 if guidance_scale else 1), "some ran in one batch"


def test_sessions_of_one_voice_are_one_batch(
    flow: FlowDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the lengths of their pasts: four streams take as many calls as one."""
    walks = [Walk(flow, 9, seed) for seed in range(4)]
    for index, walk in enumerate(walks):
        for _ in range(index + 1):
            step(flow, [walk])
    counter = Counter(flow, monkeypatch)
    step(flow, walks)
    assert counter.rows == [4 * 2] * 2, "two solver steps, two rows of guidance each"


def test_together_holds_no_more_memory(flow: FlowDecoder) -> None:
    """And a state that ran with others is its own: a copy of it goes on alone."""
    walks = [Walk(flow, num_prompt, seed) for num_prompt, seed in ((13, 1), (0, 2))]
    alone = Walk(flow, 13, 1)
    for _ in range(4):
        step(flow, walks)
        step(flow, [alone])
    assert walks[0].state.num_bytes == alone.state.num_bytes
    assert walks[0].state.steps[0].transformer.layers[0].keys.shape[0] == 2
    assert walks[0].state.speaker.shape[0] == 1
    copied = walks[0].state.clone()
    end = flow.step(walks[0].rest, copied, seed=1, flush=True)
    torch.testing.assert_close(
        torch.cat([walks[0].mel, end], dim=1), walks[0].whole, rtol=0, atol=1e-4
    )


def test_streams_of_other_settings(flow: FlowDecoder) -> None:
    """What cannot run in one batch runs after another, in the order that was given."""
    walks = [
        Walk(flow, 6, 1, guidance_scale=0.0),
        Walk(flow, 6, 2, num_steps=3),
        Walk(flow, 6, 4, context=WINDOW),
        Walk(flow, 6, 5),
    ]
    while live := [walk for walk in walks if not walk.is_done]:
        step(flow, live)
    for walk in walks:
        torch.testing.assert_close(walk.mel, walk.whole, rtol=0, atol=1e-4)
    assert flow.step_batch([], [], seeds=[], flush=[]) == []
