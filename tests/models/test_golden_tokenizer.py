"""The speech tokenizer of CosyVoice 2 against the reference numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.audio.mel import WhisperMelConfig
from tokenlm.checkpoint.cosyvoice.graphs import tokenizer_table
from tokenlm.models.fsmn_tokenizer import (
    NUM_LEVELS,
    FSMNTokenizer,
    FSMNTokenizerConfig,
    pack_digits,
    tokens_of_frames,
)


@pytest.fixture(scope="module")
def numbers(golden: Callable[[str], Any]) -> Any:
    return golden("s3_tokenizer")


@pytest.fixture(scope="module")
def tokenizer(numbers: Any) -> FSMNTokenizer:
    sizes = numbers.sizes
    assert sizes["fsq_levels"] == NUM_LEVELS
    config = FSMNTokenizerConfig(
        mel=WhisperMelConfig(num_mels=sizes["n_mels"]),
        dim=sizes["d_model"],
        num_heads=sizes["heads"],
        num_layers=sizes["layers"],
        expansion=sizes["mlp_ratio"],
        kernel_size=sizes["fsmn_kernel"],
        num_digits=sizes["fsq_dims"],
        rope_theta=sizes["rope_theta"],
    )
    module = FSMNTokenizer(config)
    module.load_state_dict(tokenizer_table().to_ours(numbers.weights))
    return module.eval().requires_grad_(False)


def test_golden_padded_batch(numbers: Any, tokenizer: FSMNTokenizer) -> None:
    seen: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _m, _i, out, i=i: seen.__setitem__(f"block{i}", out))
        for i, block in enumerate(tokenizer.blocks)
    ]
    # What stands in padding is masked out.
    mel = numbers["in.mel"].mT.clone()
    frames = torch.arange(mel.shape[1])
    mel[frames >= numbers["in.mel_len"][:, None]] = 7.0
    hidden, num_tokens = tokenizer(mel, numbers["in.mel_len"])
    for hook in hooks:
        hook.remove()
    numbers.check(num_tokens, "out.token_len")
    numbers.check(tokens_of_frames(numbers["in.mel_len"]), "out.token_len")
    valid = torch.arange(hidden.shape[1]) < num_tokens[:, None]
    for name, value in seen.items():
        numbers.check(value, f"out.{name}", valid)
    numbers.check(hidden, "out.hidden", valid)
    numbers.check(tokenizer.project(hidden), "out.fsq_projected", valid)
    digits = tokenizer.digits(hidden)
    numbers.check(digits, "out.fsq_pre_round", valid)
    numbers.check(pack_digits(digits), "out.indices", valid)


def test_golden_items_alone(numbers: Any, tokenizer: FSMNTokenizer) -> None:
    for item, length in enumerate(numbers["in.mel_len"][:, None]):
        mel = numbers["in.mel"][item : item + 1, :, : int(length)].mT
        numbers.check(tokenizer(mel, length)[0], f"out.single{item}_hidden")
        numbers.check(tokenizer.tokens_of_mel(mel, length)[0], f"out.single{item}_indices")


def test_golden_quantizer(numbers: Any, tokenizer: FSMNTokenizer) -> None:
    hidden = numbers["out.hidden"]
    valid = torch.arange(hidden.shape[1]) < numbers["out.token_len"][:, None]
    numbers.check(tokenizer.project(hidden), "out.fsq_projected", valid)
    digits = tokenizer.digits(hidden)
    numbers.check(digits, "out.fsq_pre_round", valid)
    numbers.check(pack_digits(digits), "out.indices", valid)


def test_golden_packing(numbers: Any) -> None:
    numbers.check(pack_digits(numbers["in.fsq_levels"].float()), "out.fsq_table_indices")
