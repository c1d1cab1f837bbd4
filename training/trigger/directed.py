"""Nets that tell speech meant for the device, put into a trigger and combined."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from tokenlm.atomic import atomic_folder
from tokenlm.audio.io import load_audio
from tokenlm.console import track
from tokenlm.models.directedness import AcousticDirectedness, TextDirectedness
from tokenlm.trigger.cascade import ACOUSTIC, TEXT, Combination, Trigger
from tokenlm.trigger.checker import SAMPLE_RATE
from tokenlm.trigger.kinds import load_net
from training.data.manifest import read_good_rows
from training.losses.scores import equal_error
from training.trigger.train import fit_logistic


def add_directedness(
    folder: Path, manifest: Path, *, acoustic: Path | None = None, text: Path | None = None
) -> dict[str, float]:
    """Puts nets into a trigger, with a combination that a logistic regression fits.

    A net of the trigger that is not named stays, and is combined with the other.

    Args:
        folder: of the trigger.
        manifest: recordings with `"directed": true` or `false` that the nets were not trained on.
            Their texts stand for what a recogniser writes.
        acoustic: component of an `AcousticDirectedness`.
        text: component of a `TextDirectedness`.

    Returns:
        Equal error rate of each score on these recordings, and of the combination, which was fitted
        on them.

    Raises:
        ValueError: there is no net to put in, or the recordings are not of both kinds.
    """
    if acoustic is None and text is None:
        raise ValueError("give a net: --acoustic, --text or both.")
    old = Trigger.load(folder)
    trigger = Trigger(
        old.detector,
        old.checker,
        old.config,
        acoustic=old.acoustic if acoustic is None else load_net(acoustic, AcousticDirectedness),
        text=old.text if text is None else load_net(text, TextDirectedness),
    )
    scores: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for row in track(read_good_rows(manifest), "calibrating"):
        label = row.extra.get("directed")
        if not isinstance(label, bool):
            raise ValueError(f'{manifest}: the row {row.id!r} has no "directed": true or false')
        waveform = load_audio(row.audio, SAMPLE_RATE)
        scores[label].append(trigger.directedness(waveform, row.text))
    if not scores[True] or not scores[False]:
        raise ValueError(f"{manifest}: there must be rows that are directed, and others")
    nets = {"acoustic": trigger.acoustic, "text": trigger.text}
    names = [name for name, net in nets.items() if net is not None]
    own, other = (
        np.array([[found.get(name, 0.0) for name in names] for found in scores[label]])
        for label in (True, False)
    )
    weights, bias = fit_logistic(own, other)
    combined = Combination(weights=dict(zip(names, weights, strict=True)), bias=bias)
    figures = {
        name: equal_error(own[:, column], other[:, column]) for column, name in enumerate(names)
    }
    figures["both"] = equal_error(own @ weights, other @ weights)
    for source, name in ((acoustic, ACOUSTIC), (text, TEXT)):
        target = folder / name
        if source is None or source.resolve() == target.resolve():
            continue
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
    trigger.config = replace(old.config, directed=combined)
    trigger.save_config(folder)
    return figures
