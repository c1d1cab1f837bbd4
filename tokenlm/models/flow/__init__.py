"""Flow decoders: speech tokens to mel spectrogram by conditional flow matching."""

from tokenlm.models.flow.config import FlowConfig
from tokenlm.models.flow.cosyvoice import CosyVoiceFlow, CosyVoiceFlowState
from tokenlm.models.flow.cosyvoice_config import CosyVoiceFlowConfig
from tokenlm.models.flow.decoder import FlowDecoder
from tokenlm.models.flow.state import FlowState

__all__ = [
    "CosyVoiceFlow",
    "CosyVoiceFlowConfig",
    "CosyVoiceFlowState",
    "FlowConfig",
    "FlowDecoder",
    "FlowState",
]
