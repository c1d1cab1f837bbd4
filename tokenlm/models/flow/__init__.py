"""Flow decoders: speech tokens to mel spectrogram by conditional flow matching."""

from tokenlm.models.flow.config import FlowConfig, cosyvoice_flow_config
from tokenlm.models.flow.decoder import FlowDecoder, FlowState

__all__ = ["FlowConfig", "FlowDecoder", "FlowState", "cosyvoice_flow_config"]
