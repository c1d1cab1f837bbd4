"""What the full-size recipes cost, on paper: `python -m training.recipes.budget` prints the tables.

No time here is measured. Work is counted as 6 operations per weight that multiplies and per
position (2 forward, 4 backward), plus attention; a test counts the operations of the models and
compares. Time is work over the peak of an H100 or H200 in bf16 times an assumed utilisation; memory
is what weights, gradients, optimizer and average need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PEAK_FLOPS = 989e12
"""Dense bf16 products of one H100 or H200 (SXM) a second, by its data sheet."""

Strategy = Literal["single", "ddp", "fsdp2", "zero1", "zero2", "zero3"]


@dataclass(frozen=True, kw_only=True)
class StageBudget:
    """One stage of a recipe."""

    name: str
    weights: float
    """Parameters that multiply at every position (tables of embeddings do not)."""
    parameters: float
    """All parameters that are trained."""
    positions_per_second: float
    """Positions of the network for a second of audio; of recognisers, and of the tokenizer
    with its own, the mean over their weights, with 15 characters a second in the decoder."""
    hours: float
    """Audio of one epoch."""
    epochs: float
    """Those of the config's steps and batches on 8 GPUs."""
    attention_layers: int = 0
    attention_dim: int = 0
    mean_length: float = 0.0
    """Positions that attend to one another, on average."""
    factor: float = 1.0
    """Work besides that of the network itself: discriminators, teachers."""
    beside: float = 0.0
    """Parameters of discriminators."""
    utilisation: float = 0.4
    """Assumed share of the peak."""


def position_flops(weights: float, layers: int = 0, dim: int = 0, length: float = 0.0) -> float:
    """Operations of one position, forward and backward.

    Args:
        weights: Parameters that multiply.
        layers: Attention layers.
        dim: Channels of all heads together.
        length: Length of the sequence. Each position sees half of it on average; scores and
            values are 2 products of 2 operations per channel, three times for the backward pass.
    """
    return 6.0 * weights + 6.0 * layers * dim * length


def gpu_hours(stage: StageBudget) -> float:
    """Hours of one GPU for all epochs of a stage."""
    each = position_flops(
        stage.weights, stage.attention_layers, stage.attention_dim, stage.mean_length
    )
    positions = stage.hours * 3600 * stage.epochs * stage.positions_per_second
    return positions * each * stage.factor / (PEAK_FLOPS * stage.utilisation) / 3600


def state_gigabytes(parameters: float, strategy: Strategy, num_ranks: int) -> float:
    """GB (10^9 bytes) that each GPU holds, without activations.

    In 32 bits each of weights, gradients, both moments of Adam and the average of the weights takes
    4 bytes a parameter; ZeRO has its own copy of the weights besides.
    """
    whole, pieces = {
        "single": (20, 0),
        "ddp": (20, 0),
        "fsdp2": (0, 20),
        "zero1": (12, 12),  # weights, gradients, average; copy and moments
        "zero2": (8, 16),
        "zero3": (0, 24),
    }[strategy]
    return parameters * (whole + pieces / num_ranks) / 1e9


LM_WEIGHTS = 363.8e6
"""Those of configs/train/full/speech_lm.yaml without its three tables of embeddings."""

LIBRITTS, EMILIA = 585.0, 46_800.0
"""Hours of LibriTTS, and of the English part of Emilia, as published."""

STAGES = (
    StageBudget(
        name="speech_tokenizer", weights=83.5e6, parameters=83.5e6, positions_per_second=22,
        hours=LIBRITTS, epochs=137, utilisation=0.25,
    ),
    StageBudget(
        name="token_recognizer", weights=44.7e6, parameters=44.7e6, positions_per_second=20,
        hours=LIBRITTS, epochs=68, utilisation=0.25,
    ),
    StageBudget(
        name="speaker_encoder", weights=9.0e6, parameters=9.0e6, positions_per_second=50,
        hours=LIBRITTS, epochs=91, utilisation=0.15,
    ),
    StageBudget(
        name="vocoder", weights=20.3e6, parameters=20.3e6, positions_per_second=50,
        hours=LIBRITTS, epochs=156, factor=19.3, beside=15e6, utilisation=0.15,
    ),
    StageBudget(
        name="flow", weights=111.9e6, parameters=111.9e6, positions_per_second=25,
        hours=EMILIA, epochs=7.6, attention_layers=26, attention_dim=640, mean_length=250,
        factor=1.2, utilisation=0.3,
    ),
    StageBudget(
        name="speech_lm", weights=LM_WEIGHTS, parameters=505.8e6, positions_per_second=29,
        hours=EMILIA, epochs=7.9, attention_layers=24, attention_dim=896, mean_length=300,
    ),
    StageBudget(
        name="speech_lm.libritts", weights=LM_WEIGHTS, parameters=505.8e6,
        positions_per_second=29, hours=LIBRITTS, epochs=21, attention_layers=24,
        attention_dim=896, mean_length=300,
    ),
)  # fmt: skip
"""In their order."""


def tables(num_ranks: int = 8) -> str:
    """Both tables of docs/scale.md, as Markdown."""
    lines = [
        "| stage | parameters | hours x epochs | positions/s | assumed utilisation | GPU-hours |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for stage in STAGES:
        lines.append(
            f"| `{stage.name}` | {stage.parameters / 1e6:.1f} M | {stage.hours:,.0f} x "
            f"{stage.epochs:g} | {stage.positions_per_second:g} | {stage.utilisation:.0%} | "
            f"{gpu_hours(stage):.0f} |"
        )
    strategies: tuple[Strategy, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    lines += ["", f"| GB per GPU, {num_ranks} GPUs | " + " | ".join(strategies) + " |"]
    lines += ["|---|" + "---|" * len(strategies)]
    for stage in STAGES[:-1]:
        # Of discriminators no average is kept; they are whole on every process.
        beside = 16 * stage.beside / 1e9
        sizes = [state_gigabytes(stage.parameters, name, num_ranks) + beside for name in strategies]
        # Stages with two optimizers, and the speaker encoder, are not sharded.
        shown = [f"{size:.1f}" for size in sizes]
        if stage.name in ("vocoder", "speaker_encoder"):
            shown[1:] = ["–"] * (len(shown) - 1)
        lines.append(f"| `{stage.name}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
