"""What `tokenlm evaluate --set …` does: freeze test sets, or judge a system on them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenlm.config import load_config, to_dict
from training.evaluation.ablation import (
    ablation_rows,
    print_ablation,
    variants,
    write_ablation,
)
from training.evaluation.cloning import CloningSystem
from training.evaluation.compare import print_comparison, read_script_rows, warn_of_prompts
from training.evaluation.config import EvaluationConfig
from training.evaluation.dealt import deal_voices, in_voices, voices_of
from training.evaluation.figure import Figure
from training.evaluation.frozen import Frozen, freeze, frozen_path, read_frozen, write_frozen
from training.evaluation.judges import VoiceJudge, WordJudge, require
from training.evaluation.page import write_page
from training.evaluation.parts import Parts
from training.evaluation.recognizers import (
    DEFAULT,
    load_naturalness,
    load_recognizer,
    recognizer_version,
)
from training.evaluation.report import print_table, write_report
from training.evaluation.run import command_line, make_progress, make_tracker
from training.evaluation.script import Script, ScriptError, find_scripts
from training.evaluation.script_figures import SECTION, compare_rows, script_figures
from training.evaluation.script_run import Panel, judge_script
from training.evaluation.sealed import break_seal, check_seal
from training.recipes.corpus.config import CorpusConfig

MIN_LINES = 300
"""Lines that should remain of a test set of ours when it is frozen."""


@dataclass(frozen=True, kw_only=True)
class ScriptOptions:
    """What the command line says of test sets."""

    names: Sequence[str]
    seeds: Sequence[int] = (0,)
    judge: str = DEFAULT
    naturalness: str | None = None
    limit: int | None = None
    against: Path | None = None
    memory: Path | None = None
    output: Path | None = None
    keep_audio: bool = False
    stream: bool = False
    voices: Path | None = None
    """Config of the corpus to whose held-out voices lines are dealt when they are frozen."""
    sealed: bool = False
    """Whether the sealed set is meant to be spoken; see `training.evaluation.sealed`."""
    as_it_is: bool = True
    """Whether a bundle speaks with its own components and settings."""
    arguments: Sequence[str] = ()
    """Of the command, to be repeated in the report."""


def open_judge(options: ScriptOptions, num_processes: int) -> WordJudge:
    """The judge of words that was asked for."""
    if options.judge == DEFAULT:
        return WordJudge(num_processes, options.memory)
    hear = load_recognizer(options.judge)
    return WordJudge(num_processes, options.memory, hear, name=recognizer_version(options.judge))


def freeze_scripts(options: ScriptOptions, num_processes: int, console: Console) -> None:
    """Freeze every test set that was asked for; see `training.evaluation.frozen` and `.dealt`."""
    corpus = None if options.voices is None else load_config(CorpusConfig, options.voices)
    for script in find_scripts(options.names):
        before = read_frozen(script)
        if read_frozen(script, dealt=corpus is not None) is not None:
            raise ScriptError(f"{script.path} is frozen already: a frozen list does not change.")
        if corpus is not None and before is None:
            raise ScriptError(
                f"{script.path} has to be frozen before its lines are dealt: leave "
                "out --voices first."
            )
        with make_progress(console) as progress, open_judge(options, num_processes) as judge:
            track = make_tracker(progress, f"{script.name}: engines read")
            if corpus is None or before is None:
                frozen = freeze(script, judge.submit, judge.name, track)
            else:
                speakers = voices_of(corpus)
                frozen = deal_voices(
                    script, before, speakers, corpus, judge.submit, judge.name, track
                )
        path = write_frozen(script, frozen)
        few = "" if frozen.num_remaining >= MIN_LINES else f", fewer than {MIN_LINES}"
        console.print(f"{path}: {frozen.num_remaining} of {len(script.lines)} lines remain{few}.")


def evaluate_scripts(
    options: ScriptOptions, config: EvaluationConfig, parts: Parts, console: Console
) -> list[dict[str, Any]]:
    """Judge the components on every test set; print the figures, and write the reports.

    Raises:
        ValueError: a test set, component or judge cannot be used.
    """
    require("jiwer")
    scripts = find_scripts(options.names)
    missing = parts.missing("cloned")
    if missing:
        raise ValueError(f"a test set needs {', '.join(missing)}: give a bundle that has it.")
    parts.check()
    check_judge_is_no_reward(parts, options.judge)
    whole = options.as_it_is and options.limit is None
    if check_seal(scripts, asked=options.sealed, whole=whole):
        break_seal(parts.folder, command_line("", options.arguments))
    before = {} if options.against is None else read_script_rows(options.against)
    embed = _load_embed()
    system = _cloning(parts, embed, config, stream=options.stream)
    placed = [_place(script, options.judge, system.speakers, console) for script in scripts]
    natural = None if options.naturalness is None else load_naturalness(options.naturalness)
    rows: list[dict[str, Any]] = []
    figures: list[Figure] = []
    comparisons = {}
    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        kept = options.keep_audio and options.output is not None
        folder = options.output / "audio" if kept and options.output else Path(scratch)
        with open_judge(options, config.num_processes) as judge:
            panel = Panel(submit=judge.submit, embed=embed, naturalness=natural)
            for script, frozen in placed:
                with make_progress(console) as progress:
                    own = judge_script(
                        system,
                        script,
                        panel,
                        frozen=frozen,
                        seeds=options.seeds,
                        limit=options.limit,
                        audio_folder=folder / script.name,
                        track=make_tracker(progress, f"{script.name}: speaking"),
                    )
                figures += script_figures(own, seed=config.seed)
                rows += own
                if script.name in before:
                    warn_of_prompts(before, {script.name: own})
                    comparisons[script.name] = compare_rows(
                        before[script.name], own, seed=config.seed
                    )
        print_table(figures, console)
        for name, found in comparisons.items():
            print_comparison(name, found, console)
        if options.output is not None:
            _write(options, config, rows, figures, comparisons, kept)
            console.print(f"Written to {options.output}.")
    return rows


def ablate_scripts(
    options: ScriptOptions, config: EvaluationConfig, parts: Parts, console: Console
) -> None:
    """Judge the guards, one by one, on every test set; see `training.evaluation.ablation`."""
    require("jiwer")
    scripts = find_scripts(options.names)
    check_seal(scripts, asked=options.sealed, whole=False)
    missing = [*parts.missing("cloned"), *parts.missing("tokenizer")]
    if missing:
        raise ValueError(f"guards need {', '.join(missing)}: give a bundle that has it.")
    parts.check()
    check_judge_is_no_reward(parts, options.judge)
    embed, given, tables = _load_embed(), parts.generation, {}
    with open_judge(options, config.num_processes) as judge:
        panel = Panel(submit=judge.submit, embed=embed)
        speakers = _cloning(parts, embed, config).speakers
        placed = [_place(script, options.judge, speakers, console) for script in scripts]
        for script, frozen in placed:
            judged = {}
            for name, generation in variants(given).items():
                parts.generation = generation
                system = _cloning(parts, embed, config)
                with make_progress(console) as progress:
                    judged[name] = judge_script(
                        system,
                        script,
                        panel,
                        frozen=frozen,
                        seeds=options.seeds,
                        limit=options.limit,
                        track=make_tracker(progress, f"{script.name}: {name}"),
                    )
            tables[script.name] = ablation_rows(judged, seed=config.seed)
            print_ablation(script.name, tables[script.name], console)
    if options.output is not None:
        command = command_line("", [*options.arguments, "--ablate"])
        path = write_ablation(options.output, {"command": command, **tables})
        console.print(f"Written to {path}.")


def check_judge_is_no_reward(parts: Parts, judge: str) -> None:
    """Refuse to judge a model with what it was rewarded by.

    Raises:
        ValueError: the LM was trained on this judge.
    """
    rewards = parts.facts("speech_lm").get("rewards", [])
    if judge in rewards:
        raise ValueError(
            f"the speech LM was trained with {judge} as a reward: it cannot judge it, too. "
            "Choose another recogniser with --judge."
        )


def _cloning(
    parts: Parts, embed: VoiceJudge, config: EvaluationConfig, *, stream: bool = False
) -> CloningSystem:
    return CloningSystem(
        parts,
        embed,
        heldout=config.heldout,
        num_voices=config.num_voices,
        prompt_seconds=config.prompt_seconds,
        stream=stream,
    )


def _place(
    script: Script, judge: str, speakers: Sequence[str], console: Console
) -> tuple[Script, Frozen | None]:
    """A script in the voices that its lines were dealt to, where the evaluation has these."""
    dealt = read_frozen(script, dealt=True)
    chosen = in_voices(script, _frozen(script, judge, console), dealt, speakers)
    if dealt is not None and chosen[0] is script:
        console.print(
            f"{frozen_path(script, dealt=True)} deals the lines to {', '.join(dealt.voices)}; this "
            "evaluation has other voices, in which the judge may miss more."
        )
    return chosen


def _frozen(script: Script, judge: str, console: Console) -> Frozen | None:
    frozen = read_frozen(script)
    if frozen is None:
        console.print(
            f"{script.path} is not frozen: no line is left out, and failures are not measured "
            "beside an engine's reading."
        )
    elif frozen.judge.split()[0] != judge.split()[0]:
        console.print(f"{script.path} was frozen with {frozen.judge}, and is judged by {judge}.")
    return frozen


def _load_embed() -> Any:
    from training.evaluation.voice_encoder import VoiceEncoder

    return VoiceEncoder.load().embed


def _write(
    options: ScriptOptions,
    config: EvaluationConfig,
    rows: list[dict[str, Any]],
    figures: list[Figure],
    comparisons: dict[str, Any],
    kept: bool,
) -> None:
    output = options.output
    assert output is not None
    command = command_line("", options.arguments)
    facts = [f"Made by: {command}", f"Words are judged by {options.judge}."]
    flat = [found for name in comparisons for found in comparisons[name]]
    write_page(output, "Evaluation", figures, rows, facts=facts, comparisons=flat)
    shown = [{**row, "audio": row["audio"] if kept else None} for row in rows]
    write_report(
        output,
        figures,
        shown,
        commands={SECTION: command},
        facts={"config": to_dict(dataclasses.replace(config, heldout=None, unheard=None))},
    )
