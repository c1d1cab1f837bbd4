"""The language model that writes speech tokens after text."""

from tokenlm.models.lm.model import BackboneConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.lm.sampling import SamplingConfig

__all__ = ["BackboneConfig", "SamplingConfig", "SpeechLM", "SpeechLMConfig"]
