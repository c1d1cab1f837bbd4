"""What a damaged prompt costs: noise, reverberation, a telephone band, a low level.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tokenlm.modules.noise import mix
from training.data.augment import (
    add_noise,
    band_limit,
    change_gain,
    impulse_response,
    make_noise,
    reverberate,
)
from training.evaluation.conditions import (
    Bars,
    Row,
    Says,
    error_ratio_figure,
    judge_conditions,
    word_and_voice_figures,
)
from training.evaluation.figure import Figure
from training.evaluation.prompts import Prompt, read_prompt
from training.evaluation.speech import Jury
from training.evaluation.testset import TestSet

CLEAN = "clean"
"""The condition of a prompt that is left as it is."""
SNR_DB = 10.0
"""Of the white noise, over the whole band of the recording."""
REVERBERATION_SECONDS = 0.5
"""Until the reverberation has fallen by 60 dB."""
DIRECT_DB = 3.0
"""Level of the direct sound over the reverberation: a speaker across a living room."""
TELEPHONE_HZ = (300.0, 3400.0)
LEVEL_DB = -30.0
_PCM16 = 32768.0

Damage = Callable[[Tensor, int, torch.Generator], Tensor]
"""Samples (S,), their rate and a source of draws to samples (S,)."""


def _noise(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    return add_noise(waveform, make_noise("white", len(waveform), sample_rate, draws), SNR_DB)


def _reverberation(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    response = impulse_response(sample_rate, REVERBERATION_SECONDS, draws)
    return reverberate(waveform, response, DIRECT_DB)


def _telephone(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    return band_limit(waveform, sample_rate, *TELEPHONE_HZ)


def _quiet(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    return change_gain(waveform, LEVEL_DB)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "noise": (_noise, f"white noise at {SNR_DB:g} dB"),
    "reverberation": (
        _reverberation,
        f"reverberation of {REVERBERATION_SECONDS:g} s, direct sound at {DIRECT_DB:+g} dB",
    ),
    "telephone": (_telephone, f"{TELEPHONE_HZ[0]:g} to {TELEPHONE_HZ[1]:g} Hz"),
    "quiet": (_quiet, f"level {LEVEL_DB:+g} dB, then 16 bits"),
}
"""The damages by their names, and what is done."""


def damage_prompt(prompt: Prompt, name: str, seed: int) -> Prompt:
    """Damage a prompt in one way; the same seed gives the same samples.

    It ends as a file of 16 bits would, so that what is too quiet has lost what a file loses.

    Args:
        prompt: clean.
        name: one of `DAMAGES`.
        seed: of noise and room.
    """
    apply, _ = DAMAGES[name]
    draws = torch.Generator().manual_seed(mix(seed) >> 1)
    waveform = apply(prompt.waveform, prompt.sample_rate, draws)
    waveform = torch.round(waveform * _PCM16).clamp(-_PCM16, _PCM16 - 1) / _PCM16
    return replace(prompt, name=f"{prompt.name} {name}", waveform=waveform)


def measure_damaged_prompts(
    test_set: TestSet, jury: Jury, speaker: Says, bars: Bars
) -> tuple[list[Figure], list[Row]]:
    """Word errors and similarity to the clean prompt, for each damage.

    Args:
        test_set: the items.
        jury: the judges; its seed is that of the damages, too.
        speaker: what is judged.
        bars: shows how far it is.

    Raises:
        ValueError: a prompt cannot be read, or a voice not be made of what is left of it.
    """
    clean = {name: read_prompt(row) for name, row in test_set.prompts.items()}
    prompts = {CLEAN: clean}
    for number, damage in enumerate(DAMAGES):
        prompts[damage] = {
            name: damage_prompt(prompt, damage, mix(jury.seed, number, place))
            for place, (name, prompt) in enumerate(clean.items())
        }
    references = {name: jury.voice_of(row) for name, row in test_set.prompts.items()}
    rows = judge_conditions("damaged_prompts", test_set, prompts, references, jury, speaker, bars)
    figures: list[Figure] = []
    for condition, own in rows.items():
        figures += word_and_voice_figures(
            own, f"{condition}_", seed=jury.seed, reference="the clean prompt"
        )
        if condition != CLEAN:
            figures.append(
                error_ratio_figure(
                    f"{condition}_word_errors_over_clean",
                    own,
                    rows[CLEAN],
                    seed=jury.seed,
                    note=f"{DAMAGES[condition][1]}; the same sentences and seeds",
                )
            )
    return figures, [row for own in rows.values() for row in own]
