"""Thresholds, curves and bounds by hand; a trigger from recordings to a report, at toy size."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inference.commands.listen import listen, resampled
from tests.verb_runner import run_verb
from tokenlm.audio.io import save_audio
from tokenlm.checkpoint.bundle import BundleManifest
from tokenlm.checkpoint.component import save_component
from tokenlm.config import save_config
from tokenlm.models.directedness import (
    AcousticDirectedness,
    AcousticDirectednessConfig,
    TextDirectedness,
    TextDirectednessConfig,
)
from tokenlm.models.phrase_detector import PhraseDetector, PhraseDetectorConfig
from tokenlm.trigger.cascade import Thresholds, Trigger, TriggerConfig
from tokenlm.trigger.checker import Checker
from training.stages.phrase_checker import load_pronunciation
from training.trigger import commands, examples
from training.trigger.directed import add_directedness
from training.trigger.evaluate import Outcome, det_curve, largest_rate, summarise
from training.trigger.examples import speak_examples, split_voices
from training.trigger.train import TriggerRecipe, choose_thresholds, fit_logistic, split_manifests

RATE = 16_000
SIZES: dict[str, Any] = {"dim": 16, "num_layers": 1, "num_heads": 2}


def outcome(kind: str, score: float, accepted: int = 0, seconds: float = 3600.0) -> Outcome:
    scores = {"detector": score, "checker": score, "logit": score}
    return Outcome(
        id="a", kind=kind, speaker="s", seconds=seconds, scores=scores, num_accepted=accepted
    )


def test_curve_by_hand() -> None:
    accepts, rejects = det_curve(np.array([1.0, 3.0]), np.array([0.0, 2.0]))
    assert accepts.tolist() == [1.0, 0.5, 0.5, 0.0, 0.0]
    assert rejects.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0]


def test_no_false_accept_in_ten_hours_proves_three_tenths() -> None:
    assert largest_rate(0, 10.0) == pytest.approx(-math.log(0.05) / 10)
    assert largest_rate(2, 1.0) > largest_rate(1, 1.0) > 4.7
    assert math.isinf(largest_rate(0, 0.0))


def test_summary_by_hand() -> None:
    found = summarise(
        [
            outcome("phrase", 3.0, 1),
            outcome("phrase", 0.5),
            outcome("close", 1.0, 1),
            outcome("close", 0.0),
            outcome("speech", -1.0, 2),
        ]
    )
    assert found["false_rejects"]["value"] == 0.5 and found["close_accepted"]["value"] == 0.5
    assert found["false_accepts"] == 2 and found["speech_hours"] == 1.0
    # One of two phrases scores below the highest of the others.
    assert found["stages"]["detector"]["false_rejects_at_no_false_accept"] == 0.5
    assert "branch" not in found["stages"]


def test_logistic_regression_parts_the_classes() -> None:
    own = np.array([[-0.1, 5.0], [-0.3, -5.0], [-0.2, 0.0]])
    other = np.array([[-2.0, 5.0], [-1.5, -5.0], [-1.8, 0.0]])
    weights, bias = fit_logistic(own, other)
    assert weights[0] > 1 and 0 < weights[1] < 0.1 * weights[0]
    assert (own @ weights + bias > 0).all() and (other @ weights + bias < 0).all()


def test_thresholds_accept_nothing_else_where_they_can() -> None:
    outcomes = [outcome("phrase", s) for s in (1.0, 2.0, 3.0)]
    outcomes += [outcome("close", s) for s in (-1.0, 0.0)]
    limits = choose_thresholds(outcomes)
    assert limits.detector == pytest.approx(1.0, abs=0.05)
    checker = limits.checker
    assert checker.logit({"checker": 0.0}) < checker.threshold < checker.logit({"checker": 0.9})
    # A close one that scores above all phrases: 5 % of the phrases are given up, no more.
    limits = choose_thresholds([*outcomes, outcome("close", 9.0)])
    assert limits.checker.threshold < limits.checker.logit({"checker": 1.2})


def test_recipes_are_checked() -> None:
    with pytest.raises(ValueError, match="give a phrase"):
        TriggerRecipe(phrases=())
    with pytest.raises(ValueError, match="there is no stage 'flow'"):
        TriggerRecipe(phrases=("token",), settings={"flow": ("a=1",)})


def test_resampled_blocks_have_no_seams() -> None:
    wave = torch.sin(torch.arange(48_000) / 48_000 * 2 * math.pi * 440)
    joined = torch.cat([*resampled(iter(wave.split(4_800)), 48_000)])
    expected = torch.sin(torch.arange(len(joined)) / RATE * 2 * math.pi * 440)
    assert len(joined) > 14_000
    assert (joined - expected)[500:-500].abs().max() < 0.01


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise that is said to be phrases; for the way of the data, not for what is learned."""
    folder = tmp_path_factory.mktemp("recordings")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(24):
        path = folder / f"{number}.wav"
        save_audio(path, 0.1 * torch.randn(RATE, generator=generator), RATE)
        text = "Hey token!" if number % 2 else "Hey taken."
        row = {"id": str(number), "audio": path.name, "text": text, "speaker": f"s{number // 4}"}
        rows.append(json.dumps({**row, "duration": 1.0, "directed": number % 3 == 0}) + "\n")
    (folder / "all.jsonl").write_text("".join(rows))
    (folder / "two.jsonl").write_text("".join(rows[:2]))
    return folder


def spoken_voices(name: str) -> set[str]:
    return {part.split(":")[0] for part in name.split("+")}


def test_no_voice_is_trained_on_and_chosen_by() -> None:
    for count, num_valid in ((2, 1), (3, 1), (4, 2), (6, 2), (20, 3)):
        names = [f"v{number}" for number in range(count)]
        splits = split_voices(names, 0.15, random.Random(0))
        train, valid = (set().union(*map(spoken_voices, splits[s])) for s in ("train", "valid"))
        assert len(valid) == num_valid and train == set(names) - valid
    with pytest.raises(ValueError, match="the bundle has 1 voices"):
        split_voices(["v"], 0.15, random.Random(0))


class Speaker:
    """In place of a synthesizer: every text is the same tone."""

    sample_rate = RATE
    voices = ("a", "b", "c", "d")

    def __init__(self) -> None:
        self.spoken: list[str] = []
        manifest = BundleManifest(
            name="toy", description="", language="en", licence="", sample_rate=RATE
        )
        self.components = SimpleNamespace(manifest=manifest)

    def generate(self, text: str, **settings: object) -> torch.Tensor:
        self.spoken.append(text)
        return 0.1 * torch.ones(800)


@pytest.mark.slow
def test_spoken_examples_are_of_the_texts_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The search for what sounds close takes a second.
    close = {"hey token": ["hey taken"], "computer": ["commuter"]}
    monkeypatch.setattr(examples, "close_phrases", lambda phrase, tokenizer: close[phrase])
    _, tokenizer = load_pronunciation(None)
    speaker = Speaker()

    def speak(phrase: str, seed: int = 0) -> list[dict[str, Any]]:
        speaker.spoken.clear()
        made = speak_examples(
            speaker, tokenizer, [phrase], tmp_path, 20, valid_share=0.3, seed=seed,  # type: ignore[arg-type]
        )  # fmt: skip
        return [json.loads(line) for line in made.read_text().splitlines()]

    rows = speak("hey token")
    assert speaker.spoken == [row["text"] for row in rows]
    assert speak("hey token") == rows and speaker.spoken == []
    paths = {row["audio"] for row in rows}
    # Another phrase, seed or bundle is spoken anew.
    assert paths.isdisjoint(row["audio"] for row in speak("computer"))
    assert paths.isdisjoint(row["audio"] for row in speak("hey token", seed=100))
    manifest = speaker.components.manifest
    speaker.components.manifest = replace(manifest, files={"flow/a": "0" * 64})
    assert paths.isdisjoint(row["audio"] for row in speak("hey token"))
    train, valid = split_manifests(
        [tmp_path / "examples.jsonl"], ["hey token"], tokenizer, tmp_path, 0
    )
    heard = [
        set().union(*(spoken_voices(json.loads(line)["speaker"]) for line in open(path)))
        for path in (train, valid)
    ]
    assert len(valid.read_text().splitlines()) == 6 and heard[0].isdisjoint(heard[1])


def save_net(folder: Path, kind: str, net: nn.Module) -> Path:
    save_component(folder, kind=kind, config=net.config, state_dict=net.state_dict())
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trigger with a net of directedness by text, all with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    source, tokenizer = load_pronunciation(None)
    phones = tuple(tokenizer.pronounce("hey token"))
    settings = PhraseDetectorConfig(phrases=("hey token",), phones=(phones,), dim=16, num_layers=1)
    save_net(folder / "phrase_detector", "phrase_detector", PhraseDetector(settings))
    checker = Checker.untrained(tokenizer, **SIZES)
    save_net(folder / "phrase_checker", "phrase_checker", checker.model)
    text = TextDirectedness(TextDirectednessConfig(**SIZES))
    save_net(folder / "text_directedness", "text_directedness", text)
    shutil.copytree(source, folder / "text_tokenizer")
    save_config(
        TriggerConfig(phrases=("hey token",), thresholds={"hey token": Thresholds()}),
        folder / "trigger.yaml",
    )
    return folder


@pytest.mark.slow
def test_what_cannot_be_read_is_left_out_of_a_report(
    untrained: Path, recordings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (recordings / "two.jsonl").read_text().splitlines()
    manifest = recordings / "broken.jsonl"
    broken = {**json.loads(lines[1]), "id": "broken", "audio": "broken.wav"}
    (recordings / "broken.wav").write_bytes(b"no sound")
    manifest.write_text("\n".join([json.dumps(broken), "no JSON", *lines]) + "\n")
    report = run_verb(
        commands.evaluate, untrained, "-o", tmp_path / "report", "--manifest", manifest
    )
    assert report.exit_code == 0, report.output
    figures = json.loads((tmp_path / "report" / "report.json").read_text())["phrases"]
    assert figures["hey token"]["num_phrase"] == figures["hey token"]["num_close"] == 1
    assert "the row 'broken' is left out" in caplog.text
    assert "3 of 4 rows are good" in caplog.text


def test_a_setting_needs_its_stage(tmp_path: Path) -> None:
    for word in ("max_steps=500", "rate=0.5"):
        made = run_verb(commands.train, "hey token", word, "-o", tmp_path / "trigger")
        assert made.exit_code == 2 and f"write checker.{word}" in made.output, made.output


@pytest.mark.slow
def test_a_net_of_directedness_that_is_not_named_stays(
    untrained: Path, recordings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trigger"
    shutil.copytree(untrained, folder)
    net = AcousticDirectedness(AcousticDirectednessConfig(**SIZES))
    acoustic = save_net(folder / "directedness", "directedness", net)
    manifest = recordings / "two.jsonl"
    # The net is given as that of the trigger itself, which was once deleted before it was copied.
    figures = add_directedness(folder, manifest, acoustic=acoustic)
    assert set(figures) == {"acoustic", "text", "both"}
    trigger = Trigger.load(folder)
    assert trigger.acoustic is not None and trigger.text is not None
    assert set(trigger.config.directed.weights) == {"acoustic", "text"}
    other = AcousticDirectedness(AcousticDirectednessConfig(**SIZES))
    source = save_net(tmp_path / "other", "directedness", other)
    add_directedness(folder, manifest, acoustic=source)
    assert (acoustic / "model.safetensors").read_bytes() == (
        source / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_from_recordings_to_a_report(recordings: Path, tmp_path: Path) -> None:
    manifest = recordings / "all.jsonl"
    small = ["optim.max_steps=2", "optim.warmup_steps=1", "batch.max_seconds_per_batch=8"]
    small += ["log.evaluate_every=2", "model.dim=16", "model.num_layers=1"]
    settings = [f"{stage}.{change}" for stage in ("checker", "detector") for change in small]
    settings += ["detector.score_step=0", "detector.palette_step=1", "checker.model.num_heads=2"]
    folder = tmp_path / "trigger"
    words = ("hey token", "token", *settings, "-o", folder, "--manifest", manifest, "--seed", 1)
    made = run_verb(commands.train, *words)
    assert made.exit_code == 0, made.output
    assert "phrase_detector: " in made.output and "listen with it" in made.output
    again = run_verb(commands.train, *words)
    assert again.exit_code == 0, again.output
    heard = run_verb(listen, folder, recordings / "1.wav", "--json")
    assert heard.exit_code == 0, heard.output
    facts = json.loads(heard.output.splitlines()[-1])
    assert facts["reason"] and facts["recording"].endswith("1.wav")
    report = run_verb(
        commands.evaluate, folder, "-o", tmp_path / "report", "--manifest", manifest,
        "--speech", manifest,
    )  # fmt: skip
    assert report.exit_code == 0, report.output
    assert "Each stage alone" in report.output
    figures = json.loads((tmp_path / "report" / "report.json").read_text())["phrases"]
    assert set(figures) == {"hey token", "token"}
    assert figures["hey token"]["num_phrase"] == 24 and figures["hey token"]["num_close"] == 12
    assert (tmp_path / "report" / "det.png").stat().st_size > 1000
    acoustic = AcousticDirectedness(AcousticDirectednessConfig(**SIZES))
    save_net(tmp_path / "directedness", "directedness", acoustic)
    text = TextDirectedness(TextDirectednessConfig(**SIZES))
    save_net(tmp_path / "text_directedness", "text_directedness", text)
    added = run_verb(
        commands.directed, folder, "--manifest", manifest, "--acoustic",
        tmp_path / "directedness", "--text", tmp_path / "text_directedness",
    )  # fmt: skip
    assert added.exit_code == 0 and "both: equal error rate" in added.output, added.output
    trigger = Trigger.load(folder)
    assert trigger.acoustic is not None and trigger.text is not None
    assert set(trigger.config.directed.weights) == {"acoustic", "text"}
    nothing = run_verb(listen, tmp_path, recordings / "1.wav")
    assert nothing.exit_code == 2 and "is no trigger" in nothing.output
