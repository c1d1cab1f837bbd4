"""Sizes of the full recipes, built on the meta device, and what they cost on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tokenlm.checkpoint.registry import KINDS
from tokenlm.models.token_recognizer import TokenRecognizer
from training.losses.discriminators import WaveformDiscriminator
from training.recipes.budget import (
    LM_WEIGHTS,
    PEAK_FLOPS,
    STAGES,
    StageBudget,
    gpu_hours,
    position_flops,
    state_gigabytes,
    tables,
)
from training.run import load_task

ROOT = Path(__file__).resolve().parents[2]
FULL = ROOT / "configs" / "train" / "full"
MILLIONS = {
    "speech_tokenizer": (38.7, 44.7),
    "token_recognizer": (44.7, None),
    "speaker_encoder": (9.0, None),
    "vocoder": (20.3, None),
    "flow": (111.9, None),
    "speech_lm": (505.8, None),
    "speech_lm.libritts": (505.8, None),
}
ENHANCERS = {"voice_isolator": 17.86, "mel_enhancer": 6.20}
"""They are beside the recipe, whose cost on paper is without them."""


def count(config: object) -> int:
    kind = next(kind for kind, (cls, _) in KINDS.items() if isinstance(config, cls))
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in KINDS[kind][1](config).parameters())


@pytest.mark.parametrize("name", sorted(MILLIONS))
def test_parameters(name: str) -> None:
    config, _ = load_task(FULL / f"{name}.yaml")
    model, recognizer = MILLIONS[name]
    assert count(config.model) / 1e6 == pytest.approx(model, abs=0.06)  # type: ignore[attr-defined]
    total = model
    if recognizer is not None:
        assert count(config.recognizer) / 1e6 == pytest.approx(recognizer, abs=0.06)  # type: ignore[attr-defined]
        total += recognizer
    budget = next(stage for stage in STAGES if stage.name == name)
    assert budget.parameters / 1e6 == pytest.approx(total, abs=0.11)


@pytest.mark.parametrize("name", sorted(ENHANCERS))
def test_parameters_of_enhancers(name: str) -> None:
    config, _ = load_task(FULL / f"{name}.yaml")
    assert count(config.model) / 1e6 == pytest.approx(ENHANCERS[name], abs=0.006)  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_hours_are_those_of_the_configs(stage: StageBudget) -> None:
    config, _ = load_task(FULL / f"{stage.name}.yaml")
    assert config.batch.accumulation == 1
    seconds = config.optim.max_steps * config.batch.max_seconds_per_batch * 8
    if config.batch.pack_seconds:  # of 25 positions, text among them
        seconds *= 25 / stage.positions_per_second
    assert stage.hours * stage.epochs == pytest.approx(seconds / 3600, rel=0.02)


SECONDS = 4


def operations(run: Callable[[], object]) -> int:
    """Of matrix products and convolutions, two for each weight and position."""
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        run()
    return counted.get_total_flops()


def forward_of(name: str) -> Callable[[], object]:
    """The model of a full recipe on some seconds of sound."""
    config: Any = load_task(FULL / f"{name}.yaml")[0]
    kind = next(kind for kind, (cls, _) in KINDS.items() if isinstance(config.model, cls))
    model = KINDS[kind][1](config.model).eval()
    sound = torch.zeros(1, SECONDS * 16_000)
    length = torch.tensor([sound.shape[1]])
    if name == "speaker_encoder":
        return lambda: model(sound, length)
    text = torch.zeros(1, 15 * SECONDS, dtype=torch.long)
    if name == "token_recognizer":
        codes = torch.zeros(1, 25 * SECONDS, len(config.model.levels))
        return lambda: model.decode_logits(model(codes)[0], text)
    if name == "speech_tokenizer":
        recognizer = TokenRecognizer(config.recognizer).eval()

        def recognise() -> None:
            hidden, _ = recognizer(model(sound, length)[0])
            recognizer.decode_logits(hidden, text)

        return recognise
    mel = torch.zeros(1, SECONDS * 50, config.model.mel.num_mels)
    assert config.model.mel.sample_rate == 50 * config.model.mel.hop_length
    if name == "vocoder":
        return lambda: model(mel)
    tokens = torch.zeros(1, SECONDS * 25, dtype=torch.long)
    return lambda: model(
        mel, torch.zeros(1), tokens=tokens, prompt_mel=mel, speaker_embedding=torch.zeros(1, 192)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["speech_tokenizer", "token_recognizer", "speaker_encoder", "vocoder", "flow"]
)
def test_positions_are_those_that_the_models_take(name: str) -> None:
    budget = next(stage for stage in STAGES if stage.name == name)
    counted = operations(forward_of(name)) / (2 * budget.weights * SECONDS)
    assert counted == pytest.approx(budget.positions_per_second, rel=0.07)


def test_discriminators_are_in_the_work_and_memory_of_the_vocoder() -> None:
    config: Any = load_task(FULL / "vocoder.yaml")[0]
    sizes = config.discriminator
    judges = WaveformDiscriminator(
        periods=sizes.periods,
        period_channels=sizes.period_channels,
        spectrum_channels=sizes.spectrum_channels,
    )
    budget = next(stage for stage in STAGES if stage.name == "vocoder")
    number = sum(parameter.numel() for parameter in judges.parameters())
    assert number == pytest.approx(budget.beside, rel=0.02)
    heard = operations(lambda: judges(torch.zeros(1, 24_000)))
    share = heard / (2 * budget.weights * budget.positions_per_second)
    # The generator runs forward once more for the discriminators, which take two waveforms forward
    # and backward, and for the generator one forward and one with the gradient of its input.
    assert (4 + 9 * share) / 3 == pytest.approx(budget.factor, rel=0.03)


def test_every_full_config_is_asserted_and_of_the_full_codebook() -> None:
    assert {path.stem for path in FULL.glob("*.yaml")} == {*MILLIONS, *ENHANCERS}
    configs = {name: load_task(FULL / f"{name}.yaml")[0].model for name in MILLIONS}  # type: ignore[attr-defined]
    for name in ("speech_tokenizer", "flow", "speech_lm"):
        assert configs[name].codebook_size == 6561
    assert configs["token_recognizer"].levels == configs["speech_tokenizer"].levels
    assert configs["flow"].speaker_dim == configs["speaker_encoder"].embedding_dim
    assert configs["flow"].mel == configs["vocoder"].mel


def test_weights_of_the_lm_that_multiply() -> None:
    config, _ = load_task(FULL / "speech_lm.yaml")
    model = config.model  # type: ignore[attr-defined]
    tables_of_embeddings = (model.backbone.vocab_size + model.num_classes + 2) * 896
    assert pytest.approx(count(model) - tables_of_embeddings, rel=1e-3) == LM_WEIGHTS


def test_work_and_memory_by_hand() -> None:
    assert position_flops(10.0) == 60.0
    assert position_flops(10.0, layers=2, dim=4, length=8.0) == 60.0 + 6 * 64
    # One position a second for an hour: 3,600 positions of 6 N operations.
    stage = StageBudget(
        name="x", weights=PEAK_FLOPS / 6, parameters=1, positions_per_second=1, hours=1, epochs=1,
        utilisation=0.5,
    )  # fmt: skip
    assert gpu_hours(stage) == pytest.approx(2.0)
    assert state_gigabytes(1e9, "ddp", 8) == 20.0
    assert state_gigabytes(1e9, "fsdp2", 8) == 2.5
    assert state_gigabytes(1e9, "zero3", 8) == 3.0
    assert state_gigabytes(1e9, "zero1", 4) == 15.0 and state_gigabytes(1e9, "zero2", 4) == 12.0


def test_the_documentation_has_these_tables() -> None:
    assert tables() in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
