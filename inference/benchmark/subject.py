"""Subjects of a benchmark: a bundle, or models of a configuration with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.benchmark.random_models import random_models
from tokenlm.checkpoint.bundle import BundleManifest
from tokenlm.checkpoint.resolve import resolve
from tokenlm.models.flow import FlowConfig
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.synthesis.components import Components
from tokenlm.text.tokenizers import load_text_tokenizer

SENTENCE = "The weather was cold this morning, but the sun is out now, and we went for a long walk."
PROMPT_SECONDS = 5
"""Length of the prompt of a random voice."""


@dataclass(frozen=True)
class Subject:
    """A synthesizer, a voice, and speech tokens to be said."""

    name: str
    """Of the bundle, or of the folder of configs."""
    synthesizer: Synthesizer
    voice: Voice
    tokens: Sequence[int]
    """Speech tokens, as many as the longest session takes."""
    has_weights: bool
    """Whether the weights are trained, so that the sound can be judged."""

    def num_tokens(self, seconds: float) -> int:
        """Speech tokens of so many seconds, at the token rate of the flow; at least one."""
        return num_tokens(seconds, self.synthesizer.components.flow.config.token_rate)

    def forced(self, num_tokens: int) -> list[list[int]]:
        """Forced tokens of a session of one segment: the first `num_tokens`."""
        return [list(self.tokens[:num_tokens])]


def num_tokens(seconds: float, token_rate: int) -> int:
    """Speech tokens of so many seconds at `token_rate` in hertz, at least one."""
    return max(round(seconds * token_rate), 1)


def bundle_subject(name: str, seconds: float) -> Subject:
    """A bundle in its first voice.

    Args:
        name: of the bundle, or its folder.
        seconds: speech that its LM draws tokens for, `SENTENCE` over and over.

    Raises:
        ValueError: there is no such bundle, or it has no voice.
    """
    synthesizer = Synthesizer.from_pretrained(name)
    if not synthesizer.voices:
        raise ValueError(f"the bundle {name} has no voice to be measured with.")
    voice = synthesizer.voice(synthesizer.voices[0])
    tokens: list[int] = []
    seed, count = 0, num_tokens(seconds, synthesizer.components.flow.config.token_rate)
    while len(tokens) < count:
        with synthesizer.stream(SENTENCE, voice=voice, seed=seed) as stream:
            for _ in stream:
                if sum(map(len, stream.speech_tokens)) >= count:
                    break
            written = [token for row in stream.speech_tokens for token in row]
        tokens += written or [0]
        seed += 1
    return Subject(synthesizer.components.manifest.name, synthesizer, voice, tokens, True)


def config_subject(
    folder: Path,
    seconds: float,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Subject:
    """Models with random weights, a random voice and random tokens.

    Args:
        folder: of configs, such as `configs/model/full`; see `random_models`.
        seconds: speech that there are tokens for.
        device: where the models run.
        dtype: of language model and flow, see `Components`.

    Raises:
        ValueError: a config is missing or wrong.
    """
    models = random_models(folder)
    for name, model in models.items():
        model.to(device=device, dtype=dtype if name != "vocoder" else torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = models["flow"].config
        assert isinstance(flow, FlowConfig)
        manifest = BundleManifest(
            name=folder.name,
            description="Random weights.",
            language="en",
            licence="Apache-2.0",
            sample_rate=flow.mel.sample_rate,
            components={name: name for name in models},
            generation={"num_steps": 10},  # those of the reference
        )
        num_prompt = num_tokens(PROMPT_SECONDS, flow.token_rate)
        voice = Voice(
            name="random",
            prompt_text="the weather was cold this morning.",
            prompt_tokens=torch.randint(flow.codebook_size, (num_prompt,)),
            prompt_mel=torch.randn(num_prompt * flow.frames_per_token, flow.mel.num_mels) - 5,
            speaker_embedding=torch.randn(flow.speaker_dim),
            tokenizer="",
        )
        tokens = torch.randint(flow.codebook_size, (num_tokens(seconds, flow.token_rate),)).tolist()
    tokenizer = load_text_tokenizer(resolve("mini-en") / "text_tokenizer")
    components = Components.from_models(models, tokenizer, manifest, folder=folder)
    return Subject(folder.name, Synthesizer(components), voice, tokens, False)
