"""Vocoders: mel spectrogram to waveform."""

from tokenlm.models.vocoder.generator import Vocoder, VocoderConfig, VocoderState

__all__ = ["Vocoder", "VocoderConfig", "VocoderState"]
