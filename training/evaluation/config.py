"""Configuration of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Section = Literal[
    "originals",
    "cloned",
    "resynthesis",
    "copy_synthesis",
    "tokenizer",
    "speaker_encoder",
    "real_time_factor",
]
"""What can be measured, each with the components it needs."""

SECTIONS: tuple[Section, ...] = get_args(Section)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured, and on which recordings."""

    heldout: Path | None = None
    """Manifest of held-out sentences in held-out voices of people that training has heard."""
    unheard: Path | None = None
    """Manifest of a person that no training stage has heard; judged apart."""
    num_items: int = 100
    """Sentences of each manifest, dealt to its voices in turn."""
    num_voices: int = 6
    """Voices of a manifest that prompts are taken from, and candidates for the nearest voice."""
    prompt_seconds: float = 4.0
    """The prompt of a voice is its recording nearest to this length."""
    num_tokenizer_items: int = 384
    """Recordings of each manifest for the character error of the tokenizer's own ASR."""
    num_recordings_per_speaker: int = 30
    """Recordings of each speaker for the equal error rate."""
    num_timed_items: int = 12
    """Sentences for the real-time factor."""
    num_processes: int = 2
    """Recordings that the judge of words hears at the same time."""
    seed: int = 0
    """Of sampling and of the intervals."""

    def __post_init__(self) -> None:
        for name in (
            "num_items",
            "num_voices",
            "num_tokenizer_items",
            "num_timed_items",
            "num_processes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_recordings_per_speaker < 2:
            raise ValueError(
                "num_recordings_per_speaker must be at least 2, so that there are pairs, got "
                f"{self.num_recordings_per_speaker}"
            )
        if self.prompt_seconds <= 0:
            raise ValueError(f"prompt_seconds must be positive, got {self.prompt_seconds}")
