"""What a bounded window of the flow changes: `python -m inference.benchmark.window --bundle NAME`.

Weights that were trained to see all that lies before (those of CosyVoice) can be run with a window
(`left_tokens` in the config of the flow), which bounds the memory of a stream. How far the mel is
then from that of the whole past is measured here, on tokens of the bundle's own LM.

Shapes: T mel frames, M mel bins.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from inference.benchmark.subject import Subject, bundle_subject, config_subject

DECIBELS = 20 / math.log(10)
"""Of one unit of a natural logarithm of magnitudes."""
LEFT_TOKENS = (25, 50, 100, 200)


@dataclass(frozen=True)
class Deviation:
    """How far the mel of one window is from that of the whole past."""

    left_tokens: int
    mean_db: float
    """Mean absolute difference of log-mels in decibels."""
    last_second_db: float
    """The same of the last second, to see whether it grows."""
    cached_share: float
    """Frames that a stream remembers at its end, as a share of all of prompt and speech."""


def measure_window(
    subject: Subject, num_tokens: int, left_tokens: Sequence[int] = LEFT_TOKENS
) -> list[Deviation]:
    """Renders the same tokens with the whole past and with each window.

    Args:
        subject: a bundle, or models with random weights.
        num_tokens: of its tokens that are rendered.
        left_tokens: windows, in tokens before the chunk.

    Raises:
        ValueError: a window is negative.
    """
    flow, voice = subject.synthesizer.components.flow, subject.voice
    settings = subject.synthesizer.components.generation
    device = next(flow.parameters()).device
    tokens = torch.tensor(list(subject.tokens[:num_tokens]), device=device)[None]
    context = flow.config.default_context

    def render(left: int | None) -> Tensor:
        return flow.generate(
            tokens,
            prompt_tokens=voice.prompt_tokens.to(device)[None],
            prompt_mel=voice.prompt_mel.to(device)[None],
            speaker_embedding=voice.speaker_embedding.to(device)[None],
            seed=0,
            prompt_seed=voice.seed,
            context=replace(context, left_frames=left),
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
        )[0]

    whole, second = render(None), round(flow.config.mel.frame_rate)
    num_prompt = voice.prompt_tokens.shape[0]
    found = []
    for left in left_tokens:
        distance = (render(left) - whole).abs().mean(dim=1) * DECIBELS
        kept = min(num_prompt + left, num_prompt + num_tokens)
        found.append(
            Deviation(
                left_tokens=left,
                mean_db=float(distance.mean()),
                last_second_db=float(distance[-second:].mean()),
                cached_share=kept / (num_prompt + num_tokens),
            )
        )
    return found


def table(found: Sequence[Deviation]) -> str:
    """The measurements as a table in Markdown."""
    rows = ["| left_tokens | mean dB | last second dB | cached |", "|---|---|---|---|"]
    for row in found:
        rows.append(
            f"| {row.left_tokens} | {row.mean_db:.3f} | {row.last_second_db:.3f} "
            f"| {row.cached_share:.0%} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.benchmark.window",
        description="Measures what a bounded window of the flow changes.",
    )
    parser.add_argument("--bundle", default="mini-en", help="name of a bundle or its folder")
    parser.add_argument(
        "--config", type=Path, help="folder of configs, measured with random weights instead"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech")
    parser.add_argument(
        "--left",
        type=int,
        action="append",
        help=f"tokens before the chunk, may be repeated; default {list(LEFT_TOKENS)}",
    )
    options = parser.parse_args(arguments)
    try:
        if options.config is not None:
            subject = config_subject(options.config, options.seconds)
        else:
            subject = bundle_subject(options.bundle, options.seconds)
        num_tokens = subject.num_tokens(options.seconds)
        found = measure_window(subject, num_tokens, options.left or LEFT_TOKENS)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    weights = "trained" if subject.has_weights else "random"
    print(f"{subject.name}, {weights} weights, {options.seconds:g} s, against the whole past:\n")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
