"""Stage token_reward: the gradient of what the frozen ASR half reads in the policy's own tokens.

    tokenlm train token_reward

Neither flow nor vocoder is in the loop. Nothing but the tokens gets a gradient: how long the speech
is, and that it ends, the divergence from the reference policy holds in place.

Shapes: B sequences, L positions, N speech tokens, K codes, V speech classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenlm.models.lm.layout import IGNORE
from tokenlm.models.token_recognizer import TokenRecognizer
from training.loop.task import Phase, Prepared, StepInfo
from training.losses.preference import token_kl
from training.losses.recognition import ctc_loss
from training.losses.token_reward import straight_through
from training.rl.rollout import Rollout, evaluating
from training.stages.post_training import PolicyStageConfig, PolicyTask, require_plain_sampling


@dataclass(frozen=True, kw_only=True)
class TokenRewardStageConfig(PolicyStageConfig):
    """Configuration of the stage. `loss_weights: {token_reward/kl: …}` weighs the divergence."""

    group: int = 1
    gumbel_temperature: float = 1.0
    """Of the softmax that gives the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_plain_sampling(self)
        if self.gumbel_temperature <= 0:
            raise ValueError(f"gumbel_temperature must be positive, got {self.gumbel_temperature}")


class TokenRewardTask(PolicyTask):
    """Trains a `SpeechLM` through the ASR half of its tokenizer."""

    name = "token_reward"
    config: TokenRewardStageConfig

    def build(self) -> None:
        """See `Task`."""
        if self.config.token_recognizer is None:
            raise ValueError("the stage token_reward needs token_recognizer=FOLDER.")
        super().build()
        recognizer = self._recognizer
        assert isinstance(recognizer, TokenRecognizer)
        # The loop moves it to the device with the others, and trains it not.
        self.modules["token_recognizer"] = recognizer

    def prepare(self, batch: Any, step: StepInfo) -> Prepared:
        """See `Task`: answers, their places in the sequences, and the noise that drew them."""
        items, config = list(batch), self.config
        rollouts = self.answers(self.whole_policy(step.step), items, step, config.group)
        _, metrics = self.score(items, rollouts)
        packed = self.packed(rollouts)
        layouts, device = packed.batch, packed.targets.device
        with evaluating(self.reference):
            reference = self.reference(layouts)
        texts = [items[number // config.group].words for number in range(len(rollouts))]
        read_back = self.read_back
        assert read_back is not None
        references = [read_back.encode(text) for text in texts]
        speech = pad_speech(rollouts, references, read_back.outputs_per_token)
        speech["positions"] += packed.starts.cpu()[:, None]
        noise = torch.zeros(*speech["tokens"].shape, config.model.codebook_size)
        for number, rollout in enumerate(rollouts):
            size = (len(rollout.tokens), noise.shape[-1])
            noise[number, : size[0]] = torch.rand(size, generator=step.generator(number))
        tensors = {name: tensor.to(device) for name, tensor in speech.items()}
        tensors |= {"layouts": layouts, "reference": reference, "noise": noise.to(device)}
        counts = {
            "token_reward/ctc": float((speech["num_units"] * speech["weight"]).sum()),
            "token_reward/kl": float((layouts.targets != IGNORE).sum()),
        }
        return Prepared(tensors=tensors, counts=counts, metrics=metrics)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("read", ("speech_lm",), self._reading_losses)]

    def _reading_losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors, read_back = prepared.tensors, self.read_back
        assert read_back is not None
        layouts, tokens = tensors["layouts"], tensors["tokens"]
        logits = self.policy(layouts)
        size = self.config.model.codebook_size
        # Where a code was drawn, the end was not: codes are compared with one another.
        of_codes = logits[0, tensors["positions"]][..., :size]
        drawn = straight_through(of_codes, tokens, tensors["noise"], self.config.gumbel_temperature)
        table = read_back.recognizer.code_vectors(torch.arange(size, device=tokens.device)[None])[0]
        mask = torch.arange(tokens.shape[1], device=tokens.device) < tensors["num_tokens"][:, None]
        log_probs = read_back.log_probs(drawn @ table, mask)
        read = ctc_loss(log_probs, tensors["units"], tensors["num_outputs"], tensors["num_units"])
        divergence = token_kl(logits, tensors["reference"]) * (layouts.targets != IGNORE)
        return {
            "token_reward/ctc": (read * tensors["weight"]).sum(),
            "token_reward/kl": divergence.sum(),
        }


def pad_speech(
    rollouts: Sequence[Rollout], units: Sequence[Sequence[int]], outputs_per_token: int = 1
) -> dict[str, Tensor]:
    """Tokens of rollouts and where they were predicted, and the units of their texts, padded.

    `weight` is 0 where the speech is too short for its text (no path of CTC goes through it), or
    the text has no unit that the recogniser knows.
    """
    longest = max(max(len(rollout.tokens) for rollout in rollouts), 1)
    widest = max(max(len(row) for row in units), 1)
    count = len(rollouts)
    tokens = torch.zeros(count, longest, dtype=torch.long)
    positions = torch.zeros(count, longest, dtype=torch.long)
    text = torch.zeros(count, widest, dtype=torch.long)
    weight = torch.zeros(count)
    for number, (rollout, row) in enumerate(zip(rollouts, units, strict=True)):
        length = len(rollout.tokens)
        tokens[number, :length] = torch.tensor(rollout.tokens, dtype=torch.long)
        # The last position of the prefix predicts the first token.
        first = len(rollout.request.prefix) - 1
        positions[number, :length] = torch.arange(first, first + length)
        text[number, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        twice = sum(a == b for a, b in zip(row, row[1:], strict=False))
        weight[number] = float(bool(row) and length * outputs_per_token >= len(row) + twice)
    # CTC takes no empty sequence; what has no weight is not looked at.
    num_tokens = torch.tensor([max(len(rollout.tokens), 1) for rollout in rollouts])
    return {
        "tokens": tokens,
        "positions": positions,
        "num_tokens": num_tokens,
        "num_outputs": num_tokens * outputs_per_token,
        "units": text,
        "num_units": torch.tensor([len(row) for row in units]),
        "weight": weight,
    }
