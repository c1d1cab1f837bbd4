"""How often a trigger wakes when it should not, and stays asleep when it should wake.

Every recording is heard by the whole cascade, and by each stage alone, whose scores make the curves
of detection error trade-off (DET). Whether a phrase was said is read from the text of the row.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from tokenlm.atomic import write_text
from tokenlm.audio.io import AudioError, load_audio
from tokenlm.console import track
from tokenlm.models.phrase_detector import MAX_RATIO, PhraseDecoder
from tokenlm.report import markdown_table, new_plot, save_plot
from tokenlm.text.normalize import frontend
from tokenlm.trigger.cascade import Trigger, listen
from tokenlm.trigger.checker import SAMPLE_RATE
from training.data.manifest import Utterance, read_good_rows
from training.data.phrases import contains
from training.evaluation.statistics import share_interval
from training.losses.scores import equal_error

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95
STAGES = ("detector", "checker", "branch", "logit")
"""Scores whose curves are drawn; `logit` is that of the checker's scores combined."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trigger made of one recording, for one phrase."""

    id: str
    kind: str
    """phrase: it is said; close: it is not, in a manifest of phrases; speech: ordinary sound."""
    speaker: str
    seconds: float
    scores: dict[str, float]
    """Best score of each stage anywhere in the recording, whatever the others said."""
    num_accepted: int
    """How often the cascade accepted the phrase."""


def hear(
    trigger: Trigger, rows: Sequence[Utterance], kind: str, *, description: str = "hearing"
) -> dict[str, list[Outcome]]:
    """Outcomes of recordings for every phrase; those that cannot be read are left out and logged.

    Args:
        trigger: what listens.
        rows: recordings.
        kind: of rows whose texts lack a phrase: "close" or "speech".
        description: of the progress.
    """
    found: dict[str, list[Outcome]] = {phrase: [] for phrase in trigger.config.phrases}
    normalize, tokenizer = frontend("english").normalize, trigger.checker.tokenizer
    for row in track(rows, description):
        said = tokenizer.pronounce(normalize(row.text))
        try:
            waveform = load_audio(row.audio, SAMPLE_RATE)
        except AudioError as error:
            logger.warning("the row %r is left out: %s", row.id, error)
            continue
        accepted = [decision.phrase for decision in listen(trigger, waveform).accepted]
        best = stage_scores(trigger, waveform)
        for phrase in trigger.config.phrases:
            has = contains(said, tokenizer.pronounce(phrase))
            # Whoever accepts "hey token" has accepted "token", which is in it.
            count = sum(phrase in other for other in accepted)
            found[phrase].append(
                Outcome(
                    id=row.id,
                    kind="phrase" if has else kind,
                    speaker=row.speaker,
                    seconds=len(waveform) / SAMPLE_RATE,
                    scores=best[phrase],
                    num_accepted=count,
                )
            )
    return found


def stage_scores(trigger: Trigger, waveform: Any) -> dict[str, dict[str, float]]:
    """Best scores of every phrase anywhere in a recording (S,), of each stage alone."""
    settings = trigger.detector.config
    decoder = PhraseDecoder(settings, [math.inf] * len(settings.phrases))
    decoder.push(trigger.detector(waveform[None])[0])
    scored = trigger.checker.score_all(waveform, settings.phrases)
    found: dict[str, dict[str, float]] = {}
    for number, phrase in enumerate(settings.phrases):
        scores = {
            "detector": max(decoder.best[number], -MAX_RATIO),
            "checker": scored[number].log_probability,
        }
        branch = scored[number].branch_log_probability
        if branch is not None:
            scores["branch"] = branch
        scores["logit"] = trigger.config.thresholds[phrase].checker.logit(scores)
        found[phrase] = scores
    return found


def largest_rate(count: int, hours: float) -> float:
    """Upper bound (95 %) of the events per hour where `count` were seen in `hours` (Poisson).

    Three in the time for none: ln 20 = 3.0.
    """
    return float(chi2.ppf(CONFIDENCE, 2 * (count + 1)) / 2 / hours) if hours > 0 else math.inf


def det_curve(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of false accepts and of false rejects at every threshold.

    Args:
        own: scores where the phrase is said.
        other: scores where it is not.

    Returns:
        Both (N,), from the lowest threshold to the highest.
    """
    thresholds = np.sort(np.concatenate([own, other, [np.inf]]))
    rejects = np.searchsorted(np.sort(own), thresholds, side="left") / max(len(own), 1)
    accepts = 1 - np.searchsorted(np.sort(other), thresholds, side="left") / max(len(other), 1)
    return accepts, rejects


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Figures of one phrase: those of each stage alone, and of the cascade as it decides."""
    own = [outcome for outcome in outcomes if outcome.kind == "phrase"]
    close = [outcome for outcome in outcomes if outcome.kind == "close"]
    speech = [outcome for outcome in outcomes if outcome.kind == "speech"]
    hours = sum(outcome.seconds for outcome in speech) / 3600
    false_accepts = sum(outcome.num_accepted for outcome in speech)
    stages: dict[str, dict[str, float]] = {}
    for stage in STAGES:
        said = np.array([o.scores[stage] for o in own if stage in o.scores])
        unsaid = np.array([o.scores[stage] for o in close + speech if stage in o.scores])
        if not len(said) or not len(unsaid):
            continue
        highest = unsaid.max()
        stages[stage] = {
            "equal_error_rate": equal_error(said, unsaid),
            "false_rejects_at_no_false_accept": float((said <= highest).mean()),
        }
    return {
        "num_phrase": len(own),
        "num_close": len(close),
        "num_speech": len(speech),
        "speech_hours": hours,
        "false_rejects": _share([o.num_accepted == 0 for o in own], [o.speaker for o in own]),
        "close_accepted": _share([o.num_accepted > 0 for o in close], [o.speaker for o in close]),
        "false_accepts": false_accepts,
        "false_accepts_per_hour_at_most": largest_rate(false_accepts, hours),
        "stages": stages,
    }


def _share(values: Sequence[bool], speakers: Sequence[str]) -> dict[str, float] | None:
    if not values:
        return None
    array = np.array(values, dtype=float)
    low, high = share_interval(array, speakers)
    return {"value": float(array.mean()), "low": low, "high": high}


def write_report(
    outcomes: Mapping[str, Sequence[Outcome]], folder: Path, *, size: Mapping[str, Any]
) -> str:
    """Writes `outcomes.jsonl`, `report.json`, `report.md` and the curves `det.png`.

    Args:
        outcomes: of every phrase.
        folder: made if missing.
        size: facts of the nets, which go into the report.

    Returns:
        The Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"of": phrase, **asdict(outcome)}, ensure_ascii=False) + "\n"
        for phrase, found in outcomes.items()
        for outcome in found
    ]
    write_text(folder / "outcomes.jsonl", "".join(lines))
    figures = {phrase: summarise(found) for phrase, found in outcomes.items()}
    report = {"nets": dict(size), "phrases": figures}
    write_text(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    text = render(figures, size)
    write_text(folder / "report.md", text)
    draw_curves(outcomes, folder / "det.png")
    return text


def render(figures: Mapping[str, Mapping[str, Any]], size: Mapping[str, Any]) -> str:
    """The operating points and the contribution of each stage, as Markdown."""
    head = [
        "phrase",
        "said",
        "false rejects",
        "close",
        "close accepted",
        "speech, hours",
        "false accepts",
        "per hour at most (95 %)",
    ]
    rows = [
        [
            phrase,
            str(found["num_phrase"]),
            _percent(found["false_rejects"]),
            str(found["num_close"]),
            _percent(found["close_accepted"]),
            f"{found['speech_hours']:.2f}",
            str(found["false_accepts"]),
            "–"
            if math.isinf(found["false_accepts_per_hour_at_most"])
            else f"{found['false_accepts_per_hour_at_most']:.2f}",
        ]
        for phrase, found in figures.items()
    ]
    stage_rows = [
        [
            phrase,
            _STAGE_NAMES[stage],
            f"{100 * values['equal_error_rate']:.1f} %",
            f"{100 * values['false_rejects_at_no_false_accept']:.1f} %",
        ]
        for phrase, found in figures.items()
        for stage, values in found["stages"].items()
    ]
    nets = "; ".join(f"{name}: {value}" for name, value in size.items())
    return "\n\n".join(
        [
            "## The cascade at its thresholds",
            markdown_table(head, rows),
            "## Each stage alone",
            markdown_table(
                ["phrase", "stage", "equal error rate", "false rejects at no false accept"],
                stage_rows,
            ),
            nets,
            "",
        ]
    )


_STAGE_NAMES = {
    "detector": "detector",
    "checker": "checker, CTC",
    "branch": "checker, branch",
    "logit": "checker, both",
}


def _percent(share: Mapping[str, float] | None) -> str:
    if share is None:
        return "–"
    value, low, high = (100 * share[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def draw_curves(outcomes: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Draws DET curves: a row of axes for the phrases, a line for each stage, on normal scales."""
    plot, axes = new_plot(1, len(outcomes), (5.0 * len(outcomes), 4.5))
    ticks = np.array([0.001, 0.01, 0.05, 0.2, 0.5, 0.8])
    for axis, (phrase, found) in zip(axes, outcomes.items(), strict=True):
        for stage in STAGES:
            own = np.array([o.scores[stage] for o in found if _is(o, stage, said=True)])
            other = np.array([o.scores[stage] for o in found if _is(o, stage, said=False)])
            if not len(own) or not len(other):
                continue
            accepts, rejects = det_curve(own, other)
            low = 0.5 / max(len(own), len(other))  # a share of none has no place on the scale
            x, y = (norm.ppf(part.clip(low, 1 - low)) for part in (accepts, rejects))
            axis.plot(x, y, label=_STAGE_NAMES[stage])
        axis.set_title(phrase)
        axis.set_xlabel("false accepts")
        axis.set_ylabel("false rejects")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_ticks(norm.ppf(ticks), [f"{100 * tick:g} %" for tick in ticks])
        axis.grid(alpha=0.3)
        axis.legend()
    save_plot(path, plot)


def _is(outcome: Outcome, stage: str, *, said: bool) -> bool:
    return stage in outcome.scores and (outcome.kind == "phrase") == said


def evaluate(
    trigger: Trigger,
    phrases: Sequence[Path],
    speech: Sequence[Path],
    *,
    max_hours: float = math.inf,
) -> dict[str, list[Outcome]]:
    """Outcomes of the recordings of manifests.

    Args:
        trigger: what listens.
        phrases: manifests of the phrase and of what sounds close.
        speech: manifests of ordinary speech and noise.
        max_hours: of ordinary speech that is heard.
    """
    found: dict[str, list[Outcome]] = {phrase: [] for phrase in trigger.config.phrases}
    for kind, manifests in (("close", phrases), ("speech", speech)):
        left = max_hours * 3600
        for manifest in manifests:
            rows = []
            for row in read_good_rows(manifest):
                if kind == "speech" and left <= 0:
                    break
                rows.append(row)
                left -= row.duration
            for phrase, outcomes in hear(trigger, rows, kind, description=manifest.name).items():
                found[phrase] += outcomes
    return found
