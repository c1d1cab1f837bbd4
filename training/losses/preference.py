"""Losses of post-training: direct preferences, clipped policy gradients, divergences.

Shapes: B sequences, L positions, V speech classes, G rollouts of one text.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.models.lm.layout import IGNORE


def target_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability (B, L) of every target, 0 where there is none.

    Args:
        logits: (B, L, V).
        targets: (B, L), IGNORE where nothing is predicted: text, the prompt, padding.
    """
    is_target = targets != IGNORE
    chosen = targets.masked_fill(~is_target, 0)[..., None]
    log_probs = logits.float().log_softmax(dim=-1).gather(-1, chosen)[..., 0]
    return log_probs.masked_fill(~is_target, 0.0)


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Direct preference optimisation (Rafailov et al., 2023), one value for each pair (B,).

    Args:
        policy_chosen: (B,) log-probability of the better answer.
        policy_rejected: (B,) that of the worse one.
        reference_chosen: (B,) the same under the reference policy.
        reference_rejected: (B,) likewise.
        beta: how firmly the reference holds the policy.
        label_smoothing: share of the preferences that are taken to be the wrong way round.
    """
    margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    right = functional.logsigmoid(beta * margin)
    wrong = functional.logsigmoid(-beta * margin)
    return -(1.0 - label_smoothing) * right - label_smoothing * wrong


def group_advantages(rewards: Tensor, valid: Tensor, *, standardize: bool = True) -> Tensor:
    """How much better each rollout is than the others of its text (Shao et al., 2024), (B, G).

    Args:
        rewards: (B, G).
        valid: (B, G) False where a reward failed: such a rollout says nothing, and the mean of its
            group is that of the others.
        standardize: divide by the deviation of the group. Without, groups that nearly agree count
            for little, which is what they know.
    """
    count = valid.sum(dim=1, keepdim=True)
    kept = rewards.masked_fill(~valid, 0.0)
    mean = kept.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = (rewards - mean).masked_fill(~valid, 0.0)
    if standardize:
        deviation = (centred.square().sum(dim=1, keepdim=True) / count.clamp(min=1)).sqrt()
        centred = centred / (deviation + 1e-4)
    # One rollout alone is neither better nor worse.
    return centred.masked_fill(count < 2, 0.0)


def clipped_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """Clipped policy gradient (Schulman et al., 2017), one value for each token (B, L).

    The caller sums it over the tokens of the batch and divides by their number: a long answer has
    more say than a short one only by having more tokens, and every token counts alike. The mean of
    each answer by itself would let a bad answer hide its errors in its length.

    Args:
        log_probs: (B, L) of the tokens under the policy.
        old_log_probs: (B, L) under the policy that drew them.
        advantages: (B, L) of the answers that the tokens belong to.
        clip_low: how far below 1 the ratio of the two still counts.
        clip_high: how far above.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Divergence of the policy from the reference at drawn tokens (B, L): never negative.

    The estimator is r - 1 - log r with r the ratio of reference to policy (Schulman, 2020).
    """
    log_ratio = reference_log_probs - log_probs
    return log_ratio.exp() - 1.0 - log_ratio


def token_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Divergence KL(policy || reference) of whole distributions, (B, L, V) to (B, L)."""
    policy = logits.float().log_softmax(dim=-1)
    reference = reference_logits.float().log_softmax(dim=-1)
    return (policy.exp() * (policy - reference)).sum(dim=-1)
