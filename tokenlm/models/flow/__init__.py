"""Flow decoder: speech tokens to mel spectrogram by conditional flow matching."""

from tokenlm.models.flow.config import FlowConfig
from tokenlm.models.flow.decoder import FlowDecoder
from tokenlm.models.flow.state import FlowState

__all__ = ["FlowConfig", "FlowDecoder", "FlowState"]
