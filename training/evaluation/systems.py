"""Our own system on a script: a bundle, or components, in voices that are dealt to the lines.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tokenlm.audio.io import load_audio
from tokenlm.audio.joining import ENOUGH_SOUND_SECONDS, sound_seconds
from tokenlm.audio.resample import resample
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.synthesis.voice import Voice
from training.data.manifest import Utterance, by_speaker, read_manifest
from training.evaluation.judges import SAMPLE_RATE, VoiceJudge
from training.evaluation.parts import Parts
from training.evaluation.prompts import JOIN_SECONDS, join
from training.evaluation.script import LONG_PROMPT, Line, ScriptError
from training.evaluation.script_run import PromptFacts, Spoken, Stopwatch, System

LONG_SECONDS = 9.0
"""Recordings of a speaker are joined to about this length for lines of the long-prompt kind."""


class CloningSystem(System):
    """Speaks each line in the voice that it names, that of its prompt, or the next one in turn."""

    def __init__(
        self,
        parts: Parts,
        embed: VoiceJudge,
        *,
        heldout: Path | None = None,
        num_voices: int = 6,
        prompt_seconds: float = 4.0,
        stream: bool = False,
    ) -> None:
        """Choose the voices.

        Args:
            parts: the components.
            embed: the judge of speakers.
            heldout: manifest whose speakers give the prompts; None takes the bundle's voices.
            num_voices: speakers of the manifest, the first by name.
            prompt_seconds: length that prompts come close to.
            stream: whether the lines are spoken as streams, so that the time to first audio is
                known. Guards that need a whole segment take no part in a stream.

        Raises:
            ManifestError: the manifest cannot be read.
        """
        self.synthesizer = Synthesizer(parts)
        self.sample_rate = parts.vocoder.config.mel.sample_rate
        self._embed = embed
        self._stream = stream
        self._made: dict[str, tuple[Voice, PromptFacts]] = {}
        self._speakers: list[tuple[str, list[Utterance], list[Utterance]]] = []
        if heldout is not None:
            rows = read_manifest(heldout, strict=True).utterances
            for name, indices in list(by_speaker(rows).items())[:num_voices]:
                own = sorted((rows[index] for index in indices), key=lambda row: row.id)
                short = min(own, key=lambda row: abs(row.duration - prompt_seconds))
                self._speakers.append((name, [short], longest(own, LONG_SECONDS)))

    @property
    def speakers(self) -> list[str]:
        """Names of the speakers whose recordings give the prompts; none where the bundle does."""
        return [name for name, *_ in self._speakers]

    def speak(self, number: int, line: Line, seed: int) -> Spoken:
        """See `System`."""
        voice, _ = self._find(number, line)
        if self._stream:
            return self._speak_stream(line, voice, seed)
        watch = Stopwatch()
        waveform = self.synthesizer.generate(line.text, voice=voice, seed=seed)
        return self._spoken(waveform, watch)

    def _speak_stream(self, line: Line, voice: Voice, seed: int) -> Spoken:
        first, sound = None, 0.0
        chunks = [torch.zeros(0)]
        watch = Stopwatch()
        start = time.perf_counter()
        for chunk in self.synthesizer.stream(line.text, voice=voice, seed=seed):
            chunks.append(chunk)
            sound += sound_seconds(chunk, self.sample_rate)
            if first is None and sound >= ENOUGH_SOUND_SECONDS:
                first = time.perf_counter() - start
        return self._spoken(torch.cat(chunks), watch, first)

    def _spoken(
        self, waveform: torch.Tensor, watch: Stopwatch, first_audio_seconds: float | None = None
    ) -> Spoken:
        on_cores = self.synthesizer.components.device.type == "cpu"
        return Spoken(
            waveform=waveform,
            work_seconds=watch(),
            processor_seconds=watch.processor() if on_cores else None,
            first_audio_seconds=first_audio_seconds,
        )

    def prompt(self, number: int, line: Line) -> PromptFacts:
        """See `System`."""
        return self._find(number, line)[1]

    def _find(self, number: int, line: Line) -> tuple[Voice, PromptFacts]:
        """The voice of a line, made once."""
        if line.prompt_audio is not None:
            key = str(line.prompt_audio)
            if key not in self._made:
                voice = self.synthesizer.prepare_voice(line.prompt_audio, line.prompt_text)
                heard = load_audio(line.prompt_audio, SAMPLE_RATE)
                self._made[key] = self._facts(voice, heard, line.prompt_text)
            return self._made[key]
        if line.voice is not None or (not self._speakers and line.speaker is None):
            names = self.synthesizer.voices
            if line.voice is None and not names:
                raise ScriptError(
                    f"the line {line.id!r} needs a voice: give a bundle that has some, or a "
                    "manifest of recordings with --heldout."
                )
            return self._bundled(line.voice or names[number % len(names)])
        name, short, long = self._speakers[self._turn(number, line)]
        chosen = long if line.category == LONG_PROMPT else short
        key = f"{name} {'+'.join(row.id for row in chosen)}"
        if key not in self._made:
            self._made[key] = self._joined(name, chosen)
        return self._made[key]

    def _turn(self, number: int, line: Line) -> int:
        """Place of the speaker whose voice a line is spoken in."""
        if line.speaker is None:
            return number % len(self._speakers)
        if line.speaker not in self.speakers:
            there = (
                f"--heldout gives {', '.join(self.speakers)}"
                if self.speakers
                else ("no recordings are given: --heldout")
            )
            raise ScriptError(
                f"the line {line.id!r} asks for the voice of {line.speaker!r}, but {there}."
            )
        return self.speakers.index(line.speaker)

    def _bundled(self, name: str) -> tuple[Voice, PromptFacts]:
        if name not in self._made:
            voice = self.synthesizer.voice(name)
            # A voice keeps no recording: what can be heard of it is its mel.
            vocoder = self.synthesizer.components.vocoder
            with torch.inference_mode():
                heard = vocoder(voice.prompt_mel[None].to(self.synthesizer.components.device))[0]
            heard = resample(heard.cpu(), self.sample_rate, SAMPLE_RATE)
            self._made[name] = self._facts(voice, heard, voice.prompt_text)
        return self._made[name]

    def _joined(self, name: str, rows: Sequence[Utterance]) -> tuple[Voice, PromptFacts]:
        pieces = [load_audio(row.audio, self.sample_rate) for row in rows]
        waveform = join(pieces, self.sample_rate)
        text = " ".join(row.text for row in rows)
        voice = self.synthesizer.prepare_voice(
            waveform, text, sample_rate=self.sample_rate, name=name
        )
        return self._facts(voice, resample(waveform, self.sample_rate, SAMPLE_RATE), text)

    def _facts(self, voice: Voice, heard: torch.Tensor, text: str) -> tuple[Voice, PromptFacts]:
        facts = PromptFacts(name=voice.name, text=text, embedding=self._embed(heard.numpy()))
        return replace(voice), facts


def longest(rows: Sequence[Utterance], seconds: float) -> list[Utterance]:
    """Recordings, the longest first, that together come close to `seconds` and not above."""
    chosen: list[Utterance] = []
    total = -JOIN_SECONDS
    for row in sorted(rows, key=lambda row: (-row.duration, row.id)):
        if total + JOIN_SECONDS + row.duration <= seconds:
            chosen.append(row)
            total += JOIN_SECONDS + row.duration
    return chosen or [min(rows, key=lambda row: row.duration)]
