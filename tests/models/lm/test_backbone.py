"""The backbone gives what that of `transformers` gives, bit by bit, from the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.lm.backbone import Backbone, BackboneConfig
from tokenlm.models.lm.decoding import KeyValueCache, RowsView


def config(family: Any, num_kv_heads: int) -> BackboneConfig:
    return BackboneConfig(
        model_type=family, vocab_size=40, hidden_size=32, intermediate_size=48, num_layers=2,
        num_heads=4, num_kv_heads=num_kv_heads, head_dim=16, rope_theta=5000.0,
    )  # fmt: skip


def both(family: str, num_kv_heads: int) -> tuple[Any, Backbone]:
    chosen, models = config(family, num_kv_heads), []
    for build in (
        lambda: AutoModel.from_config(chosen.to_transformers(), attn_implementation="sdpa"),
        lambda: Backbone(chosen),
    ):
        torch.manual_seed(3)
        models.append(build().eval())
    return models[0], models[1]


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_it_is_the_library_s_bit_by_bit(family: str, num_kv_heads: int) -> None:
    theirs, own = both(family, num_kv_heads)
    weights = theirs.state_dict()
    assert list(weights) == list(own.state_dict())
    assert all(torch.equal(weights[name], value) for name, value in own.state_dict().items()), (
        "the same draws of new weights"
    )
    for name, weight in own.named_parameters():  # norms and biases that are not one and zero
        weight.data += 0.1 * torch.randn(weight.shape)
        weights[name].copy_(weight.data)
    x = torch.randn(2, 9, 32)
    padded = torch.ones(2, 9).long()
    padded[1, 6:] = 0
    bias = torch.randn(2, 1, 9, 9)
    for mask in (None, padded, bias):
        one = theirs(inputs_embeds=x, attention_mask=mask).last_hidden_state
        other = own(inputs_embeds=x, attention_mask=mask).last_hidden_state
        valid = padded.bool() if mask is padded else torch.ones(2, 9).bool()
        assert torch.equal(one[valid], other[valid])
    ids = torch.tensor([[3, 1, 2]])
    assert torch.equal(theirs(ids).last_hidden_state, own(ids).last_hidden_state)


class LibraryView(RowsView):
    """As a cache of `transformers`."""

    is_compileable = False

    def update(
        self, keys: Tensor, values: Tensor, layer: int, **options: Any
    ) -> tuple[Tensor, Tensor]:
        return super().update(keys, values, layer)

    def get_seq_length(self, layer: int = 0) -> int:
        return max(self.lengths)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_with_a_cache_too(family: str) -> None:
    theirs, own = both(family, 2)
    found = []
    lm = SpeechLM(SpeechLMConfig(backbone=config(family, 2), codebook_size=9), own)
    for backbone, kind in (
        (theirs, LibraryView),
        (own, RowsView),
    ):
        cache = KeyValueCache(lm)
        rows = [cache.add(), cache.add()]
        states = []
        generator = torch.Generator().manual_seed(0)
        for start, size in ((0, 5), (0, 3), (0, 1), (1, 1)):
            part = rows[start : start + 1] if size > 1 else rows
            view = kind(cache, part, size)
            x = torch.randn(len(part), size, 32, generator=generator)
            with torch.inference_mode():
                states.append(
                    backbone(
                        inputs_embeds=x, attention_mask=view.mask, position_ids=view.positions,
                        cache=view,
                    ).last_hidden_state
                )  # fmt: skip
            view.advance()
        found.append(states)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_scaled_positions_are_the_library_s() -> None:
    """Of every kind that a model of the hub may have."""
    kinds = {
        "linear": {"factor": 2.0},
        "dynamic": {"factor": 2.0},
        "yarn": {"factor": 4.0, "original_max_position_embeddings": 16.0},
        "llama3": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16.0,
        },
    }  # fmt: skip
    x = torch.randn(1, 40, 32)
    for kind, settings in kinds.items():
        chosen = replace(
            config("llama", 2), rope_type=kind, rope_settings=settings, max_positions=32
        )
        own = Backbone(chosen)
        theirs = AutoModel.from_config(chosen.to_transformers(), attn_implementation="sdpa")
        theirs.load_state_dict(own.state_dict())
        found = own(inputs_embeds=x).last_hidden_state
        assert torch.equal(found, theirs(inputs_embeds=x).last_hidden_state), kind
    with pytest.raises(ValueError, match="rope_type 'spiral' is not known; valid: default, "):
        Backbone(replace(config("llama", 2), rope_type="spiral"))


def test_half_weights_are_the_library_s_too() -> None:
    theirs, own = (model.to(torch.bfloat16) for model in both("qwen2", 2))
    x = torch.randn(1, 6, 32).to(torch.bfloat16)
    one, other = theirs(inputs_embeds=x), own(inputs_embeds=x)
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)


def test_padding_before_gives_no_nan() -> None:
    _, own = both("qwen2", 2)
    x = torch.randn(2, 5, 32)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert own(inputs_embeds=x, attention_mask=mask).last_hidden_state.isfinite().all()


def test_a_default_type_of_another_library_changes_nothing() -> None:
    rates = Backbone(config("qwen2", 2)).rotary_emb.inv_freq
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Backbone(config("qwen2", 2)).rotary_emb.inv_freq, rates)
    finally:
        torch.set_default_dtype(torch.float32)
