"""Compares solver steps and guidance of a bundle's flow on validation recordings.

    python -m training.rendering_search --bundle FOLDER --manifest corpus/validation.jsonl

Every recording is rendered from its own tokens in the voice of another recording of its speaker,
and judged by the bundle itself: what its recogniser reads in the result, how near its speaker
encoder finds the result to the recording. Settings chosen like this owe nothing to the judges or
to the held-out sentences. The line "recorded" is the recordings themselves: the best to hope for.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import torch
from torch import Tensor

from tokenlm.audio.io import load_audio
from tokenlm.audio.resample import resample
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.synthesis.voice import Voice
from tokenlm.text.alphabet import known_characters
from tokenlm.text.frontend import frontend
from training.data.manifest import Utterance, read_manifest
from training.sampling_search import pick_pairs


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well recordings were rendered under one setting."""

    char_error_rate: float
    """Of the bundle's recogniser, over all recordings."""
    similarity: float
    """Mean cosine to the recording, by the bundle's speaker encoder."""
    prompt_similarity: float
    """The same to the prompt."""


class Renderer:
    """The recordings, and a voice of each prompt."""

    def __init__(
        self, synthesizer: Synthesizer, pairs: Sequence[tuple[Utterance, Utterance]]
    ) -> None:
        """Prepare the voices of (prompt, target) pairs."""
        self.synthesizer = synthesizer
        self.targets = [target for _, target in pairs]
        self.rate = synthesizer.components.speaker_encoder.config.mel.sample_rate
        self._recorded = [load_audio(target.audio, self.rate) for target in self.targets]
        self._voices = [synthesizer.prepare_voice(prompt.audio, prompt.text) for prompt, _ in pairs]

    @torch.inference_mode()
    def score(self, render: Callable[[Utterance, Voice, int], Tensor] | None) -> Score:
        """Judge what `render(target, voice, number)` gives, (S,) at the rate of the bundle.

        Args:
            render: None judges the recordings themselves.
        """
        synthesizer = self.synthesizer
        heard, own, prompted = [], [], []
        for number, (target, voice) in enumerate(zip(self.targets, self._voices, strict=True)):
            waveform = recorded = self._recorded[number]
            if render is not None:
                waveform = render(target, voice, number)
                waveform = resample(waveform, synthesizer.sample_rate, self.rate)
            heard.append(synthesizer.transcribe(waveform, sample_rate=self.rate))
            encoder = synthesizer.components.speaker_encoder
            embeddings = [encoder.embed_recording(sound) for sound in (waveform, recorded)]
            cosine = torch.nn.functional.cosine_similarity
            own.append(float(cosine(embeddings[0], embeddings[1], dim=0)))
            prompted.append(float(cosine(embeddings[0], voice.speaker_embedding, dim=0)))
        parts = synthesizer.components
        read = frontend(parts.text_tokenizer.config.normalizer).normalize
        alphabet = parts.token_recognizer.config.alphabet
        references = [known_characters(read(target.text), alphabet) for target in self.targets]
        return Score(
            char_error_rate=float(jiwer.cer(references, heard)),
            similarity=sum(own) / len(own),
            prompt_similarity=sum(prompted) / len(prompted),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.rendering_search", description=__doc__
    )
    parser.add_argument("--bundle", default="mini-en")
    parser.add_argument("--manifest", type=Path, required=True, help="recordings with their text")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 10])
    parser.add_argument("--guidance", type=float, nargs="+", default=[0.0, 0.7, 1.5])
    options = parser.parse_args(arguments)
    try:
        synthesizer = Synthesizer.from_pretrained(options.bundle)
        pairs = pick_pairs(read_manifest(options.manifest).utterances, options.items)
        renderer = Renderer(synthesizer, pairs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    title = f"{len(pairs)} recordings"
    print(f"{title:<30} {'character error':>16} {'similarity':>12} {'to prompt':>12}")
    _tell("recorded", renderer.score(None))
    for num_steps, guidance in itertools.product(options.steps, options.guidance):

        def render(
            target: Utterance,
            voice: Voice,
            number: int,
            steps: int = num_steps,
            scale: float = guidance,
        ) -> Tensor:
            return synthesizer.convert(
                target.audio, voice=voice, seed=number, num_steps=steps, guidance_scale=scale
            )

        _tell(f"{num_steps} steps, guidance {guidance}", renderer.score(render))
    return 0


def _tell(name: str, found: Score) -> None:
    print(
        f"{name:<30} {found.char_error_rate:>16.3f} {found.similarity:>12.3f} "
        f"{found.prompt_similarity:>12.3f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
