"""Differentiable reward on speech tokens: what the frozen ASR half reads, with a gradient.

The idea is that of the differentiable reward of CosyVoice 3 (Du et al., 2025): tokens drawn by a
Gumbel softmax, straight through, into an ASR that reads tokens. Here the tokens were drawn before,
with a cache; given them, the Gumbel noise that must have drawn them is drawn from its posterior,
and one parallel pass gives the gradient.

Shapes: B sequences, N speech tokens, K codes, C digits of a code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def posterior_gumbels(logits: Tensor, tokens: Tensor, uniforms: Tensor) -> Tensor:
    """Logits plus Gumbel noise (B, N, K), given which of them was the largest.

    The largest of all is a Gumbel variable about the log of the sum, whichever it was; the others
    are cut off above by it (Maddison et al., 2014).

    Args:
        logits: (B, N, K).
        tokens: (B, N) indices of the largest.
        uniforms: (B, N, K) in [0, 1).
    """
    tiny = torch.finfo(torch.float32).tiny
    noise = -torch.log(-torch.log(uniforms.float().clamp(tiny, 1.0 - 1e-7)))
    logits = logits.float()
    place = tokens[..., None]
    top = logits.logsumexp(dim=-1, keepdim=True) + noise.gather(-1, place)
    free = logits + noise
    # -log(exp(-top) + exp(-free)), without overflow.
    below = -torch.logaddexp(-top, -free)
    return below.scatter(-1, place, top)


def straight_through(
    logits: Tensor, tokens: Tensor, uniforms: Tensor, temperature: float
) -> Tensor:
    """One-hot tokens (B, N, K) whose gradient is that of the Gumbel softmax (Jang et al., 2017).

    Args:
        logits: (B, N, K).
        tokens: (B, N) what was drawn.
        uniforms: (B, N, K) in [0, 1).
        temperature: of the softmax.
    """
    soft = (posterior_gumbels(logits, tokens, uniforms) / temperature).softmax(dim=-1)
    hard = functional.one_hot(tokens, logits.shape[-1]).to(soft.dtype)
    return hard + soft - soft.detach()
