"""Recordings that are spread over actors give the manifest of one process, to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_sounds import RATE, quiet, tone
from verb_runner import run_verb

from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import save_component
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from training.data.cluster import Cluster, ClusterError
from training.refine import on_cluster, recognisers
from training.refine.command import refine
from training.refine.steps import SEGMENT_FILE, read_rows

OUTPUTS = ("out.jsonl", "out.rejects.jsonl", "out.html")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings with and without text, one of several clips, one that is no sound."""
    for number in range(4):
        parts = [quiet(0.3), tone(2.0 + 0.06 * number, 300.0 + 600.0 * (number % 2)), quiet(0.3)]
        save_audio(tmp_path / "raw" / "ann" / f"{number}.wav", torch.cat(parts), RATE)
        (tmp_path / "raw" / "ann" / f"{number}.txt").write_text(f"This is number {number}, yes.")
    long = torch.cat([quiet(0.3), tone(2.5), quiet(1.0), tone(1.5, 900.0), quiet(0.3)])
    save_audio(tmp_path / "raw" / "long.wav", long, RATE)
    (tmp_path / "raw" / "broken.wav").write_bytes(b"RIFF")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SpeakerEncoder(SpeakerEncoderConfig(dim=16, num_layers=1, embedding_dim=8))
    save_component(
        tmp_path / "encoder",
        kind="speaker_encoder",
        config=encoder.config,
        state_dict=encoder.state_dict(),
    )
    (tmp_path / "config.yaml").write_text("{detector: level, min_bandwidth_hz: 100.0}\n")
    return tmp_path


def run(folder: Path, recogniser: str, *words: object) -> dict[str, bytes]:
    """Refine; returns all that was written, sound aside."""
    options: list[object] = ["--recogniser", recogniser, "--cluster-speakers"]
    options += ["--speaker-encoder", folder / "encoder", "--config", folder / "config.yaml"]
    source, output = folder / "raw", folder / "out.jsonl"
    result = run_verb(refine, source, output, *options, "--max-rejects", "0.5", *words)
    assert result.exit_code == 0, result.output
    work = folder / "out.work"
    files = [*(folder / name for name in OUTPUTS), *sorted(work.glob("*.jsonl"))]
    return {path.name: path.read_bytes() for path in files}


class InThisProcess:
    """Runs the tasks of a cluster here, in any order; can be told to stop."""

    num_tasks = 99

    @staticmethod
    def run(
        cluster: Cluster, start: Callable[..., Any], facts: tuple[Any, ...], tasks: Any
    ) -> Iterator[tuple[str, Any]]:
        work = start(*facts)
        for name, make in list(reversed(tasks))[: InThisProcess.num_tasks]:
            yield name, work(make())
        if InThisProcess.num_tasks < len(tasks):
            raise ClusterError("the rest failed")


@pytest.mark.slow
def test_rows_are_those_of_one_process_whatever_was_done_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the work and an end in its middle leave no trace."""

    def make_recogniser(name: str) -> Callable[[torch.Tensor], str]:
        return lambda waveform: f"{name} hears {waveform.shape[0]}"

    for module in (on_cluster, recognisers):
        monkeypatch.setattr(module, "make_recogniser", make_recogniser)
    expected = run(folder, "it")
    assert len(expected[SEGMENT_FILE].splitlines()) == 6
    (folder / "out.work").rename(folder / "first.work")
    monkeypatch.setattr(on_cluster.Cluster, "run", InThisProcess.run)
    monkeypatch.setattr(InThisProcess, "num_tasks", 3)
    with pytest.raises(AssertionError, match="the rest failed"):
        run(folder, "it", "--cluster", "local")
    done = read_rows(folder / "out.work" / SEGMENT_FILE)
    assert sorted(done) == ["ann/3", "broken", "long"]
    with (folder / "out.work" / SEGMENT_FILE).open("a") as file:
        file.write('{"id": "ann/2", "cl')  # torn by a kill
    seen: list[str] = []
    monkeypatch.setattr(InThisProcess, "num_tasks", 99)
    refine_recording = on_cluster.steps.refine_recording

    def counted(recording: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(recording.id)
        return refine_recording(recording, *arguments, **options)

    monkeypatch.setattr(on_cluster.steps, "refine_recording", counted)
    assert run(folder, "it", "--cluster", "local") == expected
    assert sorted(seen) == ["ann/0", "ann/1", "ann/2", "broken"], "what is done is not done again"
    for path in (folder / "first.work" / "clips").rglob("*.flac"):
        twin = folder / "out.work" / path.relative_to(folder / "first.work")
        assert twin.read_bytes() == path.read_bytes()
    names = {json.loads(line)["speaker"] for line in expected["out.jsonl"].splitlines()}
    assert names and all(name.startswith("voice") for name in names)


@pytest.mark.nightly
def test_actors_on_this_machine(folder: Path, tiny_bundle: Path) -> None:
    expected = run(folder, f"ours:{tiny_bundle}")
    (folder / "out.work").rename(folder / "first.work")
    options = ["--cluster", "local", "--actors", "2"]
    assert run(folder, f"ours:{tiny_bundle}", *options) == expected
