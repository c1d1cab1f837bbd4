"""Running an evaluation: suites of the sections that were asked for, spoken, scored, summarised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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

from training.data.manifest import Utterance
from training.evaluation.cloning import (
    Prompts,
    cloning_figures,
    cloning_suite,
    compare_with_originals,
    find_nearest,
    speaker_prompts,
)
from training.evaluation.components import (
    measure_speaker_encoder,
    measure_speed,
    measure_tokenizer,
)
from training.evaluation.conditions import (
    DAMAGED_PROMPTS,
    PROMPT_LENGTHS,
    RECORDINGS,
    SPEAKING_RATE,
    damaged_prompt_figures,
    damaged_prompt_suite,
    first_items,
    likeness_of_persons,
    prompt_length_figures,
    prompt_length_suite,
    read_recordings,
    recording_figures,
    recording_suite,
    recordings_of_persons,
    speaking_rate_figures,
    speaking_rate_suite,
)
from training.evaluation.config import DEFAULT, SECTIONS, WHISPER, EvaluationConfig, Section
from training.evaluation.error_rate import find_cleaner
from training.evaluation.formants import formant_figures, formant_suite, score_formants
from training.evaluation.judges import (
    Embed,
    WordJudge,
    load_naturalness,
    load_recognizer,
    recognizer_version,
    require,
)
from training.evaluation.long_text import long_text_figures, long_text_suite, score_long_texts
from training.evaluation.parts import Parts
from training.evaluation.sets import RecordingSet, TextSet, find_text_sets, read_recording_set
from training.evaluation.snapshot import Snapshot, assign_speakers, read_snapshot, snapshot_path
from training.evaluation.statistics import Figure
from training.evaluation.suite import (
    Judges,
    Row,
    Score,
    Suite,
    System,
    score,
    speak,
    summarise_beside,
)
from training.evaluation.systems import Cloning, CopySynthesis, Originals, Resynthesis
from training.evaluation.texts import SECTION as TEXTS
from training.evaluation.texts import LinePrompts, text_figures, text_suite

logger = logging.getLogger(__name__)

CLONING: tuple[Section, ...] = ("cloned", "resynthesis", "copy_synthesis")
"""Sections that are compared with the originals."""
HELDOUT: tuple[Section, ...] = (
    "long_text",
    PROMPT_LENGTHS,
    DAMAGED_PROMPTS,
    SPEAKING_RATE,
    RECORDINGS,
)
"""Sections that the judges score on the first set of recordings."""
SUMMARIES: dict[str, Callable[[Sequence[Row], int], list[Figure]]] = {
    "long_text": long_text_figures,
    PROMPT_LENGTHS: prompt_length_figures,
    DAMAGED_PROMPTS: damaged_prompt_figures,
    SPEAKING_RATE: speaking_rate_figures,
    RECORDINGS: recording_figures,
    TEXTS: text_figures,
}
"""What makes figures of the rows of a suite."""


@dataclass
class Results:
    """Figures and rows of an evaluation."""

    figures: list[Figure] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    """Sections that were measured."""


def choose_sections(asked: Sequence[str], parts: Parts, config: EvaluationConfig) -> list[Section]:
    """Sections to measure: those asked for and the sets of texts, or all that are possible.

    Args:
        asked: names; none of them is the sets of texts, where there are some, or else all that the
            components and inputs allow.
        parts: the components that are judged.
        config: names the inputs.

    Raises:
        ValueError: there is no such section, or a component or input that it needs is missing.
    """
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        raise ValueError(
            f"there is no section {unknown[0]!r}; the sections are {', '.join(SECTIONS)}."
        )
    if not asked and not config.sets:
        lacking = {TEXTS} if config.recordings is not None else {TEXTS, RECORDINGS}
        return [name for name in SECTIONS if not parts.missing(name) and name not in lacking]
    texts = [TEXTS] if config.sets else []
    chosen: list[Section] = [name for name in SECTIONS if name in (*asked, *texts)]
    for name in chosen:
        missing = parts.missing(name)
        if missing:
            what = "a test set" if name == TEXTS else f"the section {name}"
            raise ValueError(
                f"{what} needs {', '.join(missing)}: give a bundle that has it, or its folder "
                "with --component."
            )
    if RECORDINGS in chosen and config.recordings is None:
        raise ValueError(
            "the section recordings needs real recordings with their words: name the folder of "
            "their manifest.jsonl with --recordings (scripts/alsa_recordings makes one)."
        )
    if TEXTS in chosen and not config.sets:
        raise ValueError("the section script needs sets of texts: --set plain, or --set hard.")
    return chosen


def read_recording_sets(config: EvaluationConfig) -> list[RecordingSet]:
    """The sets of recordings of a configuration.

    Raises:
        ManifestError: a manifest cannot be read, or has too little in it.
        ValueError: none is named.
    """
    paths = {"heldout": config.heldout, "unheard": config.unheard}
    sets = [
        read_recording_set(
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


def check_judge_is_no_reward(parts: Parts, judge: str) -> None:
    """Refuse to judge a model with what it was rewarded by.

    Two names of Whisper (`whisper:FOLDER`, `transformers:openai/whisper-base`) are one judge.
    Judges of naturalness and speakers are never rewards: nothing in training loads them.

    Raises:
        ValueError: the LM was trained on this judge.
    """
    rewards = parts.facts("speech_lm").get("rewards", [])
    is_whisper = WHISPER in judge.lower()
    for reward in rewards:
        if reward == judge or (is_whisper and WHISPER in reward.lower()):
            raise ValueError(
                f"the speech LM was trained with {reward} as a reward: {judge} cannot judge it, "
                "too. Choose another recogniser with --judge."
            )


def evaluate(
    config: EvaluationConfig,
    parts: Parts,
    sections: Sequence[Section],
    *,
    console: Console,
    word_judge: WordJudge | None = None,
    voice_judge: Embed | None = None,
    memory: Path | None = None,
    audio_folder: Path | None = None,
) -> Results:
    """Measure sections.

    Args:
        config: what is measured on.
        parts: the components that are judged.
        sections: of `choose_sections`.
        console: shows progress.
        word_judge: default that of the configuration.
        voice_judge: default the voice encoder of resemblyzer.
        memory: file of earlier transcripts.
        audio_folder: keeps the speech that was judged.

    Raises:
        JudgeError: a judge is needed and not installed.
        ValueError: a manifest, component or recording cannot be used.
    """
    parts.check()
    evaluation = _Evaluation(config, parts, sections, console, audio_folder)
    if not evaluation.needs_judges:
        if "tokenizer" in sections:
            require("jiwer")
        with evaluation.progress:
            evaluation.measure_components(voice_judge)
        return evaluation.results
    require("jiwer")
    check_judge_is_no_reward(parts, config.judge)
    judge = word_judge or open_word_judge(config, memory)
    embed = voice_judge or load_voice_judge()
    natural = None if config.naturalness is None else load_naturalness(config.naturalness)
    with evaluation.progress, judge:
        judges = Judges(judge.submit, embed, natural, find_cleaner(config.judge))
        evaluation.judge(judges)
        evaluation.measure_components(embed)
    return evaluation.results


def open_word_judge(config: EvaluationConfig, memory: Path | None = None) -> WordJudge:
    """The judge of words of a configuration.

    Raises:
        JudgeError: it is not installed, or cannot be loaded.
    """
    if config.judge == DEFAULT:
        return WordJudge(config.num_processes, memory)
    transcribe = load_recognizer(config.judge)
    return WordJudge(
        config.num_processes, memory, transcribe, name=recognizer_version(config.judge)
    )


def load_voice_judge() -> Embed:
    """The voice encoder of resemblyzer.

    Raises:
        JudgeError: it is not installed.
    """
    from training.evaluation.voice_encoder import VoiceEncoder

    return VoiceEncoder.load().embed


class _Evaluation:
    """The inputs of an evaluation, which are read before anything is spoken, and its results."""

    def __init__(
        self,
        config: EvaluationConfig,
        parts: Parts,
        sections: Sequence[Section],
        console: Console,
        audio_folder: Path | None,
    ) -> None:
        self.config, self.parts, self.sections = config, parts, sections
        self.audio_folder = audio_folder
        self.results = Results(sections=list(sections))
        self.progress = make_progress(console)
        self.cloning = Cloning(parts)
        self.sets: list[RecordingSet] = []
        self.prompts: dict[str, Prompts] = {}
        self.suites: list[Suite] = []
        self.persons: list[Utterance] = []
        """Real recordings that serve as prompts."""
        self.originals: dict[str, Row] = {}
        """Rows of recordings of what is said, by their ids."""
        if any(name != TEXTS for name in sections):
            self.sets = read_recording_sets(config)
            self.prompts = {one.name: speaker_prompts(one) for one in self.sets}
            self.suites = [self._suite(name) for name in HELDOUT if name in sections]
        self.texts: list[Suite] = []
        self.reader = Cloning(parts, stream=config.stream)
        if TEXTS in sections:
            prompts = LinePrompts(
                self.reader,
                config.heldout,
                num_voices=config.num_voices,
                prompt_seconds=config.prompt_seconds,
            )
            for texts in find_text_sets(config.sets):
                placed, snapshot = _assigned(texts, config.judge, prompts.speakers)
                self.texts.append(
                    text_suite(
                        placed, snapshot, prompts, seeds=config.seeds, limit=config.num_lines
                    )
                )

    @property
    def needs_judges(self) -> bool:
        """Whether a section is scored by judges."""
        judged = ("originals", *CLONING, *HELDOUT, TEXTS)
        return any(name in judged for name in self.sections)

    def _suite(self, section: Section) -> Suite:
        config, heldout = self.config, self.sets[0]
        seed = config.seed
        if section == "long_text":
            voices = first_items(heldout, len(heldout.items)).prompts
            prompts = {name: self.prompts[heldout.name][name] for name in voices}
            return long_text_suite(
                heldout, prompts, config.num_long_texts, config.long_text_seconds, seed
            )
        if section == PROMPT_LENGTHS:
            own = first_items(heldout, config.num_prompt_length_items)
            lengths = config.prompt_length_seconds
            return prompt_length_suite(own, lengths, self.cloning.sample_rate, seed)
        if section == DAMAGED_PROMPTS:
            own = first_items(heldout, config.num_damaged_prompt_items)
            return damaged_prompt_suite(own, seed)
        if section == SPEAKING_RATE:
            own = first_items(heldout, config.num_speaking_rate_items)
            return speaking_rate_suite(own, config.speaking_rate_factors, seed)
        assert config.recordings is not None
        self.persons = read_recordings(config.recordings, config.num_recordings)
        return recording_suite(heldout, self.persons, config.num_items_per_recording, seed)

    def judge(self, judges: Judges) -> None:
        """Let the sections that need judges be spoken and scored."""
        if any(name in ("originals", *CLONING) for name in self.sections):
            for recordings in self.sets:
                self._judge_recordings(recordings, judges)
        for suite in self.suites:
            if suite.section == "long_text":
                spoken, judged = self._bars(suite)
                speeches = speak(self.cloning, suite, self.audio_folder, spoken)
                edge = self.config.long_text_edge_seconds
                self._add(suite, score_long_texts(suite, speeches, judges, judged, edge))
            else:
                self._judge_originals(suite, self.sets[0], judges)
                self._add(suite, [one.row for one in self._score(self.cloning, suite, judges)])
            if suite.section == RECORDINGS:
                self._add_likeness(judges)
        for suite in self.texts:
            # A set whose lines all name a recording of theirs is read beside these.
            read = [request for request in suite.requests if request.reference is not None]
            if len(read) == len(suite.requests):
                once = {request.id: request for request in read}
                own = replace(suite, requests=list(once.values()), folder="originals")
                for one in self._score(Originals(), own, judges):
                    self.originals[one.row["original"]] = one.row
            self._add(suite, [one.row for one in self._score(self.reader, suite, judges)])
            self.originals.clear()

    def _judge_originals(self, suite: Suite, recordings: RecordingSet, judges: Judges) -> None:
        """Score the recordings of what a suite asks for, as far as that was not done."""
        wanted = {request.columns["original"] for request in suite.requests}
        items = [item for item in recordings.items if item.original.id in wanted]
        items = [item for item in items if item.original.id not in self.originals]
        if not items:
            return
        own = replace(recordings, items=items)
        prompts = self.prompts[recordings.name]
        for one in self._score(
            Originals(), cloning_suite("originals", own, prompts, self.config.seed), judges
        ):
            self.originals[one.row["original"]] = one.row

    def _add_likeness(self, judges: Judges) -> None:
        """Put how similar recordings of one person are beside how similar speech is to them."""
        assert self.config.recordings is not None
        recorded = recordings_of_persons(self.config.recordings, self.persons)
        likeness = likeness_of_persons(recorded, judges)
        self.results.figures = [
            replace(
                figure,
                original=likeness,
                note=f"{figure.note}; beside it that of two recordings of a person",
            )
            if figure.section == RECORDINGS and figure.name == "speaker_similarity"
            else figure
            for figure in self.results.figures
        ]

    def _judge_recordings(self, recordings: RecordingSet, judges: Judges) -> None:
        systems: dict[str, Callable[[], System]] = {
            "cloned": lambda: self.cloning,
            "resynthesis": lambda: Resynthesis(self.cloning),
            "copy_synthesis": lambda: CopySynthesis(self.parts),
        }
        prompts = self.prompts[recordings.name]
        heldout = self.sets[0]
        others = {} if recordings is heldout else self.prompts[heldout.name]
        # Every other figure is read beside that of the recordings, which are judged once.
        originals: list[Score] = []
        for section in ("originals", *(name for name in CLONING if name in self.sections)):
            suite = cloning_suite(section, recordings, prompts, self.config.seed)
            system = Originals() if section == "originals" else systems[section]()
            scores = self._score(system, suite, judges)
            find_nearest(scores, prompts, others, judges, self.config.num_voices)
            if section == "originals":
                originals = scores
            else:
                compare_with_originals(scores, originals)
            rows = [one.row for one in scores]
            self.results.rows += rows
            if section == "originals":
                self.originals |= {row["original"]: row for row in rows}
                self.results.figures += cloning_figures(rows, self.config.seed)
            else:
                self.results.figures += summarise_beside(
                    cloning_figures, rows, self.originals, self.config.seed
                )

    def _score(self, system: System, suite: Suite, judges: Judges) -> list[Score]:
        spoken, judged = self._bars(suite)
        speeches = speak(system, suite, self.audio_folder, spoken)
        return score(suite, speeches, judges, judged)

    def _add(self, suite: Suite, rows: list[Row]) -> None:
        self.results.rows += rows
        summarise = SUMMARIES[suite.section]
        self.results.figures += summarise_beside(summarise, rows, self.originals, self.config.seed)

    def measure_components(self, voice_judge: Embed | None) -> None:
        """Measure the sections that need no judge."""
        config, results = self.config, self.results
        if "formants" in self.sections:
            own = first_items(self.sets[0], config.num_formant_items)
            suite = formant_suite(own, config.formant_factors, config.seed)
            spoken, _ = self._bars(suite, judged=False)
            speeches = speak(self.cloning, suite, self.audio_folder, spoken)
            rows = score_formants(suite, speeches)
            results.rows += rows
            results.figures += formant_figures(suite, rows, config.seed)
        if "tokenizer" in self.sections:
            for recordings in self.sets:
                figures, rows = measure_tokenizer(
                    self.parts,
                    recordings,
                    config.num_tokenizer_items,
                    config.seed,
                    make_tracker(self.progress, f"tokenizer, {recordings.name}"),
                )
                results.figures += figures
                results.rows += rows
        if "speaker_encoder" in self.sections:
            results.figures += measure_speaker_encoder(
                self.parts,
                self.sets,
                config.num_recordings_per_speaker,
                config.seed,
                make_tracker(self.progress, "speaker encoder"),
                voice_judge,
            )
        if "real_time_factor" in self.sections:
            heldout = first_items(self.sets[0], config.num_timed_items)
            prompts = self.prompts[heldout.name]
            suite = cloning_suite("real_time_factor", heldout, prompts, config.seed)
            track = make_tracker(self.progress, "real-time factor")
            results.figures.append(measure_speed(suite, self.cloning, track))

    def _bars(self, suite: Suite, *, judged: bool = True) -> list[Callable[[], None]]:
        """What advances the bars of a suite: of speaking, and of judging."""
        tasks = [
            self.progress.add_task(
                f"{suite.section}, {suite.group}: {name}", total=len(suite.requests)
            )
            for name in ("speaking", "judging")[: 2 if judged else 1]
        ]
        advances = [lambda task=task: self.progress.advance(task) for task in tasks]
        return [*advances, lambda: None][:2]


def _assigned(
    texts: TextSet, judge: str, speakers: Sequence[str]
) -> tuple[TextSet, Snapshot | None]:
    """A set whose lines name the speakers they are assigned to, where the evaluation has these."""
    snapshot = read_snapshot(texts)
    if snapshot is None:
        logger.warning(
            "%s has no snapshot: no line is left out, and failures are not measured beside an "
            "engine's reading.",
            texts.path,
        )
    elif snapshot.judge.split()[0] != recognizer_version(judge).split()[0]:
        logger.warning(
            "the snapshot of %s was made with %s, and it is judged by %s.",
            texts.path,
            snapshot.judge,
            judge,
        )
    assigned = read_snapshot(texts, assigned=True)
    placed, fitting = assign_speakers(texts, snapshot, assigned, speakers)
    if assigned is not None and placed is texts:
        logger.warning(
            "%s assigns the lines to %s; this evaluation has other voices, in which the judge may "
            "miss more.",
            snapshot_path(texts, assigned=True),
            ", ".join(assigned.voices),
        )
    return placed, fitting


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


def make_tracker(progress: Progress, title: str) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Iterates over a list and shows progress in a bar of its own."""
    return lambda things: iter(progress.track(list(things), description=title))
