"""Linear layers with fewer bits, alone and in the models of CosyVoice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.checkpoint.adapters.cosyvoice_flow import flow_config, flow_to_ours
from tokenlm.checkpoint.adapters.cosyvoice_lm import lm_config, lm_to_ours
from tokenlm.models.flow import CosyVoiceFlow
from tokenlm.models.lm import SpeechLM
from tokenlm.models.lm.layout import one_shot
from tokenlm.models.lm.model import LayoutBatch
from tokenlm.modules.context import FULL_CONTEXT
from tokenlm.modules.reduced import BFloat16Linear, Int8Linear, reduce_weights

# Greatest share of the root mean square by which a result may be off.
BOUNDS = {"bfloat16": 0.03, "int8": 0.06}


def deviation(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("has_bias", [True, False])
def test_rows_have_their_own_scale(has_bias: bool) -> None:
    layer = nn.Linear(3, 2, bias=has_bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.0, -64.0, 1.0], [0.5, 0.0, -1.27]]))
        if has_bias:
            layer.bias.copy_(torch.tensor([1.0, 2.0]))
    reduced = Int8Linear(layer)
    assert reduced.weight.tolist() == [[127, -64, 1], [50, 0, -127]]
    torch.testing.assert_close(reduced.scale, torch.tensor([1.0, 0.01]))
    out = reduced(torch.tensor([[[1.0, 0.0, 1.0]]]))
    expected = torch.tensor([[[128.0, -0.77]]]) + (torch.tensor([1.0, 2.0]) if has_bias else 0)
    torch.testing.assert_close(out, expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_large_layers_are_replaced(precision: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Sequential(nn.Linear(128, 8)))
    x = torch.randn(5, 64)
    expected = model.requires_grad_(False)(x)
    reduce_weights(model, precision)
    assert isinstance(model[0], BFloat16Linear if precision == "bfloat16" else Int8Linear)
    assert isinstance(model[2][0], nn.Linear)
    out = model(x)
    assert out.dtype == x.dtype
    assert 0 < deviation(out, expected) < BOUNDS[precision]


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_golden_flow_with_fewer_bits(golden: Callable[[str], Any], precision: Any) -> None:
    numbers = golden("flow_cfm")
    shapes = {key: tuple(tensor.shape) for key, tensor in numbers.weights.items()}
    config = flow_config(2, shapes, num_heads=numbers.sizes["estimator"]["heads"])
    model = CosyVoiceFlow(config)
    model.load_state_dict(flow_to_ours(2, numbers.weights))
    reduce_weights(model.eval().requires_grad_(False), precision)
    noise = numbers["in.noise"][0].T
    model.initial_noise = (  # type: ignore[method-assign]
        lambda _seed, _prompt_seed, _frames, start, count: noise[start : start + count]
    )
    given = {
        "prompt_tokens": numbers["in.prompt_token"],
        "prompt_mel": numbers["in.prompt_feat"],
        "speaker_embedding": numbers["in.embedding"],
    }
    context = config.default_context
    whole = model.generate(numbers["in.token"], seed=0, context=context, **given)
    state = model.start(context=context, **given)
    streamed = model.step(numbers["in.token"], state, seed=0, flush=True)
    full = model.generate(numbers["in.token"], seed=0, context=FULL_CONTEXT, **given)
    off = deviation(full.mT, numbers["out.full_final.mel"])
    assert 0 < off < BOUNDS[precision], f"{precision}: {off:.4f} of the rms of the mel"
    assert deviation(streamed, whole) < BOUNDS[precision]


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_golden_lm_with_fewer_bits(golden: Callable[[str], Any], precision: Any) -> None:
    numbers = golden("lm")
    shapes = {key: tuple(tensor.shape) for key, tensor in numbers.weights.items()}
    config = lm_config(2, shapes, head_dim=numbers.sizes["hidden"] // numbers.sizes["heads"])
    model = SpeechLM(config)
    model.load_state_dict(lm_to_ours(2, config, numbers.weights))
    model.eval().requires_grad_(False)
    length = int(numbers["in.uni.text_len"][0])
    text = numbers["in.uni.text"][0, :length].tolist()
    speech = numbers["in.uni.speech"][0, : int(numbers["in.uni.speech_len"][0])].tolist()
    batch = LayoutBatch.from_layouts([one_shot(text, speech, config.codebook_size)])
    expected = model(batch).detach()
    reduce_weights(model.backbone, precision)
    off = deviation(model(batch), expected)
    assert 0 < off < BOUNDS[precision], f"{precision}: {off:.4f} of the rms of the logits"
