"""Options that make the models of a bundle faster or smaller; none of them is on by default."""

from __future__ import annotations

from torch import nn

from tokenlm.modules.attention import CachePrecision, keep_caches_in
from tokenlm.modules.quantised import Precision, quantise_weights
from tokenlm.synthesis.components import Components


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


def accelerate(
    components: Components,
    *,
    weights: Precision = "float32",
    caches: CachePrecision = "float32",
    is_compiled: bool = False,
    backend: str = "inductor",
) -> Components:
    """Changes the models that speak, for inference alone.

    Args:
        components: loaded; its language model and flow are changed in place.
        weights: of their linear layers. bfloat16 halves memory and, where the processor multiplies
            it, time; int8 quarters memory. What comes out deviates by about a hundredth.
        caches: of the keys and values that the flow keeps of a stream, for each solver step; those
            of CosyVoice grow with the speech. Whole speech is rounded alike.
        is_compiled: whether the estimator of the flow goes through `torch.compile`, which takes
            minutes at the first call and needs a compiler for the inductor.
        backend: of `torch.compile`.

    Returns:
        The same components.
    """
    quantise_model(components.speech_lm, weights)
    quantise_model(components.flow, weights)
    keep_caches_in(components.flow.estimator, caches)
    if is_compiled:
        components.flow.estimator.compile(dynamic=True, backend=backend)
    return components
