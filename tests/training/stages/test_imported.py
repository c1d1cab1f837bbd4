"""Imported components of CosyVoice are fine-tuned by every stage, and exported as they came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.checkpoint import read_component, read_state, save_component
from tokenlm.checkpoint.cosyvoice.files import read_weights
from tokenlm.checkpoint.cosyvoice.flow import flow_mel, flow_to_theirs
from tokenlm.checkpoint.cosyvoice.hift import hift_to_theirs
from tokenlm.checkpoint.cosyvoice.importer import PARTS
from tokenlm.checkpoint.cosyvoice.lm import lm_to_theirs
from tokenlm.checkpoint.registry import KINDS, load_model
from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config
from tokenlm.models.lm import BackboneConfig, SamplingConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.lm.decoding import SpeechRequest, generate_speech
from tokenlm.models.lm.layout import TEXT
from tokenlm.models.vocoder import HiFT, HiFTConfig
from training.loop.task import StepInfo
from training.run import load_task, main
from training.stages.grpo import GRPOTask

HEAD_DIM = 8


def published(version: Any, name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A small model of a part, and its weights as they are published."""
    is_third = version == 3
    if name == "speech_lm":
        lm = SpeechLM(
            SpeechLMConfig(
                backbone=BackboneConfig(
                    vocab_size=64,
                    hidden_size=16,
                    intermediate_size=32,
                    num_layers=1,
                    num_heads=2,
                    num_kv_heads=1,
                    rope_theta=1e6,
                    max_positions=32_768,
                ),
                codebook_size=9,
                extra_classes=198 if is_third else 1,
                any_special_ends=True,
                specials_in_speech_table=is_third,
                head_bias=not is_third,
            )
        )
        return lm, lm_to_theirs(version, lm.config, lm.state_dict())
    if name == "flow":
        flow = FlowDecoder(
            cosyvoice_flow_config(
                mel=flow_mel(version),
                codebook_size=9,
                speaker_dim=32,  # of the encoder of toy size
                encoder="lookahead" if is_third else "conformer",
                encoder_dim=16,
                encoder_hidden_dim=24,
                encoder_layers=1,
                encoder_up_layers=1,
                encoder_heads=2,
                estimator="f5_dit" if is_third else "unet",
                dim=16,
                num_heads=2,
                head_dim=HEAD_DIM,
                blocks_per_level=1,
                num_mid_levels=1,
                num_layers=1,
            )
        )
        return flow, flow_to_theirs(version, flow.state_dict(), HEAD_DIM)
    vocoder = HiFT(HiFTConfig(mel=flow_mel(version), is_causal=is_third, dim=16, pitch_dim=8))
    return vocoder, hift_to_theirs(vocoder.config, vocoder.state_dict())


def import_part(folder: Path, version: Any, name: str, fingerprint: str = "") -> Path:
    """Writes a published file, imports it, and returns the folder of the component."""
    part = next(part for part in PARTS if part.name == name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(version)
        _, theirs = published(version, name)
    file = folder / part.file
    torch.save(theirs, file)
    state = read_weights(file)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    options = {"speech_lm": {"head_dim": HEAD_DIM}, "flow": {"num_heads": 2}}.get(name, {})
    config = part.config(version, shapes, **options)
    save_component(
        folder / name,
        kind=part.kind,
        config=config,
        state_dict=part.convert(version, config, state, str(file)),
        extra={"tokenizer": fingerprint} if fingerprint else {},
    )
    return folder / name


OPTIM = {"max_steps": 1, "warmup_steps": 0, "lr": 1e-2, "weight_decay": 0.0, "ema_decay": 0.0}
LOG = {"log_every": 1, "evaluate_every": 0, "save_every": 0}
LIMITS = ["model.min_speech_per_text=1.0", "model.max_speech_per_text=8.0"]
BLOCKS = ["model.block_text_tokens=2", "model.block_speech_tokens=3"]


def fingerprint_of(corpus: Path) -> str:
    line = (corpus / "train_tokens.jsonl").read_text().splitlines()[0]
    return json.loads(line)["tokenizer"]


def tune(
    stage: str, module: str, start: Path, write: Callable[..., Path], *more: str, **changes: Any
) -> None:
    path = write(
        stage,
        model=f"{start}/config.yaml",
        initial={module: str(start)},
        optim=OPTIM,
        log=LOG,
        **changes,
    )
    assert main(["--config", str(path), *more]) == 0


def check_export(start: Path, exported: Path) -> None:
    """The same kind and keys, other weights; those that have no gradient may stay."""
    before, after = read_component(start), read_component(exported)
    assert after.kind == before.kind
    assert after.extra.get("tokenizer") == before.extra.get("tokenizer")
    old, new = read_state(before.state_path), read_state(after.state_path)
    assert old.keys() == new.keys()
    changed = [key for key in old if not torch.equal(old[key].half(), new[key].half())]
    assert len(changed) > len(old) / 2
    load_model(exported, KINDS[after.kind][1])  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [2, 3])
def test_flow(
    version: int, corpus: Path, stage_config: Callable[..., Path], tmp_path: Path
) -> None:
    start = import_part(tmp_path, version, "flow", fingerprint_of(corpus))
    tune("flow.cosyvoice", "flow", start, stage_config)
    check_export(start, tmp_path / "run" / "export" / "flow")


@pytest.mark.parametrize("version", [2, 3])
def test_vocoder(version: int, stage_config: Callable[..., Path], tmp_path: Path) -> None:
    start = import_part(tmp_path, version, "vocoder")
    tune("hift", "vocoder", start, stage_config, adversarial_start_step=0)
    check_export(start, tmp_path / "run" / "export" / "vocoder")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("stage", ["speech_lm", "dpo", "grpo", "token_reward"])
def test_speech_lm(
    stage: str, version: int, corpus: Path, stage_config: Callable[..., Path], tmp_path: Path
) -> None:
    start = import_part(tmp_path, version, "speech_lm", fingerprint_of(corpus))
    more = [*LIMITS, *BLOCKS]
    if stage != "speech_lm":
        # Most classes of a model of this size end the speech; at random it would not say a word.
        more.append("model.any_special_ends=false")
    tune(stage, "speech_lm", start, stage_config, *more)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    trained = json.loads(rows[0])
    assert trained["skipped_steps"] == 0
    assert stage == "speech_lm" or trained["rollout/tokens"] > 4
    exported = tmp_path / "run" / "export" / "speech_lm"
    check_export(start, exported)
    model = load_model(exported, SpeechLM)
    assert model.config.specials_in_speech_table == (version == 3)
    request = SpeechRequest(text_tokens=(5, 6, 7))
    spoken = generate_speech(model, [request], SamplingConfig())[0]
    assert all(0 <= token < model.config.codebook_size for token in spoken)


def test_an_instruction_is_read_before_every_text(stage_config: Callable[..., Path]) -> None:
    """As version 3 was trained, and as its bundle speaks."""
    _, task = load_task(stage_config("grpo", instruction="well,", prompt_share=1.0))
    assert isinstance(task, GRPOTask)
    task.build()
    first = tuple(task.tokenizer.encode("well,"))
    pairs = task.texts
    valid = task._datasets["valid"]
    assert first and valid is not None and pairs.instruction == valid.instruction == first
    layouts = [valid[0]]
    layouts += [valid.draw(0, torch.Generator().manual_seed(seed)) for seed in range(12)]
    starts = {tuple(layout.ids[1 : 1 + len(first)]) for layout in layouts if TEXT in layout.kinds}
    assert starts == {first}
    assert valid[0].ids[1 : 1 + len(first) + len(valid.pairs[0].text)] == [
        *first, *valid.pairs[0].text,
    ]  # fmt: skip
    items = [pairs[0], pairs.draw(0, torch.Generator().manual_seed(0))]
    for rollout in task.answers(task.policy, items, StepInfo(0, 0, 0), 1):
        assert tuple(rollout.request.prompt_text_tokens[: len(first)]) == first


@pytest.mark.parametrize(
    ("stage", "module"), [("flow.cosyvoice", "flow"), ("speech_lm", "speech_lm")]
)
def test_tokens_of_another_tokenizer_are_refused(
    stage: str, module: str, corpus: Path, stage_config: Callable[..., Path], tmp_path: Path
) -> None:
    start = import_part(tmp_path, 2, module, "another")
    changes = {"model": f"{start}/config.yaml", "initial": {module: str(start)}}
    _, task = load_task(stage_config(stage, **changes), LIMITS + BLOCKS if "lm" in stage else [])
    with pytest.raises(ValueError, match=rf"the tokenizer another, .* {fingerprint_of(corpus)}"):
        task.build()
    path = stage_config(stage, **changes, initial_partial=True)
    _, task = load_task(path, LIMITS + BLOCKS if "lm" in stage else [])
    task.build()


def test_a_component_of_another_kind_is_refused(
    stage_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = import_part(tmp_path, 2, "vocoder")
    path = stage_config("flow.cosyvoice", model=f"{start}/config.yaml")
    assert main(["--config", str(path)]) == 2
    assert "unknown key 'is_causal'" in capsys.readouterr().err
