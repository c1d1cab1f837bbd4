"""What a batch of sessions gains in an imported flow: `python -m inference.benchmark.together`.

The flow alone, with random weights: sessions of one voice, each a chunk further on than the one
before, in one batch, against the same sessions one after the other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inference.benchmark.random_models import fill_at_random
from tokenlm.config import load_config
from tokenlm.models.flow import CosyVoiceFlow, CosyVoiceFlowConfig, CosyVoiceFlowState

CONFIG = Path("configs/model/cosyvoice2/cosyvoice_flow.yaml")
PROMPT_TOKENS = 75


@dataclass(frozen=True)
class Gain:
    """Wall seconds for the next chunks of all sessions, one entry a run."""

    alone: list[float]
    together: list[float]

    @property
    def ratio(self) -> float:
        """How many times more speech comes of a second; the median of the runs."""
        pairs = zip(self.alone, self.together, strict=True)
        return statistics.median(one / many for one, many in pairs)


def measure_together(
    flow: CosyVoiceFlow, *, num_sessions: int, num_chunks: int, num_runs: int, num_steps: int = 10
) -> Gain:
    """Times the same chunks of the same sessions in one batch and one after the other.

    Args:
        flow: with any weights.
        num_sessions: of one voice.
        num_chunks: that each session renders.
        num_runs: of both.
        num_steps: of the solver.
    """
    size = flow.config.chunk_tokens
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        return torch.randint(flow.config.codebook_size, (1, count), generator=generator)

    frames = PROMPT_TOKENS * flow.config.frames_per_token
    start = flow.start(
        prompt_tokens=draw(PROMPT_TOKENS),
        prompt_mel=torch.randn(1, frames, flow.config.mel.num_mels, generator=generator) - 5,
        speaker_embedding=torch.randn(1, flow.config.speaker_dim, generator=generator),
        num_steps=num_steps,
    )
    begun = []
    for number in range(num_sessions):
        state = start.clone()
        flow.step(draw(flow.tokens_to_next_chunk(state) + number * size), state, seed=number)
        begun.append(state)
    chunks = [[draw(size) for _ in begun] for _ in range(num_chunks)]

    def alone(states: list[CosyVoiceFlowState]) -> None:
        for row in chunks:
            for seed, (tokens, state) in enumerate(zip(row, states, strict=True)):
                flow.step(tokens, state, seed=seed)

    def together(states: list[CosyVoiceFlowState]) -> None:
        for row in chunks:
            flow.step_together(row, states, seeds=range(len(states)), flush=[False] * len(states))

    found = Gain(alone=[], together=[])
    for _ in range(num_runs + 1):  # the first one warms up
        for run, times in ((alone, found.alone), (together, found.together)):
            states = [state.clone() for state in begun]
            began = time.perf_counter()
            run(states)
            times.append(time.perf_counter() - began)
    return Gain(alone=found.alone[1:], together=found.together[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.benchmark.together",
        description="Measures what a batch of sessions gains in a CosyVoice flow.",
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="config of the flow")
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--chunks", type=int, default=4, help="that each session renders")
    parser.add_argument("--runs", type=int, default=5, help="runs whose median is taken")
    parser.add_argument("overrides", nargs="*", help="key=value of the config")
    options = parser.parse_args(arguments)
    try:
        flow = CosyVoiceFlow(load_config(CosyVoiceFlowConfig, options.config, options.overrides))
        if min(options.sessions, options.chunks, options.runs) < 1:
            raise ValueError("sessions, chunks and runs must be at least 1")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    fill_at_random(flow)
    found = measure_together(
        flow.eval().requires_grad_(False),
        num_sessions=options.sessions,
        num_chunks=options.chunks,
        num_runs=options.runs,
    )
    seconds = options.sessions * options.chunks * flow.config.chunk_tokens / flow.config.token_rate
    millions = sum(weight.numel() for weight in flow.parameters()) / 1e6
    print(f"{millions:.2f} M parameters, random weights, {torch.get_num_threads()} threads")
    for name, times in (("one after the other", found.alone), ("in one batch", found.together)):
        speeds = sorted(seconds / value for value in times)
        print(
            f"{options.sessions} sessions {name}: {statistics.median(speeds):.3g} s of speech in a "
            f"second ({speeds[0]:.3g} to {speeds[-1]:.3g})"
        )
    print(f"gain: {found.ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
