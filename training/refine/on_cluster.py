"""Refinement on many machines: a map over recordings, whose rows the steps then find done.

The driver knows from the rows of the steps which recordings are not done, an actor makes the rows
of one recording at a time, and the driver alone writes them: a driver that is started again goes on
where it was. What compares clips with one another (duplicates, voices, tails of the length ratio)
is done afterwards in one process, by the steps themselves.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenlm.console import ProgressBar
from training.data.cluster import Cluster
from training.data.rejects import Reject, Rejects
from training.refine import steps
from training.refine.config import RefineConfig
from training.refine.recognisers import make_recogniser
from training.refine.recordings import Recording
from training.refine.speakers import load_encoder


@dataclass(frozen=True, kw_only=True)
class RecordingMap:
    """What is done with each recording; models by name, as every actor loads its own."""

    work: Path
    config: RefineConfig
    recognisers: tuple[str, ...] = ()
    speaker_encoder: Path | None = None
    encoder: str = ""
    """Name of its weights."""
    with_embeddings: bool = False
    """Whether speakers are named by their voices."""

    def files(self) -> tuple[str, ...]:
        """Names of the files that have a row for every clip."""
        return steps.clip_files(
            self.recognisers, self.encoder, with_embeddings=self.with_embeddings
        )


Rows = dict[str, list[dict[str, Any]]]
"""Rows of one recording, by the name of their file."""


def map_recordings(
    recordings: Sequence[Recording], job: RecordingMap, cluster: Cluster, max_rejects: float
) -> set[str]:
    """Let a cluster make the rows of all recordings that are not done.

    Args:
        recordings: The recordings.
        job: What is done with each.
        cluster: Does it.
        max_rejects: Share of the recordings that may be unusable.

    Returns:
        Ids of the recordings that were cut now, bad ones among them.

    Raises:
        ValueError: If the working folder was begun with other settings.
        TooManyRejects: As soon as too many recordings are known to be unusable.
        ClusterError: If recordings failed at every attempt; the rows of all others are there.
    """
    steps.open_work(job.work, job.config)
    cut = steps.read_rows(job.work / steps.SEGMENT_FILE)
    done = {name: steps.read_rows(job.work / name).keys() for name in job.files()}
    tasks = []
    for recording in recordings:
        row = cut.get(recording.id)
        if row is not None and not steps.is_segmented(recording, row):
            row = None
        missing = None
        if row is not None:
            missing = {
                name: {clip for clip, _ in row["clips"] if clip not in rows}
                for name, rows in done.items()
            }
            if not any(missing.values()):
                continue
        tasks.append((recording.id, partial(_same, (recording, row, missing))))
    if not tasks:
        return set()
    by_id = {recording.id: recording for recording in recordings}
    rejects = Rejects(None, max_rejects, num_expected=len(recordings))
    fresh: set[str] = set()
    facts = (job, cluster.device)
    with closing(cluster.run(_start_actor, facts, tasks)) as results, ProgressBar("refine") as bar:
        for number, (name, made) in enumerate(results, start=1):
            bar.update(number / len(tasks))
            # The row of the recording last: with it the recording is done.
            for file in sorted(made, key=lambda file: file == steps.SEGMENT_FILE):
                if made[file]:
                    steps.append_rows(job.work / file, made[file])
            for row in made.get(steps.SEGMENT_FILE, ()):
                fresh.add(name)
                if row["problem"]:
                    one = by_id[name]
                    rejects.reject(Reject(one.file, one.line, row["problem"]))
    return fresh


def _same(task: Any) -> Any:
    return task


def _start_actor(job: RecordingMap, device: str) -> Callable[[Any], Rows]:
    """In an actor: load the models, and return what makes the rows of a recording."""
    if not job.work.is_dir():
        raise FileNotFoundError(f"the machine {platform.node()} does not see {job.work}")
    recognisers = {name: make_recogniser(name) for name in job.recognisers}
    embed = load_encoder(job.speaker_encoder, device)[0] if job.speaker_encoder else None

    def refine(task: tuple[Recording, dict[str, Any] | None, Any]) -> Rows:
        recording, row, missing = task
        return steps.refine_recording(
            recording,
            row,
            missing,
            job.work,
            job.config,
            recognisers,
            embed,
            job.encoder,
            with_embeddings=job.with_embeddings,
        )

    return refine
