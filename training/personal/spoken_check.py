"""What must not be unlearned: texts spoken before and after tuning, read back and compared.

Every line is spoken whole and turned into speech tokens again, so that all parts are heard: their
words are read by the bundle's own recogniser, and the voice is compared by its own speaker encoder.
Both may choose between states of a part; they say nothing of how good the result is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.audio.resample import resample
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.text.normalize import frontend
from training.evaluation.sealed import is_sealed
from training.evaluation.sets import find_text_sets
from training.evaluation.statistics import mean_interval
from training.personal.config import SpokenCheckConfig

FAILED = 0.5
"""Error from which on a line has failed."""
MAX_MORE_FAILED = 1
"""Lines that may fail in addition. Of ten lines the interval of a mean hardly ever excludes 0."""
RATE = 16_000


@dataclass(frozen=True)
class Spoken:
    """What was measured of a voice, a number for each line."""

    errors: tuple[float, ...]
    """Errors of what is read back, per phone or character; none where nothing reads."""
    rates: tuple[float, ...]
    """Speech tokens for each text token."""
    likeness: tuple[float, ...]
    """Cosine of the speaker embedding and that of the takes; none of other voices."""

    @property
    def means(self) -> dict[str, float]:
        """The mean of each number."""
        found = {"read_error": self.errors, "speaking_rate": self.rates, "likeness": self.likeness}
        means = {name: float(np.mean(values)) for name, values in found.items() if values}
        if self.errors:
            means["failures"] = float(np.mean([error > FAILED for error in self.errors]))
        return means

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Spoken:
        """The measurements of plain data."""
        return cls(**{name: tuple(values) for name, values in data.items()})


class SpokenCheck:
    """Speaks the lines in voices."""

    def __init__(
        self, synthesizer: Synthesizer, config: SpokenCheckConfig, target: Tensor | None
    ) -> None:
        """Read the lines.

        Args:
            synthesizer: of the bundle.
            config: which lines.
            target: speaker embedding (E,) of the takes.

        Raises:
            ValueError: there is no such set, or it is sealed.
        """
        self.synthesizer, self.config = synthesizer, config
        self._target = None if target is None else functional.normalize(target, dim=0)
        (texts,) = find_text_sets([config.set])
        if is_sealed(texts):
            raise ValueError(f"{texts.path} is sealed: nothing is chosen by it.")
        lines, count = texts.lines, min(config.num_lines, len(texts.lines))
        self.texts = [lines[place * len(lines) // count].text for place in range(count)]

    def measure(
        self, voice: Voice, *, is_own: bool, wait: Callable[[], None] = lambda: None
    ) -> Spoken:
        """Let a voice say the lines.

        Args:
            voice: with its adapter, if it has one.
            is_own: whether it is the voice of the takes.
            wait: called before each line.
        """
        synthesizer, components = self.synthesizer, self.synthesizer.components
        normalize = frontend(components.text_tokenizer.config.normalizer).normalize
        rows, rates, likeness = [], [], []
        for number, text in enumerate(self.texts):
            wait()
            waveform = synthesizer.generate(text, voice=voice, seed=number)
            num_text = len(components.text_tokenizer.encode(normalize(text)))
            seconds = waveform.shape[0] / synthesizer.sample_rate
            rates.append(seconds * components.flow.config.token_rate / max(num_text, 1))
            is_heard = bool(waveform.abs().max() > 1e-4) if waveform.shape[0] else False
            rows.append(self._tokens(waveform) if is_heard else [])
            if is_own and self._target is not None:
                likeness.append(self._likeness(waveform) if is_heard else 0.0)
        errors: tuple[float, ...] = ()
        if components.has_token_recognizer and self.texts:
            scores = components.read_back([normalize(text) for text in self.texts], rows)
            errors = tuple(1.0 if one is None else one.error_rate for one in scores)
        return Spoken(errors, tuple(rates), tuple(likeness))

    def _tokens(self, waveform: Tensor) -> list[int]:
        try:
            return self.synthesizer.tokenize(waveform, sample_rate=self.synthesizer.sample_rate)
        except ValueError:  # silent
            return []

    @torch.no_grad()
    def _likeness(self, waveform: Tensor) -> float:
        components = self.synthesizer.components
        assert self._target is not None
        heard = resample(waveform, self.synthesizer.sample_rate, RATE).to(components.device)
        embedding = components.speaker_encoder.embed_recording(heard).cpu()
        return float(functional.normalize(embedding, dim=0) @ self._target)


def find_worse(
    before: Spoken, now: Spoken, config: SpokenCheckConfig, takes_rate: float | None = None
) -> str:
    """What has become worse beyond chance, in a sentence; empty where nothing has.

    Args:
        before: the voice without what was learned.
        now: the voice with it, on the same lines.
        config: what is allowed.
        takes_rate: speaking rate of the takes; the voice may come nearer to it.
    """
    found = []
    if before.errors:
        rise = np.array(now.errors) - np.array(before.errors)
        failed = np.array(now.errors) > FAILED, np.array(before.errors) > FAILED
        more = failed[0].astype(float) - failed[1].astype(float)
        if mean_interval(rise)[0] > 0:
            found.append(
                f"the error of what is read back rose from {np.mean(before.errors):.3f} to "
                f"{np.mean(now.errors):.3f}"
            )
        elif mean_interval(more)[0] > 0 or more.sum() > MAX_MORE_FAILED:
            found.append(f"{failed[0].sum()} lines failed, {failed[1].sum()} before")
    if before.rates:
        change = np.log(np.array(now.rates).clip(1e-3) / np.array(before.rates).clip(1e-3))
        wanted = math.log((takes_rate or 0) / np.mean(before.rates)) if takes_rate else 0.0
        limit = math.log1p(config.max_rate_change)
        low, high = mean_interval(change)
        if low > max(wanted, 0.0) + limit or high < min(wanted, 0.0) - limit:
            found.append(
                f"the length of the speech changed by {100 * math.expm1(change.mean()):+.0f} %"
            )
    if before.likeness:
        gain = np.array(now.likeness) - np.array(before.likeness)
        if mean_interval(gain)[1] < 0 or (config.must_gain and gain.mean() <= 0):
            found.append(
                f"the likeness to the takes went from {np.mean(before.likeness):.3f} to "
                f"{np.mean(now.likeness):.3f}"
            )
    return " and ".join(found)


def spread(names: Sequence[str], count: int) -> list[str]:
    """Some of several names, evenly over them."""
    count = min(count, len(names))
    return [names[place * len(names) // count] for place in range(count)]
