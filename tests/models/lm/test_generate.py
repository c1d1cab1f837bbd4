"""The speech LM: padding, caches, bounds, seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModel

from tokenlm.models.lm import BackboneConfig, SamplingConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.lm.decoding import (
    Decoding,
    KeyValueCache,
    SpeechRequest,
    generate_speech,
    speech_bounds,
)
from tokenlm.models.lm.layout import eos_class, fill_class, interleaved, one_shot
from tokenlm.models.lm.model import LayoutBatch
from tokenlm.modules.exact import uniform_draws

BACKBONE = BackboneConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
)
CONFIG = SpeechLMConfig(
    backbone=BACKBONE, codebook_size=20, min_speech_per_text=1.0, max_speech_per_text=10.0
)
SAMPLING = SamplingConfig(top_k=0, top_p=1.0)
REQUESTS = [
    SpeechRequest(text_tokens=[1, 2, 3], seed=5),
    SpeechRequest(
        text_tokens=[4, 5, 6, 7, 8], prompt_text_tokens=[9, 3], prompt_tokens=[3] * 12, seed=5
    ),
    SpeechRequest(text_tokens=[10], seed=5, segment=2),
]


def build(config: SpeechLMConfig = CONFIG) -> SpeechLM:
    torch.manual_seed(0)
    model = SpeechLM(config).eval().requires_grad_(False)
    for embedding in (model.speech_embedding, model.special_embedding):
        torch.nn.init.normal_(embedding.weight)
    return model


@pytest.fixture(scope="module")
def model() -> SpeechLM:
    return build()


def test_padded_batch_equals_single(model: SpeechLM) -> None:
    layouts = [
        one_shot([1, 2, 3], [4, 5, 6, 7], 20),
        one_shot([1], [4], 20),
        interleaved([1, 2, 3], [4, 5, 6, 7, 8], 20, block_text=2, block_speech=3),
    ]
    both = model(LayoutBatch.from_layouts(layouts))
    assert both.shape == (3, len(layouts[2]), 22)
    for row, layout in zip(both, layouts, strict=True):
        alone = model(LayoutBatch.from_layouts([layout]))
        torch.testing.assert_close(row[: len(layout)], alone[0], atol=1e-4, rtol=0)


def test_positions_do_not_see_what_they_predict(model: SpeechLM) -> None:
    first = model(LayoutBatch.from_layouts([one_shot([1, 2], [4, 5, 6], 20)]))
    other = model(LayoutBatch.from_layouts([one_shot([1, 2], [4, 9, 6], 20)]))
    torch.testing.assert_close(first[:, :5], other[:, :5])
    assert not torch.allclose(first[:, 5:], other[:, 5:], atol=1e-4)


def test_attention_bias(model: SpeechLM) -> None:
    """None at all changes nothing; one that hides the text makes the text not matter."""
    layouts = [one_shot([1, 2], [4, 5, 6], 20), one_shot([1], [4], 20)]
    batch = LayoutBatch.from_layouts(layouts)
    plain = model(batch)
    biased = model(batch, torch.zeros(2, 7, 7))
    for row, other, layout in zip(plain, biased, layouts, strict=True):
        torch.testing.assert_close(row[: len(layout)], other[: len(layout)], atol=1e-5, rtol=0)
    hidden = torch.zeros(1, 7, 7)
    hidden[:, 3:, 1:3] = -1e9
    out = [
        model(LayoutBatch.from_layouts([one_shot(text, [4, 5, 6], 20)]), hidden)
        for text in ([1, 2], [8, 9])
    ]
    torch.testing.assert_close(out[0][:, 3:], out[1][:, 3:], atol=1e-5, rtol=0)


def test_kinds_choose_their_tables(model: SpeechLM) -> None:
    batch = LayoutBatch.from_layouts([one_shot([7], [3], 20)])
    out = model.embed(batch.kinds, batch.ids)[0]
    text = model.backbone.embed_tokens
    special, speech = model.special_embedding.weight, model.speech_embedding.weight
    expected = torch.stack([special[0], text(torch.tensor(7)), special[1], speech[3]])
    assert torch.equal(out, expected)


def test_cached_decoding_equals_whole_sequences(model: SpeechLM) -> None:
    """Greedy tokens are the most likely ones of the whole sequence so far."""
    request = REQUESTS[1]
    spoken = generate_speech(model, [request], SamplingConfig(temperature=0.0))[0]
    assert len(spoken) >= 5
    prefix = len(request.prefix)
    sequence = [*request.prompt_tokens, *spoken]
    text = [*request.prompt_text_tokens, *request.text_tokens]
    logits = model(LayoutBatch.from_layouts([one_shot(text, sequence, 20)]))[0, prefix - 1 :]
    logits[:, fill_class(20)] = -torch.inf
    logits[:5, eos_class(20)] = -torch.inf
    assert logits.argmax(dim=-1)[: len(spoken)].tolist() == spoken


@pytest.mark.parametrize("sampling", [SAMPLING, SamplingConfig(top_k=5, top_p=0.9)])
def test_batched_equals_single(model: SpeechLM, sampling: SamplingConfig) -> None:
    together = generate_speech(model, REQUESTS, sampling)
    assert together == [generate_speech(model, [request], sampling)[0] for request in REQUESTS]
    assert generate_speech(model, REQUESTS[::-1], sampling) == together[::-1]


def test_seed_and_segment_fix_the_draws(model: SpeechLM) -> None:
    request = REQUESTS[0]
    first = generate_speech(model, [request], SAMPLING)
    assert generate_speech(model, [request], SAMPLING) == first
    assert generate_speech(model, [replace(request, seed=6)], SAMPLING) != first
    assert generate_speech(model, [replace(request, segment=1)], SAMPLING) != first


def test_draws_are_those_of_their_place() -> None:
    """A model that finds all codes alike says what the uniform numbers say."""
    model = build(replace(CONFIG, min_speech_per_text=9.0))
    model.head.weight.zero_()
    model.head.bias.zero_()
    sampling = SamplingConfig(top_k=0, top_p=1.0, repetition_window=0)
    spoken = generate_speech(model, [SpeechRequest(text_tokens=[1], seed=3, segment=4)], sampling)
    # 20 codes, eos and fill forbidden, for the 9 tokens of the least length.
    expected = [int(20 * uniform_draws(3, 4, index, 1)[0]) for index in range(9)]
    assert spoken[0][:9] == expected


def test_length_bounds() -> None:
    model = build()
    bounds = {length: speech_bounds(model, length) for length in (0, 1, 2, 3, 9)}
    assert bounds == {0: (0, 25), 1: (1, 25), 2: (2, 25), 3: (3, 30), 9: (9, 90)}
    # A second at least, at whatever rate.
    faster = build(replace(CONFIG, token_rate=50))
    assert speech_bounds(faster, 1) == (1, 50)


def test_prompt_does_not_count_for_the_bounds(model: SpeechLM) -> None:
    request = replace(REQUESTS[0], prompt_text_tokens=[1] * 50, prompt_tokens=[1] * 50)
    decoding = Decoding(
        model, KeyValueCache(model), request.sequence(model), sampling=SAMPLING, seed=0
    )
    assert decoding.bounds == (3, 30)


def test_speech_keeps_to_its_bounds() -> None:
    eager, tireless = build(), build()
    eager.head.bias[eos_class(20)] = 100.0
    tireless.head.bias[eos_class(20)] = -100.0
    assert [len(row) for row in generate_speech(eager, REQUESTS, SAMPLING)] == [3, 5, 1]
    spoken = generate_speech(tireless, REQUESTS, SAMPLING)
    assert [len(row) for row in spoken] == [30, 50, 25]


def test_only_codes_are_spoken() -> None:
    model = build()
    model.head.bias[fill_class(20)] = 100.0
    spoken = generate_speech(model, REQUESTS, SAMPLING)
    assert all(0 <= token < 20 for row in spoken for token in row)


def test_repetition_is_avoided() -> None:
    """The prompt's tokens count as history."""
    model = build()
    model.head.weight.zero_()
    model.head.bias.zero_()
    model.head.bias[3] = 50.0
    model.head.bias[eos_class(20)] = -50.0
    config = SamplingConfig(top_k=0, top_p=1.0, repetition_window=4, repetition_threshold=0.5)
    spoken = generate_speech(model, [SpeechRequest(text_tokens=[1, 2])], config)[0]
    assert spoken[:2] == [3, 3] and spoken[2] != 3
    windows = [spoken[i : i + 5].count(3) for i in range(len(spoken) - 4)]
    assert max(windows) <= 3
    request = SpeechRequest(text_tokens=[1, 2], prompt_tokens=[3, 3])
    assert generate_speech(model, [request], config)[0][0] != 3


def test_progress_and_nothing_to_do(model: SpeechLM) -> None:
    steps: list[int] = []
    spoken = generate_speech(model, REQUESTS, SAMPLING, on_step=steps.append)
    assert steps == list(range(1, len(steps) + 1))
    assert max(len(row) for row in spoken) <= len(steps)
    assert generate_speech(model, [], SAMPLING) == []


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "llama"])
def test_families(model_type: str) -> None:
    config = replace(BACKBONE, model_type=model_type, head_dim=8, rope_theta=5000.0)
    model = build(replace(CONFIG, backbone=config))
    assert BackboneConfig.from_transformers(config.to_transformers()) == config
    assert model.backbone.config == config
    assert model(LayoutBatch.from_layouts([one_shot([1], [4], 20)])).shape == (1, 4, 22)


def test_unknown_family() -> None:
    config = BACKBONE.to_transformers()
    config.model_type = "gpt9"
    with pytest.raises(ValueError, match="family 'gpt9' is not supported; valid: qwen2"):
        BackboneConfig.from_transformers(config)


def test_pretrained_backbone(tmp_path) -> None:
    source = build()
    library = AutoModel.from_config(BACKBONE.to_transformers())
    library.load_state_dict(source.backbone.state_dict())
    library.save_pretrained(tmp_path)
    model = SpeechLM.from_backbone(str(tmp_path), SpeechLMConfig(codebook_size=7))
    assert model.config.backbone == replace(BACKBONE, head_dim=model.config.backbone.head_dim)
    assert model.config.codebook_size == 7 and model.head.out_features == 9
    for name, weight in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_text_tokens": 0}, "at least 1 token"),
        ({"min_speech_per_text": 20.0}, "must be less than max_speech_per_text"),
        ({"min_speech_per_text": -1.0}, "must be less than"),
    ],
)
def test_impossible_configs(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SpeechLMConfig(**change)


def test_gradients_reach_everything() -> None:
    model = build().requires_grad_(True)
    logits = model(LayoutBatch.from_layouts([one_shot([1, 2], [3, 4], 20)]))
    logits.logsumexp(dim=-1).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
