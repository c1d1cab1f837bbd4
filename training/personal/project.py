"""The folder of a person's voice: what is to be read, and the takes of it.

    project.yaml            name of the person, language, seed
    prompts.jsonl           what is to be read
    takes/ID.json           one file for each prompt that was read or skipped: its takes
    takes/ID-N.flac         the sound of take N of a prompt, as it was recorded

The state is what these files say; there is no other. Each is written whole or not at all, the sound
of a take before the row that names it, so that a loss of power costs at most the take that was
being stored. Nothing is overwritten but the rows: a take that is done again stays in the folder.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mode
from typing import Any

from torch import Tensor

from tokenlm.atomic import write_text
from tokenlm.audio.io import AudioError, read_recording, save_audio
from tokenlm.config import load_config, save_config
from training.data.importers import write_gpt_sovits
from training.data.manifest import Utterance, write_manifest
from training.personal.checks import Finding, TakeChecker, TakeReport
from training.personal.prompts import Prompt, read_prompts, write_prompts

PROJECT_FILE = "project.yaml"
PROMPTS_FILE = "prompts.jsonl"
TAKES_FOLDER = "takes"
_FORMAT = 1
_ALMOST_FULL = 1_000_000
"""Free bytes below which a sound file that could not be written had no room."""
_ID = re.compile(r"[A-Za-z0-9][\w-]*")


class ProjectError(ValueError):
    """A project that cannot be used, or a take that cannot be stored; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """`project.yaml`."""

    name: str
    """The person, as manifests call the speaker."""
    language: str = "en"
    """Of the sentences, as `.list` files name it."""
    seed: int = 0
    """What the prompts were chosen with."""
    format: int = _FORMAT
    """Version of the layout of the folder."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.name):
            raise ValueError(
                f"name must begin with a letter or digit and hold letters, digits, _ and - only, "
                f"not {self.name!r}"
            )
        if self.format != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, not {self.format}: of another version")


@dataclass(frozen=True, kw_only=True)
class Take:
    """One recording of a prompt."""

    audio: str
    """Name of its file in `takes`."""
    seconds: float
    sample_rate: int
    """In Hz."""
    report: TakeReport
    is_kept: bool
    """Whether it may be used; a take that was to be recorded again is not, unless it was wanted."""
    start: float | None = None
    """Where it begins in the recording that it was cut from, in seconds; None of a take that was
    recorded by itself."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of a prompt."""

    id: str
    text: str
    takes: tuple[Take, ...] = ()
    is_skipped: bool = False
    source: str = ""
    """Name of the recording that it was cut from; empty for a prompt."""

    @property
    def take(self) -> Take | None:
        """The take that counts: the last one that is kept."""
        kept = [take for take in self.takes if take.is_kept]
        return kept[-1] if kept and not self.is_skipped else None


@dataclass(frozen=True, kw_only=True)
class ProjectState:
    """How far a project is."""

    num_prompts: int
    num_recorded: int
    """Prompts with a take that counts."""
    num_skipped: int
    num_rejected: int
    """Prompts of which there are takes, and none counts."""
    num_imported: int
    """Takes cut from other recordings."""
    seconds: float
    """Of all takes that count."""
    num_to_enhance: int
    """Takes that count and are fine to enhance."""

    def __str__(self) -> str:
        lines = [
            f"{self.num_recorded} of {self.num_prompts} prompts are recorded, "
            f"{self.num_skipped} skipped, {self.num_rejected} to be recorded again",
            f"{self.seconds / 60:.1f} minutes of speech; {self.num_to_enhance} takes are to be "
            "enhanced",
        ]
        if self.num_imported:
            lines.insert(1, f"{self.num_imported} takes come from other recordings")
        return "\n".join(lines)


@dataclass(frozen=True)
class Project:
    """The takes of one person, in a folder."""

    folder: Path
    config: ProjectConfig
    prompts: tuple[Prompt, ...]
    checker: TakeChecker = field(default_factory=TakeChecker)
    """Checks takes; by itself what needs no model."""

    @classmethod
    def create(
        cls,
        folder: str | Path,
        prompts: Sequence[Prompt],
        *,
        name: str,
        language: str = "en",
        seed: int = 0,
        checker: TakeChecker | None = None,
    ) -> Project:
        """Make the folder of a new project.

        Args:
            folder: Where; must be empty or not there.
            prompts: What is to be read, in order; may be none, for takes from other recordings.
            name: The person.
            language: Of the prompts.
            seed: What they were chosen with.
            checker: Checks takes.

        Raises:
            ProjectError: There is something in the folder, the name cannot be used, or the disk
                cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            done = (folder / PROJECT_FILE).is_file()
            told = "holds a project already: open it" if done else "is there already"
            raise ProjectError(f"{folder} {told}, or choose another folder")
        try:
            config = ProjectConfig(name=name, language=language, seed=seed)
        except ValueError as error:
            raise ProjectError(str(error)) from None
        with _storing(folder):
            (folder / TAKES_FOLDER).mkdir(parents=True, exist_ok=True)
            write_prompts(folder / PROMPTS_FILE, prompts)
            # Last: a folder with this file is a whole project.
            save_config(config, folder / PROJECT_FILE)
        return cls.open(folder, checker=checker)

    @classmethod
    def open(cls, folder: str | Path, *, checker: TakeChecker | None = None) -> Project:
        """Open the folder of a project.

        Raises:
            ProjectError: It is none.
            ValueError: A file of it cannot be read; says which.
        """
        folder = Path(folder)
        if not (folder / PROJECT_FILE).is_file():
            raise ProjectError(
                f"{folder} is no project: {PROJECT_FILE} is not there. "
                f"`tokenlm personal new {folder}` makes one."
            )
        config = load_config(ProjectConfig, folder / PROJECT_FILE)
        path = folder / PROMPTS_FILE
        has_prompts = path.is_file() and path.stat().st_size > 0
        prompts = tuple(read_prompts(path)) if has_prompts else ()
        return cls(folder, config, prompts, checker or TakeChecker())

    def entries(self) -> list[Entry]:
        """What became of all prompts so far, in their order; then of other recordings."""
        stored = {entry.id: entry for entry in self._stored()}
        own = [
            stored.pop(prompt.id, Entry(id=prompt.id, text=prompt.text)) for prompt in self.prompts
        ]
        return [*own, *sorted(stored.values(), key=lambda entry: entry.id)]

    def entry(self, name: str) -> Entry | None:
        """What became of a prompt, or of a part of another recording; None where there is none."""
        path = self._row_path(name)
        if path.is_file():
            return _read_entry(path)
        found = next((prompt for prompt in self.prompts if prompt.id == name), None)
        return found and Entry(id=found.id, text=found.text)

    def _stored(self) -> Iterator[Entry]:
        for path in sorted((self.folder / TAKES_FOLDER).glob("*.json")):
            if not path.name.startswith("."):  # what a process was writing when it was killed
                yield _read_entry(path)

    @property
    def state(self) -> ProjectState:
        """How far the project is."""
        entries = self.entries()
        own = [entry for entry in entries if not entry.source]
        takes = [entry.take for entry in entries]
        counted = [take for take in takes if take is not None]
        return ProjectState(
            num_prompts=len(self.prompts),
            num_recorded=sum(entry.take is not None for entry in own),
            num_skipped=sum(entry.is_skipped for entry in own),
            num_rejected=sum(
                entry.take is None and bool(entry.takes) and not entry.is_skipped for entry in own
            ),
            num_imported=sum(entry.take is not None and bool(entry.source) for entry in entries),
            seconds=sum(take.seconds for take in counted),
            num_to_enhance=sum(take.report.outcome == "enhance" for take in counted),
        )

    def next_prompt(self) -> Prompt | None:
        """The first prompt that is neither recorded nor skipped; None where all are done."""
        stored = {entry.id: entry for entry in self._stored()}
        for prompt in self.prompts:
            entry = stored.get(prompt.id)
            if entry is None or (entry.take is None and not entry.is_skipped):
                return prompt
        return None

    def add_take(
        self,
        source: str | Path | Tensor,
        prompt: str | None = None,
        *,
        sample_rate: int | None = None,
        keep: bool = False,
    ) -> TakeReport:
        """Check a take and store it.

        A take that is to be recorded again is stored, too, but does not count: neither is it
        exported, nor does it take the place of an earlier one.

        Args:
            source: Sound file, or samples (S,) with their rate.
            prompt: Id of what was read; default the next prompt.
            sample_rate: Of samples, in Hz.
            keep: Let the take count whatever the checks say.

        Raises:
            ProjectError: There is no such prompt, all are done, or the disk cannot be written.
            AudioError: The file cannot be read, or is much longer than a take.
        """
        entry = self._asked_for(prompt)
        waveform, rate = self._read(source, sample_rate)
        others, usual_rate = self._others(entry.id)
        report = self.checker.check(waveform, rate, entry.text, others, usual_rate=usual_rate)
        take = self._store_sound(entry, waveform, rate, report, keep or report.outcome != "again")
        self._store(replace(entry, takes=(*entry.takes, take), is_skipped=False))
        return report

    def add_part(
        self,
        name: str,
        waveform: Tensor,
        sample_rate: int,
        text: str,
        *,
        source: str,
        start: float | None = None,
    ) -> TakeReport:
        """Check and store a part of another recording, with its transcript.

        Args:
            name: Id of the part; of one that is there it is another take.
            waveform: (S,).
            sample_rate: In Hz.
            text: What is said.
            source: Name of the recording.
            start: Where it begins there, in seconds.

        Raises:
            ProjectError: The id is that of a prompt or of another recording's part, or the disk
                cannot be written.
        """  # fmt: skip
        self.check_part(name, source)
        others, _ = self._others(name)
        # Its words are what a recogniser has heard: asking one again says nothing.
        report = self.checker.check(waveform, sample_rate, "", others)
        entry = self.entry(name) or Entry(id=name, text=text, source=source)
        take = self._store_sound(entry, waveform, sample_rate, report, report.outcome != "again")
        take = replace(take, start=start)
        self._store(replace(entry, text=text, takes=(*entry.takes, take), source=source))
        return report

    def check_part(self, name: str, source: str) -> Entry | None:
        """What is stored of a part of another recording.

        Raises:
            ProjectError: The id is that of a prompt or of another recording's part.
        """
        if not _ID.fullmatch(name):
            raise ProjectError(f"{name!r} cannot be the id of a part: give its file another name")
        entry = self.entry(name)
        if entry is not None and entry.source != source:
            other = f"of {entry.source}" if entry.source else "that of a prompt"
            raise ProjectError(
                f"the id {name!r} of a part of {source} is already {other}: give the file another "
                "name"
            )
        return entry

    def skip(self, prompt: str | None = None) -> Prompt | None:
        """Pass over a prompt, by default the next one; returns the one after it.

        Raises:
            ProjectError: There is no such prompt, all are done, or the disk cannot be written.
        """
        self._store(replace(self._asked_for(prompt), is_skipped=True))
        return self.next_prompt()

    def correct(self, name: str, text: str) -> None:
        """Set the text of a take: what was really said.

        Raises:
            ProjectError: There is no such take, the text is empty, or the disk cannot be written.
        """
        entry = self.entry(name)
        if entry is None:
            raise ProjectError(f"there is no take {name!r} in {self.folder}")
        if not text.strip():
            raise ProjectError(f"the text of {name!r} is empty")
        self._store(replace(entry, text=" ".join(text.split())))

    def audio_path(self, take: Take) -> Path:
        """The file of a take."""
        return self.folder / TAKES_FOLDER / take.audio

    def utterances(self) -> list[Utterance]:
        """All takes that count, as rows of a manifest; `quality` is what the checks say."""
        return [
            Utterance(
                id=f"{self.config.name}-{entry.id}",
                audio=self.audio_path(take),
                text=entry.text,
                speaker=self.config.name,
                duration=take.seconds,
                extra={"language": self.config.language, "quality": take.report.outcome},
            )
            for entry in self.entries()
            if (take := entry.take) is not None
        ]

    def export(self, path: str | Path) -> int:
        """Write the takes that count, as a manifest or, by its suffix, a `.list` of GPT-SoVITS.

        Returns:
            The number of takes.

        Raises:
            ProjectError: There is none, or the disk cannot be written.
        """
        rows = self.utterances()
        if not rows:
            raise ProjectError(f"{self.folder} has no take yet")
        path = Path(path)
        with _storing(path):
            if path.suffix == ".list":
                write_gpt_sovits(path, rows, self.config.language)
            else:
                write_manifest(path, rows)
        return len(rows)

    def _asked_for(self, prompt: str | None) -> Entry:
        if prompt is None:
            found = self.next_prompt()
            if found is None:
                raise ProjectError(
                    f"all {len(self.prompts)} prompts of {self.folder} are recorded or skipped: "
                    "name the one that is to be recorded again"
                )
            prompt = found.id
        entry = self.entry(prompt)
        if entry is None:
            raise ProjectError(f"there is no prompt {prompt!r} in {self.folder}")
        return entry

    def _read(self, source: str | Path | Tensor, sample_rate: int | None) -> tuple[Tensor, int]:
        limit = self.checker.config.max_seconds
        if isinstance(source, Tensor):
            if sample_rate is None or sample_rate <= 0:
                raise ProjectError("samples need their sample_rate")
            if source.ndim != 1 or source.shape[0] == 0:
                raise ProjectError(f"a take has the shape (samples,), not {tuple(source.shape)}")
            if not source.isfinite().all():
                raise ProjectError("the take holds samples that are not finite numbers")
            return source.detach().float().cpu(), sample_rate

        def accept(rate: int, num_channels: int, seconds: float) -> None:
            if seconds > limit:
                raise AudioError(
                    f"{source} is longer than {limit:g} s, the longest take. Nothing was stored. "
                    "Long recordings are sliced by `tokenlm personal import`."
                )

        return read_recording(source, accept=accept)

    def _others(self, name: str) -> tuple[list[tuple[float, ...]], int | None]:
        """Speaker embeddings and sample rate of the takes that count, but one."""
        entries = [entry for entry in self._stored() if entry.id != name]
        takes = [(entry, take) for entry in entries if (take := entry.take) is not None]
        embeddings = [
            take.report.embedding
            for _, take in takes
            if take.report.embedding and take.report.encoder == self.checker.encoder
        ]
        own = [take.sample_rate for entry, take in takes if not entry.source]
        return embeddings, mode(own) if own else None

    def _store_sound(
        self, entry: Entry, waveform: Tensor, rate: int, report: TakeReport, is_kept: bool
    ) -> Take:
        number = len(entry.takes) + 1
        # A file of that name is the sound of a take whose row was never written.
        while (self.folder / TAKES_FOLDER / f"{entry.id}-{number}.flac").exists():
            number += 1
        name = f"{entry.id}-{number}.flac"
        with _storing(self.folder):
            save_audio(self.folder / TAKES_FOLDER / name, waveform, rate)
        return Take(
            audio=name,
            seconds=waveform.shape[0] / rate,
            sample_rate=rate,
            report=report,
            is_kept=is_kept,
        )

    def _store(self, entry: Entry) -> None:
        with _storing(self.folder):
            write_text(
                self._row_path(entry.id),
                json.dumps(asdict(entry), ensure_ascii=False, indent=1) + "\n",
            )

    def _row_path(self, name: str) -> Path:
        if not _ID.fullmatch(name):
            raise ProjectError(f"{name!r} is no id of a prompt")
        return self.folder / TAKES_FOLDER / f"{name}.json"


@contextmanager
def _storing(where: Path) -> Iterator[None]:
    """Say in a sentence why something could not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ProjectError(_disk_full(where)) from error
        raise ProjectError(f"{where} cannot be written: {error.strerror or error}") from error
    except AudioError as error:
        if _is_full(where):  # the library for sound files says no more than that it failed
            raise ProjectError(_disk_full(where)) from error
        raise


def _disk_full(where: Path) -> str:
    return (
        f"the disk of {where} is full: this was not stored, all that was stored before is safe. "
        "Make room and try again."
    )


def _is_full(where: Path) -> bool:
    while not where.exists() and where != where.parent:
        where = where.parent
    return shutil.disk_usage(where).free < _ALMOST_FULL


def _read_entry(path: Path) -> Entry:
    try:
        return _parse_entry(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f"{path} cannot be read ({error}). Its sound is in the same folder; remove the file to "
            "record the prompt again."
        ) from error


def _parse_entry(data: Mapping[str, Any]) -> Entry:
    takes = []
    for row in data["takes"]:
        report = row["report"]
        findings = tuple(Finding(**found) for found in report["findings"])
        embedding = tuple(report["embedding"])
        told = TakeReport(**{**report, "findings": findings, "embedding": embedding})
        takes.append(Take(**{**row, "report": told}))
    return Entry(**{**data, "takes": tuple(takes)})
