"""A small tokenizer, the graphs of it and of a speaker encoder, and a text tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_folder import DIGITS, BankToEmbedding, MelToTokens, export
from torch import nn

from tokenlm.audio.mel import WhisperMelConfig
from tokenlm.models.fsmn_tokenizer import FSMNTokenizer, FSMNTokenizerConfig


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
