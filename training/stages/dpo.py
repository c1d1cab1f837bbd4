"""Stage dpo: direct preference optimisation on the policy's own answers.

    tokenlm train dpo

Every text is answered several times; the best and the worst answer, by the rewards, are a pair.

Shapes: N answers, the better of all pairs and then the worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tokenlm.models.lm import SpeechLM
from tokenlm.models.lm.layout import IGNORE
from training.loop.task import Phase, Prepared, StepInfo
from training.losses.preference import dpo_loss, target_log_probs
from training.rl.rollout import PackedRollouts, evaluating
from training.stages.post_training import PolicyStageConfig, PolicyTask


@dataclass(frozen=True, kw_only=True)
class DPOStageConfig(PolicyStageConfig):
    """Configuration of the stage."""

    beta: float = 0.1
    """How firmly the reference policy holds the policy."""
    label_smoothing: float = 0.0
    """Share of the preferences that are taken to be the wrong way round."""
    min_margin: float = 0.05
    """A pair whose rewards differ by less says nothing."""
    answers_from: Literal["policy", "reference_policy"] = "policy"
    """The rollout policy, which draws the answers."""
    temperatures: tuple[float, ...] = ()
    """Of the answers to a text, in turn; default that of `rollout_sampling`. Cooler answers are
    better ones more often, and give a policy that is to speak well at temperature 1 its example."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0 or not 0 <= self.label_smoothing < 0.5:
            raise ValueError("beta must be positive, and label_smoothing in [0, 0.5)")
        if self.group < 2:
            raise ValueError("a pair needs a group of at least 2")
        if any(value < 0 for value in self.temperatures):
            raise ValueError(f"temperatures must not be negative, got {self.temperatures}")


def choose_pair(rewards: Sequence[float | None], min_margin: float) -> tuple[int, int, bool]:
    """The best and the worst answer of a text, and whether they are a pair worth learning from."""
    known = [(value, index) for index, value in enumerate(rewards) if value is not None]
    if len(known) < 2:
        return 0, 0, False
    best = max(known, key=lambda pair: (pair[0], -pair[1]))
    worst = min(known)
    return best[1], worst[1], best[0] - worst[0] >= max(min_margin, 1e-9)


class DPOTask(PolicyTask):
    """Trains a `SpeechLM` on preferences."""

    name = "dpo"
    config: DPOStageConfig

    def prepare(self, batch: Any, step: StepInfo) -> Prepared:
        """See `Task`: answers, rewards, pairs, and log-probabilities of the reference policy."""
        items, config = list(batch), self.config
        is_policy = config.answers_from == "policy"
        rollout_policy = self.whole_policy(step.step) if is_policy else self.reference
        rollouts = self.answers(rollout_policy, items, step, config.group, config.temperatures)
        rewards, metrics = self.score(items, rollouts)
        chosen, rejected, weights = [], [], []
        for number in range(len(items)):
            start = number * config.group
            best, worst, counts = choose_pair(
                rewards[start : start + config.group], config.min_margin
            )
            chosen.append(rollouts[start + best])
            rejected.append(rollouts[start + worst])
            weights.append(float(counts))
        packed = self.packed([*chosen, *rejected])
        with evaluating(self.reference):
            reference = sequence_log_probs(self.reference, packed)
        weight = torch.tensor(weights, device=reference.device)
        num_targets = packed.sums((packed.targets != IGNORE).float())
        num_chosen = (num_targets[: len(items)] * weight).sum()
        tensors = {"packed": packed, "reference": reference, "weight": weight}
        counts = {"dpo/preference": sum(weights), "dpo/chosen_nll": float(num_chosen)}
        metrics["dpo/pairs"] = sum(weights) / len(items)
        return Prepared(tensors=tensors, counts=counts, metrics=metrics)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("prefer", ("speech_lm",), self._preference_losses)]

    def _preference_losses(self, prepared: Prepared) -> dict[str, Tensor]:
        packed, weight = prepared.tensors["packed"], prepared.tensors["weight"]
        chosen, rejected = sequence_log_probs(self.policy, packed).chunk(2)
        reference_chosen, reference_rejected = prepared.tensors["reference"].chunk(2)
        losses = dpo_loss(
            chosen,
            rejected,
            reference_chosen,
            reference_rejected,
            self.config.beta,
            self.config.label_smoothing,
        )
        # Preferences alone may make both answers unlikely, the worse one more so.
        return {
            "dpo/preference": (losses * weight).sum(),
            "dpo/chosen_nll": -(chosen * weight).sum(),
        }


def sequence_log_probs(model: SpeechLM, packed: PackedRollouts) -> Tensor:
    """Log-probability (N,) of each answer."""
    return packed.sums(target_log_probs(model(packed.batch), packed.targets))
