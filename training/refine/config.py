"""Thresholds of the refinement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenlm.text.normalize import NormalizerName


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """What a clip must be to be kept. 0 turns off a limit where that is said."""

    min_seconds: float = 1.0
    max_seconds: float = 20.0
    min_snr_db: float = 10.0
    max_clipped_share: float = 0.001
    """Share of samples at the peak."""
    min_bandwidth_hz: float = 3000.0
    """Frequency up to which the bands of speech are within 50 dB of the strongest one, at least;
    clips are stored at 24 kHz, so that nothing above 12,000 Hz is seen."""
    max_edge_db: float = -18.0
    """Level of the first and last 30 ms against the loudest part: louder is a word that was cut."""
    min_speaker_consistency: float = 0.5
    """Cosine of the embeddings of the two halves of a clip, each of a second at least; needs a
    speaker encoder."""
    min_speaker_similarity: float = 0.6
    """Cosine with the mean of a group of clips that a clip must have to join it, where clips are
    grouped by voice."""
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
    enhance: str = ""
    """Bundle whose enhancer takes noise out of recordings before they are cut; empty leaves them as
    they are. Clean ones are left alone, as are those that are too bad to be enhanced."""
    normalizer: NormalizerName = "english"
    """How texts are read to be compared: spelled out as English, or "none" for what they are in any
    language; words are what stands between spaces."""

    def __post_init__(self) -> None:
        if not 0 < self.min_seconds < self.max_seconds:
            raise ValueError("min_seconds must be positive and less than max_seconds")
        if self.min_bandwidth_hz >= 12_000:
            raise ValueError(f"min_bandwidth_hz must be under 12000, not {self.min_bandwidth_hz:g}")
        for name in ("shortest_share", "longest_share"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be in [0, 0.5), not {getattr(self, name)}")
        for name in ("max_disagreement", "max_letter_disagreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
