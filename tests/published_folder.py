"""Folders as CosyVoice 2 and 3 are published, with few channels and random weights."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.audio.mel import WhisperMelConfig
from tokenlm.checkpoint.cosyvoice.flow import flow_mel, flow_to_theirs
from tokenlm.checkpoint.cosyvoice.hift import hift_to_theirs
from tokenlm.checkpoint.cosyvoice.importer import (
    SPEAKER_FILE,
    TOKENIZER_FILES,
    import_cosyvoice,
)
from tokenlm.checkpoint.cosyvoice.lm import lm_to_theirs
from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config
from tokenlm.models.fsmn_tokenizer import FSMNTokenizer, FSMNTokenizerConfig
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
    flow = cosyvoice_flow_config(
        mel=flow_mel(version),  # type: ignore[arg-type]
        codebook_size=size,
        speaker_dim=SPEAKER_DIM,
        encoder="lookahead" if third else "conformer",
        encoder_dim=16,
        encoder_hidden_dim=24,
        encoder_layers=1,
        encoder_up_layers=2,
        encoder_heads=2,
        estimator="f5_dit" if third else "unet",
        dim=16,
        num_heads=2,
        head_dim=8,
        blocks_per_level=1,
        num_mid_levels=1,
        num_layers=2,
    )
    vocoder = HiFTConfig(mel=flow_mel(version), is_causal=third, dim=16, pitch_dim=8)  # type: ignore[arg-type]
    return {"llm": SpeechLM(lm), "flow": FlowDecoder(flow), "hift": HiFT(vocoder)}


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


@pytest.fixture(scope="session")
def tokenizer() -> FSMNTokenizer:
    torch.manual_seed(0)
    config = FSMNTokenizerConfig(
        mel=WhisperMelConfig(), dim=16, num_heads=2, num_layers=2, expansion=2, num_digits=DIGITS
    )
    module = FSMNTokenizer(config)
    for weight in module.parameters():  # equal ones would be stored once
        nn.init.normal_(weight, std=0.3)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def graphs(tokenizer: FSMNTokenizer) -> dict[str, bytes]:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    lengths = torch.tensor([50], dtype=torch.int32)
    inputs = (torch.randn(1, 128, 50), lengths)
    model = onnx.load_model_from_string(
        export(MelToTokens(tokenizer), inputs, ["feats", "feats_length"], 2)
    )
    names: dict[str, str] = {}
    for item in model.graph.initializer:
        names[item.name] = item.name = f"onnx::Anything_{len(names)}"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    torch.manual_seed(1)
    speaker = export(BankToEmbedding(), (torch.randn(1, 50, 80),), ["feats"], 1)
    return {"tokenizer": model.SerializeToString(), "speaker": speaker}


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["is it so? the quick brown fox."], trainer)
    folder = tmp_path_factory.mktemp("text") / "CosyVoice-BlankEN"
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(str(folder))
    return folder


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


@pytest.fixture(scope="session")
def imported_bundle(
    tmp_path_factory: pytest.TempPathFactory, graphs: dict[str, bytes], text_folder: Path
) -> Path:
    """What an import makes of a folder of version 2. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("imported")
    write_folder(folder / "published", 2, graphs, text_folder)
    import_cosyvoice(folder / "published", folder / "bundle", version=2, head_dims=SIZES)
    return folder / "bundle"
