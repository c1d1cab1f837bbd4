"""Running an evaluation: which sections, on which test sets, with a bar for each."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.config import runs_folder
from training.evaluation.config import SECTIONS, EvaluationConfig, Section
from training.evaluation.figure import Figure
from training.evaluation.judges import SAMPLE_RATE, VoiceJudge, WordJudge, require
from training.evaluation.parts import Parts
from training.evaluation.sections import (
    Speaker,
    measure_speaker_encoder,
    measure_speed,
    measure_tokenizer,
    speak_original,
)
from training.evaluation.speech import Judged, Jury
from training.evaluation.testset import TestSet, read_test_set

SPOKEN: tuple[Section, ...] = ("cloned", "resynthesis", "copy_synthesis")
"""Sections whose speech the judges hear, beside that of the originals."""


@dataclass
class Results:
    """What an evaluation found."""

    figures: list[Figure] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    """Sections that were measured."""


def choose_sections(asked: Sequence[str], parts: Parts) -> list[Section]:
    """Sections to measure: those asked for, or all that the components allow.

    Raises:
        ValueError: there is no such section, or a component that it needs is missing.
    """
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        raise ValueError(
            f"there is no section {unknown[0]!r}; the sections are {', '.join(SECTIONS)}."
        )
    if not asked:
        every: list[Section] = [name for name in SECTIONS if not parts.missing(name)]
        return every
    chosen: list[Section] = [name for name in SECTIONS if name in asked]
    for name in chosen:
        missing = parts.missing(name)
        if missing:
            raise ValueError(
                f"the section {name} needs {', '.join(missing)}: give a bundle that has it, or "
                "its folder with --component."
            )
    return chosen


def read_test_sets(config: EvaluationConfig) -> list[TestSet]:
    """The test sets of a configuration.

    Raises:
        ManifestError: a manifest cannot be read, or has too little in it.
        ValueError: none is named.
    """
    paths = {"heldout": config.heldout, "unheard": config.unheard}
    sets = [
        read_test_set(
            name,
            path,
            num_items=config.num_items,
            num_voices=config.num_voices,
            prompt_seconds=config.prompt_seconds,
        )
        for name, path in paths.items()
        if path is not None
    ]
    if not sets:
        raise ValueError(
            "there is nothing to evaluate on: name the manifest of held-out recordings with "
            "--heldout (scripts/make_corpus writes one)."
        )
    return sets


def evaluate(
    config: EvaluationConfig,
    parts: Parts,
    sections: Sequence[Section],
    *,
    console: Console,
    word_judge: WordJudge | None = None,
    voice_judge: VoiceJudge | None = None,
    memory: Path | None = None,
    audio_folder: Path | None = None,
) -> Results:
    """Measure sections on the test sets of a configuration.

    Args:
        config: what is measured on.
        parts: the components that are judged.
        sections: of `choose_sections`.
        console: shows the bars.
        word_judge: default pocketsphinx.
        voice_judge: default the voice encoder of resemblyzer.
        memory: file of earlier transcripts of the judge of words.
        audio_folder: keeps the speech that was judged.

    Raises:
        JudgeError: a judge is needed and not installed.
        ValueError: a manifest, component or recording cannot be used.
    """
    parts.check()
    test_sets = read_test_sets(config)
    results = Results(sections=list(sections))
    needs_judges = any(name in sections for name in ("originals", *SPOKEN))
    if needs_judges or "tokenizer" in sections:
        require("jiwer")
    speaker = Speaker(parts, config.seed)
    with make_progress(console) as progress:
        if needs_judges:
            judge = word_judge or WordJudge(config.num_processes, memory)
            if voice_judge is None:
                voice_judge = _load_voice_judge()
            with judge:
                jury = Jury(
                    judge.submit,
                    voice_judge,
                    num_candidates=config.num_voices,
                    audio_folder=audio_folder,
                    seed=config.seed,
                )
                _judge_speech(results, jury, speaker, test_sets, progress)
        if "tokenizer" in sections:
            for test_set in test_sets:
                figures, rows = measure_tokenizer(
                    parts,
                    test_set,
                    config.num_tokenizer_items,
                    config.seed,
                    make_tracker(progress, f"tokenizer, {test_set.name}"),
                )
                results.figures += figures
                results.rows += rows
        if "speaker_encoder" in sections:
            results.figures += measure_speaker_encoder(
                parts,
                test_sets,
                config.num_recordings_per_speaker,
                config.seed,
                make_tracker(progress, "speaker encoder"),
                voice_judge,
            )
        if "real_time_factor" in sections:
            results.figures.append(
                measure_speed(
                    speaker,
                    test_sets[0],
                    config.num_timed_items,
                    make_tracker(progress, "real-time factor"),
                )
            )
    return results


def _load_voice_judge() -> VoiceJudge:
    from training.evaluation.voice_encoder import VoiceEncoder

    return VoiceEncoder.load().embed


def _judge_speech(
    results: Results,
    jury: Jury,
    speaker: Speaker,
    test_sets: list[TestSet],
    progress: Progress,
) -> None:
    heldout = test_sets[0]
    voices = {
        "cloned": speaker.clone,
        "resynthesis": speaker.resynthesize,
        "copy_synthesis": speaker.copy,
    }
    for test_set in test_sets:
        others = {} if test_set is heldout else heldout.prompts
        # Every other figure is read beside the engine's own, which is measured once.
        originals: list[Judged] = []
        for name in ("originals", *(name for name in SPOKEN if name in results.sections)):
            rate = SAMPLE_RATE if name == "originals" else speaker.sample_rate
            speak = speak_original if name == "originals" else voices[name]
            total = len(test_set.items)
            speaking = progress.add_task(f"{name}, {test_set.name}: speaking", total=total)
            judging = progress.add_task(f"{name}, {test_set.name}: judging", total=total)
            judged = jury.judge(
                name,
                test_set,
                speak,
                rate,
                lambda task=speaking: progress.advance(task),
                lambda task=judging: progress.advance(task),
            )
            beside = None if name == "originals" else originals
            figures, rows = jury.score(name, test_set, judged, beside, others)
            results.figures += figures
            results.rows += rows
            if name == "originals":
                originals = judged


def make_progress(console: Console) -> Progress:
    """Bars with counts and times."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class _Tracker:
    def __init__(self, progress: Progress, title: str) -> None:
        self.progress, self.title = progress, title

    def __call__(self, things: Iterable[Any]) -> Iterator[Any]:
        return iter(self.progress.track(list(things), description=self.title))


def make_tracker(progress: Progress, title: str) -> _Tracker:
    """Goes through a list and shows how far it is, in a bar of its own."""
    return _Tracker(progress, title)


def command_line(section: str, arguments: Sequence[str]) -> str:
    """The command that measures one section again; an empty name leaves the sections out.

    It is printed in model cards, so what lies in the folder of the runs is named by its variable,
    and what lies in the working folder without it.
    """
    shown = [_quoted(argument) for argument in arguments]
    return " ".join(["tokenlm", "evaluate", *shown, *(["--sections", section] if section else [])])


def _quoted(argument: str) -> str:
    path = Path(argument)
    if path.is_absolute():
        if path.is_relative_to(runs_folder()):
            rest = path.relative_to(runs_folder()).as_posix()
            return f"$TOKENLM_RUNS/{shlex.quote(rest)}"
        if path.is_relative_to(Path.cwd()):
            return shlex.quote(path.relative_to(Path.cwd()).as_posix())
    return shlex.quote(argument)
