"""The command: `scripts/benchmark --bundle mini-en --output FOLDER [--quick]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from inference.benchmark.judgement import Judges, judge, own_judges
from inference.benchmark.report import markdown, write_report
from inference.benchmark.rows import PARTS, Plan, measure
from inference.benchmark.subject import SENTENCE, Subject, bundle_subject, config_subject
from tokenlm.synthesis.acceleration import accelerate

QUICK = Plan(num_runs=1, long_seconds=6.0)
SHORTEST_SECONDS = 3.0
"""Of speech that a subject has tokens for, however short the sessions are."""
SENTENCES: tuple[str, ...] = (
    SENTENCE,
    "Please leave your shoes by the front door.",
    "My sister bought a new car last week.",
)


def main(
    arguments: Sequence[str] | None = None,
    find_judges: Callable[[Subject], Judges] = own_judges,
) -> int:
    """Measures and writes the report; returns the exit status.

    Args:
        arguments: of the command line.
        find_judges: who judges words and voices.
    """
    options = _parser().parse_args(arguments)
    try:
        plan = QUICK if options.quick else Plan(num_runs=options.runs, long_seconds=options.seconds)
        plan = replace(plan, parts=tuple(options.parts))
        most = max(plan.long_seconds, SHORTEST_SECONDS)
        if options.config is not None:
            subject = config_subject(options.config, most)
        else:
            subject = bundle_subject(options.bundle, most)
        accelerate(subject.synthesizer.components, weights=options.weights)
        facts = {
            "subject": f"{subject.name}, voice {subject.voice.name}, "
            f"{'trained' if subject.has_weights else 'random'} weights in {options.weights}"
        }
        keep = partial(write_report, options.output, subject.name, facts=facts)
        found = measure(subject, plan, _tell, keep)
        if subject.has_weights:
            judges = find_judges(subject)
            facts["judges"] = judges.name
            sentences = _sentences(options.sentences, 3 if options.quick else options.limit)
            found.rows += judge(subject, judges, sentences, _tell)
        path = keep(found)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(subject.name, found.rows, facts))
    print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark", description="Measures streaming and writes a report with plots."
    )
    parser.add_argument("--bundle", default="mini-en", help="name of a bundle or its folder")
    parser.add_argument(
        "--config", type=Path, help="folder of configs, measured with random weights instead"
    )
    parser.add_argument(
        "--weights",
        default="float32",
        choices=("float32", "bfloat16", "int8"),
        help="precision of the weights of the large models",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark"), help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="one short run of everything")
    parser.add_argument("--runs", type=int, default=5, help="runs whose median is taken")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the long session")
    parser.add_argument(
        "--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="what is measured"
    )
    parser.add_argument("--sentences", type=Path, help="file of sentences to judge, one a line")
    parser.add_argument("--limit", type=int, default=60, help="most sentences that are judged")
    return parser


def _sentences(path: Path | None, limit: int) -> list[str]:
    if path is None:
        return list(SENTENCES)[:limit]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise ValueError(f"{path} holds no sentence.")
    return found[:limit]


def _tell(what: str) -> None:
    print(f"measuring {what}", file=sys.stderr, flush=True)
