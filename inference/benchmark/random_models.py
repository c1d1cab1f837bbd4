"""Models with random weights: to measure speed and memory without any weights.

They say nothing that can be understood; with forced tokens every stage does the work that it would
do with trained ones.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tokenlm.checkpoint.component import float32_by_default, without_initialisation
from tokenlm.checkpoint.registry import KINDS
from tokenlm.config import ConfigError, load_config

SPEAKING_KINDS = {
    "speech_lm": ("speech_lm",),
    "flow": ("flow",),
    "vocoder": ("vocoder", "hift"),
}
"""Kinds that each part of a synthesizer may be of."""

_ROW = 1_000_003
"""Numbers in a row; a prime, so that no two rows of a matrix are alike."""


@torch.no_grad()
def fill_at_random(model: nn.Module, seed: int = 0) -> None:
    """Gives every weight a random number, of a size that keeps what goes through it in range.

    The numbers are a short row, over and over: drawing hundreds of millions takes minutes.
    """
    row = torch.randn(_ROW, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            weight.fill_(1.0 if name.endswith(("weight", "alpha")) else 0.0)
            continue
        scale = (weight.shape[0] / weight.numel()) ** 0.5
        flat, scaled = weight.view(-1), row * scale
        for start in range(0, flat.shape[0], _ROW):
            part = flat[start : start + _ROW]
            part.copy_(scaled[: part.shape[0]])


def random_models(folder: str | Path, *, seed: int = 0) -> dict[str, nn.Module]:
    """The models that speak, by name (speech_lm, flow, vocoder), with random weights.

    Args:
        folder: one YAML file for each, named after its kind (`configs/model/cosyvoice2`).
        seed: of the weights.

    Raises:
        ConfigError: one of them has no config there, or it is wrong.
    """
    return {name: random_model(folder, name, seed=seed) for name in SPEAKING_KINDS}


def random_model(folder: str | Path, name: str, *, seed: int = 0) -> nn.Module:
    """One of `random_models`, by its name."""
    paths = [Path(folder) / f"{kind}.yaml" for kind in SPEAKING_KINDS[name]]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        names = " or ".join(path.name for path in paths)
        raise ConfigError(f"{folder} has no {names}: there is nothing to build.")
    config_class, build = KINDS[path.stem]
    with float32_by_default(), without_initialisation():
        model = build(load_config(config_class, path))
    fill_at_random(model, seed)
    return model.eval().requires_grad_(False)
