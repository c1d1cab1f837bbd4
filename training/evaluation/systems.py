"""Systems that speak requests: a bundle (or components) that clones, and each of its steps alone.

Shapes: S samples.
"""

from __future__ import annotations

import time

import torch

from tokenlm.audio.io import load_audio, read_recording
from tokenlm.audio.joining import ENOUGH_SOUND_SECONDS, sound_seconds
from tokenlm.audio.mel import MelSpectrogram
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.synthesis.voice import Voice
from training.evaluation.parts import Parts
from training.evaluation.prompts import Prompt
from training.evaluation.suite import Request, Speech


class Originals:
    """The recordings themselves."""

    def speak(self, request: Request) -> Speech:
        """The recording of the text."""
        assert request.reference is not None
        waveform, rate = read_recording(request.reference)
        return Speech(request=request, waveform=waveform, sample_rate=rate)


class Cloning:
    """Text to speech in the voice of the prompt."""

    def __init__(self, parts: Parts, *, stream: bool = False) -> None:
        """Take the components.

        Args:
            parts: the components.
            stream: whether requests are spoken as streams, so that the time to first audio is
                known. Guards that need a whole segment take no part in a stream.
        """
        self.synthesizer = Synthesizer(parts)
        self._stream = stream
        self._voices: dict[Prompt, Voice] = {}

    @property
    def sample_rate(self) -> int:
        """Of the speech, in hertz."""
        return self.synthesizer.components.vocoder.config.mel.sample_rate

    def voice(self, prompt: Prompt) -> Voice:
        """The voice of a prompt, prepared once.

        Raises:
            ValueError: no voice can be made of the prompt.
        """
        if prompt.voice is not None:
            return self.synthesizer.voice(prompt.voice)
        if prompt not in self._voices:
            if prompt.waveform is not None:
                self._voices[prompt] = self.synthesizer.prepare_voice(
                    prompt.waveform, prompt.text, sample_rate=prompt.sample_rate, name=prompt.name
                )
            else:
                assert prompt.path is not None, "a prompt has samples or a file"
                self._voices[prompt] = self.synthesizer.prepare_voice(prompt.path, prompt.text)
        return self._voices[prompt]

    def voice_prompt(self, name: str) -> Prompt:
        """A voice of the bundle as a prompt.

        A voice has no recording, so that judges compare the speech with its mel, vocoded.
        """
        voice = self.synthesizer.voice(name)
        components = self.synthesizer.components
        with torch.inference_mode():
            waveform = components.vocoder(voice.prompt_mel[None].to(components.device))[0].cpu()
        return Prompt(
            name=voice.name,
            text=voice.prompt_text,
            waveform=waveform,
            sample_rate=self.sample_rate,
            voice=name,
        )

    def speak(self, request: Request) -> Speech:
        """Speak the text in the voice of the prompt, which is prepared before the clock starts."""
        voice = self.voice(request.prompt)
        first_audio = None
        start, processor_start = time.perf_counter(), time.process_time()
        if self._stream:
            chunks, sound = [torch.zeros(0)], 0.0
            for chunk in self.synthesizer.stream(request.text, voice=voice, seed=request.seed):
                chunks.append(chunk)
                sound += sound_seconds(chunk, self.sample_rate)
                if first_audio is None and sound >= ENOUGH_SOUND_SECONDS:
                    first_audio = time.perf_counter() - start
            waveform = torch.cat(chunks)
        else:
            waveform = self.synthesizer.generate(request.text, voice=voice, seed=request.seed)
        work, processor = time.perf_counter() - start, time.process_time() - processor_start
        return Speech(
            request=request,
            waveform=waveform,
            sample_rate=self.sample_rate,
            work_seconds=work,
            processor_seconds=processor if self._on_cores else None,
            first_audio_seconds=first_audio,
        )

    @property
    def _on_cores(self) -> bool:
        return self.synthesizer.components.device.type == "cpu"


class Resynthesis:
    """The speech tokens of the recording, in the voice of the prompt: the chain without the LM."""

    def __init__(self, cloning: Cloning) -> None:
        """Share the voices of another system."""
        self._cloning = cloning

    def speak(self, request: Request) -> Speech:
        """Convert the recording."""
        assert request.reference is not None
        waveform = self._cloning.synthesizer.convert(
            request.reference, voice=self._cloning.voice(request.prompt), seed=request.seed
        )
        rate = self._cloning.sample_rate
        return Speech(request=request, waveform=waveform, sample_rate=rate)


class CopySynthesis:
    """The mel of the recording, vocoded."""

    def __init__(self, parts: Parts) -> None:
        """Take the components, of which the vocoder is used."""
        self._parts = parts

    @torch.inference_mode()
    def speak(self, request: Request) -> Speech:
        """Vocode the mel of the recording."""
        assert request.reference is not None
        vocoder = self._parts.vocoder
        rate = vocoder.config.mel.sample_rate
        waveform = load_audio(request.reference, rate)
        mel = MelSpectrogram(vocoder.config.mel)(waveform[None])
        copied = vocoder(mel.to(self._parts.device))[0].cpu()
        return Speech(request=request, waveform=copied, sample_rate=rate)
