"""Who says which line of a script: one of a corpus's voices in which the judge understands it.

The frozen list (`training.evaluation.frozen`) tells which lines the judge understands in the
clearest voices of the engines. In another voice it may miss the same words, whoever says them, and
a model that clones that voice is then blamed for the judge. So the engine reads every line in the
held-out voices of a corpus, too, and the line is dealt to the first, from its turn on, that the
judge understands; a line that it understands in none is left out. No model has a part in it:
`tokenlm evaluate --set hard --freeze --voices configs/data/corpus.yaml`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from training.evaluation.error_rate import word_errors
from training.evaluation.frozen import Frozen, Reading, Submit, Track, as_heard, readable
from training.evaluation.script import Line, Script, ScriptError
from training.recipes.corpus.config import CorpusConfig
from training.recipes.corpus.engines import EngineError, Request, Speech, check_voice, speak
from training.recipes.corpus.finish import finish
from training.recipes.corpus.speakers import VirtualSpeaker, heldout_speakers


def voices_of(config: CorpusConfig, manifest: str = "heldout") -> list[VirtualSpeaker]:
    """The held-out speakers of a manifest of a corpus, by name, as an evaluation takes them.

    Raises:
        ValueError: there are none.
    """
    found = [
        speaker
        for person in config.people
        if person.heldout_manifest == manifest
        for speaker in heldout_speakers(person)
    ]
    if not found:
        raise ValueError(f"the corpus has no held-out speakers in the manifest {manifest!r}.")
    return sorted(found, key=lambda speaker: speaker.name)


def deal_voices(
    script: Script,
    frozen: Frozen,
    speakers: Sequence[VirtualSpeaker],
    config: CorpusConfig,
    submit: Submit,
    judge: str,
    track: Track = iter,
) -> Frozen:
    """Let the engine read each line that counts, until the judge understands it in a voice.

    Args:
        script: whose lines are dealt.
        frozen: its list; the lines that this leaves out are not dealt.
        speakers: the voices; line n begins with speaker n, counted round.
        config: of the corpus that the voices are from.
        submit: the judge of words.
        judge: its name and version.
        track: shows how far it is.

    Raises:
        EngineError: an engine is not installed, or cannot say a line.
    """
    for speaker in speakers:
        check_voice(speaker.engine, speaker.voice)
    kept = [(n, line) for n, line in enumerate(script.lines) if line.id not in frozen.excluded]
    readings: dict[str, Reading] = {}
    for turn in range(len(speakers)):
        left = [
            (number, line)
            for number, line in kept
            if line.id not in readings or readings[line.id].is_excluded
        ]
        waiting = []
        for number, line in track(left):
            speaker = speakers[(number + turn) % len(speakers)]
            samples, seconds = _read_aloud(line, speaker, config)
            waiting.append((line, speaker.name, seconds, submit(samples)))
        for line, name, seconds, future in waiting:
            heard = future.result()
            count = word_errors(line.spoken, heard)
            best = readings.get(line.id)
            if best is None or count.errors < best.errors:
                readings[line.id] = Reading(
                    voice=name,
                    heard=heard,
                    errors=count.errors,
                    words=count.length,
                    seconds=round(seconds, 3),
                )
    ordered = {line.id: readings[line.id] for _, line in kept}
    return Frozen(
        digest=script.digest,
        judge=judge,
        readings=ordered,
        voices=tuple(speaker.name for speaker in speakers),
    )


def in_voices(
    script: Script, frozen: Frozen | None, dealt: Frozen | None, speakers: Collection[str]
) -> tuple[Script, Frozen | None]:
    """A script whose lines name their speakers, and the list that fits it.

    Args:
        script: the script.
        frozen: its list.
        dealt: the list of its lines dealt to voices.
        speakers: voices that the evaluation has.

    Returns:
        Both as they were where the lines are dealt to voices that the evaluation does not have, or
        to none.

    Raises:
        ScriptError: the lines are dealt, but lack the list of the lines that count.
    """
    if dealt is None or not set(dealt.voices) <= set(speakers):
        return script, frozen
    if frozen is None:
        raise ScriptError(f"{script.path} is dealt to voices, but not frozen: the list is missing.")
    lines = [
        line
        if line.id not in dealt.readings or _has_voice(line)
        else replace(line, speaker=dealt.readings[line.id].voice)
        for line in script.lines
    ]
    own = {line.id for line in script.lines if _has_voice(line)}
    readings = {
        name: reading if name in own else dealt.readings.get(name, reading)
        for name, reading in frozen.readings.items()
    }
    return replace(script, lines=lines), replace(frozen, readings=readings)


def _has_voice(line: Line) -> bool:
    return not (line.voice is None and line.prompt_audio is None and line.speaker is None)


def _read_aloud(
    line: Line, speaker: VirtualSpeaker, config: CorpusConfig
) -> tuple[np.ndarray, float]:
    """Samples (S,) at the rate of the judge, as the corpus would store them, and seconds."""
    request = Request(
        text=readable(line),
        voice=speaker.voice,
        pitch=speaker.engine_pitch,
        stretch=speaker.engine_stretch,
    )
    spoken = speak(speaker.engine, [request])[0]
    if isinstance(spoken, EngineError):
        raise spoken
    waveform, _ = finish(spoken, speaker.formant, config, speaker.timbre)
    samples = as_heard(Speech(waveform=waveform, sample_rate=config.sample_rate))
    return samples, len(waveform) / config.sample_rate
