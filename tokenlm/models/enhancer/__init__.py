"""Speech enhancement: voice isolation on waveforms, enhancement of mel spectrograms."""

from tokenlm.models.enhancer.isolator import VoiceIsolator, VoiceIsolatorConfig
from tokenlm.models.enhancer.unet import MelEnhancer, MelEnhancerConfig

__all__ = ["MelEnhancer", "MelEnhancerConfig", "VoiceIsolator", "VoiceIsolatorConfig"]
