"""The language model that writes speech tokens after text."""

from tokenlm.models.lm.decoding import SamplingConfig
from tokenlm.models.lm.guards import NO_GUARDS, GuardConfig
from tokenlm.models.lm.model import BackboneConfig, SpeechLM, SpeechLMConfig

__all__ = [
    "NO_GUARDS",
    "BackboneConfig",
    "GuardConfig",
    "SamplingConfig",
    "SpeechLM",
    "SpeechLMConfig",
]
