"""Settings of a bundle that are chosen on validation data, by the bundle itself.

    python -m training.evaluation.tuning silence train.tokens.jsonl
    python -m training.evaluation.tuning sampling --bundle FOLDER --manifest validation.tokens.jsonl
    python -m training.evaluation.tuning rendering --bundle FOLDER --manifest validation.jsonl

`silence` finds the speech tokens of silence, which the silent-run cap of `GuardConfig` has to know.
Silence is what is quiet beside the loudest part of its recording; a code is silent if it nearly
always stands there.

`sampling` compares sampling settings: every text is spoken in the voice of another utterance of its
speaker, and its tokens are read back by the bundle's recogniser. Nothing is rendered, so a setting
takes seconds.

`rendering` compares solver steps and guidance of the flow: every recording is rendered from its own
tokens in the voice of another recording of its speaker, and judged by what the bundle's recogniser
reads in it and how near its speaker encoder finds it to the recording.

Settings chosen like this owe nothing to the judges of an evaluation or to the held-out sentences.
The line "recorded" is the score of the recordings themselves: an upper bound.

Shapes: S samples, N tokens.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import torch
from torch import Tensor

from tokenlm.audio.io import load_audio
from tokenlm.audio.resample import resample
from tokenlm.checkpoint import resolve
from tokenlm.models.lm import SamplingConfig
from tokenlm.models.lm.decoding import SpeechRequest, generate_speech
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.synthesis.text import add_final_mark
from tokenlm.synthesis.voice import Voice
from tokenlm.text.normalize import frontend
from tokenlm.text.transcripts import known_characters
from training.data.manifest import Utterance, read_manifest

SAMPLE_RATE = 16_000
QUIET_DB = -40.0
"""Below the loudest token of a recording."""
MIN_SHARE = 0.8
"""Share of a code's places that must be quiet."""
MIN_COUNT = 10
"""A rarer code says too little about itself."""
LOST = 0.5
"""Character error from which on a text counts as lost."""


def quiet_tokens(waveform: Tensor, num_tokens: int) -> Tensor:
    """Which tokens of a recording are quiet.

    Args:
        waveform: (S,), cut into as many equal parts as there are tokens.
        num_tokens: N.

    Returns:
        (N,) True where quiet.
    """
    size = waveform.shape[0] // num_tokens
    power = waveform[: size * num_tokens].view(num_tokens, size).square().mean(dim=1)
    return power < power.max() * 10 ** (QUIET_DB / 10)


def find_silent_tokens(recordings: Iterable[tuple[Sequence[int], Tensor]]) -> list[int]:
    """Codes of silence.

    Args:
        recordings: speech tokens, and which of them are quiet (N,).
    """
    quiet: dict[int, int] = {}
    total: dict[int, int] = {}
    for tokens, is_quiet in recordings:
        for token, hit in zip(tokens, is_quiet.tolist(), strict=True):
            total[token] = total.get(token, 0) + 1
            quiet[token] = quiet.get(token, 0) + hit
    return sorted(
        token
        for token, count in total.items()
        if count >= MIN_COUNT and quiet[token] >= MIN_SHARE * count
    )


@dataclass(frozen=True, kw_only=True)
class SamplingScore:
    """How well texts were spoken under one setting."""

    char_error_rate: float
    lost: float
    """Share of the texts with a character error above `LOST`."""
    length_ratio: float
    """Spoken tokens over recorded ones."""


def pick_pairs(rows: Sequence[Utterance], count: int) -> list[tuple[Utterance, Utterance]]:
    """(prompt, target) pairs of one speaker each, at most `count`, prompts of at least 2 s.

    Raises:
        ValueError: no speaker has two utterances that would do.
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for row in rows:
        by_speaker.setdefault(row.speaker, []).append(row)
    pairs = [
        (prompt, target)
        for same in by_speaker.values()
        for target in same
        for prompt in [next((r for r in same if r is not target and r.duration >= 2.0), None)]
        if prompt is not None
    ]
    if not pairs:
        raise ValueError("the manifest has no speaker with two utterances, one of 2 s or more")
    return pairs[:: max(len(pairs) // count, 1)][:count]


def score_sampling(
    components: Components,
    pairs: Sequence[tuple[Utterance, Utterance]],
    sampling: SamplingConfig | None,
    *,
    with_prompt: bool = False,
    seed: int = 0,
) -> SamplingScore:
    """Speaks the targets and reads them back; `sampling` None reads the recorded tokens."""
    read = frontend(components.text_tokenizer.config.normalizer).normalize
    spoken = [list(target.speech_tokens or ()) for _, target in pairs]
    recorded = sum(map(len, spoken))
    if sampling is not None:
        encode = components.text_tokenizer.encode
        requests = [
            SpeechRequest(
                text_tokens=encode(add_final_mark(read(target.text))),  # as synthesis gives it
                prompt_text_tokens=encode(read(prompt.text)) if with_prompt else (),
                prompt_tokens=(prompt.speech_tokens or ()) if with_prompt else (),
                seed=seed,
                segment=number,
            )
            for number, (prompt, target) in enumerate(pairs)
        ]
        spoken = generate_speech(components.speech_lm, requests, sampling)
    recognizer = components.token_recognizer
    read_back = [recognizer.transcribe(torch.tensor([row]))[0] if row else "" for row in spoken]
    alphabet = recognizer.config.alphabet
    references = [known_characters(read(target.text), alphabet) for _, target in pairs]
    errors = [jiwer.cer(*both) for both in zip(references, read_back, strict=True)]
    return SamplingScore(
        char_error_rate=float(jiwer.cer(references, read_back)),
        lost=sum(error > LOST for error in errors) / len(errors),
        length_ratio=sum(map(len, spoken)) / max(recorded, 1),
    )


@dataclass(frozen=True, kw_only=True)
class RenderingScore:
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
    def score(self, render: Callable[[Utterance, Voice, int], Tensor] | None) -> RenderingScore:
        """Judge what `render(target, voice, number)` gives, (S,) at the rate of the bundle.

        Args:
            render: None judges the recordings themselves.
        """
        synthesizer = self.synthesizer
        read_back, own, prompted = [], [], []
        for number, (target, voice) in enumerate(zip(self.targets, self._voices, strict=True)):
            waveform = recorded = self._recorded[number]
            if render is not None:
                waveform = render(target, voice, number)
                waveform = resample(waveform, synthesizer.sample_rate, self.rate)
            read_back.append(synthesizer.transcribe(waveform, sample_rate=self.rate))
            encoder = synthesizer.components.speaker_encoder
            embeddings = [encoder.embed_recording(sound) for sound in (waveform, recorded)]
            cosine = torch.nn.functional.cosine_similarity
            own.append(float(cosine(embeddings[0], embeddings[1], dim=0)))
            prompted.append(float(cosine(embeddings[0], voice.speaker_embedding, dim=0)))
        parts = synthesizer.components
        read = frontend(parts.text_tokenizer.config.normalizer).normalize
        alphabet = parts.token_recognizer.config.alphabet
        references = [known_characters(read(target.text), alphabet) for target in self.targets]
        return RenderingScore(
            char_error_rate=float(jiwer.cer(references, read_back)),
            similarity=sum(own) / len(own),
            prompt_similarity=sum(prompted) / len(prompted),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.tuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_subparsers(dest="what", required=True)
    silence = what.add_parser("silence", help="find the speech tokens of silence")
    silence.add_argument("manifest", type=Path, help="manifest with speech tokens")
    silence.add_argument("--limit", type=int, default=2000, help="recordings that are looked at")
    silence.set_defaults(run=_tune_silence)
    sampling = what.add_parser("sampling", help="compare sampling settings of the LM")
    sampling.add_argument("--bundle", default="mini-en")
    sampling.add_argument("--manifest", type=Path, required=True, help="rows with speech tokens")
    sampling.add_argument("--items", type=int, default=100)
    temperatures = [0.0, 0.4, 0.6, 0.8, 1.0]
    sampling.add_argument("--temperatures", type=float, nargs="+", default=temperatures)
    sampling.add_argument("--top-p", type=float, nargs="+", default=[0.8, 0.95])
    sampling.add_argument("--seed", type=int, default=0)
    sampling.set_defaults(run=_tune_sampling)
    rendering = what.add_parser("rendering", help="compare solver steps and guidance of the flow")
    rendering.add_argument("--bundle", default="mini-en")
    rendering.add_argument("--manifest", type=Path, required=True, help="recordings with text")
    rendering.add_argument("--items", type=int, default=40)
    rendering.add_argument("--steps", type=int, nargs="+", default=[4, 6, 10])
    rendering.add_argument("--guidance", type=float, nargs="+", default=[0.0, 0.7, 1.5])
    rendering.set_defaults(run=_tune_rendering)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _tune_silence(options: argparse.Namespace) -> None:
    rows = read_manifest(options.manifest, strict=True).utterances
    chosen = [row for row in rows if row.speech_tokens]
    if not chosen:
        raise ValueError(
            f"{options.manifest} has no speech tokens; write them with: "
            f"tokenlm data precompute {options.manifest} OUTPUT --tokenizer FOLDER"
        )
    step = max(len(chosen) // max(options.limit, 1), 1)
    codes = find_silent_tokens(
        (
            row.speech_tokens or (),
            quiet_tokens(load_audio(row.audio, SAMPLE_RATE), len(row.speech_tokens or ())),
        )
        for row in chosen[::step]
    )
    print(f"guards: {{silent_tokens: {codes}}}")


def _tune_sampling(options: argparse.Namespace) -> None:
    components = Components(resolve(options.bundle))
    _ = components.token_recognizer  # a bundle without says so before anything is spoken
    pairs = pick_pairs(read_manifest(options.manifest).utterances, options.items)
    stored = {pair[1].tokenizer for pair in pairs}
    if stored != {components.fingerprint}:
        raise ValueError(
            f"{options.manifest} holds tokens of {sorted(map(str, stored))}, the bundle's "
            f"tokenizer is {components.fingerprint}"
        )

    def show(name: str, score: SamplingScore) -> None:
        numbers = f"{score.char_error_rate:.3f}   {score.lost:.3f}   {score.length_ratio:.3f}"
        print(f"{name:<45} {numbers}", flush=True)

    print(f"{len(pairs)} texts", f"{'character error':>44}", f"{'lost':>8}", f"{'length':>8}")
    show("recorded", score_sampling(components, pairs, None))
    settings = itertools.product((False, True), options.temperatures, options.top_p)
    for with_prompt, temperature, top_p in settings:
        if temperature == 0 and top_p != options.top_p[0]:
            continue
        sampling = SamplingConfig(temperature=temperature, top_p=top_p, repetition_window=0)
        score = score_sampling(
            components, pairs, sampling, with_prompt=with_prompt, seed=options.seed
        )
        prompt = "after a prompt" if with_prompt else "text alone"
        show(f"{prompt}, temperature {temperature}, top_p {top_p}", score)


def _tune_rendering(options: argparse.Namespace) -> None:
    synthesizer = Synthesizer.from_pretrained(options.bundle)
    pairs = pick_pairs(read_manifest(options.manifest).utterances, options.items)
    renderer = Renderer(synthesizer, pairs)

    def show(name: str, score: RenderingScore) -> None:
        print(
            f"{name:<30} {score.char_error_rate:>16.3f} {score.similarity:>12.3f} "
            f"{score.prompt_similarity:>12.3f}",
            flush=True,
        )

    title = f"{len(pairs)} recordings"
    print(f"{title:<30} {'character error':>16} {'similarity':>12} {'to prompt':>12}")
    show("recorded", renderer.score(None))
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

        show(f"{num_steps} steps, guidance {guidance}", renderer.score(render))


if __name__ == "__main__":
    sys.exit(main())
