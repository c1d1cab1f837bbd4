"""Virtual speakers: one recorded voice heard through several vocal tracts and pitches.

Resampling by a factor moves formants and pitch together and shortens the speech. The engine is
therefore asked for a pitch divided by the factor and a duration multiplied by it, so that after
resampling the formants are moved, the pitch is the target and the pace is unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.corpus.config import EngineName, PersonConfig


@dataclass(frozen=True, kw_only=True)
class VirtualSpeaker:
    """A voice with its formant factor and pitch."""

    name: str
    """Unique name, `<voice>-f<formant>-p<pitch>`."""
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
    """Every training speaker of a person: voices x formant factors x pitches."""
    if person.share == 0:
        return []
    return [
        make_speaker(person, voice, formant, pitch)
        for voice in person.voices
        for formant in person.formants
        for pitch in (person.pitches or (None,))
    ]


def heldout_speakers(person: PersonConfig) -> list[VirtualSpeaker]:
    """Every held-out speaker of a person: formant factors and pitches taken in pairs."""
    pitches = person.heldout_pitches or (None,) * len(person.heldout_formants)
    return [
        make_speaker(person, voice, formant, pitch)
        for voice in person.voices
        for formant, pitch in zip(person.heldout_formants, pitches, strict=True)
    ]
