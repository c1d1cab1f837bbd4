"""Stop on regression: what a reward does not see must not get worse.

At every evaluation the policy speaks plain texts. Their words, their pace and, where a bundle makes
a sound, their voice are measured beside those of the reference policy, which never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenlm.checkpoint import packaged_configs
from tokenlm.models.lm import SamplingConfig, SpeechLM
from tokenlm.models.lm.decoding import SpeechRequest
from tokenlm.synthesis.guards import ReadBack
from tokenlm.text.normalize import frontend
from tokenlm.text.tokenizers import TextTokenizer
from training.rl.rollout import roll_out

Text = tuple[Sequence[int], str]
"""Text tokens, and the words."""
Prompt = tuple[Sequence[int], Sequence[int]]
"""Text and speech tokens."""


@dataclass(frozen=True, kw_only=True)
class RegressionConfig:
    """What may become worse, and by how much."""

    plain_texts: Path | None = Path("configs/eval/regression.jsonl")
    """Texts that no other set has, so that a run is not stopped by what it is judged by later; None
    takes those of `data.valid`. A relative path that does not exist is taken from the folder that
    holds `configs/`."""
    num_texts: int = 40
    """Texts that are spoken, spread evenly over the set; 0 never stops a run."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How both policies speak: as the bundle will, for which the weights are trained."""
    max_read_error_rise: float = 0.03
    """Rise of the error of the tokens, read back, in phones or characters."""
    max_rate_change: float = 0.15
    """Change of the speech tokens per text token, as a share, either way."""
    max_similarity_drop: float = 0.02
    """Drop of the likeness to the voice."""

    def __post_init__(self) -> None:
        numbers = (self.max_read_error_rise, self.max_rate_change, self.max_similarity_drop)
        if min(numbers) < 0 or self.num_texts < 0:
            raise ValueError("the limits of a regression must not be negative")


def find_regression(
    before: dict[str, float], now: dict[str, float], config: RegressionConfig
) -> str:
    """What has become worse, in a sentence; empty where nothing has.

    Args:
        before: `read_error`, `speaking_rate` and perhaps `similarity` of the reference policy.
        now: of the policy.
        config: what is allowed.
    """
    found = []
    error = now["read_error"]
    rise = error - before["read_error"]
    if rise > config.max_read_error_rise:
        found.append(f"the error of what is read back rose by {rise:.3f} to {error:.3f}")
    change = now["speaking_rate"] / max(before["speaking_rate"], 1e-9) - 1.0
    if abs(change) > config.max_rate_change:
        found.append(f"the length of the speech changed by {100 * change:+.0f} %")
    if "similarity" in before and "similarity" in now:
        drop = before["similarity"] - now["similarity"]
        if drop > config.max_similarity_drop:
            found.append(f"the likeness to the voice fell by {drop:.3f}")
    return " and ".join(found)


class Regression:
    """Measures a policy beside its reference on plain texts."""

    def __init__(
        self,
        config: RegressionConfig,
        tokenizer: TextTokenizer,
        read_back: ReadBack | None,
    ) -> None:
        """Read the plain texts.

        Raises:
            ValueError: the test set cannot be read, or the recogniser knows nothing of it.
        """
        self.config, self.read_back = config, read_back
        self._texts: Sequence[Text] | None = None
        self._before: dict[str, float] = {}
        if config.plain_texts is not None:
            from training.evaluation.sealed import is_sealed
            from training.evaluation.sets import read_text_set

            path = config.plain_texts
            if not path.is_absolute() and not path.exists():
                path = packaged_configs().parent / path
            normalize = frontend(tokenizer.config.normalizer).normalize
            plain = read_text_set(path)
            if is_sealed(plain):
                raise ValueError(
                    f"{path} is sealed, or has lines of the sealed set: no model is trained or "
                    "stopped by it; regression.jsonl is there for that."
                )
            words = [normalize(line.text) for line in plain.lines]
            self._texts = self._require_known([(tokenizer.encode(text), text) for text in words])

    def check(
        self,
        reference: SpeechLM,
        policy: SpeechLM,
        texts: Sequence[Text],
        prompts: Sequence[Prompt],
        similarity: Callable[[Sequence[int]], float | None] | None = None,
    ) -> tuple[dict[str, float], str]:
        """Measure the policy.

        Args:
            reference: measured at the first call only.
            policy: what is trained.
            texts: to be spoken where the config names no test set.
            prompts: assigned to the texts in turn.
            similarity: likeness of speech tokens to the voice.

        Returns:
            The metrics, and why the run should stop; empty where it should not.
        """
        if not self.config.num_texts or self.read_back is None:
            return {}, ""
        known = self._texts or self._require_known(texts)
        count = min(self.config.num_texts, len(known))
        # Of every kind that the set has, whatever its order.
        chosen = [known[place * len(known) // count] for place in range(count)]
        if not self._before:
            self._before = self._measure(reference, chosen, prompts, similarity)
        now = self._measure(policy, chosen, prompts, similarity)
        metrics = {f"plain/{name}": value for name, value in now.items()}
        metrics |= {f"plain/reference_{name}": value for name, value in self._before.items()}
        return metrics, find_regression(self._before, now, self.config)

    def _require_known(self, texts: Sequence[Text]) -> Sequence[Text]:
        """The texts, some of which the recogniser must know something of, if it is to read them."""
        if self.read_back is None or not self.config.num_texts:
            return texts
        if not any(self.read_back.encode(words) for _, words in texts):
            raise ValueError(
                f"regression: the plain texts have no {self.read_back.unit} that token_recognizer "
                "knows; with plain_texts=null those of data.valid are spoken"
            )
        return texts

    def _measure(
        self,
        model: SpeechLM,
        texts: Sequence[Text],
        prompts: Sequence[Prompt],
        similarity: Callable[[Sequence[int]], float | None] | None,
    ) -> dict[str, float]:
        assert self.read_back is not None
        requests = []
        for number, (text, _) in enumerate(texts):
            # Never the utterance itself, where the texts are those of the prompts.
            prompt_text, prompt = prompts[(number + 1) % len(prompts)]
            requests.append(
                SpeechRequest(
                    text_tokens=text,
                    prompt_text_tokens=prompt_text,
                    prompt_tokens=prompt,
                    segment=number,
                )
            )
        rollouts = roll_out(model, requests, self.config.sampling)
        readings = self.read_back(
            [words for _, words in texts], [rollout.tokens for rollout in rollouts]
        )
        errors = [0.0 if reading is None else reading.error_rate for reading in readings]
        lengths = sum(len(rollout.tokens) for rollout in rollouts)
        found = {
            "read_error": sum(errors) / len(errors),
            "speaking_rate": lengths / max(sum(len(text) for text, _ in texts), 1),
        }
        if similarity is not None:
            likeness = [similarity(rollout.tokens) for rollout in rollouts]
            kept = [value for value in likeness if value is not None]
            if kept:
                found["similarity"] = sum(kept) / len(kept)
        return found
