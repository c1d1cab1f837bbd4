"""Stage phrase_detector: a stream of sound to states of phrases.

    tokenlm train phrase_detector data.train=… phrases='[hey token, token]' checker=FOLDER

The states of the frames come of the aligned phones of the manifest, or where it has none of a
checker's CTC alignment of the phrase. Frames are trained first;
from `score_step` on the detection score is, too, through the decoder; from `palette_step` on the
weights are drawn to palettes of 16 values.

Shapes: B batch, S samples, T frames, R phrases.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tokenlm.audio.fbank import KaldiFbank
from tokenlm.checkpoint.component import save_component
from tokenlm.config import ConfigError
from tokenlm.models.phrase_detector import (
    PhraseDetector,
    PhraseDetectorConfig,
    chain_ratios,
    path_scores,
    state_labels,
)
from tokenlm.modules.palette import nearest, pack_state
from tokenlm.trigger.checker import Checker
from training.config import RunConfig
from training.data.augment import AugmentConfig, augment
from training.data.collate import pad_sequences, pad_waveforms
from training.data.phrases import normal_phrase
from training.data.split import DataConfig, rejects_file
from training.loop.task import Phase, Prepared, StepInfo, Task
from training.losses.palettes import (
    initial_palette,
    palettised_weights,
    range_penalty,
    soft_palette,
)
from training.losses.phrases import score_loss
from training.losses.scores import equal_error
from training.stages.phrase_checker import PhraseItems, load_pronunciation, open_items

logger = logging.getLogger(__name__)

RATE = 16_000
SILENCE_DB = 40.0
"""A frame this far below the loudest one of its recording is silence."""
UNKNOWN = -100
"""Label of frames that are not trained."""


@dataclass(frozen=True, kw_only=True)
class PhraseDetectorStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    checker: Path
    """Component of a phrase checker, which aligns the phrases."""
    text_tokenizer: Path | None = None
    """Folder of a text tokenizer of phonemes; None takes that of mini-en."""
    phrases: tuple[str, ...]
    model: PhraseDetectorConfig = field(default_factory=PhraseDetectorConfig)
    """Its phrases and phones are those of `phrases`."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    crop_seconds: float = 2.5
    """Longest piece of a recording; a phrase is within it."""
    joined: float = 0.4
    """Probability that a piece of another recording, without a phrase, is put before one."""
    score_step: int = 500
    """From this step on the detection score is trained besides the frames."""
    palette_step: int | None = None
    """From this step on the weights are drawn to palettes; None keeps them as they are."""
    palette_temperature: float = 0.5
    """At `palette_step`; it falls to a tenth at the end of the run."""


@dataclass(frozen=True)
class DetectorItem:
    """A piece of a recording."""

    waveform: Tensor
    """(S,)"""
    labels: Tensor
    """(T,) states, `UNKNOWN` where a frame is not trained."""
    has_phrase: tuple[bool, ...]
    """Of each phrase."""


class DetectorItems:
    """Map-style dataset of `DetectorItem`s."""

    def __init__(
        self,
        items: PhraseItems,
        spans: Mapping[int, Sequence[Sequence[tuple[float, float]]]],
        config: PhraseDetectorStageConfig,
        model: PhraseDetectorConfig,
    ) -> None:
        """Take recordings, and the spans of phones of every phrase in those that have some."""
        self._items, self._spans, self._config, self._model = items, spans, config, model
        self._without = [index for index in range(len(items)) if index not in spans]
        self._fbank = KaldiFbank(model.fbank)
        self.durations = np.minimum(items.durations, config.crop_seconds * 1.5)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> DetectorItem:
        return self._made(index, None)

    def draw(self, index: int, generator: torch.Generator) -> DetectorItem:
        """Recording `index`, cut at random, perhaps behind another, and augmented."""
        return self._made(index, generator)

    def _made(self, index: int, generator: torch.Generator | None) -> DetectorItem:
        config, model = self._config, self._model
        item = self._items[index]
        waveform, spans = item.waveform, self._spans.get(index, ())
        waveform, shift = self._cut(waveform, spans, generator)
        if generator is not None and self._without and _draw(generator) < config.joined:
            chosen = self._without[int(torch.randint(len(self._without), (), generator=generator))]
            before, _ = self._cut(self._items[chosen].waveform, (), generator)
            before = before[: int((0.2 + _draw(generator)) * RATE)]
            waveform = torch.cat([before, waveform])
            shift -= len(before)
        quiet = self._quiet(waveform)
        labels: Tensor | None = None
        offset = shift / RATE
        for number, phones in enumerate(spans):
            if not phones:
                continue
            moved = [(start - offset, end - offset) for start, end in phones]
            found = state_labels(len(quiet), moved, quiet, model.chains[number], model)
            labels = found if labels is None else torch.where(found < model.silence, found, labels)
        if labels is None:
            labels = state_labels(len(quiet), (), quiet, (), model)
        has = tuple(bool(phones) for phones in spans) or (False,) * len(model.phrases)
        if item.has_phrase != has:  # said, but not found: nothing is known of its frames
            labels = torch.full_like(labels, UNKNOWN)
        if generator is not None:
            waveform = augment(waveform, RATE, generator, config.augment, self._other)
        return DetectorItem(waveform, labels, item.has_phrase)

    def _cut(
        self,
        waveform: Tensor,
        spans: Sequence[Sequence[tuple[float, float]]],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, int]:
        """A piece that has the phrases, and its first sample in the whole."""
        size = int(self._config.crop_seconds * RATE)
        spare = len(waveform) - size
        if spare <= 0:
            return waveform, 0
        phones = [span for phrase in spans for span in phrase]
        low, high = 0, spare
        if phones:
            # As long a phrase as may be: its end is kept, and what the net lags behind.
            end = int((max(end for _, end in phones) + 0.2) * RATE)
            low = min(max(end - size, 0), spare)
            high = max(min(int(min(start for start, _ in phones) * RATE), spare), low)
        share = 0.5 if generator is None else _draw(generator)
        first = low + int(share * (high - low))
        return waveform[first : first + size], first

    def _quiet(self, waveform: Tensor) -> Tensor:
        config = self._model.fbank
        frames = waveform.unfold(0, config.win_length, config.hop_length)
        level = frames.square().mean(dim=1).clamp(min=1e-10).log10() * 10
        count = len(level) // 2 * 2  # the net gives frames in pairs
        return level[:count] < level.max() - SILENCE_DB

    def _other(self, generator: torch.Generator) -> Tensor:
        index = int(torch.randint(len(self._items), (), generator=generator))
        return self._items[index].waveform


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


class PhraseDetectorTask(Task):
    """Trains a `PhraseDetector`."""

    name = "phrase_detector"

    def __init__(self, config: PhraseDetectorStageConfig) -> None:
        self.config = config
        self._datasets: dict[str, DetectorItems | None] = {}
        self._palettes: dict[str, Tensor] = {}

    def build(self) -> None:
        """See `Task`.

        Raises:
            ConfigError: no recording of the training split has a phrase.
        """
        config = self.config
        phrases = tuple(normal_phrase(phrase) for phrase in config.phrases)
        folder, tokenizer = load_pronunciation(config.text_tokenizer)
        checker = Checker.load(config.checker, folder)
        phones = tuple(tuple(tokenizer.pronounce(phrase)) for phrase in phrases)
        self.model_config = replace(config.model, phrases=phrases, phones=phones)
        for split in ("train", "valid"):
            items = open_items(
                config.data, split, tokenizer, folder, phrases, None, rejects_file(config)
            )
            self._datasets[split] = None
            if items is not None:
                spans = _align(items, phrases, checker)
                if split == "train" and not spans:
                    raise ConfigError(f"data.train: no text has the phrase {phrases[0]!r}")
                logger.info("%s: %d of %d recordings have a phrase", split, len(spans), len(items))
                self._datasets[split] = DetectorItems(items, spans, config, self.model_config)
        # Of a score, as the mean of log-ratios, to the logit of the loss.
        calibration = nn.Linear(1, 1)
        nn.init.constant_(calibration.weight, 2.0)
        nn.init.constant_(calibration.bias, 0.0)
        self.modules = {
            "phrase_detector": PhraseDetector(self.model_config),
            "calibration": calibration,
        }

    def dataset(self, split: str) -> DetectorItems | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[DetectorItem]) -> dict[str, Tensor]:
        """See `Task`."""
        waveform, lengths = pad_waveforms([item.waveform for item in items])
        labels, num_frames = pad_sequences([item.labels for item in items], value=UNKNOWN)
        has_phrase = torch.tensor([item.has_phrase for item in items], dtype=torch.bool)
        return {
            "waveform": waveform,
            "lengths": lengths,
            "labels": labels,
            "num_frames": num_frames,
            "has_phrase": has_phrase,
        }

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        config = self.config
        tensors: dict[str, Any] = dict(batch)
        counts = {"detector/frames": float((batch["labels"] != UNKNOWN).sum())}
        tensors["has_score"] = step.step >= config.score_step
        counts["detector/score"] = float(batch["has_phrase"].numel())
        counts["detector/range"] = 1.0
        tensors["temperature"] = 0.0
        if config.palette_step is not None and step.step >= config.palette_step:
            left = config.optim.max_steps - config.palette_step
            done = (step.step - config.palette_step) / max(left, 1)
            tensors["temperature"] = config.palette_temperature * 10.0 ** -min(done, 1.0)
        return Prepared(tensors=tensors, counts=counts)

    def phases(self) -> list[Phase]:
        """See `Task`."""
        return [Phase("detect", ("phrase_detector", "calibration"), self._losses)]

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors, detector = prepared.tensors, self.modules["phrase_detector"]
        assert isinstance(detector, PhraseDetector)
        nothing = tensors["waveform"].new_zeros(())
        losses = {"detector/range": nothing, "detector/score": nothing}
        weights: dict[str, Tensor] = {}
        if tensors["temperature"] > 0:
            raw = palettised_weights(detector)
            losses["detector/range"] = range_penalty(raw)
            for name, weight in raw.items():
                if name not in self._palettes:
                    self._palettes[name] = initial_palette(weight, _bits(self.model_config))
                weights[name], palette = soft_palette(
                    weight, self._palettes[name], temperature=tensors["temperature"]
                )
                self._palettes[name] = palette.detach()
        posteriors = functional_call(detector, weights, (tensors["waveform"],))
        labels = tensors["labels"][:, : posteriors.shape[1]]
        losses["detector/frames"] = functional.nll_loss(
            posteriors[:, : labels.shape[1]].flatten(0, 1),
            labels.flatten(),
            ignore_index=UNKNOWN,
            reduction="sum",
        )
        if tensors["has_score"]:
            scores = self._scores(posteriors, tensors["num_frames"])
            logits = self.modules["calibration"](scores[..., None])[..., 0]
            losses["detector/score"] = score_loss(logits, tensors["has_phrase"]).sum()
        return losses

    def _scores(self, posteriors: Tensor, num_frames: Tensor) -> Tensor:
        config = self.model_config
        return torch.stack(
            [
                path_scores(chain_ratios(posteriors, chain, config.num_states), num_frames)
                for chain in config.chains
            ],
            dim=1,
        )

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Share of frames with the wrong state, and equal error rate of every phrase's score."""
        detector = modules["phrase_detector"]
        assert isinstance(detector, PhraseDetector)
        weights = self._hard_weights(detector)
        wrong = count = 0
        scores: list[Tensor] = []
        said: list[Tensor] = []
        for batch in batches:
            posteriors = functional_call(detector, weights, (batch["waveform"],))
            labels = batch["labels"][:, : posteriors.shape[1]]
            best = posteriors[:, : labels.shape[1]].argmax(dim=-1)
            known = labels != UNKNOWN
            wrong += int((best != labels)[known].sum())
            count += int(known.sum())
            scores.append(self._scores(posteriors, batch["num_frames"]).cpu())
            said.append(batch["has_phrase"].cpu())
        metrics = {"frame_error_rate": wrong / max(count, 1)}
        found, has = torch.cat(scores), torch.cat(said)
        for number, phrase in enumerate(self.model_config.phrases):
            own, other = found[has[:, number], number], found[~has[:, number], number]
            rate = equal_error(own.double().numpy(), other.double().numpy())
            metrics[f"equal_error_rate/{phrase}"] = rate
        return metrics

    def _hard_weights(self, detector: PhraseDetector) -> dict[str, Tensor]:
        """Weights of which each has the nearest value of its palette."""
        found: dict[str, Tensor] = {}
        for name, weight in palettised_weights(detector).items():
            if name in self._palettes:
                palette = self._palettes[name].half().to(weight.dtype)
                found[name] = palette[nearest(weight.detach(), palette)].view_as(weight)
        return found

    def export(self, folder: Path) -> None:
        """Writes the component `phrase_detector`, palettised where it was trained to be."""
        detector = self.modules["phrase_detector"]
        assert isinstance(detector, PhraseDetector)
        state, config = detector.state_dict(), replace(self.model_config, palette_bits=0)
        if self._palettes:
            bits = _bits(self.model_config)
            state = pack_state(state, self._palettes, bits)
            config = replace(self.model_config, palette_bits=bits)
        save_component(
            folder / "phrase_detector",
            kind="phrase_detector",
            config=config,
            state_dict=state,
            dtype=torch.float16,
        )

    def state(self) -> dict[str, Any]:
        """See `Task`."""
        return {"phrases": list(self.model_config.phrases), "palettes": dict(self._palettes)}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Task`.

        Raises:
            ConfigError: the run began with other phrases.
        """
        if tuple(state["phrases"]) != self.model_config.phrases:
            raise ConfigError("phrases: the run began with " + ", ".join(state["phrases"]))
        self._palettes = {name: saved.to(self.device) for name, saved in state["palettes"].items()}


def _bits(config: PhraseDetectorConfig) -> int:
    return config.palette_bits or 4


Spans = Sequence[tuple[float, float]]
"""Start and end of phones in seconds."""


def _align(items: PhraseItems, phrases: Sequence[str], checker: Checker) -> dict[int, list[Spans]]:
    """Spans of the phones of every phrase in the recordings whose texts have some."""
    phones = [checker.phones_of(phrase) for phrase in phrases]
    found: dict[int, list[Spans]] = {}
    for index in range(len(items)):
        has = items.has_phrase(index)
        if not any(has):
            continue
        aligned = items.aligned(index)
        spans: list[Spans] = [
            given_spans(aligned, wanted) if said else ()
            for wanted, said in zip(phones, has, strict=True)
        ]
        if any(said and not own for said, own in zip(has, spans, strict=True)):
            scored = checker.score_all(items[index].waveform, phrases)
            spans = [
                own or (filled(score.spans) if said else ())
                for own, score, said in zip(spans, scored, has, strict=True)
            ]
        found[index] = spans
    return found


def given_spans(aligned: Sequence[tuple[str, float]], wanted: Sequence[str]) -> Spans:
    """Spans of phones in an alignment of a manifest; none where it names them otherwise.

    Args:
        aligned: phones, each with its end in seconds.
        wanted: phones in a row.
    """
    names = [name for name, _ in aligned]
    for at in range(len(names) - len(wanted) + 1):
        if names[at : at + len(wanted)] == list(wanted):
            ends = [end for _, end in aligned[at : at + len(wanted)]]
            start = aligned[at - 1][1] if at else 0.0
            return list(zip([start, *ends[:-1]], ends, strict=True))
    return ()


def filled(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of CTC, which are peaks, widened so that each ends half-way to the next.

    The first and the last become at most 80 ms longer.
    """
    if not spans:
        return []
    borders = [
        (end + start) / 2 for (_, end), (start, _) in zip(spans[:-1], spans[1:], strict=True)
    ]
    first = max(spans[0][0] - 0.04, 0.0)
    return list(zip([first, *borders], [*borders, spans[-1][1] + 0.04], strict=True))
