"""Flow decoder: speech tokens to mel spectrogram by conditional flow matching."""

from tokenlm.models.flow.decoder import FlowConfig, FlowDecoder, FlowState

__all__ = ["FlowConfig", "FlowDecoder", "FlowState"]
