"""Every file under configs/ loads, and what it describes is built on the meta device."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from inference.server.settings import ServeConfig
from tokenlm.audio.mel import MelSpectrogram
from tokenlm.checkpoint.registry import KINDS
from tokenlm.config import from_dict, load_config
from tokenlm.models.flow import FlowConfig
from tokenlm.models.vocoder import VocoderConfig
from tokenlm.synthesis.components import GenerationConfig
from tokenlm.trigger.kinds import TRIGGER_KINDS
from training.bundle import BundleConfig
from training.evaluation.config import EvaluationConfig
from training.personal.config import TuneConfig
from training.personal.tuning import settings_of
from training.recipes.corpus.config import CorpusConfig
from training.recipes.corpus.plan import read_sentences
from training.refine.config import RefineConfig
from training.run import load_task, read_stage
from training.stages import STAGES

NETS = KINDS | TRIGGER_KINDS
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PATHS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.y*ml"))


def build(kind: str, config: object) -> nn.Module:
    """A model of any size, without memory for its weights."""
    with torch.device("meta"):
        module = NETS[kind][1](config)
    assert all(weight.is_meta for weight in module.parameters())
    return module


def check_train(path: Path) -> None:
    config, task = load_task(path)
    assert task.name == config.stage == path.stem.partition(".")[0]
    found = {
        field: kind
        for field in ("model", "recognizer")
        for kind, (config_class, _) in NETS.items()
        if isinstance(getattr(config, field, None), config_class)
    }
    assert "model" in found
    for field, kind in found.items():
        build(kind, getattr(config, field))


def check_model(path: Path) -> None:
    """`configs/model/<size>/<kind>.yaml` or `configs/model/<kind>.yaml` is a component's config."""
    kind = path.stem
    assert kind in KINDS, f"{path} is named after none of {', '.join(KINDS)}"
    module = build(kind, load_config(KINDS[kind][0], path))
    count = sum(weight.numel() for weight in module.parameters()) / 1e6
    said = re.search(r"([\d.]+) M parameters", path.read_text(encoding="utf-8"))
    assert said is None or float(said[1]) == round(count, 2), f"{path}: {count:.2f} M parameters"


def check_corpus(path: Path) -> None:
    config = load_config(CorpusConfig, path)
    assert read_sentences(config.heldout_sentences)


def check_bundle(path: Path) -> None:
    config = load_config(BundleConfig, path)
    from_dict(GenerationConfig, config.generation, where=path)


def check_evaluation(path: Path) -> None:
    load_config(EvaluationConfig, path)


def check_server(path: Path) -> None:
    load_config(ServeConfig, path)


def check_accelerate(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(path))
    expected = {"single": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP"}
    assert str(found.distributed_type.value) == expected.get(path.stem, "DEEPSPEED")
    if path.stem.startswith("zero"):
        assert found.deepspeed_config["zero_stage"] == int(path.stem[-1])
    if path.stem == "fsdp2":
        assert found.fsdp_config["fsdp_version"] == 2


def check_recipe(path: Path) -> None:
    """A recipe of tuning: its settings fit the stages of our own and of imported parts."""
    config = load_config(TuneConfig, path)
    for part, settings in config.parts.items():
        names = {"flow": ("flow", "flow.cosyvoice"), "vocoder": ("vocoder", "hift")}
        for name in names.get(part, ("speech_lm.finetune",)):
            load_task(CONFIGS / "train" / f"{name}.yaml", settings_of(settings))


CHECKS: dict[str, Callable[[Path], None]] = {
    "train": check_train,
    "accelerate": check_accelerate,
    "refine": lambda path: load_config(RefineConfig, path),
    "model": check_model,
    "data": check_corpus,
    "bundle": check_bundle,
    "eval": check_evaluation,
    "serve": check_server,
    "personal": check_recipe,
}


@pytest.mark.parametrize("name", PATHS)
def test_config(name: str) -> None:
    folder = name.split("/")[0]
    assert folder in CHECKS, f"configs/{folder} has no check here: nothing says what its files are"
    CHECKS[folder](CONFIGS / name)


def test_every_stage_has_configs_of_both_sizes() -> None:
    for folder in ("train", "train/toy"):
        stages = {read_stage(path, ()) for path in (CONFIGS / folder).glob("*.yaml")}
        assert set(STAGES) <= stages


def test_sizes_of_one_bundle_fit_together() -> None:
    for folder in ("train", "train/toy"):
        configs = {
            stage: load_task(CONFIGS / folder / f"{stage}.yaml")[0].model  # type: ignore[attr-defined]
            for stage in STAGES
        }
        flow, vocoder = configs["flow"], configs["vocoder"]
        assert isinstance(flow, FlowConfig) and isinstance(vocoder, VocoderConfig)
        assert flow.mel == vocoder.mel == configs["mel_enhancer"].mel
        assert configs["voice_isolator"].sample_rate == vocoder.mel.sample_rate
        assert flow.speaker_dim == configs["speaker_encoder"].embedding_dim
        assert flow.codebook_size == configs["speech_tokenizer"].codebook_size
        assert flow.codebook_size == configs["speech_lm"].codebook_size
        assert flow.token_rate == configs["speech_tokenizer"].token_rate
        assert MelSpectrogram(flow.mel).frame_rate == flow.token_rate * flow.frames_per_token


def test_yaml_holds_data_only() -> None:
    for name in PATHS:
        yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
