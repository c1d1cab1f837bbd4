"""Losses of post-training, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tokenlm.models.lm.decoding import SpeechRequest
from tokenlm.models.lm.layout import IGNORE, SPECIAL, SPEECH, TEXT
from tokenlm.models.lm.model import LayoutBatch
from training.losses.preference import (
    clipped_policy_loss,
    dpo_loss,
    group_advantages,
    kl_estimate,
    target_log_probs,
    token_kl,
)
from training.rl.rollout import Rollout, rollout_layout


def test_log_probs_are_those_of_speech_targets_alone() -> None:
    """Text 7 8 and the prompt's speech 1 2 are given; 3 0 and eos (4) are said."""
    request = SpeechRequest(text_tokens=[8], prompt_text_tokens=[7], prompt_tokens=[1, 2])
    layout = rollout_layout(Rollout(request=request, tokens=(3, 0), has_ended=True), 4)
    assert layout.kinds == [SPECIAL, TEXT, TEXT, SPECIAL, SPEECH, SPEECH, SPEECH, SPEECH]
    assert layout.ids == [0, 7, 8, 1, 1, 2, 3, 0]
    assert layout.targets == [IGNORE] * 5 + [3, 0, 4]
    batch = LayoutBatch.from_layouts([layout])
    # At every position all six classes are alike, but for the last three.
    logits = torch.zeros(1, 8, 6)
    logits[0, 5, 3] = math.log(5.0)  # 5 of 10
    logits[0, 6, 0] = math.log(3.0)  # 3 of 8
    logits[0, 7, 4] = math.log(15.0)  # 15 of 20
    found = target_log_probs(logits, batch.targets)
    expected = [0.0] * 5 + [math.log(1 / 2), math.log(3 / 8), math.log(3 / 4)]
    torch.testing.assert_close(found, torch.tensor([expected]))
    assert float(found.sum().exp()) == pytest.approx(9 / 64)


def test_log_probs_do_not_see_what_is_given() -> None:
    """Had the mask been the wrong way round, the given part alone would count."""
    request = SpeechRequest(text_tokens=[8, 9], prompt_tokens=[1, 2])
    layout = rollout_layout(Rollout(request=request, tokens=(3, 0), has_ended=True), 4)
    targets = LayoutBatch.from_layouts([layout]).targets
    logits = torch.randn(1, len(layout), 6, generator=torch.Generator().manual_seed(0))
    changed = logits.clone()
    changed[:, :5] += torch.randn(1, 5, 6)
    assert torch.equal(target_log_probs(logits, targets), target_log_probs(changed, targets))
    logits.requires_grad_(True)
    target_log_probs(logits, targets).sum().backward()
    assert logits.grad is not None
    assert not logits.grad[:, :5].any() and bool(logits.grad[:, 5:].any(dim=-1).all())


def test_speech_that_ran_into_its_bound_has_no_end() -> None:
    request = SpeechRequest(text_tokens=[8])
    layout = rollout_layout(Rollout(request=request, tokens=(3, 0), has_ended=False), 4)
    assert layout.targets == [IGNORE, IGNORE, 3, 0, IGNORE]
    empty = rollout_layout(Rollout(request=request, tokens=(), has_ended=True), 4)
    assert empty.targets == [IGNORE, IGNORE, 4]


def test_dpo_by_hand() -> None:
    # (-1 + 2) - (-4 + 3) = 2, times a beta of 0.5 is 1.
    one = [torch.tensor([value]) for value in (-1.0, -4.0, -2.0, -3.0)]
    assert float(dpo_loss(*one, beta=0.5)) == pytest.approx(math.log(1 + math.exp(-1)))
    smoothed = 0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1))
    assert float(dpo_loss(*one, beta=0.5, label_smoothing=0.1)) == pytest.approx(smoothed)
    same = torch.tensor([-3.0])
    assert float(dpo_loss(same, same, same, same, beta=0.3)) == pytest.approx(math.log(2))


def test_dpo_pushes_the_better_answer_up() -> None:
    chosen, rejected = (torch.tensor([-2.0], requires_grad=True) for _ in range(2))
    dpo_loss(chosen, rejected, torch.tensor([-2.0]), torch.tensor([-2.0]), 0.4).sum().backward()
    # At a margin of 0 the slope is beta / 2.
    assert float(chosen.grad) == pytest.approx(-0.2)  # type: ignore[arg-type]
    assert float(rejected.grad) == pytest.approx(0.2)  # type: ignore[arg-type]


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 3.0, 8.0], [2.0, 2.0, 2.0], [5.0, 1.0, 0.0]])
    valid = torch.tensor([[True, True, True], [True, True, True], [True, False, False]])
    centred = group_advantages(rewards, valid, standardize=False)
    expected = torch.tensor([[-3.0, -1.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(centred, expected)
    # The deviation of the first group is √(26 / 3).
    scaled = group_advantages(rewards, valid)
    torch.testing.assert_close(scaled[0], expected[0] / math.sqrt(26 / 3), atol=1e-3, rtol=1e-3)
    assert not scaled[1:].any()


def test_a_reward_that_failed_is_no_zero() -> None:
    rewards = torch.tensor([[4.0, 6.0, 0.0]])
    valid = torch.tensor([[True, True, False]])
    found = group_advantages(rewards, valid, standardize=False)
    assert found.tolist() == [[-1.0, 1.0, 0.0]]


def test_clipping_by_hand() -> None:
    old = torch.zeros(2, 3)
    ratios = torch.tensor([[1.0, 1.5, 0.5], [1.0, 1.5, 0.5]])
    advantages = torch.tensor([[2.0], [-1.0]]).expand(2, 3)
    found = clipped_policy_loss(ratios.log(), old, advantages, 0.2, 0.3)
    # Better answers gain up to 1.3 and no further; worse ones are pushed down to 0.8.
    expected = torch.tensor([[-2.0, -2.6, -1.0], [1.0, 1.5, 0.8]])
    torch.testing.assert_close(found, expected)


def test_clipped_tokens_have_no_gradient() -> None:
    log_probs = torch.tensor([[1.5, 1.0]]).log().requires_grad_(True)
    clipped_policy_loss(log_probs, torch.zeros(1, 2), torch.ones(1, 2), 0.2, 0.3).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [[0.0, -1.0]]


def test_divergences_by_hand() -> None:
    # r = 2 at one token: 2 - 1 - ln 2; and 0 where both agree.
    found = kl_estimate(torch.tensor([0.0, -1.0]), torch.tensor([math.log(2.0), -1.0]))
    torch.testing.assert_close(found, torch.tensor([1.0 - math.log(2.0), 0.0]))
    policy, reference = torch.tensor([[[3.0, 1.0]]]).log(), torch.tensor([[[1.0, 1.0]]]).log()
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(token_kl(policy, reference)) == pytest.approx(expected)
    assert float(token_kl(policy, policy)) == pytest.approx(0.0, abs=1e-7)
