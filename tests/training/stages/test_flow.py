"""What the stage flow prepares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.checkpoint.registry import load_model
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.flow.decoder import SIGMA_MIN, path
from tokenlm.modules.streaming import FULL_CONTEXT, Context
from training.loop.task import StepInfo
from training.run import load_task, main
from training.stages.flow import FlowTask
from training.stages.token_reader import ReadingConfig, TokenReader, reading_loss


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


def test_some_items_are_infilled_where_everything_is_seen(
    stage_config: Callable[..., Path],
) -> None:
    settings: dict[str, Any] = {"infill_share": 0.5, "infill_span": [0.2, 0.6]}
    settings["augment"] = {"clean": 0.0, "noise": 1.0}
    _, task = load_task(stage_config("flow", **settings))
    assert isinstance(task, FlowTask)
    task.build()
    batch = batch_of(task, 0, 1, 2, 3)
    flow = task.modules["flow"]
    assert isinstance(flow, FlowDecoder)
    recorded = flow.normalize(task.mel(batch["recorded"]))
    spans = []
    for step in range(30):
        tensors = task.prepare(batch, StepInfo(0, step, 0)).tensors
        for item, count in enumerate(batch["num_tokens"].tolist()):
            is_prompt = (tensors["prompt_mel"][item] != 0).any(dim=-1)
            assert not is_prompt[2 * count :].any()
            if not is_prompt[2 * count - 1]:
                assert tensors["pinned"][item] * 2 in (0, is_prompt.sum())
                continue
            assert tensors["context"] == FULL_CONTEXT and tensors["pinned"][item] == 0
            hidden = torch.nonzero(~is_prompt[: 2 * count]).flatten()
            start, end = int(hidden[0]), int(hidden[-1]) + 1
            assert end - start == len(hidden) and start % 2 == end % 2 == 0
            spans.append((start, end - start, 2 * count))
            # The span is rendered as its surroundings were recorded.
            torch.testing.assert_close(
                tensors["x1"][item, : 2 * count], recorded[item, : 2 * count]
            )
    assert len(spans) > 10
    assert all(0.15 < size / count <= 0.6 for _, size, count in spans)
    assert len({start for start, _, _ in spans}) > 5


def test_infilling_is_conditioned_as_it_is_trained(stage_config: Callable[..., Path]) -> None:
    """The same condition, the same points where the mel is known, the same velocity."""
    settings: dict[str, Any] = {"infill_share": 1.0, "full_context_share": 1.0}
    settings |= {"infill_span": [0.3, 0.5], "augment": {"clean": 0.0, "noise": 1.0}}
    _, task = load_task(stage_config("flow", **settings))
    assert isinstance(task, FlowTask)
    task.build()
    tensors = task.prepare(batch_of(task, 0), StepInfo(0, 0, 0)).tensors
    flow = task.modules["flow"]
    assert isinstance(flow, FlowDecoder)
    flow.eval()
    flow.config = replace(flow.config, infills=True)
    seen: list[tuple[Any, ...]] = []
    hook = flow.estimator.register_forward_hook(
        lambda _, arguments, out: seen.append((*arguments[:4], out))
    )

    def trained(x_t: Tensor, t: Tensor) -> Tensor:
        return flow(
            x_t,
            t,
            tokens=tensors["tokens"],
            prompt_mel=tensors["prompt_mel"],
            speaker_embedding=tensors["speaker_embedding"],
            context=tensors["context"],
            mask=tensors["mask"],
            pinned_tokens=tensors["pinned"],
        )

    trained(tensors["x_t"], tensors["t"])
    known = (tensors["prompt_mel"][0] != 0).any(dim=-1)
    assert known[0] and known[-1] and not known.all()
    mel = flow.denormalize(tensors["x1"])
    rendered = flow.infill(
        tensors["tokens"],
        mel,
        known[::2][None],
        speaker_embedding=tensors["speaker_embedding"],
        seed=5,
        num_steps=3,
        guidance_scale=0.0,
    )
    hook.remove()
    assert torch.equal(rendered[0, known], mel[0, known])
    assert not torch.allclose(rendered[0, ~known], mel[0, ~known], atol=0.1)
    x0 = flow.initial_noise(5, 5, 0, 0, len(known))
    assert len(seen) == 4
    for x_t, t, condition, context, velocity in seen[1:]:
        torch.testing.assert_close(condition, seen[0][2], atol=1e-4, rtol=1e-4)
        assert context == tensors["context"].scaled(2)
        on_path = path(x0[None], tensors["x1"], t)[0]
        torch.testing.assert_close(x_t[0, known], on_path[0, known], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(velocity, trained(x_t, t), atol=1e-3, rtol=1e-3)


def test_a_flow_says_whether_it_infills(stage_config: Callable[..., Path], tmp_path: Path) -> None:
    for share in (0.0, 0.3):
        _, task = load_task(stage_config("flow", infill_share=share))
        assert isinstance(task, FlowTask)
        task.build()
        task.export(tmp_path / str(share))
        flow = load_model(tmp_path / str(share) / "flow", FlowDecoder)
        assert flow.config.infills is (share > 0)


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


def test_envelope_is_a_loss_where_it_is_asked_for(stage_config: Callable[..., Path]) -> None:
    _, task = load_task(stage_config("flow", envelope_bands=9))
    assert isinstance(task, FlowTask)
    task.build()
    prepared = task.prepare(batch_of(task, 0, 3), StepInfo(0, 0, 0))
    assert prepared.counts["flow/envelope"] == prepared.counts["flow/velocity"]
    losses = task._losses(prepared)
    assert set(losses) == {"flow/velocity", "flow/envelope"}
    # The items are parted by padding, which counts in neither.
    places = ((0, 0), (1, 3))
    alone = [task.prepare(batch_of(task, row), StepInfo(0, 0, item)) for item, row in places]
    total = sum(task._losses(one)["flow/envelope"] for one in alone)
    torch.testing.assert_close(losses["flow/envelope"], total, atol=0.5, rtol=1e-3)
    with torch.no_grad():
        measured = task.evaluate([batch_of(task, 0, 3)], task.modules)
    expected = losses["flow/envelope"].item() / prepared.counts["flow/envelope"]
    assert measured["envelope"] == pytest.approx(expected)


@pytest.mark.parametrize("bands", [-1, 4])
def test_envelope_needs_an_odd_number_of_bins(
    stage_config: Callable[..., Path], bands: int
) -> None:
    with pytest.raises(ValueError, match="envelope_bands must be 0 or odd"):
        load_task(stage_config("flow", envelope_bands=bands))


@pytest.fixture
def reading_task(stage_config: Callable[..., Path]) -> FlowTask:
    _, task = load_task(stage_config("flow", reading={"start_step": 3, "dim": 16}))
    assert isinstance(task, FlowTask)
    task.build()
    return task


def test_prediction_is_read_where_it_can_be(reading_task: FlowTask) -> None:
    batch = batch_of(reading_task, 0, 1, 2, 3)
    for step in range(20):
        prepared = reading_task.prepare(batch, StepInfo(0, step, 0))
        tensors = prepared.tensors
        for item, count in enumerate(batch["num_tokens"].tolist()):
            read = step >= 3 and tensors["t"][item] >= 0.25 and not tensors["dropped"][item]
            assert int(tensors["is_read"][item].sum()) == (count if read else 0)
        assert prepared.counts["flow/reading"] == float(tensors["is_read"].sum())
        assert prepared.counts["flow/reader"] == float(batch["num_tokens"].sum())


def test_reading_the_right_velocity_is_reading_the_recording(
    reading_task: FlowTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = reading_task.prepare(batch_of(reading_task, 0, 1, 2, 3), StepInfo(0, 5, 0))
    velocity = prepared.tensors["velocity"].clone().requires_grad_(True)
    monkeypatch.setattr(FlowDecoder, "forward", lambda self, *a, **k: velocity)
    losses = reading_task._losses(prepared)
    prepared.tensors["mask"], whole = prepared.tensors["is_read"], prepared.tensors["mask"]
    expected = reading_task._read(prepared)["flow/reader"]
    # The path ends at the recording plus a millionth of the noise.
    torch.testing.assert_close(losses["flow/reading"], expected, rtol=1e-3, atol=1e-3)
    assert whole.sum() > prepared.tensors["is_read"].sum() > 0
    losses["flow/reading"].backward()
    assert velocity.grad is not None and float(velocity.grad.abs().sum()) > 0
    assert all(p.grad is None for p in reading_task.modules["reader"].parameters())


def test_stage_reports_what_can_be_read(stage_config: Callable[..., Path], tmp_path: Path) -> None:
    changes = {"reading": {"start_step": 1, "dim": 16}, "loss_weights": {"flow/reading": 0.1}}
    assert main(["--config", str(stage_config("flow", **changes))]) == 0
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "flow/reading" in row]
    assert [row["flow/reading"] > 0 for row in trained] == [False, True]
    assert all(row["flow/reader"] > 1 for row in trained)
    measured = [row for row in rows if "tokens_read" in row]
    assert measured and all(0 <= row["tokens_read_recorded"] <= 1 for row in measured)
    assert (tmp_path / "run/export/flow").is_dir() and not (tmp_path / "run/export/reader").exists()


def test_reader_learns_to_read() -> None:
    torch.manual_seed(0)
    config = ReadingConfig(dim=16, num_layers=1)
    reader = TokenReader(config, num_mels=4, frames_per_token=2, codebook_size=5)
    tokens, mask = torch.randint(5, (6, 9)), torch.ones(6, 9, dtype=torch.bool)
    mask[:, 7:] = False
    mel = functional.one_hot(tokens, 5).float().repeat_interleave(2, dim=1)[..., :4]
    optimizer = torch.optim.Adam(reader.parameters(), lr=1e-2)
    for _ in range(60):
        loss = reading_loss(reader(mel, mask), tokens, mask) / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    # What lies behind the end of an item changes nothing.
    other = mel.clone()
    other[:, 14:] = 9.0
    torch.testing.assert_close(reader(other, mask)[:, :7], reader(mel, mask)[:, :7])


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
        ({"infill_share": -0.1}, "infill_share must be in"),
        ({"infill_span": [0.5, 0.2]}, "infill_span must rise within"),
        ({"chunk_tokens": []}, "chunk_tokens must name at least one"),
        ({"reading": {"start_step": -1}}, "start_step must not be negative"),
        ({"reading": {"min_time": 1.0}}, "min_time must be in"),
        ({"reading": {"kernel_size": 4}}, "must be odd"),
    ],
)
def test_impossible_configs(
    stage_config: Callable[..., Path], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        load_task(stage_config("flow", **change))
