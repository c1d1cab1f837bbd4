"""Components with random weights: to measure speed and memory without any weights.

They say nothing that can be understood; with forced tokens every stage does the work that it would
do with trained ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenlm.checkpoint.bundle import BundleError, BundleManifest
from tokenlm.checkpoint.component import without_initialisation
from tokenlm.checkpoint.registry import KINDS
from tokenlm.config import load_config
from tokenlm.synthesis.components import Components, GenerationConfig
from tokenlm.synthesis.voice import Voice
from tokenlm.text.tokenizer import TextTokenizer

FLOW_KINDS = ("flow", "cosyvoice_flow")
VOCODER_KINDS = ("vocoder", "hift")

_FINGERPRINT = "random"
_ROW = 1_000_003
"""Numbers in a row; a prime, so that no two rows of a matrix are alike."""
_TEXTS = ["the quick brown fox jumps over the lazy dog.", "is it so? yes, it is!"]


@torch.no_grad()
def fill_at_random(model: nn.Module, seed: int = 0) -> None:
    """Gives every weight a random number, of a size that keeps what goes through it in range.

    The numbers are a short row, over and over: drawing hundreds of millions takes minutes.
    """
    row = torch.randn(_ROW, generator=torch.Generator().manual_seed(seed))
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            weight.fill_(1.0 if name.endswith(("weight", "alpha")) else 0.0)
            continue
        scale = (weight.shape[0] / weight.numel()) ** 0.5
        flat, scaled = weight.view(-1), row * scale
        for start in range(0, flat.shape[0], _ROW):
            part = flat[start : start + _ROW]
            part.copy_(scaled[: part.shape[0]])


class RandomComponents(Components):
    """The parts that speak, with random weights, from a folder of their configs."""

    def __init__(
        self,
        folder: str | Path,
        device: str | torch.device = "cpu",
        *,
        generation: GenerationConfig | None = None,
        seed: int = 0,
    ) -> None:
        """Builds the parts.

        Args:
            folder: one YAML file for each part, named after its kind (`configs/model/cosyvoice2`).
            device: where the models run.
            generation: settings of generation; default ten steps of the flow.
            seed: of the weights.

        Raises:
            BundleError: a part that speaks has no config there.
        """
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.generation = generation or GenerationConfig(num_steps=10)
        self.speech_lm = self._built(seed, "speech_lm")
        self.flow = self._built(seed, *FLOW_KINDS)
        self.vocoder = self._built(seed, *VOCODER_KINDS)
        self.text_tokenizer = TextTokenizer.train(_TEXTS, 64, model_type="char")
        self.manifest = BundleManifest(
            name="random",
            description="Random weights.",
            language="en",
            licence="Apache-2.0",
            sample_rate=self.vocoder.config.mel.sample_rate,
        )
        self.fingerprint = _FINGERPRINT

    def random_voice(self, seconds: float = 3.0, *, seed: int = 0) -> Voice:
        """A voice of random numbers whose prompt is so long; it fits these parts alone."""
        flow = self.flow.config
        generator = torch.Generator().manual_seed(seed)
        count = round(seconds * flow.token_rate)
        shape = (count * flow.frames_per_token, flow.mel.num_mels)
        return Voice(
            name="random",
            prompt_text="is it so?",
            prompt_tokens=torch.randint(flow.codebook_size, (count,), generator=generator),
            prompt_mel=torch.randn(shape, generator=generator) - 5.0,
            speaker_embedding=torch.randn(flow.speaker_dim, generator=generator),
            tokenizer=_FINGERPRINT,
        )

    def random_tokens(self, seconds: float, *, seed: int = 1) -> list[int]:
        """Speech tokens to be forced, as many as such speech has."""
        flow = self.flow.config
        generator = torch.Generator().manual_seed(seed)
        count = round(seconds * flow.token_rate)
        return torch.randint(flow.codebook_size, (count,), generator=generator).tolist()

    def _built(self, seed: int, *kinds: str) -> Any:
        for kind in kinds:
            path = self.folder / f"{kind}.yaml"
            if path.is_file():
                config_class, build = KINDS[kind]
                with without_initialisation():
                    model: nn.Module = build(load_config(config_class, path))
                fill_at_random(model, seed)
                return model.to(self.device).eval().requires_grad_(False)
        names = " or ".join(f"{kind}.yaml" for kind in kinds)
        raise BundleError(f"{self.folder} has no {names}: there is nothing to build.")
