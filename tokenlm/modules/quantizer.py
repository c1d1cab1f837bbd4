"""Finite scalar quantizer (Mentzer et al., 2023) over `vector-quantize-pytorch`.

Shapes: B batch, N tokens, D channels, C digits of a code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class FiniteScalarQuantizer(nn.Module):
    """Projects D channels to C digits, rounds each to its level, and gives an index for the code.

    Rounding passes gradients straight through. `blend` lets a recogniser learn on the continuous
    digits before they are rounded.
    """

    def __init__(self, dim: int, levels: tuple[int, ...]) -> None:
        # Takes a second to import, which those who only speak need not wait for.
        from vector_quantize_pytorch import FSQ

        super().__init__()
        self.levels = levels
        self.project_in = nn.Linear(dim, len(levels))
        self.fsq = FSQ(levels=list(levels), dim=len(levels), return_indices=False)
        basis = [math.prod(levels[:place]) for place in range(len(levels))]
        self._tables = (list(levels), basis)
        self._apply(lambda tensor: tensor)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # The tables of the library hold whole numbers, and what is computed of them alone has the
        # default dtype, which another library may have set to one that is too coarse.
        super()._apply(fn, recurse)
        device = self.project_in.weight.device
        for name, values in zip(("_levels", "_basis"), self._tables, strict=True):
            setattr(self.fsq, name, torch.tensor(values, dtype=torch.float32, device=device))
        return self

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return math.prod(self.levels)

    def forward(self, x: Tensor, blend: float = 1.0) -> Tensor:
        """Code vectors of `x`.

        Args:
            x: (B, N, D).
            blend: 1 gives rounded digits, 0 the continuous ones, values between a mixture.

        Returns:
            (B, N, C) digits in about [-1, 1].
        """
        digits = self.project_in(x)
        rounded = self.fsq.quantize(digits)
        if blend >= 1.0:
            return rounded
        return torch.lerp(self._bound(digits), rounded, blend)

    def continuous(self, x: Tensor) -> Tensor:
        """The digits (…, C) of `x` (…, D) before rounding, in about [-1, 1]."""
        return self._bound(self.project_in(x))

    def _bound(self, digits: Tensor) -> Tensor:
        """The digits before rounding: the bound of the paper (appendix A.1), in code units.

        That of the library rounds as well.
        """
        levels = torch.tensor(self.levels, device=digits.device, dtype=digits.dtype)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = (levels % 2 == 0).to(levels.dtype) / 2
        bounded = (digits + (offset / half).atanh()).tanh() * half - offset
        return bounded / torch.div(levels, 2, rounding_mode="floor")

    def encode(self, x: Tensor) -> Tensor:
        """Code indices (B, N) of `x` (B, N, D)."""
        return self.fsq.codes_to_indices(self.fsq.quantize(self.project_in(x))).long()

    def decode(self, indices: Tensor) -> Tensor:
        """Code vectors (B, N, C) of indices (B, N)."""
        return self.fsq.indices_to_codes(indices)
