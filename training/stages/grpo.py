"""Stage grpo: policy gradients relative to the other answers to the same text.

    tokenlm train grpo

The rollout policy, which draws the answers, is the policy as it was up to `sync_every` steps ago.

Shapes: B texts, G answers of each, L positions of all answers in one row, V speech classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenlm.models.lm import SpeechLM
from tokenlm.models.lm.layout import IGNORE
from training.loop.task import Phase, Prepared, StepInfo
from training.losses.preference import (
    clipped_policy_loss,
    group_advantages,
    kl_estimate,
    target_log_probs,
)
from training.rl.rollout import evaluating
from training.stages.post_training import PolicyStageConfig, PolicyTask, require_plain_sampling


@dataclass(frozen=True, kw_only=True)
class GRPOStageConfig(PolicyStageConfig):
    """Configuration of the stage. `loss_weights: {grpo/kl: …}` weighs the divergence."""

    clip_low: float = 0.2
    """How far below 1 the ratio to the rollout policy still counts."""
    clip_high: float = 0.28
    """How far above; more than below, so that rare tokens may become likely."""
    standardize: bool = True
    """Whether advantages are divided by the deviation of their group."""
    sync_every: int = 1
    """Steps after which the rollout policy becomes the current policy again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_plain_sampling(self)
        if not 0 < self.clip_low < 1 or self.clip_high <= 0:
            raise ValueError("clip_low must be in (0, 1), and clip_high positive")
        if self.sync_every < 1:
            raise ValueError(f"sync_every must be at least 1, got {self.sync_every}")
        if self.group < 2:
            raise ValueError("answers are compared with one another: group must be at least 2")


class GRPOTask(PolicyTask):
    """Trains a `SpeechLM` on the rewards of its own answers."""

    name = "grpo"
    config: GRPOStageConfig

    def build(self) -> None:
        """See `Task`."""
        super().build()
        self._synced: SpeechLM | None = None
        self._synced_at = -1

    def prepare(self, batch: Any, step: StepInfo) -> Prepared:
        """See `Task`: answers, rewards, advantages, and log-probabilities of the rollout policy."""
        items, config = list(batch), self.config
        rollout_policy = self._rollout_policy(step.step)
        rollouts = self.answers(rollout_policy, items, step, config.group)
        rewards, metrics = self.score(items, rollouts)
        packed = self.packed(rollouts)
        layouts, device = packed.batch, packed.targets.device
        shape = (len(items), config.group)
        values = torch.tensor([value or 0.0 for value in rewards], device=device).view(shape)
        known = torch.tensor([value is not None for value in rewards], device=device).view(shape)
        advantages = group_advantages(values, known, standardize=config.standardize)
        # What no reward is known of has no targets: it is neither pushed nor held.
        layouts.targets = layouts.targets.masked_fill(~packed.spread(known.flatten()), IGNORE)
        with evaluating(rollout_policy):
            old = target_log_probs(rollout_policy(layouts), layouts.targets)
        with evaluating(self.reference):
            reference = target_log_probs(self.reference(layouts), layouts.targets)
        count = float((layouts.targets != IGNORE).sum())
        tensors = {
            "layouts": layouts,
            "advantages": packed.spread(advantages.flatten()),
            "old": old,
            "reference": reference,
        }
        return Prepared(
            tensors=tensors, counts={"grpo/policy": count, "grpo/kl": count}, metrics=metrics
        )

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("reinforce", ("speech_lm",), self._policy_losses)]

    def _policy_losses(self, prepared: Prepared) -> dict[str, Tensor]:
        layouts, config = prepared.tensors["layouts"], self.config
        is_target = layouts.targets != IGNORE
        log_probs = target_log_probs(self.policy(layouts), layouts.targets)
        policy = clipped_policy_loss(
            log_probs,
            prepared.tensors["old"],
            prepared.tensors["advantages"],
            config.clip_low,
            config.clip_high,
        )
        divergence = kl_estimate(log_probs, prepared.tensors["reference"])
        return {
            "grpo/policy": (policy * is_target).sum(),
            "grpo/kl": (divergence * is_target).sum(),
        }

    def _rollout_policy(self, step: int) -> SpeechLM:
        """The policy as of the last synchronisation, which draws the answers of a step."""
        if self.config.sync_every == 1:
            return self.whole_policy(step)
        is_due = step % self.config.sync_every == 0 and step != self._synced_at
        if self._synced is None or is_due:
            self._synced = copy.deepcopy(self.whole_policy(step)).requires_grad_(False)
            self._synced_at = step
        return self._synced

    def state(self) -> dict[str, Any]:
        """See `Task`: a resumed run goes on with its rollout policy."""
        weights = {}
        if self._synced is not None:
            weights = {name: value.cpu() for name, value in self._synced.state_dict().items()}
        return {**super().state(), "rollout_policy": weights, "synced_at": self._synced_at}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Task`."""
        super().load_state(state)
        self._synced_at = state["synced_at"]
        weights = state["rollout_policy"] if "rollout_policy" in state else state["lagging"]
        if weights:
            self._synced = copy.deepcopy(self.reference)
            self._synced.load_state_dict(weights)
