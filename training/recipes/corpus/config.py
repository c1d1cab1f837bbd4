"""Configuration of the synthetic corpus: who speaks, how much, and into which split."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

EngineName = Literal["flite", "festival", "espeak-ng", "kokoro"]


@dataclass(frozen=True, kw_only=True)
class PersonConfig:
    """One recorded person (or one formant synthesizer) and the virtual speakers made of it."""

    name: str
    """Name of the person; voices of one person in two engines share it."""
    engine: EngineName
    """Engine that speaks."""
    voices: tuple[str, ...] = ()
    """Voice names of the engine; each gives its own virtual speakers."""
    speakers: tuple[str, ...] = ()
    """Training speakers one by one, in place of those of `voices` and `formants`: voice names of
    the engine, each with a formant factor behind an @ (`af_heart@1.03`)."""
    share: float = 0.0
    """Share of the training utterances, relative to the other people of the same manifest; 0 keeps
    it out."""
    foreign: bool = False
    """The voice reads by the spelling rules of another language: its words are not the text's.
    What it says goes to the manifest `train_foreign`, for stages that learn voices, not words."""
    stretch: float = 1.0
    """Duration stretch at which this person speaks at an ordinary pace."""
    rates: tuple[float, ...] = ()
    """Speaking rates, relative to the ordinary pace, one of which an utterance has; empty draws
    them around 1 (`rate_spread`)."""
    own_pitch: float | None = None
    """Mean pitch in Hz of the voice as the engine gives it, where it is known."""
    formants: tuple[float, ...] = (1.0,)
    """Formant factors of the training speakers."""
    pitches: tuple[float, ...] = ()
    """Pitch targets in Hz of the training speakers; empty for a voice whose pitch the engine
    does not let us set: it then moves with the formants."""
    drawn: int = 0
    """Further training speakers of each voice, whose formant factor and pitch are drawn between
    the extremes of `formants` and `pitches`, away from the held-out factors."""
    timbres: int = 0
    """Smooth filters through which each training speaker is heard, too: further speakers, who
    differ by the long-term spectrum alone."""
    heldout_formants: tuple[float, ...] = ()
    """Formant factors of the speakers that only read held-out sentences."""
    heldout_pitches: tuple[float, ...] = ()
    """Pitch targets of the held-out speakers, one per held-out formant factor, or empty."""
    heldout_manifest: str = "heldout"
    """Manifest that the held-out speakers go to."""

    def __post_init__(self) -> None:
        if not self.voices and not self.speakers:
            raise ValueError(f"person {self.name}: voices is empty, and no speakers are listed")
        for rate in self.rates:
            if not 0.5 <= rate <= 2:
                raise ValueError(f"person {self.name}: a rate lies in 0.5..2, got {rate}")
        if self.share < 0:
            raise ValueError(f"person {self.name}: share must be 0 or more, got {self.share}")
        if self.drawn < 0 or self.timbres < 0:
            raise ValueError(f"person {self.name}: drawn and timbres must be 0 or more")
        for factor in (*self.formants, *self.heldout_formants):
            if not 0.7 <= factor <= 1.4:
                raise ValueError(
                    f"person {self.name}: a formant factor lies in 0.7..1.4, got {factor}"
                )
        for pitch in (*self.pitches, *self.heldout_pitches):
            if not 50 <= pitch <= 500:
                raise ValueError(f"person {self.name}: a pitch lies in 50..500 Hz, got {pitch}")
        if self.heldout_pitches and len(self.heldout_pitches) != len(self.heldout_formants):
            raise ValueError(
                f"person {self.name}: heldout_pitches needs one pitch per heldout_formants"
            )
        if self.share and set(self.formants) & set(self.heldout_formants):
            raise ValueError(f"person {self.name}: a held-out formant factor is trained on too")
        if self.foreign and self.heldout_formants:
            raise ValueError(f"person {self.name}: held-out sentences need a voice of English")
        if self.engine in ("espeak-ng", "kokoro") and (self.pitches or self.heldout_pitches):
            raise ValueError(f"person {self.name}: {self.engine} takes no pitch in Hz")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """A corpus spoken by engines: the classic ones, or a natural teacher."""

    seed: int = 0
    """Seed of texts, speakers and rates; the same seed gives the same corpus."""
    num_train: int = 22000
    """Utterances of the training split."""
    num_foreign: int = 0
    """Utterances of the manifest `train_foreign`, read by the foreign people."""
    num_hard: int = 0
    """Utterances of the manifest `train_hard`, read by the people of the training split: texts that
    speech LMs fail at (`training.rl.texts.hard_texts` and `counted_texts`), and names."""
    test_sets: tuple[Path, ...] = ()
    """Test sets beside those of `configs/eval`, whose texts never enter any split, as theirs do not
    (`training.data.exclusion`); a relative path that does not exist is taken from the folder that
    holds `configs/`."""
    num_validation: int = 400
    """Utterances of the validation split: trained speakers, texts that training never sees."""
    num_heldout_per_speaker: int = 64
    """Held-out sentences that each held-out speaker reads."""
    heldout_sentences: Path = Path("configs/eval/heldout_sentences.txt")
    """Hand-written sentences, one per line, that never enter training; a relative path is
    taken from the folder that holds `configs/`."""
    texts: dict[str, float] = field(default_factory=lambda: {"grammar": 1.0})
    """Kinds of texts of the training and validation splits (`corpus.plan.TEXT_KINDS`) and how often
    each is drawn, beside the others."""
    teacher: Path | None = None
    """Folder of the engine kokoro (`scripts/fetch_teacher`)."""
    word_lists: tuple[Path, ...] = (Path("/usr/share/dict/words"),)
    """Word lists that rare words are drawn from; those that do not exist are passed over."""
    documents: Path | None = Path("/usr/share/doc")
    """Folder of plain English documents whose words are read too, or null."""
    rate_spread: float = 0.1
    """Speaking rate of an utterance varies by up to this much either way."""
    sample_rate: int = 16000
    """Sample rate in Hz of the stored audio."""
    audio_format: Literal["wav", "flac"] = "wav"
    """How audio is stored: 16 bits, as they are or compressed without loss."""
    block_samples: int = 640
    """Stored audio is a whole number of these (one speech token)."""
    level_dbfs: float = -22.0
    """Root-mean-square level of the stored audio."""
    highpass_hz: float = 50.0
    """Corner of the high-pass; several voices carry a DC offset."""
    pad_seconds: float = 0.08
    """Silence kept before and after the speech."""
    shard_size: int = 64
    """Utterances made and recorded together; what a restart may have to redo."""
    refresh_every: int = 1000
    """Training utterances after which the unfinished manifest is written anew."""
    people: tuple[PersonConfig, ...] = ()
    """Who speaks."""

    def __post_init__(self) -> None:
        counts = ("num_train", "num_foreign", "num_hard", "num_validation")
        for name in (*counts, "num_heldout_per_speaker"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("sample_rate", "block_samples", "shard_size", "refresh_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 <= self.rate_spread < 0.5:
            raise ValueError(f"rate_spread lies in 0..0.5, got {self.rate_spread}")
        if not any(person.share > 0 and not person.foreign for person in self.people):
            raise ValueError("people: at least one person needs a share above 0")
        if self.teacher is None and any(person.engine == "kokoro" for person in self.people):
            raise ValueError("teacher: the engine kokoro needs its folder (scripts/fetch_teacher)")
        if self.num_foreign and not any(
            person.share > 0 and person.foreign for person in self.people
        ):
            raise ValueError("num_foreign needs a foreign person with a share above 0")
