"""What enhancement does to speech under known noise and rooms: quality, words, voice.

Each sentence is damaged under every condition and judged as it is and enhanced, so that the two are
compared sentence by sentence. Clean sentences are among them: they are to be left as they are.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.resample import resample
from tokenlm.synthesis.enhancing import Enhancer
from training.data.augment import add_noise, babble, impulse_response, make_noise, reverberate
from training.data.manifest import Utterance
from training.evaluation.error_rate import CleanFor, word_errors
from training.evaluation.judges import OVRL, P808, SAMPLE_RATE, Embed, Rate, Transcribe
from training.evaluation.statistics import Comparison, compare_means, compare_ratios
from training.evaluation.suite import similarity
from training.loop.randomness import make_generator
from training.losses.enhancement import si_sdr

Row = dict[str, Any]
CLEAN = "clean"
NOISY = "noisy"
"""The system of a row that is not enhanced."""
GROUPS = ("noise", "room", CLEAN)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is done to a clean sentence."""

    name: str
    noise: str = ""
    """Kind of noise, `babble` and `talker` among them; empty adds none."""
    snr_db: float = 0.0
    echo_seconds: float = 0.0
    """Reverberation time; 0 is no room."""

    @property
    def group(self) -> str:
        """One of `GROUPS`."""
        return "room" if self.echo_seconds else "noise" if self.noise else CLEAN

    @property
    def needs_voice(self) -> bool:
        """Whether the noise is made of another voice."""
        return self.noise in ("babble", "talker")


DAMAGES: tuple[Damage, ...] = (
    Damage(name=CLEAN),
    *(
        Damage(name=f"{noise}_{snr}", noise=noise, snr_db=snr)
        for noise in ("pink", "street", "babble")
        for snr in (0, 5, 10, 15)
    ),
    Damage(name="passing_5", noise="passing", snr_db=5),
    Damage(name="talker_10", noise="talker", snr_db=10),
    Damage(name="room_400", echo_seconds=0.4),
    Damage(name="room_800", echo_seconds=0.8),
    Damage(name="room_500_street_10", noise="street", snr_db=10, echo_seconds=0.5),
)
"""The conditions of the floors: 0 to 15 dB of noise, another voice, rooms, and no damage."""


def damage(
    waveform: Tensor, sample_rate: int, what: Damage, other: Tensor, generator: torch.Generator
) -> Tensor:
    """Damage a clean sentence.

    Args:
        waveform: (S,) clean speech.
        sample_rate: in hertz.
        what: the condition.
        other: (S',) another voice, for `talker`; `babble` lays it over itself several times. Not
            used unless `what.needs_voice`.
        generator: draws of noise and room.
    """
    if what.echo_seconds:
        response = impulse_response(sample_rate, what.echo_seconds, generator)
        waveform = reverberate(waveform, response, 3.0)
    if not what.noise:
        return waveform
    if what.needs_voice:
        count = 1 if what.noise == "talker" else 4
        noise = babble([other] * count, len(waveform), generator)
    else:
        noise = make_noise(what.noise, len(waveform), sample_rate, generator)
    return add_noise(waveform, noise, what.snr_db)


def other_voice(
    sentences: Sequence[tuple[Utterance, Tensor]], number: int
) -> tuple[Utterance, Tensor]:
    """The nearest sentence before a sentence, round the end, that another speaker says.

    Raises:
        ValueError: all are of one speaker.
    """
    speaker = sentences[number][0].speaker
    for back in range(1, len(sentences)):
        other = sentences[number - back]
        if other[0].speaker != speaker:
            return other
    raise ValueError(
        f"all sentences are of the speaker {speaker!r}: the conditions babble and talker need "
        "another voice; name conditions without (--damage), or give sentences of more speakers."
    )


@dataclass(frozen=True, kw_only=True)
class EnhancementJudges:
    """What judges a sentence; None is not judged."""

    rate: Rate | None = None
    """Mean opinion scores."""
    transcribe: Transcribe | None = None
    cleaner: CleanFor | None = None
    """Of texts and transcripts."""
    embed: Embed | None = None
    """The voice."""


def measure_enhancement(
    sentences: Iterable[tuple[Utterance, Tensor]],
    sample_rate: int,
    enhancer: Enhancer,
    judges: EnhancementJudges,
    *,
    methods: Sequence[str],
    damages: Sequence[Damage] = DAMAGES,
    seed: int = 0,
    keep: Callable[[str, Tensor], None] | None = None,
) -> list[Row]:
    """Damage, enhance and judge sentences.

    Args:
        sentences: clean ones (S,), at least two; the nearest one before that is of another speaker
            lends its voice to the noise.
        sample_rate: of theirs, in hertz.
        enhancer: what is measured.
        judges: who judges.
        methods: of the enhancer.
        damages: the conditions.
        seed: of noise and rooms.
        keep: called with a name and each sound (S,), to write it.

    Returns:
        One row for each sentence, condition, and system (`NOISY` or a method).

    Raises:
        ValueError: there are fewer than two sentences, or a condition needs another voice and all
            are of one speaker.
    """
    items = list(sentences)
    if len(items) < 2:
        raise ValueError("enhancement is measured on two sentences or more: one lends its voice.")
    rows: list[Row] = []
    for number, (utterance, clean) in enumerate(items):
        own = judges.embed(_heard(clean, sample_rate)) if judges.embed is not None else None
        for what in damages:
            draws = make_generator("damage", seed, number, what.name)
            other = other_voice(items, number)[1] if what.needs_voice else clean
            noisy = damage(clean, sample_rate, what, other, draws)
            for system in (NOISY, *methods):
                sound, used = noisy, ""
                if system != NOISY:
                    found = enhancer.enhance(noisy, sample_rate=sample_rate, method=system)
                    sound, used = found.waveform, found.method or ""
                if keep is not None:
                    keep(f"{utterance.id.replace('/', '_')}.{what.name}.{system}", sound)
                rows.append(
                    {
                        "id": utterance.id,
                        "speaker": utterance.speaker,
                        "condition": what.name,
                        "group": what.group,
                        "system": system,
                        "enhanced": bool(used),
                        "si_sdr": float(si_sdr(sound[None], clean[None])[0]),
                        **_judge(sound, sample_rate, utterance.text, own, judges),
                    }
                )
    return rows


def _heard(waveform: Tensor, sample_rate: int) -> np.ndarray:
    return resample(waveform, sample_rate, SAMPLE_RATE).clamp(-1.0, 1.0).numpy()


def _judge(
    sound: Tensor,
    sample_rate: int,
    text: str,
    own: np.ndarray | None,
    judges: EnhancementJudges,
) -> Row:
    samples = _heard(sound, sample_rate)
    row: Row = {}
    if judges.rate is not None:
        row |= judges.rate(samples)
    if judges.transcribe is not None and judges.cleaner is not None:
        transcript = judges.transcribe((samples * 32767.0).astype("<i2").tobytes())
        count = word_errors(text, transcript, judges.cleaner(text))
        row |= {"errors": count.errors, "words": count.length}
    if own is not None and judges.embed is not None:
        row["similarity"] = similarity(judges.embed(samples), own)
    return row


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A comparison of enhanced with noisy sentences, and whether it is as it has to be."""

    group: str
    comparison: Comparison
    """First the noisy ones, second the enhanced."""
    wanted: str
    """In words; empty where nothing is demanded."""
    is_met: bool

    def __str__(self) -> str:
        found = self.comparison
        text = (
            f"{self.group:6} {found.name:16} {found.first:7.3f} -> {found.second:7.3f}  "
            f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}] of {found.num_items}"
        )
        met = "met" if self.is_met else "NOT MET"
        return f"{text}  {self.wanted}: {met}" if self.wanted else text


_WANTED: Mapping[tuple[str, str], tuple[str, Callable[[float], bool]]] = {
    **{(group, OVRL): ("at least +0.5", lambda rise: rise >= 0.5) for group in ("noise", "room")},
    **{
        (group, "word_error_rate"): ("not more", lambda rise: rise <= 0)
        for group in ("noise", "room")
    },
    **{(group, "similarity"): ("not lower", lambda rise: rise >= 0) for group in ("noise", "room")},
    (CLEAN, P808): ("within 0.05", lambda rise: abs(rise) <= 0.05),
}


def compare_enhanced(rows: Sequence[Row], method: str, *, seed: int = 0) -> list[Floor]:
    """Compare the sentences that a method enhanced with the noisy ones, group by group.

    Args:
        rows: of `measure_enhancement`.
        method: one of its systems.
        seed: of intervals.
    """
    floors = []
    for group in GROUPS:
        pairs = {
            system: [row for row in rows if row["group"] == group and row["system"] == system]
            for system in (NOISY, method)
        }
        if not pairs[NOISY]:
            continue
        speakers = [row["speaker"] for row in pairs[NOISY]]

        def values(
            name: str, pairs: Mapping[str, list[Row]] = pairs
        ) -> tuple[np.ndarray, np.ndarray]:
            first, second = (
                np.array([float(row[name]) for row in pairs[system]]) for system in (NOISY, method)
            )
            return first, second

        found = [
            compare_means(name, *values(name), speakers, seed=seed)
            for name in (OVRL, P808, "similarity", "si_sdr")
            if name in pairs[NOISY][0]
        ]
        if "errors" in pairs[NOISY][0]:
            words = values("words")[0]
            first, second = values("errors")
            name = "word_error_rate"
            found.append(compare_ratios(name, first, second, words, speakers, seed=seed))
        for one in found:
            wanted, is_met = _WANTED.get((group, one.name), ("", lambda rise: True))
            floors.append(
                Floor(
                    group=group,
                    comparison=one,
                    wanted=wanted,
                    is_met=is_met(one.difference),
                )
            )
    return floors
