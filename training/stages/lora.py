"""LoRA (Hu et al., 2021) on the backbone of a speech LM, by the library `peft` (extra `scale`).

The text backbone is frozen and gets low-rank additions; what speech adds to it (embeddings and
head) is trained whole. Exported weights have the additions summed in, under the plain names: a
bundle does not show how its LM was trained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tokenlm.config import ConfigError
from tokenlm.installation import install_command

_BASE = ".base_layer."


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
    """Names of the linear layers that get additions."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError("lora.rank and lora.alpha must be positive")
        if not 0 <= self.dropout < 1:
            raise ValueError("lora.dropout must be in [0, 1)")


def add_lora(backbone: nn.Module, settings: LoraSettings) -> None:
    """Freeze a backbone and add to its linear layers, in place.

    Raises:
        ConfigError: If it has no layer of a name, or `peft` is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(f"lora needs peft: {install_command('scale')}") from None
    linear = {
        name.rpartition(".")[2]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
    }
    unknown = sorted(set(settings.targets) - linear)
    if unknown:
        raise ConfigError(
            f"lora.targets: the backbone has no {', '.join(unknown)}; it has: "
            + ", ".join(sorted(linear))
        )
    backbone.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
    )
    inject_adapter_in_model(config, backbone)


def with_additions(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return plain weights, of a component to start from, under the names of a module with LoRA.

    The additions keep the values that they have in the module. The weights of anything else are
    returned as they are.
    """
    renamed = dict(state)
    own = module.state_dict()
    if any(_BASE in name for name in state):
        return renamed
    for name, value in own.items():
        plain = name.replace(_BASE, ".")
        if _BASE in name and plain in renamed:
            renamed[name] = renamed.pop(plain)
        elif ".lora_" in name:
            renamed[name] = value
    return renamed


def merged_state(module: nn.Module) -> Mapping[str, Tensor]:
    """Return the weights of a module with all additions summed in, under the plain names."""
    if not any(_BASE in name for name in module.state_dict()):
        return module.state_dict()
    from peft.tuners.lora import LoraLayer

    merged = copy.deepcopy(module)
    for layer in list(merged.modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()  # type: ignore[attr-defined]
    return {
        name.replace(_BASE, "."): value
        for name, value in merged.state_dict().items()
        if ".lora_" not in name
    }
