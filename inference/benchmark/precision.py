"""What fewer bits of the weights change: `python -m inference.benchmark.precision`.

The language model reads given text and speech, and the flow renders given tokens, once as they are
and once with the weights of their linear layers in bfloat16 or int8. With `--golden`, what comes
out is held against the reference numbers of CosyVoice 2 and 3 that lie there; with `--config` or
`--bundle`, against the same models in float32.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.benchmark.cases import Case, golden_cases, subject_cases
from inference.benchmark.subject import bundle_subject, config_subject
from tokenlm.modules.reduced import PackedInt8Linear, Precision
from tokenlm.synthesis.acceleration import quantise_model

PRECISIONS: tuple[Precision, ...] = ("bfloat16", "int8")


@dataclass(frozen=True)
class Deviation:
    """How far one output is off."""

    case: str
    output: str
    precision: Precision
    share: float
    """Root mean square of the difference, as a share of that of the output."""
    largest: float
    """Greatest difference, as a share of the same."""
    agreement: float | None
    """Share of positions whose most likely class is the same; None where there are no classes."""
    megabytes: float
    """Of all weights of the model."""
    seconds: float
    """That all outputs of the case took."""


def measure_precision(
    cases: Iterable[Case], precisions: Sequence[Precision] = PRECISIONS
) -> list[Deviation]:
    """Runs every case in every precision, in float32 first.

    Args:
        cases: their models are not changed.
        precisions: of the weights.
    """
    found = []
    for case in cases:
        expected = case.expected
        for precision in ("float32", *precisions):
            model = case.model
            if precision != "float32":
                model = quantise_model(copy.deepcopy(case.model), precision)
            began = time.perf_counter()
            with torch.inference_mode():
                outputs = case.run(model)
            seconds = time.perf_counter() - began
            expected = outputs if expected is None else expected
            for name, actual in outputs.items():
                found.append(
                    _deviation(case.name, name, precision, actual, expected[name], model, seconds)
                )
    return found


def _deviation(
    case: str,
    output: str,
    precision: Precision,
    actual: Tensor,
    expected: Tensor,
    model: nn.Module,
    seconds: float,
) -> Deviation:
    scale = expected.square().mean().sqrt()
    off = actual - expected
    same = (actual.argmax(dim=-1) == expected.argmax(dim=-1)).float().mean()
    weights = [*model.parameters(), *model.buffers()]
    weights += [part for part in model.modules() if isinstance(part, PackedInt8Linear)]
    return Deviation(
        case=case,
        output=output,
        precision=precision,
        share=float(off.square().mean().sqrt() / scale),
        largest=float(off.abs().max() / scale),
        agreement=float(same) if "logits" in output else None,
        megabytes=sum(weight.nbytes for weight in weights) / 1e6,
        seconds=seconds,
    )


def table(found: Sequence[Deviation]) -> str:
    """The measurements as a table in Markdown."""
    rows = [
        "| model | output | weights | off by (rms) | at most | same class | MB | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        agreement = "" if row.agreement is None else f"{row.agreement:.1%}"
        rows.append(
            f"| {row.case} | {row.output} | {row.precision} | {row.share:.2%} | {row.largest:.2%} "
            f"| {agreement} | {row.megabytes:.3g} | {row.seconds:.2g} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.benchmark.precision",
        description="Measures what fewer bits of the weights change.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--golden", type=Path, help="folder of reference numbers of CosyVoice")
    source.add_argument("--config", type=Path, help="folder of configs, with random weights")
    source.add_argument("--bundle", default="mini-en", help="name of a bundle or its folder")
    parser.add_argument("--seconds", type=float, default=2.0, help="of speech, but for --golden")
    parser.add_argument(
        "--weights", action="append", choices=PRECISIONS, help="may be repeated; default both"
    )
    options = parser.parse_args(arguments)
    try:
        if options.golden is not None:
            name, cases = str(options.golden), golden_cases(options.golden)
        else:
            if options.config is not None:
                subject = config_subject(options.config, options.seconds)
            else:
                subject = bundle_subject(options.bundle, options.seconds)
            weights = "trained" if subject.has_weights else "random"
            name = f"{subject.name}, {weights} weights, {options.seconds:g} s"
            cases = subject_cases(subject, subject.num_tokens(options.seconds))
        found = measure_precision(cases, options.weights or PRECISIONS)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{name}:\n")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
