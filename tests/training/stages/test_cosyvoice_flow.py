"""The loss of the flows of CosyVoice is that of the reference, and so are its draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.checkpoint import save_component
from tokenlm.checkpoint.cosyvoice.flow import flow_config, flow_to_ours
from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config
from tokenlm.models.flow.decoder import path
from tokenlm.models.onnx_models import OnnxGraph, OnnxSpeakerConfig
from tokenlm.modules.streaming import FULL_CONTEXT, Context
from training.data.split import DataConfig
from training.loop.task import Prepared, StepInfo
from training.run import load_task
from training.stages.flow import FlowStageConfig, FlowTask

UNET = {"encoder_layers": 1, "encoder_up_layers": 1, "blocks_per_level": 1, "num_mid_levels": 1}
DIT = {"encoder": "lookahead", "estimator": "f5_dit", "num_layers": 1}


@pytest.mark.parametrize(("version", "file"), [(2, "flow_cfm"), (3, "cv3_flow")])
@pytest.mark.parametrize("name", ["full", "chunk"])
def test_golden_loss(version: Any, file: str, name: str, golden: Callable[[str], Any]) -> None:
    numbers = golden(file)
    shapes = {key: tuple(tensor.shape) for key, tensor in numbers.weights.items()}
    sizes = numbers.sizes["estimator"]
    config = flow_config(version, shapes, num_heads=sizes["heads"])
    task = FlowTask(
        FlowStageConfig(
            stage="flow",
            bounded_share=0.0,
            data=DataConfig(train=Path("none")),
            speaker_encoder=Path("none"),
            model=config,
        )
    )
    flow = FlowDecoder(config).eval()
    flow.load_state_dict(flow_to_ours(version, numbers.weights))
    task.modules = {"flow": flow}
    feat, lengths = numbers["in.train.feat"], numbers["in.train.token_len"]
    draws = {key: numbers[f"in.train.{name}.{key}"] for key in ("z", "t", "prompt_len", "cfg_u")}
    x_t, velocity = path(draws["z"].mT, feat, draws["t"].flatten(), numbers.sizes["sigma_min"])
    is_prompt = torch.arange(feat.shape[1])[None] < draws["prompt_len"][:, None]
    tokens = numbers["in.train.token"]
    chunk = sizes["static_chunk_size"] // config.frames_per_token
    prepared = Prepared(
        tensors={
            "x_t": x_t,
            "t": draws["t"].flatten(),
            "velocity": velocity,
            "tokens": tokens,
            "prompt_mel": feat * is_prompt[..., None],
            "speaker_embedding": numbers["in.train.embedding"],
            "context": FULL_CONTEXT if name == "full" else Context(chunk_frames=chunk),
            "mask": torch.arange(tokens.shape[1])[None] < lengths[:, None],
            "pinned": draws["prompt_len"] // config.frames_per_token,
            "dropped": draws["cfg_u"] <= numbers.sizes["training_cfg_rate"],
        },
        counts={},
    )
    count = int(lengths.sum()) * config.frames_per_token * config.mel.num_mels
    loss = task._losses(prepared)["flow/velocity"] / count
    numbers.check(loss, f"out.train.{name}.loss")


@pytest.fixture
def task(stage_config: Callable[..., Path]) -> FlowTask:
    _, task = load_task(stage_config("flow.cosyvoice"))
    assert isinstance(task, FlowTask)
    task.build()
    return task


def batch_of(task: FlowTask, *indices: int) -> dict[str, Tensor]:
    data: Any = task.dataset("train")
    return task.collate([data[index] for index in indices])


def test_draws_are_those_of_the_reference(task: FlowTask) -> None:
    contexts = Counter(task._context(StepInfo(0, step, 0)) for step in range(400))
    assert set(contexts) == {FULL_CONTEXT, Context(chunk_frames=4)}
    assert 0.4 < contexts[FULL_CONTEXT] / 400 < 0.6
    batch = batch_of(task, 0, 1, 2, 3)
    shares: list[float] = []
    for step in range(30):
        tensors = task.prepare(batch, StepInfo(0, step, 0)).tensors
        shares += (tensors["pinned"] / batch["num_tokens"]).tolist()
    assert 0.35 < shares.count(0.0) / len(shares) < 0.7 and 0.2 < max(shares) <= 0.3


def test_training_goes_on_after_speech_was_rendered(task: FlowTask) -> None:
    """What rendering keeps for the next call was made without gradient."""
    batch = batch_of(task, 0, 3)
    with torch.no_grad():
        metrics = task.evaluate([batch], task.modules)
    assert metrics["velocity"] > 0 and metrics["mel_distance"] > 0
    prepared = task.prepare(batch, StepInfo(0, 0, 0))
    task._losses(prepared)["flow/velocity"].backward()
    gradients = [weight.grad for weight in task.modules["flow"].parameters()]
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("parts", [UNET, DIT])
@torch.no_grad()
def test_a_window_is_trained_as_it_is_streamed(parts: dict[str, Any]) -> None:
    """Items of one batch keep the whole chunks of their own prompts."""
    torch.manual_seed(0)
    config = cosyvoice_flow_config(
        codebook_size=9, speaker_dim=8, encoder_dim=16, encoder_hidden_dim=24, encoder_heads=2,
        dim=16, num_heads=2, head_dim=8, **parts,
    )  # fmt: skip
    flow = FlowDecoder(config).eval()
    context = Context(chunk_frames=4, left_frames=2)
    tokens = torch.randint(9, (2, 20))
    given = {
        "tokens": tokens,
        "prompt_mel": torch.randn(2, 40, 80),
        "speaker_embedding": torch.randn(2, 8),
    }
    x_t, t = torch.randn(2, 40, 80), torch.rand(2)
    both = flow(x_t, t, context=context, pinned_tokens=torch.tensor([12, 2]), **given)
    for item, num_prompt in ((0, 12), (1, 2)):
        row = {name: tensor[item : item + 1] for name, tensor in given.items()}
        alone = flow(
            x_t[item : item + 1], t[item : item + 1],
            context=flow.prompt_context(context, num_prompt), **row,
        )  # fmt: skip
        torch.testing.assert_close(both[item : item + 1], alone, rtol=0, atol=1e-5)
    other = flow(x_t, t, context=context, pinned_tokens=torch.tensor([2, 2]), **given)
    assert not torch.allclose(other[0], both[0], atol=1e-3)


def test_the_speaker_is_heard_by_a_graph(
    stage_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph takes one recording at a time; its embeddings are trained with."""
    monkeypatch.setattr(
        OnnxGraph, "run", lambda self, frames, count: frames.mean(dim=1)[:, :8].clone()
    )
    save_component(
        tmp_path / "speaker",
        kind="onnx_speaker_encoder",
        config=OnnxSpeakerConfig(embedding_dim=8, num_bytes=4),
        state_dict={"graph.graph": torch.zeros(4, dtype=torch.uint8)},
    )
    encoder = str(tmp_path / "speaker")
    path = stage_config("flow.cosyvoice", speaker_encoder=encoder, model={"speaker_dim": 8})
    _, task = load_task(path)
    assert isinstance(task, FlowTask)
    task.build()
    with torch.no_grad():
        prepared = task.prepare(batch_of(task, 0, 3), StepInfo(0, 0, 0))
    assert prepared.tensors["speaker_embedding"].shape == (2, 8)
    task._losses(prepared)["flow/velocity"].backward()
    speaker = task.modules["flow"].speaker
    assert isinstance(speaker, torch.nn.Linear) and speaker.weight.grad is not None


def test_a_window_without_a_size_is_a_mistake(stage_config: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"window of model\.left_tokens, which is not set"):
        load_task(stage_config("flow.cosyvoice", bounded_share=0.5))
