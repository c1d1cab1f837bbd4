"""Options that make the models of a bundle faster or smaller; none of them is on by default."""

from __future__ import annotations

from tokenlm.modules.attention import CachePrecision, keep_caches_in
from tokenlm.modules.quantised import Precision, quantise_model
from tokenlm.synthesis.components import Components


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
        components: loaded; its language model and flow are changed in place, before an adapter is
            loaded. Models of an adapter's own are changed alike, but not compiled.
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
    if weights != "float32":  # what is quantised stays so
        components.adapters.weights = weights
    components.adapters.caches = caches
    if is_compiled:
        components.flow.estimator.compile(dynamic=True, backend=backend)
    return components
