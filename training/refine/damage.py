"""A corpus with known damage, to prove the filters: what was done to which clip is kept apart.

Shapes: S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.augment import add_noise, make_noise
from training.loop.randomness import make_generator

KINDS = ("wrong_text", "truncated_text", "repeated_text", "shifted_text", "noise", "mixed_speakers")


@dataclass(frozen=True)
class Clip:
    """Text and sound of an utterance."""

    id: str
    text: str
    speaker: str
    waveform: Tensor
    """(S,)"""


def damage_kinds(num_clips: int, share: float, seed: int) -> list[str]:
    """Choose what is done to each clip: a kind, or "" for nothing.

    Args:
        num_clips: Number of clips.
        share: Share of them that is damaged; every kind gets as many, one more or less.
        seed: Seed.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of damaged clips must be in [0, 1], not {share}")
    generator = make_generator("damage", seed)
    order = torch.randperm(num_clips, generator=generator).tolist()
    kinds = [""] * num_clips
    for place, index in enumerate(order[: round(num_clips * share)]):
        kinds[index] = KINDS[place % len(KINDS)]
    return kinds


def damage(clip: Clip, kind: str, other: Clip, sample_rate: int, seed: int) -> Clip:
    """Damage a clip.

    Args:
        clip: The clip.
        kind: One of `KINDS`.
        other: Another clip, of another speaker for "mixed_speakers".
        sample_rate: In Hz.
        seed: Seed of the noise.

    Raises:
        ValueError: If there is no such kind.
    """
    words = clip.text.split()
    half = max(1, len(words) // 2)
    wave = clip.waveform
    if kind == "wrong_text":
        return Clip(clip.id, other.text, clip.speaker, wave)
    if kind == "truncated_text":
        return Clip(clip.id, " ".join(words[:half]), clip.speaker, wave)
    if kind == "repeated_text":
        return Clip(clip.id, " ".join([*words, *words[half:]]), clip.speaker, wave)
    if kind == "shifted_text":
        # The start of this text is missing, and the start of the next one stands behind it.
        moved = [*words[half:], *other.text.split()[:half]]
        return Clip(clip.id, " ".join(moved), clip.speaker, wave)
    if kind == "noise":
        generator = make_generator("damage noise", seed, clip.id)
        loud = make_noise("pink", wave.shape[0], sample_rate, generator)
        return Clip(clip.id, clip.text, clip.speaker, add_noise(wave, loud, 0.0))
    if kind == "mixed_speakers":
        middle = wave.shape[0] // 2
        joined = torch.cat([wave[:middle], other.waveform[other.waveform.shape[0] // 2 :]])
        return Clip(clip.id, clip.text, clip.speaker, joined)
    raise ValueError(f"there is no damage {kind!r}; valid are: {', '.join(KINDS)}")


def precision_and_recall(kinds: list[str], dropped: list[bool]) -> dict[str, tuple[float, float]]:
    """Compare what was dropped with what was damaged.

    Args:
        kinds: Damage of each clip, "" for none.
        dropped: Whether the refinement has dropped it.

    Returns:
        For each kind (precision, recall). Recall is the share of its clips that were dropped.
        Precision counts the undamaged clips that were dropped against them: found / (found +
        wrongly dropped in proportion to the kind's share of the damage).
    """
    wrongly = sum(drop and not kind for kind, drop in zip(kinds, dropped, strict=True))
    damaged = sum(bool(kind) for kind in kinds)
    table = {}
    for kind in KINDS:
        own = [drop for found, drop in zip(kinds, dropped, strict=True) if found == kind]
        if not own:
            continue
        found = sum(own)
        share = wrongly * len(own) / damaged
        table[kind] = (found / (found + share) if found else 0.0, found / len(own))
    return table
