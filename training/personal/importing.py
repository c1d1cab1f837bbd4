"""Recordings that exist already, as takes of a project: sliced at pauses, and transcribed.

A `.list` of GPT-SoVITS brings its own slices and texts. One that was exported from the project and
corrected by hand sets the texts of its takes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.audio.io import AudioError, read_pieces, read_recording
from tokenlm.audio.resample import resample
from training.data.importers import read_gpt_sovits
from training.data.rejects import Reject
from training.personal.project import TAKES_FOLDER, Project, ProjectError
from training.refine.config import RefineConfig
from training.refine.recognisers import RATE, Recogniser
from training.refine.segment import segments

PIECE_SECONDS = 300.0
"""Of a long recording that are held in memory at once."""


@dataclass
class Imported:
    """What came of recordings."""

    num_kept: int = 0
    """Parts that count as takes."""
    num_known: int = 0
    """Parts that were there already."""
    num_corrected: int = 0
    """Takes whose text was set."""
    rejects: list[Reject] = field(default_factory=list)
    """Files and rows that could not be used, and parts whose checks say so."""

    def __str__(self) -> str:
        return (
            f"{self.num_kept} parts are new, {self.num_known} were there already, "
            f"{self.num_corrected} texts are corrected, {len(self.rejects)} could not be used"
        )


def slices(path: Path, config: RefineConfig) -> Iterator[tuple[int, Tensor, int]]:
    """Cut a recording of any length at its pauses.

    Args:
        path: The sound file; it is read in pieces of `PIECE_SECONDS`.
        config: How it is cut.

    Yields:
        First sample of a part, its samples (S,), and the sample rate in Hz.

    Raises:
        AudioError: The file cannot be read.
        ValueError: The detector is not installed.
    """
    rest, first, rate = torch.zeros(0), 0, 0
    for piece, rate in read_pieces(path, PIECE_SECONDS):
        samples = torch.cat([rest, piece])
        places = segments(samples, rate, config)
        # The last part may go on in the next piece, and begin before what is found of it now.
        keep = places.pop()[0] if places else max(samples.shape[0] - rate, 0)
        for start, stop in places:
            yield first + start, samples[start:stop], rate
        rest, first = samples[keep:], first + keep
    if rate:
        for start, stop in segments(rest, rate, config):
            yield first + start, rest[start:stop], rate


def import_files(
    project: Project, paths: list[Path], recognise: Recogniser, config: RefineConfig
) -> Imported:
    """Add recordings and `.list` files to a project.

    Parts that are there already are passed over, so that an import that was stopped goes on.

    Args:
        project: Gets the parts.
        paths: Sound files and lists.
        recognise: Transcribes what has no text.
        config: How recordings are cut.

    Raises:
        ProjectError: The disk cannot be written.
    """
    result = Imported()
    for path in paths:
        if path.suffix.lower() == ".list":
            _import_list(project, path, result)
        else:
            _import_recording(project, path, recognise, config, result)
    return result


def _import_recording(
    project: Project, path: Path, recognise: Recogniser, config: RefineConfig, result: Imported
) -> None:
    count = 0
    begin = _name(path)
    try:
        for start, waveform, rate in slices(path, config):
            count += 1
            # By the place, not by a number: other settings cut other parts.
            name = f"{begin}-{round(100 * start / rate):07d}"
            if project.check_part(name, path.name) is not None:
                result.num_known += 1
                continue
            text = " ".join(recognise(resample(waveform, rate, RATE)).split())
            place = f"{path} at {start / rate:.1f} s"
            if not text:
                result.rejects.append(Reject(place, None, "no words are heard"))
                continue
            _add(project, name, waveform, rate, text, path.name, place, None, result, start / rate)
    except AudioError as error:
        result.rejects.append(Reject(str(path), None, str(error)))
        return
    if not count:
        result.rejects.append(Reject(str(path), None, "no speech is heard"))


def _import_list(project: Project, path: Path, result: Imported) -> None:
    own = (project.folder / TAKES_FOLDER).resolve()
    by_audio = {take.audio: entry for entry in project.entries() for take in entry.takes}
    for row in read_gpt_sovits(str(path), ""):
        audio = row.audio
        if row.problem or audio is None:
            result.rejects.append(Reject(row.file, row.line, row.problem))
            continue
        if not row.text:
            result.rejects.append(Reject(row.file, row.line, "the text is empty"))
            continue
        if audio.resolve().parent == own and audio.name in by_audio:
            entry = by_audio[audio.name]
            if entry.text != " ".join(row.text.split()):
                project.correct(entry.id, row.text)
                result.num_corrected += 1
            else:
                result.num_known += 1
            continue
        try:
            name = _name(audio)
            if project.check_part(name, audio.name) is not None:
                result.num_known += 1
                continue
            limit = project.checker.config.max_seconds

            def accept(rate: int, channels: int, seconds: float, limit: float = limit) -> None:
                if seconds > limit:
                    raise AudioError(f"it is longer than {limit:g} s")

            waveform, rate = read_recording(audio, accept=accept)
        except AudioError as error:
            result.rejects.append(Reject(row.file, row.line, str(error)))
            continue
        except ProjectError as error:
            result.rejects.append(Reject(row.file, row.line, str(error)))
            continue
        _add(project, name, waveform, rate, row.text, audio.name, row.file, row.line, result, None)


def _add(
    project: Project, name: str, waveform: Tensor, rate: int, text: str, source: str,
    place: str, line: int | None, result: Imported, start: float | None,
) -> None:  # fmt: skip
    report = project.add_part(name, waveform, rate, text, source=source, start=start)
    if report.outcome == "again":
        result.rejects.append(Reject(place, line, report.problems[0].reason))
    else:
        result.num_kept += 1


def _name(path: Path) -> str:
    """The start of the ids of a file's parts: files of one name in two folders are two files."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_") or "recording"
    if not path.is_file():
        return stem
    with path.open("rb") as file:
        return f"{stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"
