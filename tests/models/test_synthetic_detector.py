"""The detector of synthetic speech: its features, its training, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from script_module import load_script
from torch import Tensor

from tokenlm.checkpoint.component import load_component, save_component
from tokenlm.models.synthetic_detector import (
    DETECTOR_KINDS,
    SyntheticDetector,
    SyntheticDetectorConfig,
)

RATE = 16_000


def noise(seed: int, seconds: float = 1.0) -> Tensor:
    return 0.1 * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def still(seed: int) -> Tensor:
    """Noise whose spectrum stands still, as that of models that average: one block, repeated."""
    return noise(seed, 0.02).repeat(50)


def test_a_level_and_a_microphone_change_little() -> None:
    model = SyntheticDetector(SyntheticDetectorConfig())
    plain = model.features(noise(0))
    assert plain.shape == model.mean.shape == (5 * 76 - 3,)
    torch.testing.assert_close(model.features(0.3 * noise(0)), plain, atol=1e-3, rtol=1e-3)
    softer = torch.nn.functional.conv1d(noise(0)[None, None], torch.tensor([[[0.7, 0.3]]]))[0, 0]
    over_time = slice(
        0, 3 * 76
    )  # filters move neighbouring bins against one another, but not these
    change = (model.features(softer)[over_time] - plain[over_time]).abs()
    assert float(change.mean()) < 0.03 * float(plain[over_time].mean())
    with pytest.raises(ValueError, match="too few"):
        model.features(noise(0, 0.2))


def test_it_learns_and_is_kept(tmp_path: Path) -> None:
    script = load_script("train_synthetic_detector")
    model = SyntheticDetector(SyntheticDetectorConfig())

    def rows(seeds: range) -> tuple[Tensor, Tensor]:
        kinds = [(noise(seed), still(seed + 1000)) for seed in seeds]
        inputs = torch.stack([model.features(one) for pair in kinds for one in pair])
        return inputs, torch.tensor([0.0, 1.0]).repeat(len(kinds))

    with torch.no_grad():
        train, test = rows(range(5)), rows(range(50, 53))
    script.fit(model, *train, decay=1e-3)
    assert bool(((model(test[0]) > 0) == (test[1] > 0)).all())
    folder = tmp_path / "synthetic_detector"
    save_component(
        folder, kind="synthetic_detector", config=model.config, state_dict=model.state_dict()
    )
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    again = load_component(folder, DETECTOR_KINDS)
    assert isinstance(again, SyntheticDetector)
    assert again.probability(still(77)) > 0.5 > again.probability(noise(78))
