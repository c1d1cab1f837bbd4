"""Virtual speakers: one recorded voice heard through several vocal tracts and pitches.

Resampling by a factor moves formants and pitch together and shortens the speech. The engine is
therefore asked for a pitch divided by the factor and a duration multiplied by it, so that after
resampling the formants are moved, the pitch is the target and the pace is unchanged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from training.recipes.corpus.config import EngineName, PersonConfig

HELDOUT_DISTANCE = 0.02
"""A drawn formant factor is at least this far from every held-out one, as a ratio."""
MAX_TRIES = 200
"""Draws for each speaker wanted before the room is taken to be full."""
NUM_TIMBRE_BANDS = 6
TIMBRE_DB = 6.0
"""Largest boost or cut of a band of a timbre."""
DULLNESS_DB = 24.0
"""Largest further cut of the highest band: voices differ most in how dull they are."""


@dataclass(frozen=True, kw_only=True)
class VirtualSpeaker:
    """A voice with its formant factor, pitch and timbre."""

    name: str
    """Unique name, `<voice>-f<formant>-p<pitch>-t<timbre>`; what is not set is left out."""
    person: str
    """Recorded person behind the voice."""
    engine: EngineName
    """Engine that speaks."""
    voice: str
    """Voice name of the engine."""
    formant: float
    """Factor by which formants are moved up."""
    pitch: float | None
    """Mean pitch in Hz as heard, None where it is not known."""
    engine_pitch: float | None
    """Pitch target in Hz for the engine, None to leave the voice's own."""
    engine_stretch: float
    """Duration stretch for the engine that gives an ordinary pace."""
    timbre: tuple[float, ...] = ()
    """Gains in dB of the bands of its filter (`training.data.augment.equalize`), or none."""


def make_speaker(
    person: PersonConfig, voice: str, formant: float, pitch: float | None
) -> VirtualSpeaker:
    """Make one virtual speaker.

    Args:
        person: whom the voice belongs to.
        voice: voice name of the engine.
        formant: formant factor.
        pitch: pitch in Hz as heard, or None to let it move with the formants.
    """
    own = None if person.own_pitch is None else round(person.own_pitch * formant, 1)
    name = f"{voice}-f{round(formant * 1000):04d}"
    if pitch is not None:
        name += f"-p{round(pitch):03d}"
    return VirtualSpeaker(
        name=name,
        person=person.name,
        engine=person.engine,
        voice=voice,
        formant=formant,
        pitch=pitch if pitch is not None else own,
        engine_pitch=None if pitch is None else pitch / formant,
        engine_stretch=person.stretch * formant,
    )


def training_speakers(person: PersonConfig) -> list[VirtualSpeaker]:
    """Every training speaker of a person: a function of the person's configuration alone.

    Voices x formant factors x pitches, then the drawn ones, then all of these through each timbre.
    """
    if person.share == 0:
        return []
    if person.speakers:
        return [_listed(person, speaker) for speaker in person.speakers]
    speakers = []
    for voice in person.voices:
        pairs = [(f, p) for f in person.formants for p in (person.pitches or (None,))]
        speakers += [make_speaker(person, voice, *pair) for pair in pairs + _draw(person, voice)]
    return speakers + [
        _with_timbre(speaker, number)
        for number in range(1, person.timbres + 1)
        for speaker in speakers
    ]


def _listed(person: PersonConfig, speaker: str) -> VirtualSpeaker:
    voice, _, factor = speaker.partition("@")
    try:
        formant = float(factor)
    except ValueError:
        raise ValueError(
            f"person {person.name}: a speaker is a voice and a formant factor, such as "
            f"af_heart@1.03, got {speaker!r}"
        ) from None
    return make_speaker(person, voice, formant, None)


def _draw(person: PersonConfig, voice: str) -> list[tuple[float, float | None]]:
    """Formant factors and pitches of the drawn speakers of a voice.

    Raises:
        ValueError: There is no room for that many.
    """
    rng = random.Random(f"{person.engine}:{voice}")
    taken = {(f, p) for f in person.formants for p in (person.pitches or (None,))}
    pairs: list[tuple[float, float | None]] = []
    tries = 0
    while len(pairs) < person.drawn:
        tries += 1
        if tries > MAX_TRIES * person.drawn:
            raise ValueError(
                f"person {person.name}: there is no room for {person.drawn} drawn speakers beside "
                f"the grid and the held-out ones; lower `drawn`"
            )
        factor = round(rng.uniform(min(person.formants), max(person.formants)), 3)
        pitch = None
        if person.pitches:
            pitch = float(round(rng.uniform(min(person.pitches), max(person.pitches))))
        near = any(abs(factor / other - 1) < HELDOUT_DISTANCE for other in person.heldout_formants)
        if not near and (factor, pitch) not in taken:
            taken.add((factor, pitch))
            pairs.append((factor, pitch))
    return pairs


def _with_timbre(speaker: VirtualSpeaker, number: int) -> VirtualSpeaker:
    rng = random.Random(f"{speaker.name}:{number}")
    gains = [round(rng.uniform(-TIMBRE_DB, TIMBRE_DB), 1) for _ in range(NUM_TIMBRE_BANDS)]
    gains[-1] = round(gains[-1] - rng.uniform(0.0, DULLNESS_DB), 1)
    return replace(speaker, name=f"{speaker.name}-t{number}", timbre=tuple(gains))


def heldout_speakers(person: PersonConfig) -> list[VirtualSpeaker]:
    """Every held-out speaker of a person: formant factors and pitches taken in pairs."""
    pitches = person.heldout_pitches or (None,) * len(person.heldout_formants)
    return [
        make_speaker(person, voice, formant, pitch)
        for voice in person.voices
        for formant, pitch in zip(person.heldout_formants, pitches, strict=True)
    ]
