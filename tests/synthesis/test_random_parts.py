"""Random weights from a folder of configs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tokenlm.checkpoint import BundleError
from tokenlm.config import save_config
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.random_parts import RandomComponents, fill_at_random


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, nn.Module]) -> Path:
    path = tmp_path_factory.mktemp("configs")
    for kind in ("speech_lm", "flow", "vocoder"):
        save_config(tiny_models[kind].config, path / f"{kind}.yaml")
    return path


def test_forced_tokens_make_as_much_sound(folder: Path) -> None:
    components = RandomComponents(folder)
    synthesizer = Synthesizer(components)
    voice = components.random_voice(1.0)
    tokens = components.random_tokens(2.0)
    waveform = synthesizer.render([tokens], voice=voice)
    assert waveform.isfinite().all()
    assert abs(waveform.shape[0] - 2 * synthesizer.sample_rate) < synthesizer.sample_rate // 2


def test_weights_depend_on_the_seed_alone(folder: Path) -> None:
    first, again, other = (RandomComponents(folder, seed=seed) for seed in (0, 0, 1))
    weights = [parts.flow.encoder.embedding.weight for parts in (first, again, other)]  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_numbers_stay_in_range() -> None:
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)])
    fill_at_random(model)
    out = model(torch.randn(8, 64)).detach()
    assert 0.3 < float(out.std()) < 3.0


def test_a_folder_without_configs(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no speech_lm\.yaml"):
        RandomComponents(tmp_path)
