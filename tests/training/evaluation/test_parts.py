"""Components of every kind are found by what they are in a bundle."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tokenlm.audio.mel import MelConfig
from tokenlm.checkpoint import save_component
from tokenlm.models.flow import CosyVoiceFlow, CosyVoiceFlowConfig
from tokenlm.models.fsmn_tokenizer import FSMNTokenizer, FSMNTokenizerConfig
from tokenlm.models.onnx_models import OnnxSpeakerConfig, OnnxSpeakerEncoder
from tokenlm.models.vocoder import HiFT, HiFTConfig
from training.evaluation.parts import find_parts


def test_imported_components_are_found(tmp_path: Path) -> None:
    mel = MelConfig()
    flow = CosyVoiceFlowConfig(
        mel=mel, codebook_size=27, speaker_dim=12, encoder_dim=16, encoder_hidden_dim=24,
        encoder_layers=1, encoder_up_layers=1, encoder_heads=2, dim=16, num_heads=2, head_dim=8,
        blocks_per_level=1, num_mid_levels=1,
    )  # fmt: skip
    tokenizer = FSMNTokenizerConfig(dim=16, num_heads=2, num_layers=1, num_digits=3)
    models: dict[str, tuple[str, nn.Module]] = {
        "flow": ("cosyvoice_flow", CosyVoiceFlow(flow)),
        "vocoder": ("hift", HiFT(HiFTConfig(mel=mel, dim=16, pitch_dim=8))),
        "speech_tokenizer": ("fsmn_tokenizer", FSMNTokenizer(tokenizer)),
        "speaker_encoder": (
            "onnx_speaker_encoder",
            OnnxSpeakerEncoder(OnnxSpeakerConfig(embedding_dim=12, num_bytes=4)),
        ),
    }
    mark = models["speech_tokenizer"][1].fingerprint
    assert isinstance(mark, str)
    for name, (kind, model) in models.items():
        save_component(
            tmp_path / name,
            kind=kind,
            config=model.config,
            state_dict=model.state_dict(),
            extra={"tokenizer": mark} if name == "flow" else {},
        )
    parts = find_parts(None, [tmp_path])
    assert parts.folders == {name: tmp_path / name for name in models}
    assert not parts.missing("resynthesis") and parts.missing("cloned")
    parts.check()
    assert isinstance(parts.flow, CosyVoiceFlow) and isinstance(parts.vocoder, HiFT)
    assert isinstance(parts.speech_tokenizer, FSMNTokenizer)
    assert isinstance(parts.speaker_encoder, OnnxSpeakerEncoder)
    assert parts.manifest.sample_rate == mel.sample_rate
    assert torch.equal(
        parts.flow.embedding.weight, models["flow"][1].get_parameter("embedding.weight")
    )
