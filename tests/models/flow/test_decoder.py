"""The flow decoder: offline == streamed, whatever the pieces; padding; states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelConfig
from tokenlm.models.flow import FlowConfig, FlowDecoder
from tokenlm.modules.exact import frame_noise
from tokenlm.modules.streaming import FULL_CONTEXT, Context, batched

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
    left_tokens=6,
)
NUM_TOKENS = 23


@pytest.fixture(scope="module")
def flow() -> FlowDecoder:
    torch.manual_seed(0)
    model = FlowDecoder(CONFIG)
    nn.init.normal_(model.estimator.project.weight, std=0.2)
    return model.eval().requires_grad_(False)


def prompt(pinned: int, batch: int = 1, **options: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    return {
        "prompt_tokens": torch.randint(11, (batch, pinned), generator=generator),
        "prompt_mel": torch.randn(batch, pinned * 2, 80, generator=generator) - 5,
        "speaker_embedding": torch.randn(batch, 6, generator=generator),
        "prompt_seed": 9,
        "num_steps": 3,
        "guidance_scale": 0.7,
        **options,
    }


def speech(batch: int = 1) -> Tensor:
    return torch.randint(11, (batch, NUM_TOKENS), generator=torch.Generator().manual_seed(3))


def stream(flow: FlowDecoder, tokens: Tensor, schedule: list[int], **options: Any) -> Tensor:
    state = flow.start(**options)
    pieces = [flow.step(piece, state, seed=4) for piece in tokens.split(schedule, dim=1)]
    return torch.cat([*pieces, flow.step(tokens[:, :0], state, seed=4, flush=True)], dim=1)


def test_facts_are_derived() -> None:
    assert CONFIG.frames_per_token == 2 and isinstance(CONFIG.frames_per_token, int)
    assert CONFIG.condition_dim == 164
    assert CONFIG.default_context == Context(chunk_frames=4, left_frames=6, lookahead_frames=3)


@pytest.mark.parametrize(
    "context",
    [
        None,
        Context(chunk_frames=3),
        Context(chunk_frames=5, left_frames=0),
        Context(chunk_frames=40, left_frames=2),
    ],
)
@pytest.mark.parametrize("pinned", [0, 7])
@pytest.mark.parametrize("schedule", [[1] * 23, [5, 9, 9], [23]])
def test_streamed_equals_offline(
    flow: FlowDecoder, context: Context | None, pinned: int, schedule: list[int]
) -> None:
    options = prompt(pinned, context=context)
    whole = flow.generate(speech(), seed=4, **options)
    assert whole.shape == (1, 46, 80)
    streamed = stream(flow, speech(), schedule, **options)
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance_scale", [0.0, 1.5])
def test_streamed_equals_offline_in_a_batch(flow: FlowDecoder, guidance_scale: float) -> None:
    options = prompt(5, batch=3, guidance_scale=guidance_scale)
    whole = flow.generate(speech(3), seed=4, **options)
    torch.testing.assert_close(
        stream(flow, speech(3), [10, 13], **options), whole, atol=1e-4, rtol=0
    )
    for item in range(3):
        own = {
            name: value[item : item + 1] if isinstance(value, Tensor) else value
            for name, value in options.items()
        }
        alone = flow.generate(speech(3)[item : item + 1], seed=4, **own)
        torch.testing.assert_close(whole[item : item + 1], alone, atol=1e-4, rtol=0)


def test_nothing_is_held_back(flow: FlowDecoder) -> None:
    """A chunk is rendered as soon as its 4 tokens and 3 of look-ahead are there."""
    state = flow.start(**prompt(7))
    sizes = [flow.step(token, state, seed=4).shape[1] for token in speech().split(1, dim=1)]
    assert sizes == [8 if number >= 7 and (number - 3) % 4 == 0 else 0 for number in range(1, 24)]
    assert flow.step(speech()[:, :0], state, seed=4, flush=True).shape[1] == 2 * 3


def test_a_stream_without_tokens(flow: FlowDecoder) -> None:
    state = flow.start(**prompt(7))
    out = flow.step(speech()[:, :0], state, seed=4, flush=True)
    assert out.shape == (1, 0, 80) and out.dtype == torch.float32


@pytest.mark.parametrize("guidance_scale", [0.0, 0.7])
def test_stacked_streams_equal_single_ones(flow: FlowDecoder, guidance_scale: float) -> None:
    """Two prompts run on together, then part again."""
    options = [prompt(5, guidance_scale=guidance_scale), prompt(5, guidance_scale=guidance_scale)]
    options[1]["speaker_embedding"] = -options[1]["speaker_embedding"]
    options[1]["prompt_mel"] = options[1]["prompt_mel"] + 1
    tokens = speech(2)
    states = [flow.start(**option) for option in options]
    with batched(states) as joined:
        together = [flow.step(piece, joined, seed=4) for piece in tokens[:, :14].split(7, dim=1)]
    for item, state in enumerate(states):
        rows = slice(item, item + 1)
        rest = flow.step(tokens[rows, 14:], state, seed=4, flush=True)
        streamed = torch.cat([*(piece[rows] for piece in together), rest], dim=1)
        whole = flow.generate(tokens[rows], seed=4, **options[item])
        torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)


def test_one_prompt_starts_many_streams(flow: FlowDecoder) -> None:
    state = flow.start(**prompt(5))
    first = flow.step(speech(), state.clone(), seed=4, flush=True)
    again = flow.step(speech(), state.clone(), seed=4, flush=True)
    assert torch.equal(first, again)
    assert not torch.allclose(first, flow.step(speech(), state, seed=5, flush=True), atol=1e-2)


def test_memory_of_a_stream_is_bounded(flow: FlowDecoder) -> None:
    state = flow.start(**prompt(5))
    sizes = []
    for _ in range(8):
        flow.step(torch.zeros(1, 8, dtype=torch.long), state, seed=4)
        sizes.append(state.num_bytes)
    assert len(set(sizes[1:])) == 1


def test_noise_is_that_of_its_frames(flow: FlowDecoder) -> None:
    """Without a learnt velocity, what comes out is the noise: of the seed, after the prompt."""
    torch.manual_seed(0)
    still = FlowDecoder(CONFIG).eval()
    out = still.generate(speech(), seed=4, **prompt(5))
    torch.testing.assert_close(still.normalize(out[0]), frame_noise(4, 0, 46, 80))
    shorter = still.generate(speech()[:, :9], seed=4, **prompt(0))
    torch.testing.assert_close(shorter, out[:, :18])


def test_what_is_rendered_depends_on_every_part(flow: FlowDecoder) -> None:
    options = prompt(5)
    first = flow.generate(speech(), seed=4, **options)
    changes: list[dict[str, Any]] = [
        {"prompt_seed": 1},
        {"prompt_mel": options["prompt_mel"] + 1},
        {"speaker_embedding": -options["speaker_embedding"]},
        {"prompt_tokens": (options["prompt_tokens"] + 1) % 11},
        {"num_steps": 4},
        {"guidance_scale": 0.0},
        {"context": FULL_CONTEXT},
    ]
    for change in changes:
        other = flow.generate(speech(), seed=4, **{**options, **change})
        assert not torch.allclose(first, other, atol=1e-3), change


def test_other_solvers(flow: FlowDecoder) -> None:
    options = prompt(5, context=FULL_CONTEXT)
    euler = flow.generate(speech(), seed=4, **options)
    library = flow.generate(speech(), seed=4, method="midpoint", **options)
    assert library.shape == euler.shape and not torch.allclose(library, euler, atol=1e-3)


@pytest.mark.parametrize("context", [FULL_CONTEXT, Context(chunk_frames=3, left_frames=3)])
def test_padded_batch_equals_single(flow: FlowDecoder, context: Context) -> None:
    torch.manual_seed(1)
    lengths, pinned = (9, 5), torch.tensor([3, 2])
    tokens, x_t = torch.randint(11, (2, 9)), torch.randn(2, 18, 80)
    t, speaker = torch.rand(2), torch.randn(2, 6)
    is_prompt = torch.arange(18)[None] < 2 * pinned[:, None]
    prompt_mel = torch.randn(2, 18, 80) * is_prompt[..., None]
    mask = torch.arange(9)[None] < torch.tensor(lengths)[:, None]
    both = flow(
        x_t,
        t,
        tokens=tokens,
        prompt_mel=prompt_mel,
        speaker_embedding=speaker,
        context=context,
        mask=mask,
        pinned_tokens=pinned,
    )
    for item, length in enumerate(lengths):
        rows = slice(item, item + 1)
        alone = flow(
            x_t[rows, : 2 * length],
            t[rows],
            tokens=tokens[rows, :length],
            prompt_mel=prompt_mel[rows, : 2 * length],
            speaker_embedding=speaker[rows],
            context=context.pinned(int(pinned[item])),
        )
        torch.testing.assert_close(both[rows, : 2 * length], alone, atol=1e-4, rtol=0)


def test_dropped_condition_is_that_of_guidance(flow: FlowDecoder) -> None:
    torch.manual_seed(1)
    x_t, t = torch.randn(2, 8, 80), torch.rand(2)
    facts = {"tokens": torch.randint(11, (2, 4)), "speaker_embedding": torch.randn(2, 6)}
    out = flow(
        x_t, t, prompt_mel=torch.zeros(2, 8, 80), dropped=torch.tensor([True, False]), **facts
    )
    nothing = flow.estimator(x_t, t, torch.zeros(2, 8, CONFIG.condition_dim))
    torch.testing.assert_close(out[0], nothing[0])
    assert not torch.allclose(out[1], nothing[1], atol=1e-3)


def test_gradients_reach_everything() -> None:
    torch.manual_seed(0)
    model = FlowDecoder(CONFIG)
    nn.init.normal_(model.estimator.project.weight)
    out = model(
        torch.randn(1, 8, 80),
        torch.rand(1),
        tokens=torch.randint(11, (1, 4)),
        prompt_mel=torch.randn(1, 8, 80),
        speaker_embedding=torch.randn(1, 6),
    )
    out.square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool((weight.grad != 0).any()), name


def test_mistakes(flow: FlowDecoder) -> None:
    options = prompt(5)
    with pytest.raises(ValueError, match="full context cannot be streamed"):
        flow.start(**{**options, "context": FULL_CONTEXT})
    options["prompt_mel"] = options["prompt_mel"][:, :9]
    for call in (lambda: flow.start(**options), lambda: flow.generate(speech(), seed=0, **options)):
        with pytest.raises(ValueError, match="5 tokens, which is 10 mel frames, but its mel has 9"):
            call()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token_rate": 24}, "not a multiple of token rate"),
        ({"patch_frames": 4}, "patch_frames 4 must divide the 2 frames of a token"),
        ({"mel": MelConfig(hop_length=512)}, "not a multiple of token rate"),
    ],
)
def test_impossible_configs(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FlowConfig(**change)
