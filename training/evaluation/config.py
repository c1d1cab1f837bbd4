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
    "formants",
    "long_text",
    "prompt_lengths",
    "damaged_prompts",
    "speaking_rate",
    "recordings",
    "script",
]
"""What can be measured. `script` is the sets of texts."""

SECTIONS: tuple[Section, ...] = get_args(Section)

DEFAULT = "pocketsphinx"
"""The judge of words where none is named."""
WHISPER = "whisper"
"""The kind of judge of words that is named `whisper:FOLDER`."""
MAX_FACTOR = 1.2
"""Largest of the `formant_factors`, and the inverse of the smallest."""
MAX_RATE_FACTOR = 2.0
"""Largest of the `speaking_rate_factors`, and the inverse of the smallest."""
MIN_PROMPT_SECONDS = 0.5
"""A shorter prompt may hold too little sound to be taken."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured, and on which recordings."""

    heldout: Path | None = None
    """Manifest of held-out sentences in held-out voices of people that training has heard."""
    unheard: Path | None = None
    """Manifest of a person that no training stage has heard; judged apart."""
    recordings: Path | None = None
    """Manifest of real recordings that serve as prompts, or the folder of its `manifest.jsonl`;
    None leaves the section `recordings` out."""
    num_items: int = 100
    """Sentences of each manifest, assigned to its voices in turn."""
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
    num_formant_items: int = 24
    """Sentences that are said once with the prompt at each of the `formant_factors`."""
    formant_factors: tuple[float, ...] = (0.9, 0.95, 1.0, 1.05, 1.1)
    """What the frequencies of a prompt are multiplied by; 1 is among them."""
    num_long_texts: int = 3
    """Voices that say a long text."""
    long_text_seconds: float = 120.0
    """About how long it takes to say."""
    long_text_edge_seconds: float = 10.0
    """Of its start and of its end that are compared."""
    num_prompt_length_items: int = 18
    """Sentences that are said once with a prompt of each of the `prompt_length_seconds`."""
    prompt_length_seconds: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Lengths of prompts, rising; the last is what the others are compared with."""
    num_damaged_prompt_items: int = 18
    """Sentences that are said once with the clean prompt and once with it damaged in each way."""
    num_speaking_rate_items: int = 24
    """Sentences that are said once with the prompt at each of the `speaking_rate_factors`."""
    speaking_rate_factors: tuple[float, ...] = (0.8, 0.9, 1.0, 1.1, 1.25)
    """What the speaking rate of a prompt is multiplied by, at the same pitch."""
    num_recordings: int = 8
    """Real recordings that serve as prompts, evenly over their manifest."""
    num_items_per_recording: int = 4
    """Sentences that are said with each of them."""
    num_processes: int = 2
    """Recordings that the judge of words transcribes at the same time."""
    seed: int = 0
    """Of sampling and of the intervals."""
    sets: tuple[str, ...] = ()
    """Sets of texts: names of those in `configs/eval`, or files."""
    seeds: tuple[int, ...] = (0,)
    """Each text of a set is spoken once with each."""
    num_lines: int | None = None
    """Texts of each set, spread evenly over it; None takes all."""
    stream: bool = False
    """Whether the sets of texts are spoken as streams."""
    judge: str = DEFAULT
    """Of words: `pocketsphinx`, `whisper:FOLDER`, `transformers:NAME` or `paraformer:FOLDER`."""
    naturalness: str | None = None
    """Judges of naturalness, with commas between: `speechmos`, `distillmos`; or none."""

    def __post_init__(self) -> None:
        for name in (
            "num_items",
            "num_voices",
            "num_tokenizer_items",
            "num_timed_items",
            "num_formant_items",
            "num_long_texts",
            "num_prompt_length_items",
            "num_damaged_prompt_items",
            "num_speaking_rate_items",
            "num_recordings",
            "num_items_per_recording",
            "num_processes",
            "num_lines",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds must be one or more, none of them twice: {list(self.seeds)}")
        if self.num_recordings_per_speaker < 2:
            raise ValueError(
                "num_recordings_per_speaker must be at least 2, so that there are pairs, got "
                f"{self.num_recordings_per_speaker}"
            )
        if self.prompt_seconds <= 0:
            raise ValueError(f"prompt_seconds must be positive, got {self.prompt_seconds}")
        factors = self.formant_factors
        if 1.0 not in factors or len(set(factors)) < 2 or len(set(factors)) < len(factors):
            raise ValueError(
                "formant_factors must hold 1 and at least one other factor, none of them twice, "
                f"got {list(factors)}"
            )
        if not all(1 / MAX_FACTOR <= factor <= MAX_FACTOR for factor in factors):
            raise ValueError(
                f"formant_factors must be from {1 / MAX_FACTOR:.3g} to {MAX_FACTOR:g}, beyond "
                f"which no warp is looked for, got {list(factors)}"
            )
        edge = self.long_text_edge_seconds
        if not 0 < 2 * edge <= self.long_text_seconds:
            raise ValueError(
                f"long_text_seconds must be at least {2 * edge:g}, so that its first and last "
                f"{edge:g} s (long_text_edge_seconds) are apart, got {self.long_text_seconds}"
            )
        rates = self.speaking_rate_factors
        if len(set(rates)) < 2 or not all(
            1 / MAX_RATE_FACTOR <= rate <= MAX_RATE_FACTOR for rate in rates
        ):
            raise ValueError(
                f"speaking_rate_factors must be two or more, from {1 / MAX_RATE_FACTOR:g} to "
                f"{MAX_RATE_FACTOR:g}, got {list(rates)}"
            )
        lengths = list(self.prompt_length_seconds)
        if len(lengths) < 2 or lengths != sorted(set(lengths)):
            raise ValueError(f"prompt_length_seconds must be two or more that rise, got {lengths}")
        if lengths[0] < MIN_PROMPT_SECONDS:
            raise ValueError(
                f"prompt_length_seconds must be at least {MIN_PROMPT_SECONDS:g}, got {lengths}"
            )
