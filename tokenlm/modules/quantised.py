"""Linear layers whose weights are kept in fewer bits.

Shapes: I inputs, O outputs. What goes in and comes out keeps its type.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.modules.attention import TimestepEmbedding

Precision = Literal["float32", "bfloat16", "int8"]


class QuantisedLinear(nn.Module):
    """Base of linear layers whose weights are kept in fewer bits."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = source.in_features, source.out_features


class BFloat16Linear(QuantisedLinear):
    """A linear layer that multiplies in bfloat16.

    On a processor without such instructions the rounded numbers are multiplied in float32, which
    gives the same but for the order of sums: half of the memory, not of the time.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        self.register_buffer("weight", source.weight.detach().to(torch.bfloat16))
        self.register_buffer("bias", None if source.bias is None else source.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) to (…, O)."""
        rounded = x.to(torch.bfloat16)
        if multiplies_bfloat16(x.device):
            out = functional.linear(rounded, self.weight).to(x.dtype)
        else:
            out = functional.linear(rounded.float(), self.weight.float())
            out = out.to(torch.bfloat16).to(x.dtype)
        return out if self.bias is None else out + self.bias.to(x.dtype)


@lru_cache(maxsize=8)
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; a processor without them takes ages."""
    if device.type != "cpu":
        return True
    return any(has and "bf16" in name for name, has in torch.cpu.get_capabilities().items())


def whole_numbers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (O, I) as whole numbers from -127 to 127, and the scale (O,) of each row."""
    weight = weight.detach().float()
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127.0
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(QuantisedLinear):
    """A linear layer whose weights are whole numbers from -127 to 127, with a scale for each row.

    They are made wide again for each call: a quarter of the memory, not of the time.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        rounded, scale = whole_numbers(source.weight)
        self.register_buffer("weight", rounded)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if source.bias is None else source.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) to (…, O)."""
        # Whole numbers of this size are exact in bfloat16.
        wide = torch.bfloat16 if multiplies_bfloat16(x.device) else x.dtype
        out = functional.linear(x.to(wide), self.weight.to(wide))
        out = out.to(x.dtype) * self.scale.to(x.dtype)
        return out if self.bias is None else out + self.bias.to(x.dtype)


class PackedInt8Linear(QuantisedLinear):
    """The same weights for a processor, which multiplies whole numbers: less time as well.

    What comes in is rounded, too, each row to 126 steps of its own greatest number, so that a row
    gives the same result in any batch. (With 8 bits the sums of pairs would overflow on
    processors without VNNI.)
    """

    bias: Tensor | None

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        rounded, scale = whole_numbers(source.weight)
        zeros = torch.zeros(scale.shape[0], dtype=torch.long)
        with warnings.catch_warnings():
            # These tensors are to go some day; `_int8` then does without them.
            warnings.filterwarnings("ignore", message=".*deprecated", category=UserWarning)
            wide = torch._make_per_channel_quantized_tensor(rounded, scale.double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(wide, None)
        self.nbytes = rounded.nbytes + scale.nbytes
        self.register_buffer("bias", None if source.bias is None else source.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) to (…, O)."""
        wide = x.float()
        if wide.requires_grad and torch.is_grad_enabled():  # voices are fitted by gradient
            out = functional.linear(wide, self.wide_weight()).to(x.dtype)
            return out if self.bias is None else out + self.bias.to(x.dtype)
        greatest = wide.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        out = multiply(wide / greatest, 1 / 63, 64, self.packed)
        out = (out * greatest).to(x.dtype)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def wide_weight(self) -> Tensor:
        """The weight (O, I), unpacked: no gradient goes through the packed one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.ops.quantized.linear_unpack(self.packed)[0].dequantize()


def _int8(source: nn.Linear) -> nn.Module:
    is_packable = (
        source.weight.device.type == "cpu"
        and hasattr(torch, "_make_per_channel_quantized_tensor")
        and hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")
    )
    return PackedInt8Linear(source) if is_packable else Int8Linear(source)


_BUILD: dict[str, Callable[[nn.Linear], nn.Module]] = {"bfloat16": BFloat16Linear, "int8": _int8}


def quantise_weights(module: nn.Module, precision: Precision) -> nn.Module:
    """Replaces the linear layers inside `module` by such of `precision`; for inference alone.

    The module is on the device where it will run, as int8 is packed for a processor. Small layers
    (the digits of a code) stay, as do the times of a flow and all other layers. What is replaced
    need not have a `weight`, nor one of the type of what comes out: ask its bias, or another layer.

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
            quantise_weights(child, precision)
    return module


def quantise_model(model: nn.Module, weights: Precision) -> nn.Module:
    """Keeps the linear layers of a language model's backbone or of a flow in `weights`.

    Returns:
        The model, changed in place.
    """
    for name in ("backbone", "encoder", "estimator"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            quantise_weights(part, weights)
    return model


def num_model_bytes(model: nn.Module) -> int:
    """Memory of the weights of a model, with those that are packed."""
    sizes = [tensor.nbytes for tensor in model.state_dict().values()]
    packed = [part.nbytes for part in model.modules() if isinstance(part, PackedInt8Linear)]
    return sum(sizes) + sum(packed)


_MIN_FEATURES = 16
