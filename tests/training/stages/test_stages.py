"""Every stage trains, evaluates, exports, and resumes as if never interrupted."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tokenlm.checkpoint.registry import KINDS, load_model
from tokenlm.trigger.kinds import TRIGGER_KINDS, load_net
from training.loop.checkpoints import latest_checkpoint
from training.run import main

ROOT = Path(__file__).parents[3]
EXPORTS = {
    "speech_tokenizer": ["speech_tokenizer", "token_recognizer"],
    "token_recognizer": ["token_recognizer"],
    "speaker_encoder": ["speaker_encoder"],
    "directedness": ["directedness"],
    "text_directedness": ["text_directedness"],
    "phrase_checker": ["phrase_checker"],
    "phrase_detector": ["phrase_detector"],
    "speech_lm": ["speech_lm"],
    "dpo": ["speech_lm"],
    "grpo": ["speech_lm"],
    "token_reward": ["speech_lm"],
    "flow": ["flow"],
    "vocoder": ["vocoder"],
    "flow.cosyvoice": ["flow"],
    "vocoder.chunked": ["vocoder"],
    "hift": ["vocoder"],
    "voice_isolator": ["voice_isolator"],
    "mel_enhancer": ["mel_enhancer"],
}
KINDS_OF = {"flow.cosyvoice": "flow", "hift": "hift", "vocoder.chunked": "vocoder"}
"""Kind of the component that is exported, where it is not its name."""
LOSSES = {
    "speech_tokenizer": {
        "tokenizer/ctc",
        "tokenizer/attention",
        "tokenizer/phone",
        "tokenizer/encoder_phone",
    },
    "token_recognizer": {"recognizer/ctc", "recognizer/attention"},
    "speaker_encoder": {"speaker/margin"},
    "directedness": {"directedness/directed"},
    "text_directedness": {"text_directedness/use"},
    "phrase_checker": {"checker/ctc", "checker/attention", "checker/branch"},
    "phrase_detector": {"detector/frames", "detector/score", "detector/range"},
    "speech_lm": {"lm/cross_entropy"},
    "dpo": {"dpo/preference", "dpo/chosen_nll", "reward/all", "dpo/pairs"},
    "grpo": {"grpo/policy", "grpo/kl", "reward/all", "reward/token_asr", "rollout/tokens"},
    "token_reward": {"token_reward/ctc", "token_reward/kl", "reward/duration"},
    "flow": {"flow/velocity"},
    "vocoder": {
        "vocoder/mel",
        "vocoder/convergence",
        "vocoder/log_magnitude",
        "vocoder/adversarial",
        "vocoder/feature_matching",
        "vocoder/discriminator",
    },
    "flow.cosyvoice": {"flow/velocity"},
    "vocoder.chunked": {"vocoder/mel", "vocoder/convergence", "vocoder/adversarial"},
    "hift": {
        "vocoder/mel",
        "vocoder/pitch",
        "vocoder/adversarial",
        "vocoder/feature_matching",
        "vocoder/discriminator",
    },
    "voice_isolator": {"isolator/magnitude", "isolator/spectrum", "isolator/distortion"},
    "mel_enhancer": {"mel_enhancer/mel"},
}
KILL = """
import os, signal, sys
from pathlib import Path
from training.loop.trainer import Trainer
from training.run import load_task

config, task = load_task(Path(sys.argv[1]))
prepare = task.prepare

def killed(batch, step):
    if step.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare(batch, step)

task.prepare = killed
Trainer(task, config).run()
"""


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=pytest.mark.slow) if stage == "vocoder.chunked" else stage
              for stage in EXPORTS]
)  # fmt: skip
def test_trains_evaluates_and_exports(
    stage: str, stage_config: Callable[..., Path], tmp_path: Path
) -> None:
    assert main(["--config", str(stage_config(stage))]) == 0
    rows = metrics(tmp_path / "run")
    trained = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in trained] == [1, 2]
    assert LOSSES[stage] <= trained[-1].keys()
    assert all(row["skipped_steps"] == 0 for row in trained)
    measured = [row for row in rows if row["kind"] == "valid"]
    assert len(measured) == 1 and len(measured[0]) > 3
    for row in rows:
        values = [value for value in row.values() if isinstance(value, (int, float))]
        assert all(math.isfinite(value) for value in values), row
    for name in EXPORTS[stage]:
        model_class = (KINDS | TRIGGER_KINDS)[KINDS_OF.get(stage, name)][1]
        load = load_net if name in TRIGGER_KINDS else load_model
        load(tmp_path / "run" / "export" / name, model_class)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, Tensor]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return {
        f"{path.name} {name}": tensor
        for path in sorted(checkpoint.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


QUICK = ("speech_lm", "token_recognizer")


@pytest.mark.parametrize(
    "stage", [stage if stage in QUICK else pytest.param(stage, marks=pytest.mark.slow)
              for stage in EXPORTS]
)  # fmt: skip
def test_trains_the_same_under_any_default_dtype(
    stage: str, stage_config: Callable[..., Path], tmp_path: Path
) -> None:
    assert main(["--config", str(stage_config(stage, "plain"))]) == 0
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert main(["--config", str(stage_config(stage, "other"))]) == 0
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(before)
    plain, other = weights(tmp_path / "plain"), weights(tmp_path / "other")
    assert plain.keys() == other.keys()
    for name, tensor in plain.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", EXPORTS)
def test_killed_and_resumed_equals_uninterrupted(
    stage: str, stage_config: Callable[..., Path], tmp_path: Path
) -> None:
    optim = {"max_steps": 5, "warmup_steps": 1, "lr": 1e-3, "ema_decay": 0.5}
    log = {"log_every": 1, "evaluate_every": 2, "save_every": 2}
    whole, parted = (stage_config(stage, run, optim=optim, log=log) for run in ("whole", "parted"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILL, str(parted)]
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert latest_checkpoint(tmp_path / "parted") == tmp_path / "parted" / "step-000002"
    # Only what is killed needs a process of its own, which takes longer to start than to train.
    for config in (parted, whole):
        assert main(["--config", str(config)]) == 0
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parted")
    assert expected.keys() == found.keys()
    assert any("ema" in name for name in expected)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    for name in EXPORTS[stage]:
        file = Path("export") / name / "model.safetensors"
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parted" / file).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["flow", "vocoder", "flow.cosyvoice", "hift", "voice_isolator", "mel_enhancer"]
)
def test_samples_can_be_heard_and_seen(
    stage: str, stage_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = stage_config(stage, log={"evaluate_every": 0, "sample_every": 2})
    assert main(["--config", str(config)]) == 0
    found = {path.name for path in (tmp_path / "run" / "samples" / "step-000002").iterdir()}
    if stage == "voice_isolator":
        kinds = ("noisy", "isolated", "clean")
        assert found == {f"{index}-{kind}.wav" for index in range(3) for kind in kinds}
        return
    assert {"0.png", "1.png", "2.png"} <= found
    if stage in ("vocoder", "hift"):
        assert {"0.wav", "1.wav", "2.wav"} <= found
