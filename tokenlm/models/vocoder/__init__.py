"""Vocoders: mel spectrogram to waveform."""

from tokenlm.models.vocoder.generator import Vocoder, VocoderConfig, VocoderState
from tokenlm.models.vocoder.hift import HiFT, HiFTConfig

__all__ = ["HiFT", "HiFTConfig", "Vocoder", "VocoderConfig", "VocoderState"]
