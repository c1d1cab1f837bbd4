"""Flows of CosyVoice: streams equal the whole, whatever the context, prompt and pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config, dit, unet
from tokenlm.modules import attention, relative
from tokenlm.modules.streaming import FULL_CONTEXT, Context

UNET = {
    "encoder": "conformer",
    "encoder_dim": 16,
    "encoder_hidden_dim": 24,
    "encoder_layers": 1,
    "encoder_up_layers": 1,
    "encoder_heads": 2,
    "estimator": "unet",
    "blocks_per_level": 1,
    "num_mid_levels": 1,
}
DIT = {"encoder": "lookahead", "encoder_hidden_dim": 24, "estimator": "f5_dit", "num_layers": 2}


def model(kind: dict[str, Any], **changes: Any) -> FlowDecoder:
    torch.manual_seed(0)
    config = cosyvoice_flow_config(
        codebook_size=27, speaker_dim=8, dim=16, num_heads=2, head_dim=8, chunk_tokens=4,
        **kind | changes,
    )  # fmt: skip
    return FlowDecoder(config).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["unet", "dit"])
def flow(request: pytest.FixtureRequest) -> FlowDecoder:
    return model(UNET if request.param == "unet" else DIT)


def given(num_prompt: int, batch: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(num_prompt)
    return {
        "prompt_tokens": torch.randint(27, (batch, num_prompt), generator=generator),
        "prompt_mel": torch.randn(batch, 2 * num_prompt, 80, generator=generator),
        "speaker_embedding": torch.randn(batch, 8, generator=generator),
        "num_steps": 2,
    }


def streamed(
    flow: FlowDecoder, tokens: Tensor, sizes: list[int], options: dict[str, Any]
) -> Tensor:
    state = flow.start(**options)
    mels = []
    for size in sizes:
        needed = flow.tokens_to_next_chunk(state)
        part, tokens = tokens[:, :size], tokens[:, size:]
        mels.append(flow.step(part, state, seed=3))
        assert needed > 0
        if part.shape[1] < needed:
            assert mels[-1].shape[1] == 0
    mels.append(flow.step(tokens, state, seed=3, flush=True))
    return torch.cat(mels, dim=1)


@pytest.mark.parametrize("num_prompt", [0, 6, 13])
@pytest.mark.parametrize("left", [None, 4])
def test_streams_equal_the_whole(flow: FlowDecoder, num_prompt: int, left: int | None) -> None:
    context = Context(chunk_frames=4, left_frames=left)
    options = given(num_prompt) | {"context": context}
    tokens = torch.arange(19)[None] % 27
    whole = flow.generate(tokens, seed=3, **options)
    assert whole.shape == (1, 38, 80)
    for sizes in ([7, 12], [3, 1, 1, 9]):
        actual = streamed(flow, tokens, sizes, options)
        torch.testing.assert_close(actual, whole, rtol=0, atol=1e-4)


def test_a_batch_without_guidance(flow: FlowDecoder) -> None:
    options = given(5, batch=2) | {"guidance_scale": 0.0}
    tokens = torch.randint(27, (2, 11), generator=torch.Generator().manual_seed(1))
    whole = flow.generate(tokens, seed=0, **options)
    state = flow.start(**options)
    actual = flow.step(tokens, state, seed=0, flush=True)
    torch.testing.assert_close(actual, whole, rtol=0, atol=1e-4)
    row = {key: value[:1] if isinstance(value, Tensor) else value for key, value in options.items()}
    alone = flow.generate(tokens[:1], seed=0, **row)
    torch.testing.assert_close(alone, whole[:1], rtol=0, atol=1e-4)


def test_a_window_changes_the_end_and_keeps_the_prompt(flow: FlowDecoder) -> None:
    tokens = torch.arange(24)[None] % 27
    options = given(9)
    window = Context(chunk_frames=4, left_frames=4)
    unbounded = flow.generate(tokens, seed=0, context=Context(chunk_frames=4), **options)
    bounded = flow.generate(tokens, seed=0, context=window, **options)
    assert (bounded - unbounded)[:, -4:].abs().max() > 1e-4
    other = options | {"prompt_mel": options["prompt_mel"] + 1.0}
    heard = flow.generate(tokens, seed=0, context=window, **other)
    assert (heard - bounded)[:, -4:].abs().max() > 1e-6


def test_a_copied_state_goes_its_own_way(flow: FlowDecoder) -> None:
    start = flow.start(**given(13))
    tokens = torch.arange(12)[None] % 27
    first = flow.step(tokens, start.clone(), seed=0, flush=True)
    flow.step(tokens.flip(1), start.clone(), seed=0, flush=True)
    assert torch.equal(flow.step(tokens, start, seed=0, flush=True), first)


def test_solver_steps_share_positions_and_mask(
    flow: FlowDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One plan for all steps of a chunk, and no new tables for chunks of a length seen before."""
    plans: list[int] = []
    original = unet.plan_attention

    def counted(x: Tensor, *args: Any, **options: Any) -> Any:
        plans.append(x.shape[1])
        return original(x, *args, **options)

    monkeypatch.setattr(unet, "plan_attention", counted)
    monkeypatch.setattr(dit, "plan_attention", counted)
    options = given(6) | {"num_steps": 5}
    state = flow.start(**options)  # the prompt fills no chunk with its look-ahead
    tokens = torch.arange(16)[None]
    plans.clear()
    flow.step(tokens[:, :1], state, seed=0)
    assert plans == [8]
    tables = (attention._whole_table, relative._whole_table)
    made = [table.cache_info().misses for table in tables]
    for start in (1, 5, 9):
        flow.step(tokens[:, start : start + 4], state, seed=0)
    assert plans == [8, 8, 8, 8]
    assert [table.cache_info().misses for table in tables] == made
    flow.generate(tokens, seed=0, **options)
    assert len(plans) == 5


def test_tables_are_views_of_what_would_be_computed() -> None:
    device = torch.device("cpu")
    for start, count in ((0, 1), (7, 50), (1000, 60), (3000, 5)):
        expected = attention.rotary_table(torch.arange(start, start + count), 8)
        for actual, wanted in zip(
            attention.rotary_span(start, count, 8, device), expected, strict=True
        ):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-6)
    for largest, count in ((0, 1), (49, 99), (1500, 1550), (4, 2000)):
        distances = torch.arange(largest, largest - count, -1)
        torch.testing.assert_close(
            relative.distance_span(largest, count, 6, device),
            relative.distance_table(distances, 6),
            rtol=0,
            atol=1e-6,
        )


def test_noise_of_seeds() -> None:
    flow = model(DIT, noise="seeded")
    tokens, options = torch.arange(12)[None], given(6)
    first, again, other = (flow.generate(tokens, seed=seed, **options) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    state = flow.start(**options)
    parts = [flow.step(part, state, seed=1) for part in tokens.split(5, dim=1)]
    parts.append(flow.step(tokens[:, :0], state, seed=1, flush=True))
    torch.testing.assert_close(torch.cat(parts, dim=1), other, rtol=0, atol=1e-4)


def test_mistakes(flow: FlowDecoder) -> None:
    options = given(6)
    with pytest.raises(ValueError, match="the full context cannot be streamed"):
        flow.start(context=FULL_CONTEXT, **options)
    with pytest.raises(ValueError, match="the prompt has 6 tokens, which is 12 mel frames"):
        flow.generate(torch.zeros(1, 3).long(), seed=0,
                      **options | {"prompt_mel": torch.zeros(1, 5, 80)})  # fmt: skip
    with pytest.raises(ValueError, match="no more than the look-ahead of 3"):
        flow.generate(torch.zeros(1, 3).long(), seed=0, has_ended=False, **options)
    with pytest.raises(ValueError, match="choose noise 'seeded'"):
        flow.initial_noise(0, 0, 0, 14_990, 11)
