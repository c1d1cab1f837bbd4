"""LoRA (Hu et al., 2021): low-rank additions to the layers of a model, in place of all its weights.

Linear layers of the LM and the flow get additions by the library `peft`, which add to what a layer
puts out. Layers of vocoders get them on their weights: streaming convolutions read their weights
and are not called, so that a layer around them would not be noticed.

Exported weights have the additions summed in, under the plain names: a bundle does not show how its
models were trained. An adapter takes them as they are, by `changes_of`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tokenlm.checkpoint.adapter import PartChange, product
from tokenlm.config import ConfigError
from tokenlm.installation import install_command

ALL_LAYERS = "*"
"""In `LoraSettings.targets`: every layer that can have additions."""

_BASE = ".base_layer."
_ORIGINAL = ".parametrizations.weight.original"
_SHARED_LAYERS = ("position",)
"""Layers that are computed once for all rows of a batch, whose streams may have other adapters."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Size and place of the low-rank additions."""

    rank: int = 16
    alpha: float = 32.0
    """The additions are scaled by `alpha / rank`."""
    dropout: float = 0.0
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Ends of the names of the layers that get additions; "*" is all that can."""
    only: bool = False
    """Whether nothing but the additions learns. Otherwise the speech LM learns what speech adds to
    the backbone (embeddings and head) whole."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError("lora.rank and lora.alpha must be positive")
        if not 0 <= self.dropout < 1:
            raise ValueError("lora.dropout must be in [0, 1)")


def add_lora(module: nn.Module, settings: LoraSettings) -> None:
    """Freeze a module and add to its linear layers, in place.

    Raises:
        ConfigError: If it has no layer of a name, or `peft` is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(f"lora needs peft: {install_command('train')}") from None
    names = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not name.endswith(_SHARED_LAYERS)
    ]
    chosen = _chosen(names, settings)
    module.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=chosen,
    )
    inject_adapter_in_model(config, module)


class _LowRankWeight(nn.Module):
    """A weight with a low-rank addition, any dimensions behind the first laid in a row."""

    def __init__(self, weight: Tensor, settings: LoraSettings) -> None:
        super().__init__()
        rank = min(settings.rank, weight.shape[0], weight[0].numel())
        self.scale = settings.alpha / settings.rank
        self.down = nn.Parameter(torch.empty(rank, weight[0].numel()))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.scale * product(self.down, self.up, weight.shape)).to(weight.dtype)


def add_lora_to_weights(module: nn.Module, settings: LoraSettings) -> None:
    """Freeze a module and add to the weights of its convolutions and linear layers, in place.

    Raises:
        ConfigError: If it has no layer of a name, or dropout is asked for.
    """
    if settings.dropout:
        raise ConfigError("lora.dropout is for layers of the LM and the flow, not of a vocoder")
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d)
        and layer.weight[0].numel() > 1
    }
    module.requires_grad_(False)
    for name in _chosen([*layers], settings):
        layer = layers[name]
        parametrize.register_parametrization(
            layer, "weight", _LowRankWeight(layer.weight, settings), unsafe=True
        )


def _chosen(names: Sequence[str], settings: LoraSettings) -> list[str]:
    """The layers of a module that get additions.

    Raises:
        ConfigError: If it has no layer of a name.
    """
    if ALL_LAYERS in settings.targets:
        return [*names]
    unknown = [
        target
        for target in settings.targets
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]
    if unknown:
        ends = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"lora.targets: the backbone has no {', '.join(sorted(unknown))}; it has: "
            + ", ".join(ends)
        )
    ends_of = tuple(f".{target}" for target in settings.targets)
    return [name for name in names if name in settings.targets or name.endswith(ends_of)]


def with_additions(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return plain weights, of a component to start from, under the names of a module with LoRA.

    The additions keep the values that they have in the module. The weights of anything else are
    returned as they are.
    """
    renamed = dict(state)
    own = module.state_dict()
    if any(_BASE in name or _ORIGINAL in name for name in state):
        return renamed
    for name, value in own.items():
        plain = _plain(name)
        if plain != name and plain in renamed:
            renamed[name] = renamed.pop(plain)
        elif _is_addition(name):
            renamed[name] = value
    return renamed


def merged_state(module: nn.Module) -> Mapping[str, Tensor]:
    """Return the weights of a module with all additions summed in, under the plain names."""
    own = module.state_dict()
    if any(name.endswith(_ORIGINAL) for name in own):
        merged = {_plain(name): value for name, value in own.items() if not _is_addition(name)}
        for name, layer in module.named_modules():
            if parametrize.is_parametrized(layer, "weight"):
                weight = layer.weight
                assert isinstance(weight, Tensor)
                merged[f"{name}.weight"] = weight.detach()
        return merged
    if not any(_BASE in name for name in own):
        return own
    from peft.tuners.lora import LoraLayer

    whole = copy.deepcopy(module)
    for layer in list(whole.modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()  # type: ignore[attr-defined]
    return {
        name.replace(_BASE, "."): value
        for name, value in whole.state_dict().items()
        if ".lora_" not in name
    }


def changes_of(module: nn.Module) -> PartChange:
    """What a module has learned: its additions, and the parameters that learn whole."""
    values: dict[str, Tensor] = {}
    additions: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in module.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "lora_B"):
            wrapped: Any = layer  # of peft
            down, up = wrapped.lora_A["default"].weight, wrapped.lora_B["default"].weight
            scale = wrapped.scaling["default"]
            additions[f"{name}.weight"] = (down.detach().clone(), scale * up.detach())
        elif parametrize.is_parametrized(layer, "weight"):
            changed: Any = layer
            found = changed.parametrizations["weight"][0]
            assert isinstance(found, _LowRankWeight)
            additions[f"{name}.weight"] = (
                found.down.detach().clone(),
                found.scale * found.up.detach(),
            )
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and not _is_addition(name):
            values[_plain(name)] = parameter.detach().clone()
    return PartChange(values, additions)


def _plain(name: str) -> str:
    """The name of a weight without LoRA."""
    return name.replace(_BASE, ".").replace(_ORIGINAL, ".weight")


def _is_addition(name: str) -> bool:
    return ".lora_" in name or ".parametrizations.weight.0." in name
