"""How often the CPU waits for a device while it speaks; see `pretend_device`.

On a GPU every wait empties the queue of its work. The language model waits once a token, whose id
decides what comes next; flow and vocoder do not wait at all: their callers do, for the sound.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pretend_device import DEVICE, WAITS, pretend
from torch import Tensor, nn

from tokenlm.models.flow import FlowConfig, FlowDecoder
from tokenlm.models.flow.config import cosyvoice_flow_config
from tokenlm.models.lm import SamplingConfig, SpeechLM
from tokenlm.models.lm.decoding import Decoding, KeyValueCache, SpeechRequest, decode_step

CODES = 11
SIZES: dict[str, Any] = {
    "codebook_size": CODES, "speaker_dim": 6, "speaker_condition_dim": 4, "encoder_dim": 16,
    "encoder_layers": 1, "encoder_heads": 2, "dim": 16, "num_layers": 1, "num_heads": 2,
    "chunk_tokens": 4, "chunk_step_tokens": (2,), "left_tokens": 4, "num_steps": 1,
}  # fmt: skip
UNET: dict[str, Any] = {
    "encoder": "conformer", "encoder_hidden_dim": 32, "encoder_up_layers": 1, "estimator": "unet",
    "patch_frames": 1, "blocks_per_level": 1, "num_mid_levels": 1, "head_dim": 8,
}  # fmt: skip
F5: dict[str, Any] = {"encoder": "lookahead", "estimator": "f5_dit", "patch_frames": 1,
                      "encoder_hidden_dim": 32}  # fmt: skip


def prompt(device: torch.device | str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    made = {
        "prompt_tokens": torch.randint(CODES, (1, 5), generator=generator),
        "prompt_mel": torch.randn(1, 10, 80, generator=generator) - 5,
        "speaker_embedding": torch.randn(1, 6, generator=generator),
    }
    return {name: value.to(device) for name, value in made.items()}


def stream(flow: FlowDecoder, pieces: list[Tensor], device: torch.device | str) -> list[Tensor]:
    states = [flow.start(**prompt(device)) for _ in range(2)]
    mels: list[Tensor] = []
    for piece in pieces:
        mels.append(flow.step(piece, states[0], seed=4))
    together = [flow.start(**prompt(device)) for _ in range(2)]
    for piece in pieces:
        mels += flow.step_batch([piece, piece], together, seeds=[4, 5], flush=[False, False])
    return mels


@pytest.mark.slow
@pytest.mark.parametrize("parts", [{}, F5, UNET, {**UNET, "chunks_from": "prompt_start"}])
def test_a_flow_does_not_wait(parts: dict[str, Any]) -> None:
    config = cosyvoice_flow_config if "chunks_from" in parts else FlowConfig
    sizes = SIZES | parts
    if "chunks_from" in parts:
        sizes |= {"chunk_step_tokens": (), "left_tokens": None}
    torch.manual_seed(0)
    flow = FlowDecoder(config(**sizes)).eval().requires_grad_(False)
    for weight in flow.parameters():
        if not weight.any():  # a layer that starts at zero would hide what comes before it
            nn.init.normal_(weight, std=0.1)
    tokens = torch.randint(CODES, (1, 13), generator=torch.Generator().manual_seed(3))
    pieces = [*tokens.split(flow.config.chunk_tokens, dim=1)]
    whole = flow.generate(tokens, **prompt("cpu"), seed=4)
    streamed = stream(flow, pieces, "cpu")
    with pretend(has_float64=True) as counts:
        flow.to(DEVICE)
        given, uploaded = prompt(DEVICE), [piece.to(DEVICE) for piece in pieces]
        counts.clear()
        found = flow.generate(tokens.to(DEVICE), **given, seed=4)
        found_streamed = stream(flow, uploaded, DEVICE)
        assert sum(counts.values()) > 500, "nothing was computed on the device"
        assert counts.get(WAITS, 0) == 0
        torch.testing.assert_close(found.cpu(), whole, atol=1e-4, rtol=0)
        for one, other in zip(found_streamed, streamed, strict=True):
            torch.testing.assert_close(one.cpu(), other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(repetition_window=0)])
def test_a_language_model_waits_once_a_token(
    tiny_models: dict[str, nn.Module], sampling: SamplingConfig
) -> None:
    model = tiny_models["speech_lm"]
    assert isinstance(model, SpeechLM)
    plain = decode(model, sampling, steps=8)
    copy = SpeechLM(model.config).eval().requires_grad_(False)
    copy.load_state_dict(model.state_dict())
    with pretend(has_float64=True) as counts:
        copy.to(DEVICE)
        counts.clear()
        assert decode(copy, sampling, steps=8) == plain
        assert counts[WAITS] == 8


def decode(model: SpeechLM, sampling: SamplingConfig, steps: int) -> list[list[int]]:
    requests = [SpeechRequest(text_tokens=[5, 9, 3, 7, 8, 2, 9, 9], seed=seed) for seed in (1, 2)]
    cache = KeyValueCache(model)
    decodings = [
        Decoding(model, cache, request.sequence(model), sampling=sampling, seed=request.seed)
        for request in requests
    ]
    for _ in range(steps):
        decode_step(model, decodings)
    return [list(item.tokens) for item in decodings]


def test_a_vocoder_does_not_wait(tiny_models: dict[str, nn.Module]) -> None:
    vocoder = tiny_models["vocoder"]
    mel = torch.randn(1, 20, 80, generator=torch.Generator().manual_seed(1)) - 5
    plain = vocoder(mel)
    copy = type(vocoder)(vocoder.config).eval().requires_grad_(False)
    copy.load_state_dict(vocoder.state_dict())
    with pretend(has_float64=True) as counts:
        copy.to(DEVICE)
        given = mel.to(DEVICE)
        counts.clear()
        found = copy(given)
        state = copy.init_state(1)
        pieces = [copy(piece, state) for piece in given.split(7, dim=1)]
        pieces.append(copy.flush(state))
        assert sum(counts.values()) > 50 and counts.get(WAITS, 0) == 0
        torch.testing.assert_close(found.cpu(), plain, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            torch.cat([p.cpu() for p in pieces], dim=1), plain, atol=1e-5, rtol=0
        )
