"""Thresholds of the checks of a take, and recipes of tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tokenlm.audio.noise import (
    CLEAN_ECHO_SECONDS,
    CLEAN_SNR_DB,
    USABLE_ROOM_SPL_DB,
    USABLE_SNR_DB,
)


@dataclass(frozen=True, kw_only=True)
class TakeConfig:
    """What a take must be.

    Beyond a `fine_` limit it should be enhanced, beyond a `usable_` limit recorded again.
    """

    calibration_db: float | None = None
    """Sound pressure level, in dB SPL, of a sound whose level is 0 dBFS on this microphone; None
    where it is not known, and sound pressure is not judged. A calibrator of 94 dB that is recorded
    at -26 dBFS gives 120."""
    max_seconds: float = 60.0
    """Longest take. A prompt is read in 2 to 8 s; what is longer is another recording."""
    min_seconds: float = 0.5
    """Shortest take: no prompt is read sooner."""
    silent_dbfs: float = -60.0
    """Speech below this level is taken as none: a microphone that is turned off or chosen wrongly
    gives its own noise, at -90 to -65 dBFS."""
    fine_level_dbfs: float = -45.0
    """Level of the speech. Below it, recordings of 16 bits have less than 50 dB between speech and
    the steps of their samples."""
    fine_room_spl_db: float = 45.0
    """Noise of the room, where the microphone is calibrated: that of a quiet living room is 35 to
    40 dB SPL, and speech at arm's length 60 to 65."""
    usable_room_spl_db: float = USABLE_ROOM_SPL_DB
    """As loud as speech itself."""
    fine_snr_db: float = CLEAN_SNR_DB
    """Speech over noise. Below it a listener hears the noise, and a vocoder learns it."""
    usable_snr_db: float = USABLE_SNR_DB
    """Enhancement is made for speech that is at least as loud as the noise; the estimate errs by
    about 2 dB."""
    fine_clipped_share: float = 0.0001
    """Share of samples in flat tops. A low voice that is not clipped has up to 0.00003, as samples
    near a peak are nearly equal."""
    usable_clipped_share: float = 0.001
    """As in refinement: flat tops are heard as crackle, and nothing brings back what was cut."""
    fine_echo_seconds: float = CLEAN_ECHO_SECONDS
    """Reverberation time, as it is estimated: dry speech has 0.2 to 0.4, a room of 0.5 s 0.4, one
    of 0.8 s 0.46 to 0.6, where the microphone is far from the mouth."""
    usable_echo_seconds: float = 0.7
    """What a hall or stairwell gives: the estimate falls short of long times, 0.6 for 1.2 s and 0.6
    to 0.8 for 2 s."""
    min_echo_snr_db: float = 15.0
    """Speech over noise from which on echo is judged: louder noise hides how sounds end, and dry
    speech in it seems to echo for 0.5 s."""
    fine_bandwidth_hz: float = 5000.0
    """Highest frequency with sound, as in refinement: speech has 6,000 Hz and more. Telephones and
    many wireless headsets stop at 4,000 Hz."""
    usable_bandwidth_hz: float = 3000.0
    """As in refinement: below it consonants are lost."""
    max_edge_db: float = -18.0
    """Level of the first and last 30 ms against the loudest part, as in refinement: louder is a
    word that was cut."""
    min_edge_above_noise_db: float = 10.0
    """By how much such an end must stand out of the noise; noise at the ends is no speech."""
    max_read_error: float = 0.6
    """Errors per phone (or letter) that the token recogniser of a bundle may read. A wrong
    sentence has 0.7 and more; voices and rooms that the recogniser never heard have many, too, so
    that only clear cases count."""
    max_missing_share: float = 0.15
    """Share of words that may be missing, where the token recogniser reads the others well: a
    sentence that was begun and not finished."""
    max_other_error: float = 0.25
    """What reading the others well is, in errors per phone."""
    max_word_error: float = 0.25
    """Share of words that a recogniser with a vocabulary may hear differently: one in four, as it
    errs itself."""
    min_speaker_similarity: float = 0.6
    """Cosine of the speaker embedding with the mean of the other takes, as in refinement. By the
    encoder of mini-en two sentences of one of its voices have 0.95 and more, 0.63 and more in noise
    as loud as the speech, those of two voices 0.54 at most."""
    num_known_takes: int = 3
    """Takes that there must be for their mean to stand for a person."""
    detector: Literal["silero", "level"] = "silero"
    """What finds speech: Silero's detector, or the level alone, by which other voices are not told
    from noise."""
    max_other_voice_seconds: float = 0.25
    """Speech before or after the sentence; a breath or a click is shorter."""

    def __post_init__(self) -> None:
        for name in ("snr_db", "level_dbfs", "bandwidth_hz"):
            lower = "silent_dbfs" if name == "level_dbfs" else f"usable_{name}"
            if getattr(self, lower) > getattr(self, f"fine_{name}"):
                raise ValueError(f"{lower} must not be above fine_{name}")
        for name in ("room_spl_db", "clipped_share", "echo_seconds"):
            if getattr(self, f"usable_{name}") < getattr(self, f"fine_{name}"):
                raise ValueError(f"usable_{name} must not be below fine_{name}")
        if not 0 < self.min_seconds < self.max_seconds:
            raise ValueError("min_seconds must be positive and less than max_seconds")
        if not -1 <= self.min_speaker_similarity <= 1:
            raise ValueError(
                f"min_speaker_similarity is a cosine, not {self.min_speaker_similarity}"
            )
        if self.num_known_takes < 1:
            raise ValueError(f"num_known_takes must be at least 1, not {self.num_known_takes}")


Part = Literal["flow", "vocoder", "speech_lm"]
"""What can be tuned, by the name of the component."""


@dataclass(frozen=True, kw_only=True)
class SpokenCheckConfig:
    """Texts that are spoken before and after tuning, and what may become worse."""

    set: str = "regression"
    """Texts: the name of a set of `configs/eval`, or a file."""
    num_lines: int = 10
    """Texts that each voice says, spread over the set; 0 checks nothing."""
    num_others: int = 1
    """Voices of the bundle that say them, too, with the adapter."""
    max_rate_change: float = 0.15
    """Change of the speaking rate, as a share, beyond what lies between that of the bundle and that
    of the takes."""
    must_gain: bool = False
    """Whether the voice must come nearer to the takes; otherwise it must not clearly go away."""

    def __post_init__(self) -> None:
        if self.num_lines < 0 or self.num_others < 0 or self.max_rate_change < 0:
            raise ValueError("num_lines, num_others and max_rate_change must not be negative")


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """A recipe of tuning: which parts learn, and how."""

    parts: dict[Part, dict[str, Any]]
    """Settings of each part that learns, in this order, in place of those of its stage."""
    patience: int = 3
    """Evaluations on held-out takes without improvement after which a part is done."""
    held_out_share: float = 0.1
    """Share of the takes that nothing learns from; of fewer than four takes none is held out."""
    max_held_out: int = 15
    """Most takes that are held out."""
    max_candidates: int = 4
    """States of a part that are kept, the best ones so far: what is fallen back to."""
    memory_share: float = 0.6
    """Share of the free memory that a step may take; batches are made smaller, and accumulated,
    until they fit."""
    check: SpokenCheckConfig = field(default_factory=SpokenCheckConfig)
    prompt_seconds: tuple[float, float] = (3.0, 8.0)
    """Shortest and longest take that is taken as the prompt, where there are such."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts must name at least one part that learns")
        if self.patience < 1 or self.max_candidates < 1 or self.max_held_out < 1:
            raise ValueError("patience, max_candidates and max_held_out must be at least 1")
        if not 0 <= self.held_out_share < 1 or not 0 < self.memory_share <= 1:
            raise ValueError("held_out_share must be in [0, 1) and memory_share in (0, 1]")
