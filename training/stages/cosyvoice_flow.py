"""Stage cosyvoice_flow: the flow decoders of CosyVoice 2 and 3, as a rule from imported weights.

    tokenlm train cosyvoice_flow

The data, the draws and the loss are those of the stage flow. The shares are those that these
weights were trained with (Du et al., 2024, section 2.4): half of the steps with full context, the
others in chunks of one size that see all that lies before; half of the items without a prompt, the
others with one of at most 30 % of the utterance; one item in five without any condition.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenlm.models.flow import CosyVoiceFlowConfig
from training.data.augment import AugmentConfig
from training.stages.flow import FlowMatchingConfig, FlowTask


def _as_recorded() -> AugmentConfig:
    return AugmentConfig(clean=1.0)


@dataclass(frozen=True, kw_only=True)
class CosyVoiceFlowStageConfig(FlowMatchingConfig):
    """Configuration of the stage; `model` may be the `config.yaml` of an imported flow."""

    model: CosyVoiceFlowConfig = field(default_factory=CosyVoiceFlowConfig)
    augment: AugmentConfig = field(default_factory=_as_recorded)
    full_context_share: float = 0.5
    chunk_tokens: tuple[int, ...] = (25,)
    bounded_share: float = 0.0
    no_prompt_share: float = 0.5
    max_prompt_share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounded_share > 0 and self.model.left_tokens is None:
            raise ValueError(
                "bounded_share trains the window of model.left_tokens, which is not set"
            )


class CosyVoiceFlowTask(FlowTask):
    """Trains a `CosyVoiceFlow`, with the U-Net or with the DiT."""

    name = "cosyvoice_flow"
    kind = "cosyvoice_flow"
