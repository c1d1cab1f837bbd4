"""Folders as CosyVoice 2 and 3 are published, with few channels and random weights."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenlm.checkpoint.adapters.cosyvoice2 import SPEAKER_FILE, TOKENIZER_FILES
from tokenlm.checkpoint.adapters.cosyvoice_flow import flow_mel, flow_to_theirs
from tokenlm.checkpoint.adapters.cosyvoice_hift import hift_to_theirs
from tokenlm.checkpoint.adapters.cosyvoice_lm import lm_to_theirs
from tokenlm.models.flow import CosyVoiceFlow, CosyVoiceFlowConfig
from tokenlm.models.fsmn_tokenizer import FSMNTokenizer
from tokenlm.models.lm import BackboneConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.vocoder import HiFT, HiFTConfig

DIGITS, SPEAKER_DIM, HEAD_DIM = 3, 12, 8
SIZES = {"lm_head_dim": HEAD_DIM, "flow_heads": 2, "tokenizer_head_dim": HEAD_DIM}


def tiny(version: int) -> dict[str, nn.Module]:
    """Models of the architecture, with random weights."""
    size = 3**DIGITS
    third = version == 3
    torch.manual_seed(version)
    lm = SpeechLMConfig(
        backbone=BackboneConfig(
            vocab_size=640,
            hidden_size=16,
            intermediate_size=32,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            rope_theta=1e6,
            max_positions=32_768,
        ),
        codebook_size=size,
        extra_classes=198 if third else 1,
        any_special_ends=True,
        specials_in_speech_table=third,
        head_bias=not third,
    )
    flow = CosyVoiceFlowConfig(
        mel=flow_mel(version),  # type: ignore[arg-type]
        codebook_size=size,
        speaker_dim=SPEAKER_DIM,
        encoder="lookahead" if third else "conformer",
        encoder_dim=16,
        encoder_hidden_dim=24,
        encoder_layers=1,
        encoder_up_layers=2,
        encoder_heads=2,
        estimator="dit" if third else "unet",
        dim=16,
        num_heads=2,
        head_dim=8,
        blocks_per_level=1,
        num_mid_levels=1,
        num_layers=2,
    )
    vocoder = HiFTConfig(mel=flow_mel(version), is_causal=third, dim=16, pitch_dim=8)  # type: ignore[arg-type]
    return {"llm": SpeechLM(lm), "flow": CosyVoiceFlow(flow), "hift": HiFT(vocoder)}


def published(version: Any, models: dict[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    """The weights under the published keys."""
    lm, flow, hift = (models[name] for name in ("llm", "flow", "hift"))
    return {
        "llm": lm_to_theirs(version, lm.config, lm.state_dict()),  # type: ignore[arg-type]
        "flow": flow_to_theirs(version, flow.state_dict(), 8),
        "hift": hift_to_theirs(hift.config, hift.state_dict()),  # type: ignore[arg-type]
    }


def export(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], axis: int) -> bytes:
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            data,
            input_names=names,
            dynamic_axes={names[0]: {axis: "T"}},
            dynamo=False,
            opset_version=17,
        )
    return data.getvalue()


class MelToTokens(nn.Module):
    """What the published graph takes and gives."""

    def __init__(self, tokenizer: FSMNTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, feats: Tensor, feats_length: Tensor) -> Tensor:
        return self.tokenizer.tokens_of_mel(feats.transpose(1, 2), feats_length)[0]


class BankToEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(80, SPEAKER_DIM)

    def forward(self, feats: Tensor) -> Tensor:
        return self.project(feats.abs().mean(dim=1))


def write_folder(
    folder: Path, version: Any, graphs: dict[str, bytes], text_folder: Path
) -> dict[str, nn.Module]:
    models = tiny(version)
    folder.mkdir()
    for name, state in published(version, models).items():
        torch.save(state, folder / f"{name}.pt")
    (folder / TOKENIZER_FILES[version]).write_bytes(graphs["tokenizer"])
    (folder / SPEAKER_FILE).write_bytes(graphs["speaker"])
    (folder / text_folder.name).symlink_to(text_folder)
    return models
