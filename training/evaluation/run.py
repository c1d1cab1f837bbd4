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
from training.evaluation.conditions import Bars
from training.evaluation.config import SECTIONS, EvaluationConfig, Section
from training.evaluation.figure import Figure
from training.evaluation.judges import SAMPLE_RATE, VoiceJudge, WordJudge, require
from training.evaluation.parts import Parts
from training.evaluation.robustness import (
    JUDGED,
    measure_formant_follow,
    measure_judged,
    read_inputs,
)
from training.evaluation.sections import (
    Speaker,
    measure_speaker_encoder,
    measure_speed,
    measure_tokenizer,
    speak_original,
)
from training.evaluation.speech import Advance, Judged, Jury
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

    def add(self, found: tuple[list[Figure], list[dict[str, Any]]]) -> None:
        """Take the figures and rows of one section."""
        self.figures += found[0]
        self.rows += found[1]


def choose_sections(
    asked: Sequence[str], parts: Parts, recordings: Path | None = None
) -> list[Section]:
    """Sections to measure: those asked for, or all that the components and inputs allow.

    Args:
        asked: names; none of them is all.
        parts: the components that are judged.
        recordings: the real recordings of the section `recordings`.

    Raises:
        ValueError: there is no such section, or a component or input that it needs is missing.
    """
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        raise ValueError(
            f"there is no section {unknown[0]!r}; the sections are {', '.join(SECTIONS)}."
        )
    if not asked:
        every: list[Section] = [name for name in SECTIONS if not parts.missing(name)]
        return [name for name in every if name != "recordings" or recordings is not None]
    chosen: list[Section] = [name for name in SECTIONS if name in asked]
    for name in chosen:
        missing = parts.missing(name)
        if missing:
            raise ValueError(
                f"the section {name} needs {', '.join(missing)}: give a bundle that has it, or "
                "its folder with --component."
            )
    if "recordings" in chosen and recordings is None:
        raise ValueError(
            "the section recordings needs real recordings with their words: name the folder of "
            "their manifest.jsonl with --recordings (scripts/alsa_recordings makes one)."
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
    speaks_items = any(name in sections for name in ("originals", *SPOKEN))
    needs_judges = speaks_items or any(name in sections for name in JUDGED)
    if needs_judges or "tokenizer" in sections:
        require("jiwer")
    speaker = Speaker(parts, config.seed)
    inputs = None
    if any(name in sections for name in ("formants", *JUDGED)):
        inputs = read_inputs(config, sections, test_sets[0], speaker.sample_rate)
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
                if speaks_items:
                    _judge_speech(results, jury, speaker, test_sets, progress)
                for section in JUDGED:
                    if section in sections:
                        assert inputs is not None
                        bars = _make_bars(progress, f"{section}, {test_sets[0].name}")
                        results.add(measure_judged(section, config, inputs, jury, speaker, bars))
        if "formants" in sections:
            assert inputs is not None
            track = make_tracker(progress, f"formants, {test_sets[0].name}")
            results.add(measure_formant_follow(config, inputs, speaker, track, audio_folder))
        if "tokenizer" in sections:
            for test_set in test_sets:
                found = measure_tokenizer(
                    parts,
                    test_set,
                    config.num_tokenizer_items,
                    config.seed,
                    make_tracker(progress, f"tokenizer, {test_set.name}"),
                )
                results.add(found)
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
            bars = _make_bars(progress, f"{name}, {test_set.name}")(len(test_set.items))
            judged = jury.judge(name, test_set, speak, rate, *bars)
            beside = None if name == "originals" else originals
            results.add(jury.score(name, test_set, judged, beside, others))
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


def _make_bars(progress: Progress, title: str) -> Bars:
    def bars(total: int) -> tuple[Advance, Advance]:
        speaking = progress.add_task(f"{title}: speaking", total=total)
        judging = progress.add_task(f"{title}: judging", total=total)
        return lambda: progress.advance(speaking), lambda: progress.advance(judging)

    return bars


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
