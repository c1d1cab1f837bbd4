"""The whole flows of CosyVoice 2 and 3 against the reference numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.checkpoint.cosyvoice.flow import flow_config, flow_to_ours, flow_to_theirs
from tokenlm.models.flow.decoder import FlowDecoder, cosine_schedule, fixed_noise, path
from tokenlm.modules.streaming import FULL_CONTEXT, Context
from training.losses.flow import velocity_loss

FILES = {2: "flow_cfm", 3: "cv3_flow"}


class Case:
    """A model of one version with its numbers."""

    def __init__(self, version: int, golden: Any) -> None:
        self.version = version
        self.golden = golden
        sizes = golden.sizes
        shapes = {key: tuple(tensor.shape) for key, tensor in golden.weights.items()}
        estimator = sizes["estimator"]
        self.config = flow_config(version, shapes, num_heads=estimator["heads"])  # type: ignore[arg-type]
        assert self.config.head_dim == estimator["head_dim"]
        self.model = FlowDecoder(self.config)
        self.model.load_state_dict(flow_to_ours(version, golden.weights))  # type: ignore[arg-type]
        self.model.eval()
        noise = golden["in.noise"][0].T
        self.model.initial_noise = (  # type: ignore[method-assign]
            lambda _seed, _prompt_seed, _frames, start, count: noise[start : start + count]
        )
        frames = estimator["static_chunk_size"]
        self.chunk = Context(chunk_frames=frames // self.config.frames_per_token)
        encoder = sizes.get("encoder", sizes)
        assert self.config.lookahead_tokens == encoder["pre_lookahead_len"]
        if version == 2:
            assert self.config.encoder_heads == encoder["heads"]
            assert self.chunk.chunk_frames == encoder["static_chunk_size"]

    def context(self, name: str) -> Context:
        return FULL_CONTEXT if name.startswith("full") else self.chunk

    @property
    def given(self) -> dict[str, Any]:
        golden = self.golden
        return {
            "prompt_tokens": golden["in.prompt_token"],
            "prompt_mel": golden["in.prompt_feat"],
            "speaker_embedding": golden["in.embedding"],
            "num_steps": golden.sizes["n_timesteps"],
            "guidance_scale": golden.sizes["cfg_rate"],
        }


@pytest.fixture(scope="module", params=[2, 3])
def case(request: pytest.FixtureRequest, golden: Callable[[str], Any]) -> Case:
    return Case(request.param, golden(FILES[request.param]))


@pytest.mark.parametrize("name", ["full_final", "full_partial", "chunk_final", "chunk_partial"])
def test_golden_mel(case: Case, name: str) -> None:
    mel = case.model.generate(
        case.golden["in.token"],
        seed=0,
        context=case.context(name),
        has_ended=name.endswith("final"),
        **case.given,
    )
    case.golden.check(mel.mT, f"out.{name}.mel")


@pytest.mark.parametrize("name", ["full_final", "full_partial", "chunk_final", "chunk_partial"])
@torch.no_grad()
def test_golden_condition(case: Case, name: str) -> None:
    golden = case.golden
    tokens = torch.cat([golden["in.prompt_token"], golden["in.token"]], dim=1)
    size = tokens.shape[1]
    if name.endswith("partial"):
        size -= case.config.lookahead_tokens
    future = tokens[:, size:] if size < tokens.shape[1] else None
    encoded = case.model.encoder(tokens[:, :size], case.context(name), future=future)
    golden.check(encoded.mT, f"out.{name}.mu")


@torch.no_grad()
def test_golden_first_velocity(case: Case) -> None:
    golden, model = case.golden, case.model
    speaker = model.project_speaker(golden["in.embedding"])
    golden.check(speaker, "out.spk")
    golden.check(cosine_schedule(golden.sizes["n_timesteps"]), "out.t_span")
    tokens = torch.cat([golden["in.prompt_token"], golden["in.token"]], dim=1)
    encoded = model.encoder(tokens)
    prompt = torch.zeros_like(encoded)
    prompt[:, : golden["in.prompt_feat"].shape[1]] = golden["in.prompt_feat"]
    golden.check(prompt.mT, "out.full_final.cond")
    condition = model.condition(encoded, prompt, speaker)
    x, t = golden["in.noise"].mT, torch.zeros(1)
    golden.check(model.estimator(x, t, condition).mT, "out.full_final.first_velocity_cond")
    without = model.estimator(x, t, torch.zeros_like(condition)).mT
    golden.check(without, "out.full_final.first_velocity_uncond")


@pytest.mark.parametrize("pieces", [[1] * 99, [4, 9, 2], [99]])
def test_golden_cached_steps(case: Case, pieces: list[int]) -> None:
    """A stream gives the mel of the chunk-masked whole, however its tokens arrive."""
    state = case.model.start(context=case.chunk, **case.given)
    tokens, mels = case.golden["in.token"], []
    for count in pieces:
        part, tokens = tokens[:, :count], tokens[:, count:]
        mels.append(case.model.step(part, state, seed=0))
    mels.append(case.model.step(tokens, state, seed=0))  # more than the pieces take
    known = torch.cat(mels, dim=1).shape[1]
    mels.append(case.model.step(tokens[:, :0], state, seed=0, flush=True))
    streamed = torch.cat(mels, dim=1)
    case.golden.check(streamed.mT, "out.chunk_final.mel")
    # Whole chunks are the same before the end of the speech is known.
    partial = case.golden["out.chunk_partial.mel"][..., :known]
    atol = case.golden.atol("out.chunk_partial.mel")
    config, given = case.config, case.golden["in.prompt_token"].shape[1]
    size, total = case.chunk.chunk_frames, given + case.golden["in.token"].shape[1]
    assert size is not None
    whole = (total - config.lookahead_tokens) // size * size
    assert known == max(whole - given, 0) * config.frames_per_token
    torch.testing.assert_close(streamed[:, :known].mT, partial, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["full", "chunk"])
def test_golden_training_step(case: Case, name: str) -> None:
    golden, model = case.golden, case.model
    feat, lengths = golden["in.train.feat"], golden["in.train.feat_len"]
    frames = torch.arange(feat.shape[1])[None]
    mask = frames < lengths[:, None]
    tokens = golden["in.train.token"]
    token_mask = torch.arange(tokens.shape[1])[None] < golden["in.train.token_len"][:, None]
    prefix = f"in.train.{name}."
    is_prompt = frames < golden[prefix + "prompt_len"][:, None]
    t = golden[prefix + "t"].flatten()
    x_t, velocity = path(golden[prefix + "z"].mT, feat, t, golden.sizes["sigma_min"])
    golden.check(x_t.mT, f"out.train.{name}.y")
    dropped = golden[prefix + "cfg_u"] <= golden.sizes["training_cfg_rate"]
    model.requires_grad_(True).zero_grad()
    predicted = model(
        x_t,
        t,
        tokens=tokens,
        prompt_mel=feat * is_prompt[..., None],
        speaker_embedding=golden["in.train.embedding"],
        context=case.context(name),
        mask=token_mask,
        dropped=dropped,
    )
    valid = mask[:, None].expand_as(predicted.mT)
    golden.check(predicted.mT, f"out.train.{name}.pred", valid)
    loss = velocity_loss(predicted, velocity, mask) / (mask.sum() * feat.shape[2])
    golden.check(loss, f"out.train.{name}.loss")
    loss.backward()
    gradients: dict[str, Tensor] = {
        key: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for key, weight in model.named_parameters()
    }
    theirs = flow_to_theirs(case.version, gradients)  # type: ignore[arg-type]
    for key in golden.sizes["grad_keys"]:
        golden.check(theirs[key], f"out.train.{name}.grad.{key}")
    model.requires_grad_(False)


def test_golden_fixed_noise(golden: Callable[[str], Any]) -> None:
    numbers = golden("flow_cfm")
    head = numbers["out.official_noise_head"]
    noise = fixed_noise(head.shape[1])[: head.shape[2]]
    numbers.check(noise.T[None], "out.official_noise_head")
