"""What the stage flow prepares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenlm.models.flow import FlowDecoder
from tokenlm.models.flow.matching import SIGMA_MIN
from tokenlm.modules.context import FULL_CONTEXT, Context
from training.run import load_task, main
from training.stages.flow import FlowTask
from training.task import StepInfo


@pytest.fixture
def task(stage_config: Callable[..., Path]) -> FlowTask:
    _, task = load_task(stage_config("flow"))
    assert isinstance(task, FlowTask)
    task.build()
    return task


def batch_of(task: FlowTask, *indices: int) -> dict[str, Tensor]:
    data: Any = task.dataset("train")
    return task.collate([data[index] for index in indices])


def noise(tensors: dict[str, Tensor], item: int) -> Tensor:
    t = tensors["t"][item]
    return (tensors["x_t"][item] - t * tensors["x1"][item]) / (1 - (1 - SIGMA_MIN) * t)


def test_shapes_and_counts(task: FlowTask) -> None:
    batch = batch_of(task, 0, 3)
    assert batch["num_tokens"].tolist() == [20, 27]
    prepared = task.prepare(batch, StepInfo(0, 0, 0))
    tensors = prepared.tensors
    assert prepared.counts == {"flow/velocity": (20 + 27) * 2 * 80}
    for name in ("x_t", "x1", "velocity", "prompt_mel"):
        assert tensors[name].shape == (2, 54, 80), name
    assert tensors["mask"].sum(dim=1).tolist() == [20, 27]
    torch.testing.assert_close(tensors["speaker_embedding"].norm(dim=1), torch.ones(2))
    expected = tensors["x1"][0] - (1 - SIGMA_MIN) * noise(tensors, 0)
    torch.testing.assert_close(tensors["velocity"][0], expected, atol=1e-3, rtol=1e-3)


def test_prompt_is_the_start_of_the_utterance(task: FlowTask) -> None:
    batch = batch_of(task, 0, 1, 2, 3)
    lengths = []
    for step in range(20):
        tensors = task.prepare(batch, StepInfo(0, step, 0)).tensors
        for item, pinned in enumerate(tensors["pinned"].tolist()):
            prompt = tensors["prompt_mel"][item]
            assert bool((prompt[2 * pinned :] == 0).all())
            # Without augmentation it is the mel that is to be rendered.
            torch.testing.assert_close(prompt[: 2 * pinned], tensors["x1"][item, : 2 * pinned])
            assert pinned <= 0.7 * int(batch["num_tokens"][item])
            lengths.append(pinned)
    assert 0.1 < lengths.count(0) / len(lengths) < 0.4 and max(lengths) > 10


def test_draws_depend_on_the_place_alone(task: FlowTask) -> None:
    """Neither on the other items, nor on how the global batch is cut."""
    both = task.prepare(batch_of(task, 0, 3), StepInfo(0, 4, 0)).tensors
    first = task.prepare(batch_of(task, 0), StepInfo(0, 4, 0)).tensors
    second = task.prepare(batch_of(task, 3), StepInfo(0, 4, 1)).tensors
    for alone, item, frames in ((first, 0, 40), (second, 1, 54)):
        for name in ("t", "pinned", "dropped"):
            assert torch.equal(both[name][item], alone[name][0]), name
        torch.testing.assert_close(
            noise(both, item)[:frames], noise(alone, 0), atol=1e-3, rtol=1e-3
        )
    assert both["context"] == first["context"] == second["context"]
    again = task.prepare(batch_of(task, 0), StepInfo(0, 5, 0)).tensors
    assert not torch.equal(again["t"], first["t"])


def test_noise_is_not_made_of_the_draws_of_the_time(task: FlowTask) -> None:
    """A generator that starts anew would give the noise the bits that the time was made of."""
    info = StepInfo(0, 0, 0)
    tensors = task.prepare(batch_of(task, 0), info).tensors
    anew = torch.randn(40, 80, generator=info.generator(0))
    assert not torch.allclose(noise(tensors, 0), anew, atol=0.1)
    assert abs(float((noise(tensors, 0) * anew).mean())) < 0.1


def test_every_context_is_trained(task: FlowTask) -> None:
    counts = Counter(task._context(StepInfo(0, step, 0)) for step in range(400))
    chunked = [(size, left) for size in (4, 6) for left in (None, 75)]
    expected = {Context(chunk_frames=size, left_frames=left) for size, left in chunked}
    expected.add(FULL_CONTEXT)
    assert set(counts) == expected
    assert 0.3 < counts[FULL_CONTEXT] / 400 < 0.5
    assert min(counts.values()) > 30


def test_loss_of_the_right_velocity_is_nothing(
    task: FlowTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = task.prepare(batch_of(task, 0, 3), StepInfo(0, 0, 0))
    monkeypatch.setattr(FlowDecoder, "forward", lambda self, *a, **k: prepared.tensors["velocity"])
    assert task._losses(prepared)["flow/velocity"].item() == 0


def test_mistakes_are_sentences(
    stage_config: Callable[..., Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = stage_config("flow", "1", model={"codebook_size": 9, "speaker_dim": 5})
    assert main(["--config", str(config)]) == 1
    assert "model.speaker_dim is 5, but" in capsys.readouterr().err
    config = stage_config("flow", "2", data={"train": f"{corpus}/train.jsonl"})
    assert main(["--config", str(config)]) == 1
    assert "has no speech tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bounded_share": 1.5}, "bounded_share must be in"),
        ({"chunk_tokens": []}, "chunk_tokens must name at least one"),
    ],
)
def test_impossible_configs(
    stage_config: Callable[..., Path], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        load_task(stage_config("flow", **change))
