"""The snapshot of a set of texts: how engines read its lines, and which lines are left out.

A judge that misses the words of a line even in the plain reading of a classic engine says nothing
about a model on that line. Such lines are left out, and the list is written once, before any model
is judged, by `scripts/snapshot_test_set`. It lies beside the set (`hard.frozen.json`), holds the
digest of its texts, and is never overwritten. A second one (`hard.voices.json`) assigns the lines
to the held-out speakers of a corpus.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tokenlm.atomic import write_text
from training.evaluation.error_rate import ErrorCount
from training.evaluation.sets import Line, TextSet, TextSetError

EXCLUDED_RATE = 0.2
"""A line is left out when more of its words than this are transcribed wrongly, whichever engine
reads."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The best of the engines' readings of a line."""

    voice: str
    heard: str
    errors: int
    words: int
    seconds: float

    @property
    def count(self) -> ErrorCount:
        """Its word errors."""
        return ErrorCount(self.errors, self.words)

    @property
    def is_excluded(self) -> bool:
        """Whether its line is left out."""
        return self.count.rate > EXCLUDED_RATE


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is fixed about a set before anything is judged on it."""

    digest: str
    """Of the set."""
    judge: str
    readings: dict[str, Reading]
    """By id of the line."""
    voices: tuple[str, ...] = ()
    """Speakers of a corpus that the lines were assigned to; none where the engines read in voices
    of their own."""

    @property
    def excluded(self) -> set[str]:
        """Ids of the lines that are left out."""
        return {name for name, reading in self.readings.items() if reading.is_excluded}

    @property
    def num_remaining(self) -> int:
        """Lines that are judged."""
        return len(self.readings) - len(self.excluded)


def snapshot_path(texts: TextSet, assigned: bool = False) -> Path:
    """Where the snapshot of a set lies, or the one that assigns its lines to speakers."""
    return texts.path.with_name(f"{texts.path.stem}.{'voices' if assigned else 'frozen'}.json")


def read_snapshot(texts: TextSet, assigned: bool = False) -> Snapshot | None:
    """The snapshot of a set; None if it has none.

    Raises:
        TextSetError: the file is no snapshot, or belongs to other texts.
    """
    path = snapshot_path(texts, assigned)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        snapshot = Snapshot(
            digest=data["digest"],
            judge=data["judge"],
            readings={name: Reading(**row) for name, row in data["readings"].items()},
            voices=tuple(data.get("voices", ())),
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise TextSetError(f"{path} is not the snapshot of a test set: {error}") from error
    if snapshot.digest != texts.digest:
        raise TextSetError(
            f"{path} was made of other texts than {texts.path} holds now. Figures of both cannot "
            "be compared: undo the change, or remove the snapshot and make it again."
        )
    return snapshot


def write_snapshot(texts: TextSet, snapshot: Snapshot) -> Path:
    """Write the snapshot beside its set.

    Raises:
        TextSetError: there is one already.
    """
    path = snapshot_path(texts, bool(snapshot.voices))
    if path.exists():
        raise TextSetError(f"{texts.path} has a snapshot already, {path}: it never changes.")
    rows = {name: asdict(reading) for name, reading in snapshot.readings.items()}
    voices = {"voices": snapshot.voices} if snapshot.voices else {}
    head = {
        "digest": snapshot.digest,
        "judge": snapshot.judge,
        **voices,
        "excluded": sorted(snapshot.excluded),
    }
    # One line for each reading, so that a change can be read.
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    text = json.dumps(head, indent=1)[:-2] + ',\n "readings": {\n' + lines + "\n }\n}\n"
    write_text(path, text)
    return path


def assign_speakers(
    texts: TextSet,
    snapshot: Snapshot | None,
    assigned: Snapshot | None,
    speakers: Collection[str],
) -> tuple[TextSet, Snapshot | None]:
    """A set whose lines name the speakers they are assigned to, and the snapshot that fits it.

    Args:
        texts: the set.
        snapshot: of the set.
        assigned: the snapshot that assigns its lines to speakers.
        speakers: those that the evaluation has prompts of.

    Returns:
        The set and its snapshot unchanged if the lines are assigned to speakers that the evaluation
        does not have, or to none.

    Raises:
        TextSetError: the lines are assigned, but there is no snapshot of those that count.
    """
    if assigned is None or not set(assigned.voices) <= set(speakers):
        return texts, snapshot
    if snapshot is None:
        raise TextSetError(
            f"the lines of {texts.path} are assigned to voices, but its own snapshot is missing."
        )
    lines = [
        line
        if line.id not in assigned.readings or _has_voice(line)
        else replace(line, speaker=assigned.readings[line.id].voice)
        for line in texts.lines
    ]
    own = {line.id for line in texts.lines if _has_voice(line)}
    readings = {
        name: reading if name in own else assigned.readings.get(name, reading)
        for name, reading in snapshot.readings.items()
    }
    return replace(texts, lines=lines), replace(snapshot, readings=readings)


def _has_voice(line: Line) -> bool:
    return not (line.voice is None and line.prompt_audio is None and line.speaker is None)
