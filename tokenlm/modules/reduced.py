"""Linear layers whose weights are kept in fewer bits.

Shapes: I inputs, O outputs. What goes in and comes out keeps its type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.timestep import TimestepEmbedding

Precision = Literal["float32", "bfloat16", "int8"]


class BFloat16Linear(nn.Module):
    """A linear layer that multiplies in bfloat16."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", source.weight.detach().to(torch.bfloat16))
        self.register_buffer("bias", None if source.bias is None else source.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) to (…, O)."""
        out = functional.linear(x.to(torch.bfloat16), self.weight).to(x.dtype)
        return out if self.bias is None else out + self.bias.to(x.dtype)


class Int8Linear(nn.Module):
    """A linear layer whose weights are whole numbers from -127 to 127, with a scale for each row.

    They are made wide again for each call: a quarter of the memory, not of the time.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        weight = source.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127.0
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        self.register_buffer("weight", rounded)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if source.bias is None else source.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) to (…, O)."""
        # Whole numbers of this size are exact in bfloat16.
        out = functional.linear(x.to(torch.bfloat16), self.weight.to(torch.bfloat16))
        out = out.to(x.dtype) * self.scale.to(x.dtype)
        return out if self.bias is None else out + self.bias.to(x.dtype)


_BUILD: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "bfloat16": BFloat16Linear,
    "int8": Int8Linear,
}


def reduce_weights(module: nn.Module, precision: Precision) -> nn.Module:
    """Replaces the linear layers inside `module` by such of `precision`; for inference alone.

    Small ones (the digits of a code) stay, as do the times of a flow and all other layers.

    Returns:
        The module, changed in place.
    """
    if precision == "float32":
        return module
    for name, child in list(module.named_children()):
        if isinstance(child, TimestepEmbedding):
            continue
        if isinstance(child, nn.Linear):
            if min(child.in_features, child.out_features) >= _MIN_FEATURES:
                setattr(module, name, _BUILD[precision](child))
        else:
            reduce_weights(child, precision)
    return module


_MIN_FEATURES = 16
