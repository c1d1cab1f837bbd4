"""Random weights from a folder of configs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from inference.benchmark.random_models import fill_at_random, random_models
from tokenlm.config import ConfigError, save_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, nn.Module]) -> Path:
    path = tmp_path_factory.mktemp("configs")
    for kind in ("speech_lm", "flow", "vocoder"):
        save_config(tiny_models[kind].config, path / f"{kind}.yaml")
    return path


def test_weights_depend_on_the_seed_alone(folder: Path) -> None:
    first, again, other = (random_models(folder, seed=seed) for seed in (0, 0, 1))
    assert sorted(first) == ["flow", "speech_lm", "vocoder"]
    for name, model in first.items():
        same, different = again[name].state_dict(), other[name].state_dict()
        state = model.state_dict()
        assert all(torch.equal(state[key], same[key]) for key in state)
        assert any(not torch.equal(state[key], different[key]) for key in state)


def test_numbers_stay_in_range() -> None:
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)])
    fill_at_random(model)
    out = model(torch.randn(8, 64)).detach()
    assert 0.3 < float(out.std()) < 3.0


def test_a_folder_without_configs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no speech_lm\.yaml"):
        random_models(tmp_path)
