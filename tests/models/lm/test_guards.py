"""Causal guards of the speech LM: loops, silence, guidance, against cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokenlm.models.lm import BackboneConfig, SamplingConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.lm.decoding import SpeechRequest, generate_speech, guide
from tokenlm.models.lm.guards import NO_GUARDS, GuardConfig, LoopDetector, TokenMonitor
from tokenlm.models.lm.layout import eos_class, one_shot
from tokenlm.models.lm.model import LayoutBatch

CONFIG = SpeechLMConfig(
    backbone=BackboneConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
    ),
    codebook_size=20,
    min_speech_per_text=1.0,
    max_speech_per_text=10.0,
)
PLAIN = SamplingConfig(top_k=0, top_p=1.0, repetition_window=0)
REQUEST = SpeechRequest(text_tokens=[1] * 12, seed=5)


def build(**biases: float) -> SpeechLM:
    """A model that says what its biases say, whatever it hears."""
    torch.manual_seed(0)
    model = SpeechLM(CONFIG).eval().requires_grad_(False)
    model.head.weight.zero_()
    model.head.bias.zero_()
    for name, bias in biases.items():
        model.head.bias[eos_class(20) if name == "eos" else int(name[1:])] = bias
    return model


def periods(tokens: list[int], **options: int) -> list[int | None]:
    detector = LoopDetector(**{"min_tokens": 4, "max_period": 3, **options})
    found = []
    for token in tokens:
        detector.push(token)
        found.append(detector.period)
    return found


def test_loops_by_hand() -> None:
    # Period 1: after the first 7 come four that match.
    assert periods([7, 7, 7, 7, 7]) == [None, None, None, None, 1]
    # Period 2: the third token is the first match.
    assert periods([1, 2, 1, 2, 1, 2]) == [None] * 5 + [2]
    # Period 3, and none of 4 where 3 is the longest.
    assert periods([1, 2, 3] * 3)[6] == 3
    assert periods([1, 2, 3, 4] * 4) == [None] * 16
    assert periods([1, 2, 3, 4, 5, 6, 7, 8]) == [None] * 8


def test_a_slip_does_not_hide_a_loop() -> None:
    # Matches 1 2 3, then another token costs two: 1; then 9 matches neither; …
    tokens = [7, 7, 7, 7, 9, 7, 7, 7, 7, 7]
    exact = periods(tokens, mismatch_cost=100)
    assert exact == [None] * 9 + [1]
    # Counts of period 1 at a cost of 1: 0 1 2 3, 9 costs one: 2, 7 costs one: 1, 2 3 4 5.
    assert periods(tokens, mismatch_cost=1) == [None] * 8 + [1, 1]


def test_a_long_period_must_come_round() -> None:
    # Four matches would do for a period of 6, had it come round.
    tokens = [1, 2, 3, 4, 5, 6] * 2
    found = periods(tokens, max_period=6)
    assert found == [None] * 11 + [6]


def test_the_token_that_goes_on_with_a_loop_is_forbidden() -> None:
    monitor = TokenMonitor(GuardConfig(loop_tokens=4, loop_max_period=3, max_loops=1))
    for token in [1, 2, 1, 2, 1, 2]:
        assert monitor.forbidden == []
        monitor.push(token)
    assert monitor.forbidden == [1] and not monitor.is_lost
    monitor.push(5)  # broken: the counting begins anew
    assert monitor.forbidden == []
    for token in [1, 2, 1, 2, 1, 2]:
        monitor.push(token)
    assert monitor.is_lost


def test_silence_is_capped() -> None:
    monitor = TokenMonitor(GuardConfig(silent_tokens=(3, 0), max_silent_tokens=3, loop_tokens=0))
    for token in [0, 3]:
        monitor.push(token)
    assert monitor.forbidden == []
    monitor.push(3)
    assert monitor.forbidden == [0, 3]
    monitor.push(8)
    assert monitor.forbidden == [] and not monitor.is_lost


def test_no_guards_forbid_nothing() -> None:
    monitor = TokenMonitor(NO_GUARDS)
    for _ in range(300):
        monitor.push(1)
    assert monitor.forbidden == [] and not monitor.is_lost


def test_a_looping_model_is_broken_off() -> None:
    model = build(c3=30.0, eos=-30.0)
    assert generate_speech(model, [REQUEST], PLAIN) == [[3] * 120]
    guards = GuardConfig(loop_tokens=9, max_loops=2)
    spoken = generate_speech(model, [REQUEST], PLAIN, guards=guards)[0]
    # Ten in a row are nine that repeat; then another one, twice; the third loop ends it.
    breaks = [index for index, token in enumerate(spoken) if token != 3]
    assert breaks == [10, 21] and len(spoken) == 32
    assert generate_speech(model, [REQUEST], PLAIN, guards=replace(guards, loop_tokens=0)) == [
        [3] * 120
    ]


def test_a_silent_model_has_to_speak_or_end() -> None:
    model = build(c3=30.0, c4=20.0, eos=-30.0)
    guards = GuardConfig(loop_tokens=0, silent_tokens=(3,), max_silent_tokens=5)
    spoken = generate_speech(model, [REQUEST], PLAIN, guards=guards)[0]
    assert spoken[:12] == [3] * 5 + [4] + [3] * 5 + [4]
    model = build(c3=30.0, eos=20.0)
    spoken = generate_speech(model, [REQUEST], PLAIN, guards=replace(guards, max_silent_tokens=14))[
        0
    ]
    assert spoken == [3] * 14  # 12 are the fewest of its text


def test_bounds_can_be_turned_off() -> None:
    model = build(eos=30.0)
    assert len(generate_speech(model, [REQUEST], PLAIN)[0]) == 12
    assert generate_speech(model, [REQUEST], PLAIN, guards=NO_GUARDS) == [[]]


def test_guards_that_find_nothing_change_nothing() -> None:
    torch.manual_seed(0)
    model = SpeechLM(CONFIG).eval().requires_grad_(False)
    requests = [REQUEST, replace(REQUEST, text_tokens=[4, 5], segment=1)]
    plain = generate_speech(model, requests, PLAIN)
    assert generate_speech(model, requests, PLAIN, guards=GuardConfig()) == plain


def test_guidance_by_hand() -> None:
    # Probabilities 3/4, 1/4 with the text and 1/2, 1/2 without: odds of 3 become 3² = 9.
    with_text, without = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[5.0, 5.0]]).log()
    guided = guide(with_text, without, 1.0).softmax(dim=-1)
    torch.testing.assert_close(guided, torch.tensor([[0.9, 0.1]]))
    # With odds of 1 : 3 without the text it is 3 · 3 · 3.
    guided = guide(with_text, torch.tensor([[1.0, 3.0]]).log(), 1.0).softmax(dim=-1)
    torch.testing.assert_close(guided, torch.tensor([[27 / 28, 1 / 28]]))
    torch.testing.assert_close(
        guide(with_text, without, 0.0).softmax(dim=-1), torch.tensor([[0.75, 0.25]])
    )


def test_guided_speech_follows_the_guided_logits_of_whole_sequences() -> None:
    torch.manual_seed(0)
    model = SpeechLM(CONFIG).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim == 2:  # far from where weights start, so that the text matters
            torch.nn.init.normal_(weight, std=0.5)
    request = SpeechRequest(
        text_tokens=[4, 5, 6], prompt_text_tokens=[9, 3], prompt_tokens=[3, 8, 1]
    )
    greedy = SamplingConfig(temperature=0.0)
    guards = GuardConfig(guidance_scale=1.5, loop_tokens=0)
    spoken = generate_speech(model, [request, REQUEST], greedy, guards=guards)[0]
    sequence = [3, 8, 1, *spoken]
    with_text = model(LayoutBatch.from_layouts([one_shot([9, 3, 4, 5, 6], sequence, 20)]))[0, 9:]
    without = model(LayoutBatch.from_layouts([one_shot([], sequence, 20)]))[0, 4:]
    guided = guide(with_text, without, 1.5)
    guided[:, 21] = -torch.inf
    guided[:3, 20] = -torch.inf
    assert guided.argmax(dim=-1)[: len(spoken)].tolist() == spoken
    assert generate_speech(model, [request], greedy)[0] != spoken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loop_tokens": -1}, "loop_tokens must not be negative"),
        ({"max_attempts": 0}, "max_attempts must be at least 1"),
        ({"guidance_scale": -0.5}, "guidance_scale"),
        ({"silent_tokens": (-1,)}, "silent_tokens are codes"),
    ],
)
def test_impossible_configs(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuardConfig(**change)
