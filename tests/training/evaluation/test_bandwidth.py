from __future__ import annotations

import pytest
import torch

from training.evaluation.suite import FLOOR_DB, high_band_db

RATE = 24_000
TIMES = torch.arange(RATE) / RATE


def tone(hertz: float, level: float = 1.0) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * TIMES)


def test_energy_above_is_measured_beside_that_below() -> None:
    assert high_band_db(tone(1000) + tone(9000, 0.1), RATE) == pytest.approx(-20.0, abs=0.01)
    # Above the band, and at another rate.
    assert high_band_db(tone(1000) + tone(11_800), RATE) == pytest.approx(-120.0, abs=60.0)
    louder = high_band_db(3 * (tone(1000) + tone(9000, 0.1)), RATE)
    assert louder == pytest.approx(-20.0, abs=0.01)
    slower = torch.sin(2 * torch.pi * 1000 * torch.arange(48_000) / 48_000)
    slower = slower + 0.1 * torch.sin(2 * torch.pi * 9000 * torch.arange(48_000) / 48_000)
    assert high_band_db(slower, 48_000) == pytest.approx(-20.0, abs=0.01)


def test_where_there_is_nothing_there_is_a_floor_or_no_figure() -> None:
    found = high_band_db(torch.ones(RATE), RATE)
    assert found == pytest.approx(FLOOR_DB)
    assert high_band_db(torch.zeros(RATE), RATE) is None
    assert high_band_db(torch.zeros(0), RATE) is None
    assert high_band_db(tone(1000), 16_000) is None
