"""Flow decoders: speech tokens to mel spectrogram."""

from tokenlm.models.flow.cosyvoice import CosyVoiceFlow, CosyVoiceFlowState
from tokenlm.models.flow.cosyvoice_config import CosyVoiceFlowConfig
from tokenlm.models.flow.decoder import FlowConfig, FlowDecoder, FlowState

__all__ = [
    "CosyVoiceFlow",
    "CosyVoiceFlowConfig",
    "CosyVoiceFlowState",
    "FlowConfig",
    "FlowDecoder",
    "FlowState",
]
