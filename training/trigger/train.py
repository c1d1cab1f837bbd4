"""From a phrase to a trigger: recordings, checker, detector, thresholds.

A folder of a trigger holds `trigger.yaml`, the components `phrase_detector` and `phrase_checker`
and the folder `text_tokenizer`; beside them `work` with the recordings and runs it was made of.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from tokenlm.atomic import write_text
from tokenlm.checkpoint import resolve
from tokenlm.models.phrase_detector import PhraseDetector
from tokenlm.trigger.cascade import (
    CHECKER,
    DETECTOR,
    TEXT_TOKENIZER,
    Combination,
    Thresholds,
    Trigger,
    TriggerConfig,
)
from tokenlm.trigger.checker import Checker
from tokenlm.trigger.kinds import load_net
from training.data.manifest import read_good_rows, row_of
from training.data.phrases import contains, normal_phrase
from training.loop.trainer import Trainer
from training.run import find_config, load_task
from training.stages.phrase_checker import load_pronunciation
from training.trigger.evaluate import Outcome, hear

if TYPE_CHECKING:
    from tokenlm.text.tokenizers import PhonemeTokenizer

logger = logging.getLogger(__name__)

WORK = "work"
VALID_SHARE = 0.15
"""Share of the speakers of the recordings that thresholds are chosen on."""
MAX_DETECTOR_MISSES = 0.02
"""Share of the phrases of these speakers that the detector may miss at its threshold."""
MAX_MISSES = 0.05
"""And the cascade, to accept nothing that is not the phrase."""


MIN_WEIGHT = 0.05
"""Of a score that is divided by its spread."""


@dataclass(frozen=True, kw_only=True)
class TriggerRecipe:
    """What a trigger is made of."""

    phrases: tuple[str, ...]
    """The most important first."""
    manifests: tuple[Path, ...] = ()
    """Recordings of the phrases, of what sounds close, and of other speech; what is said is read
    from the texts. None speaks `num_examples` with `bundle`."""
    checker: Path | None = None
    """Component of a phrase checker to start from; None starts from nothing."""
    bundle: str = "mini-en"
    num_examples: int = 400
    seed: int = 0
    settings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Changes of settings of the stages "checker" and "detector", as `optim.max_steps=500`."""

    def __post_init__(self) -> None:
        if not self.phrases:
            raise ValueError("give a phrase")
        if len(set(self.phrases)) < len(self.phrases):
            raise ValueError("a phrase is given twice")
        unknown = sorted(set(self.settings) - {"checker", "detector"})
        if unknown:
            raise ValueError(f"there is no stage {unknown[0]!r}: checker.KEY=… or detector.KEY=…")
        if self.num_examples < 20:
            raise ValueError(f"num_examples must be at least 20, got {self.num_examples}")


def train_trigger(recipe: TriggerRecipe, folder: Path) -> Trigger:
    """Makes a trigger, or goes on where an earlier call of the same recipe was stopped.

    Args:
        recipe: what it is made of.
        folder: of the trigger.

    Raises:
        ValueError: there are too few recordings with a phrase, or without.
    """
    phrases = tuple(normal_phrase(phrase) for phrase in recipe.phrases)
    source, tokenizer = load_pronunciation(None)
    for phrase in phrases:
        if len(tokenizer.pronounce(phrase)) < 3:
            raise ValueError(f"the phrase {phrase!r} is too short to be told from other speech")
    work = folder / WORK
    work.mkdir(parents=True, exist_ok=True)
    manifests = list(recipe.manifests) or [_speak(recipe, phrases, tokenizer, work)]
    train, valid = split_manifests(manifests, phrases, tokenizer, work, recipe.seed)
    data = [f"data.train={train}", f"data.valid={valid}", f"seed={recipe.seed}"]
    listed = f"phrases={json.dumps(phrases)}"
    changes = [f"run={work / 'checker'}", listed, *data, *recipe.settings.get("checker", ())]
    if recipe.checker is not None:
        changes += [f"initial.phrase_checker={recipe.checker}", "initial_partial=true"]
        # Its sizes; what a branch and a decoder lack begins at random.
        changes.insert(0, f"model={recipe.checker / 'config.yaml'}")
    checker = _run("phrase_checker", changes, work / "checker")
    changes = [f"run={work / 'detector'}", listed, *data, f"checker={checker}"]
    changes += recipe.settings.get("detector", ())
    detector = _run("phrase_detector", changes, work / "detector")
    for built, name in ((checker, CHECKER), (detector, DETECTOR)):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(built, folder / name)
    shutil.rmtree(folder / TEXT_TOKENIZER, ignore_errors=True)
    shutil.copytree(source, folder / TEXT_TOKENIZER)
    trigger = Trigger(
        load_net(folder / DETECTOR, PhraseDetector),
        Checker.load(folder / CHECKER, folder / TEXT_TOKENIZER),
        TriggerConfig(phrases=phrases, thresholds={phrase: Thresholds() for phrase in phrases}),
    )
    outcomes = hear(trigger, read_good_rows(valid), "close", description="thresholds")
    config = TriggerConfig(
        phrases=phrases,
        thresholds={phrase: choose_thresholds(outcomes[phrase]) for phrase in phrases},
        provenance={
            "recordings": ", ".join(str(path.name) for path in manifests),
            "checker": "from nothing" if recipe.checker is None else "from a trained one",
        },
    )
    made = Trigger(trigger.detector, trigger.checker, config)
    made.save_config(folder)
    return made


def _speak(
    recipe: TriggerRecipe, phrases: Sequence[str], tokenizer: PhonemeTokenizer, work: Path
) -> Path:
    from tokenlm.synthesis.synthesizer import Synthesizer
    from training.trigger.examples import speak_examples

    synthesizer = Synthesizer.from_pretrained(resolve(recipe.bundle))
    return speak_examples(
        synthesizer,
        tokenizer,
        phrases,
        work,
        recipe.num_examples,
        valid_share=VALID_SHARE,
        seed=recipe.seed,
    )


def _run(config: str, overrides: Sequence[str], run: Path) -> Path:
    """Trains a stage to its end, as `tokenlm train` does; returns its exported component."""
    settings, task = load_task(find_config(config), overrides)
    Trainer(task, settings).run()
    return run / "export" / config


def split_manifests(
    manifests: Sequence[Path],
    phrases: Sequence[str],
    tokenizer: PhonemeTokenizer,
    work: Path,
    seed: int,
) -> tuple[Path, Path]:
    """Joins manifests and parts them by speakers: `train.jsonl` and `valid.jsonl`.

    A row with `"split": "train"` or `"valid"` goes there, whoever speaks it: mixed voices have
    names of their own, but share voices.

    Raises:
        ValueError: one of the two lacks recordings with the first phrase, or without.
    """
    from tokenlm.text.normalize import frontend

    normalize = frontend("english").normalize
    said = {phrase: tokenizer.pronounce(phrase) for phrase in phrases}
    rows: dict[str, list[str]] = {"train": [], "valid": []}
    counts = {(split, has): 0 for split in rows for has in (True, False)}
    for number, manifest in enumerate(manifests):
        for row in read_good_rows(manifest):
            share = zlib.crc32(f"{seed}:{row.speaker}".encode()) / 2**32
            drawn = "valid" if share < VALID_SHARE else "train"
            split = named if (named := row.extra.get("split")) in rows else drawn
            facts: dict[str, Any] = row_of(row, Path())
            facts |= {"id": f"{number}-{row.id}", "audio": str(row.audio.absolute())}
            rows[split].append(json.dumps(facts, ensure_ascii=False) + "\n")
            phones = tokenizer.pronounce(normalize(row.text))
            counts[split, contains(phones, said[phrases[0]])] += 1
    for (split, has), count in counts.items():
        if count < 2:
            purpose = "training" if split == "train" else "thresholds"
            total = sum(map(len, rows.values()))
            raise ValueError(
                f"{count} recordings {'with' if has else 'without'} {phrases[0]!r} are for "
                f"{purpose}, of {total} in all; more are needed, of more speakers"
            )
    paths = work / "train.jsonl", work / "valid.jsonl"
    for path, split in zip(paths, ("train", "valid"), strict=True):
        write_text(path, "".join(rows[split]))
    return paths


def choose_thresholds(outcomes: Sequence[Outcome]) -> Thresholds:
    """Thresholds of one phrase from recordings of speakers that were not trained on.

    The detector's misses at most `MAX_DETECTOR_MISSES` of the phrases. The checker's scores are
    combined by a logistic regression, and its threshold is the lowest that accepts nothing else,
    but none that misses more than `MAX_MISSES`.
    """
    own = [outcome.scores for outcome in outcomes if outcome.kind == "phrase"]
    other = [outcome.scores for outcome in outcomes if outcome.kind != "phrase"]
    if not own or not other:
        return Thresholds()
    detector = float(np.quantile([scores["detector"] for scores in own], MAX_DETECTOR_MISSES))
    names = [name for name in ("checker", "branch") if name in own[0]]
    weights, bias = fit_logistic(
        np.array([[scores[name] for name in names] for scores in own]),
        np.array([[scores[name] for name in names] for scores in other]),
    )
    fitted = Combination(weights=dict(zip(names, weights, strict=True)), bias=bias)
    highest = max(fitted.logit(scores) for scores in other)
    accepted = float(np.quantile([fitted.logit(scores) for scores in own], MAX_MISSES))
    threshold = min(math.nextafter(highest, math.inf), accepted)
    return Thresholds(detector=detector, checker=replace(fitted, threshold=threshold))


def fit_logistic(
    own: np.ndarray, other: np.ndarray, *, penalty: float = 0.01
) -> tuple[list[float], float]:
    """Weights and bias of scores (N, C) of a class and (M, C) of the other, classes weighed alike.

    Weights are positive: a higher score never speaks against a phrase.
    """
    values = np.concatenate([own, other])
    spread = np.maximum(values.std(axis=0), 1e-6)
    signs = np.concatenate([np.ones(len(own)), -np.ones(len(other))])
    balance = np.where(signs > 0, 0.5 / len(own), 0.5 / len(other))
    inputs = np.column_stack([values / spread, np.ones(len(values))])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (inputs @ parameters)
        slopes = -signs * balance / (1 + np.exp(np.minimum(margins, 50.0)))
        gradient = inputs.T @ slopes
        gradient[:-1] += 2 * penalty * parameters[:-1]
        total = balance @ np.logaddexp(0.0, -margins) + penalty * np.square(parameters[:-1]).sum()
        return float(total), gradient

    bounds = [(MIN_WEIGHT, None)] * values.shape[1] + [(None, None)]
    start = np.append(np.full(values.shape[1], 1.0), 0.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = found[:-1] / spread
    return [round(float(weight), 6) for weight in weights], round(float(found[-1]), 6)


def net_sizes(trigger: Trigger, folder: Path) -> Mapping[str, str]:
    """Parameters and bytes of the nets, for a report."""
    sizes = {}
    for name, net in ((DETECTOR, trigger.detector), (CHECKER, trigger.checker.model)):
        count = sum(parameter.numel() for parameter in net.parameters())
        stored = (folder / name / "model.safetensors").stat().st_size
        sizes[name] = f"{count:,} parameters in {stored / 1000:.0f} kB"
    return sizes
