"""The sealed set: spoken once for each bundle that is published, and every time is written down.

A set that is looked at often is chosen by, whether one means to or not. `configs/eval/sealed.jsonl`
is spoken by `tokenlm evaluate --set sealed --sealed` alone, with the bundle as it is, and the log
beside it says when, which bundle, and by which command. The same weights are not asked again once
all lines were judged; where they were stopped before, no figure was seen, and they may go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokenlm.atomic import write_text
from tokenlm.checkpoint.bundle import bundle_files, file_checksum, read_manifest
from tokenlm.checkpoint.card import CARD_FILE
from tokenlm.checkpoint.resolve import packaged_configs
from training.data.exclusion import spoken_key
from training.evaluation.sets import TextSet, read_text_set

NAME = "sealed"
MIN_OWN_WORDS = 4
"""Words of a line by which one knows where it is from."""
LOG_FILE = "sealed.log.jsonl"


def sealed_path() -> Path:
    """The sealed set."""
    return packaged_configs() / "eval" / f"{NAME}.jsonl"


def is_sealed(texts: TextSet) -> bool:
    """Whether a set is the sealed one or has lines of it, under whatever name.

    A line of few words is anybody's, unless most lines of the set are from there.
    """
    if texts.name == NAME:
        return True
    keys = {spoken_key(line.text) for line in read_text_set(sealed_path()).lines} - {""}
    shared = [key for line in texts.lines if (key := spoken_key(line.text)) in keys]
    has_own = any(len(key.split()) >= MIN_OWN_WORDS for key in shared)
    return has_own or 2 * len(shared) > len(texts.lines)


def check_seal(sets: Sequence[TextSet], *, asked: bool, whole: bool) -> bool:
    """Compare what is asked for with what may be.

    Args:
        sets: that are to be spoken.
        asked: whether the sealed set was asked for as such.
        whole: whether all of it is to be spoken, by a bundle as it is.

    Returns:
        Whether the sealed set is among them.

    Raises:
        ValueError: it is, or some of its lines are, and was not asked for, or the other way round,
            or not the whole is.
    """
    sealed = [texts for texts in sets if is_sealed(texts)]
    if sealed and not asked:
        raise ValueError(
            f"{sealed[0].path} is sealed, or has lines of the sealed set: that is spoken once for "
            "each bundle that is published, and that is written down. --sealed says that this is "
            "meant; develop on hard, plain and development."
        )
    if asked and not sealed:
        raise ValueError("--sealed is for the sealed set: --set sealed.")
    if sealed and not (whole and _is_set(sealed)):
        raise ValueError(
            "the sealed set is spoken as a whole by a bundle as it is: --set sealed --bundle, "
            "without --component, --generation, --plain-sampling and --limit."
        )
    return bool(sealed)


def _is_set(sets: Sequence[TextSet]) -> bool:
    """Whether all sets are the sealed set itself."""
    own = read_text_set(sealed_path()).digest
    return all(texts.digest == own for texts in sets)


def break_seal(bundle: Path, command: str, log: Path | None = None) -> None:
    """Write down that a bundle speaks the sealed set, before it does.

    Args:
        bundle: its folder.
        command: by which it is spoken.
        log: the file that is added to; default that beside the set.

    Raises:
        ValueError: these weights have spoken all of it before.
    """
    path = sealed_path().with_name(LOG_FILE) if log is None else log
    fingerprint = bundle_fingerprint(bundle)
    for row in _read_log(path):
        if row["fingerprint"] == fingerprint and row["completed"] is not None:
            raise ValueError(
                f"the weights of {bundle} have spoken the sealed set on {row['date']} already, by "
                f"{row['command']!r}: see {path}."
            )
    row = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": read_manifest(bundle).name,
        "fingerprint": fingerprint,
        "set": hashlib.sha256(sealed_path().read_bytes()).hexdigest(),
        "command": command,
        "completed": None,
    }
    _write_log(path, [*_read_log(path), row])


def record_completion(bundle: Path, log: Path | None = None) -> None:
    """Write down that a bundle has spoken all of the sealed set; see `break_seal`."""
    path = sealed_path().with_name(LOG_FILE) if log is None else log
    rows, fingerprint = _read_log(path), bundle_fingerprint(bundle)
    own = [row for row in rows if row["fingerprint"] == fingerprint]
    own[-1]["completed"] = datetime.now(UTC).isoformat(timespec="seconds")
    _write_log(path, rows)


def _read_log(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line]


def _write_log(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def bundle_fingerprint(folder: Path) -> str:
    """SHA-256 of what a bundle speaks with: its files but manifest, settings and card."""
    files = [path for path in bundle_files(folder) if path != CARD_FILE]
    facts = json.dumps([[path, file_checksum(folder / path)] for path in files])
    return hashlib.sha256(facts.encode()).hexdigest()
