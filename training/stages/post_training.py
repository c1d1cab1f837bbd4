"""What the stages of post-training share: their config, requests, rewards, and when to stop.

Each stage is a `Task` of the one loop: `prepare` lets the policy answer, without gradient, and
scores what it said; the losses then run over the answers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn

from tokenlm.checkpoint.component import load_state, read_state, save_component
from tokenlm.models.lm import SamplingConfig, SpeechLM
from tokenlm.models.lm.decoding import SpeechRequest
from tokenlm.models.lm.layout import Layout
from tokenlm.synthesis.guards import ReadBack
from tokenlm.synthesis.text import add_final_mark
from tokenlm.text.normalize import frontend
from tokenlm.text.tokenizers import TextTokenizer
from training.data.exclusion import evaluation_exclusion
from training.loop.randomness import derive_seed
from training.loop.task import StepInfo
from training.rl.regression import Regression, RegressionConfig
from training.rl.rewards import Answer, FailureCount, RewardConfig, RewardSet, combine
from training.rl.rollout import PackedRollouts, Rollout, roll_out
from training.rl.texts import counted_texts
from training.rl.texts.hard_texts import KINDS, harden
from training.stages.lora import merged_state, with_additions
from training.stages.speech_lm import SpeechLMStageConfig, SpeechLMTask, TokenPairs


@dataclass(frozen=True, kw_only=True)
class PolicyStageConfig(SpeechLMStageConfig):
    """What the configs of the stages of post-training share.

    `initial.speech_lm` names the component that the policy starts from, which is the reference
    policy as well. Joins, layouts and text dropout of `speech_lm` have no effect here.
    """

    rewards: RewardConfig = field(default_factory=RewardConfig)
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    group: int = 4
    """Answers to each text."""
    rollout_sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(top_k=0, top_p=1.0, repetition_window=0)
    )
    """How answers are drawn. Losses of the policy's own probabilities (grpo, token_reward) take
    plain sampling for granted and refuse any other; see `require_plain_sampling`."""
    prompt_share: float = 0.5
    """Share of the texts that are spoken after another utterance of their speaker."""
    hard_share: float = 0.0
    """Share of the texts that are made harder (`training.rl.texts.hard_texts`)."""
    hard_kinds: dict[str, float] = field(default_factory=dict)
    """How often each way of making a text harder is taken, beside the others; default 1 each."""
    counted_share: float = 0.0
    """Share of the texts in place of which a count, a list, a short answer or another of the kinds
    of `training.rl.texts.counted_texts` is spoken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prompt_share <= 1:
            raise ValueError(f"prompt_share must be in [0, 1], got {self.prompt_share}")
        if not 0 <= self.hard_share <= 1:
            raise ValueError(f"hard_share must be in [0, 1], got {self.hard_share}")
        if not 0 <= self.counted_share <= 1 - self.hard_share:
            raise ValueError(
                "counted_share must be at least 0, and at most 1 together with hard_share, got "
                f"{self.counted_share}"
            )
        unknown = sorted(self.hard_kinds.keys() - KINDS.keys())
        if unknown:
            raise ValueError(f"hard_kinds has no {unknown[0]!r}; there are {', '.join(KINDS)}")
        weights = [self.hard_kinds.get(name, 1.0) for name in KINDS]
        if min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise ValueError("hard_kinds must not be negative, and one must be above 0")
        if self.group < 1:
            raise ValueError(f"group must be at least 1, got {self.group}")


@dataclass(frozen=True)
class PolicyItem:
    """A text to be spoken."""

    text: tuple[int, ...]
    words: str
    prompt_text: tuple[int, ...] = ()
    prompt: tuple[int, ...] = ()
    """Speech tokens of the prompt."""


class PolicyTexts:
    """Map-style dataset of texts, drawn with prompts of their speakers."""

    def __init__(
        self, pairs: TokenPairs, config: PolicyStageConfig, tokenizer: TextTokenizer
    ) -> None:
        self.pairs = pairs.pairs
        self.tokenizer = tokenizer
        self._normalize = frontend(tokenizer.config.normalizer).normalize
        self.instruction = pairs.instruction
        self.config = config
        self._exclusion = evaluation_exclusion(config.data.test_sets)
        self._speakers = pairs.speakers
        # All answers of a text, and about as much again for the prompt of some and for what is
        # joined to others.
        kinds = {name: config.hard_kinds.get(name, 1.0) for name in KINDS}
        joined = config.hard_share * kinds["joined"] / sum(kinds.values())
        factor = config.group * (1.0 + config.prompt_share) * (1.0 + joined)
        factor /= config.model.token_rate
        self.durations = factor * (self.pairs.num_text + self.pairs.num_speech)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> PolicyItem:
        pair = self.pairs[index]
        return PolicyItem(pair.text, pair.words, self.instruction)

    def draw(self, index: int, generator: torch.Generator) -> PolicyItem:
        """Text `index`, or a harder one; some after another utterance of the speaker of `index`."""
        item = self[index]
        others = self._speakers.same(index)
        draws = torch.rand(4, generator=generator).tolist()
        rng = Random(draws[3])
        if draws[2] < self.config.hard_share:
            far = self.pairs[int(draws[3] * len(self.pairs))]
            weights = self.config.hard_kinds
            item = self._spoken(harden(item.words, far.words, rng, weights, self._exclusion))
        elif draws[2] >= 1 - self.config.counted_share:
            item = self._spoken(counted_texts.draw(rng, exclusion=self._exclusion))
        number = int(others[int(draws[1] * len(others))])
        if draws[0] >= self.config.prompt_share or number == index:
            return item
        other = self.pairs[number]
        before = (*self.instruction, *other.text)
        return PolicyItem(item.text, item.words, before, tuple(other.speech))

    def _spoken(self, text: str) -> PolicyItem:
        # With a mark at its end, as synthesis gives every segment to the LM.
        words = add_final_mark(self._normalize(text))
        return PolicyItem(tuple(self.tokenizer.encode(words)), words, self.instruction)


class PolicyTask(SpeechLMTask):
    """The part of a task of post-training that does not depend on its loss."""

    config: PolicyStageConfig

    def build(self) -> None:
        """See `Task`: the policy, and the reference policy that it starts from."""
        config = self.config
        initial = config.initial.get("speech_lm")
        if initial is None:
            raise ValueError(
                f"the stage {config.stage} starts from a trained speech LM: give its component as "
                "initial.speech_lm=FOLDER."
            )
        super().build()
        reference = copy.deepcopy(self.modules["speech_lm"])
        path = initial / "model.safetensors"
        load_state(reference, with_additions(reference, read_state(path)), where=path)
        self.modules["reference_policy"] = reference
        self.read_back: ReadBack | None = None
        if self._recognizer is not None:
            self._recognizer.requires_grad_(False).eval()
            self.read_back = ReadBack(self._recognizer, self.tokenizer)
        train = self._datasets["train"]
        assert train is not None
        lengths = np.stack([train.pairs.num_text, train.pairs.num_speech], axis=1)
        normalizer = self.tokenizer.config.normalizer
        self.rewards = RewardSet(config.rewards, self.read_back, lengths, normalizer)
        self.texts = PolicyTexts(train, config, self.tokenizer)
        self.failures = FailureCount(config.rewards.max_failed_share)
        self._whole: SpeechLM | None = None
        self._whole_at = -1
        self.regression = Regression(config.regression, self.tokenizer, self.read_back)

    def to(self, device: torch.device) -> None:
        """See `Task`: the rewards run where the policy does."""
        super().to(device)
        self.rewards.to(device)

    def dataset(self, split: str) -> Any:
        """See `Task`: texts to train on, speech to measure the cross-entropy on."""
        return self.texts if split == "train" else super().dataset(split)

    def collate(self, items: list[Any]) -> Any:
        """See `Task`."""
        return super().collate(items) if isinstance(items[0], Layout) else tuple(items)

    @property
    def policy(self) -> SpeechLM:
        """The model that learns."""
        model = self.modules["speech_lm"]
        assert isinstance(model, SpeechLM)
        return model

    @property
    def reference(self) -> SpeechLM:
        """The model that it started from."""
        model = self.modules["reference_policy"]
        assert isinstance(model, SpeechLM)
        return model

    def whole_policy(self, step: int) -> SpeechLM:
        """The policy as `prepare` of a step may run it: a copy, where it lies in pieces.

        How long answers become differs between the ranks, so that they cannot gather the weights
        for every token. All ranks call this together.
        """
        if self.full_state is None:
            return self.policy
        if self._whole is None:
            self._whole = copy.deepcopy(self.reference)
        if self._whole_at != step:
            self._whole.load_state_dict(self.full_state(self.policy))
            self._whole_at = step
        return self._whole

    def answers(
        self,
        model: SpeechLM,
        items: Sequence[PolicyItem],
        step: StepInfo,
        group: int,
        temperatures: Sequence[float] = (),
    ) -> list[Rollout]:
        """`group` rollouts of every text, those of one text beside one another.

        Args:
            model: the rollout policy, which draws the answers.
            items: the texts.
            step: with the texts, it decides what is drawn.
            group: answers to each text.
            temperatures: of the answers to a text, in turn; default that of `rollout_sampling`.
        """
        requests = [
            SpeechRequest(
                text_tokens=item.text,
                prompt_text_tokens=item.prompt_text,
                prompt_tokens=item.prompt,
                seed=derive_seed("rollout", step.seed, step.step, step.first_item + number),
                segment=draw,
            )
            for number, item in enumerate(items)
            for draw in range(group)
        ]
        plain = self.config.rollout_sampling
        turns = [replace(plain, temperature=value) for value in temperatures] or [plain]
        turns = turns[:group]
        found: dict[tuple[int, int], Rollout] = {}
        for turn, sampling in enumerate(turns):
            own = [request for request in requests if request.segment % len(turns) == turn]
            places = [(request.seed, request.segment) for request in own]
            found |= zip(places, roll_out(model, own, sampling), strict=True)
        return [found[request.seed, request.segment] for request in requests]

    def score(
        self, items: Sequence[PolicyItem], rollouts: Sequence[Rollout]
    ) -> tuple[list[float | None], dict[str, float]]:
        """Combined reward of every rollout, and what is to be logged of them.

        Raises:
            RewardError: too many rewards have failed.
        """
        group = len(rollouts) // len(items)
        answers = [
            Answer(
                text=items[number // group].words,
                num_text_tokens=len(items[number // group].text),
                tokens=rollout.tokens,
                has_ended=rollout.has_ended,
            )
            for number, rollout in enumerate(rollouts)
        ]
        named = self.rewards(answers)
        combined = [
            combine({name: values[n] for name, values in named.items()}, self.rewards.weights)
            for n in range(len(answers))
        ]
        self.failures.add(combined)
        metrics = {f"reward/{name}": mean(values) for name, values in named.items()}
        metrics["reward/all"] = mean(combined)
        metrics["rollout/tokens"] = mean([float(len(rollout.tokens)) for rollout in rollouts])
        metrics["rollout/ended"] = mean([float(rollout.has_ended) for rollout in rollouts])
        failed = sum(value is None for value in combined) / max(len(combined), 1)
        metrics["reward/failed_share"] = failed
        return combined, {name: value for name, value in metrics.items() if value is not None}

    def evaluate(
        self, batches: Iterable[Any], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """As for `speech_lm`, and whether anything has become worse than it was."""
        metrics = super().evaluate(batches, modules)
        valid = self._datasets["valid"]
        assert valid is not None
        first = valid.instruction
        prompts = [((*first, *pair.text), pair.speech) for pair in valid.pairs]
        if not self.config.prompt_share:  # such a policy is not asked to go on from a prompt
            prompts = [(first, ())]
        texts = [(pair.text, pair.words) for pair in valid.pairs]
        model = modules["speech_lm"]
        assert isinstance(model, SpeechLM)
        measured, reason = self.regression.check(
            self.reference, model, texts, prompts, self.rewards.render_similarity
        )
        self.stop_reason = reason
        return {**metrics, **measured}

    def export(self, folder: Path) -> None:
        """Writes the component `speech_lm`, which says what it was rewarded by, and its text."""
        save_component(
            folder / "speech_lm",
            kind="speech_lm",
            config=self.policy.config,
            state_dict=merged_state(self.policy),
            dtype=torch.float16,
            extra={"tokenizer": self._fingerprint, "rewards": self.rewards.judges},
        )
        self.tokenizer.save(folder / "text_tokenizer")

    def state(self) -> dict[str, Any]:
        """See `Task`."""
        return {"answers": self.failures.num_answers, "failed": self.failures.num_failed}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Task`."""
        self.failures.num_answers = state["answers"]
        self.failures.num_failed = state["failed"]

    def packed(self, rollouts: Sequence[Rollout]) -> PackedRollouts:
        """The layouts of rollouts, in one row, on the device."""
        found = PackedRollouts.of(rollouts, self.config.model.codebook_size)
        return found.to(self.reference.head.weight.device)


def require_plain_sampling(config: PolicyStageConfig) -> None:
    """Checks that answers are drawn from the very probabilities that the loss computes.

    What is cut off or sharpened has other probabilities than those that the gradient is taken of.

    Raises:
        ValueError: `rollout_sampling` changes the distribution.
    """
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_window": 0}
    other = [name for name in plain if getattr(config.rollout_sampling, name) != plain[name]]
    if other:
        given = ", ".join(f"{name}={getattr(config.rollout_sampling, name):g}" for name in other)
        needed = ", ".join(f"{name}: {value:g}" for name, value in plain.items())
        raise ValueError(
            f"rollout_sampling: the loss of {config.stage} assumes that answers are drawn as the "
            f"policy's own probabilities say, which {given} changes; leave rollout_sampling out, "
            f"or give {{{needed}}}"
        )


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None of none."""
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None


__all__ = [
    "PolicyItem",
    "PolicyStageConfig",
    "PolicyTask",
    "PolicyTexts",
    "require_plain_sampling",
]
