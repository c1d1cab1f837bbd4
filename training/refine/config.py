"""Thresholds of the refinement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenlm.text.frontend import NormalizerName


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """What a clip must be to be kept. 0 turns off a limit where that is said."""

    min_seconds: float = 1.0
    max_seconds: float = 20.0
    min_snr_db: float = 10.0
    max_clipped_share: float = 0.001
    """Share of samples at the peak."""
    min_bandwidth_hz: float = 3000.0
    """Frequency below which 99 % of the power of speech lies, at least."""
    max_edge_db: float = -18.0
    """Level of the first and last 30 ms against the loudest part: louder is a word that was cut."""
    min_speaker_consistency: float = 0.5
    """Cosine of the embeddings of the two halves of a clip, each of a second at least; needs a
    speaker encoder."""
    max_disagreement: float = 0.15
    """Mean pairwise word error rate of text and recognisers; 1 turns it off."""
    max_letter_disagreement: float = 1.0
    """The same of letters without spaces, for a recogniser that spells what it hears; 1 is off."""
    shortest_share: float = 0.01
    """Share of clips with the least speech for their text that is dropped."""
    longest_share: float = 0.05
    """Share of clips with the most speech for their text that is dropped."""
    detector: Literal["silero", "level"] = "silero"
    """What finds speech in long recordings: Silero's detector, or the level alone."""
    pause_seconds: float = 0.4
    """Silence that separates clips of a long recording."""
    level_dbfs: float = -24.0
    """Level that clips are brought to."""
    normalizer: NormalizerName = "english"
    """How texts are read to be compared: spelled out as English, or "none" for what they are in any
    language; words are what stands between spaces."""

    def __post_init__(self) -> None:
        if not 0 < self.min_seconds < self.max_seconds:
            raise ValueError("min_seconds must be positive and less than max_seconds")
        for name in ("shortest_share", "longest_share"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be in [0, 0.5), not {getattr(self, name)}")
        for name in ("max_disagreement", "max_letter_disagreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
