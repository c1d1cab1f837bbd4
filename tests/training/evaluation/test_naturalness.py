"""Judges of naturalness; the packages are stood in for, and asked themselves where they are."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from training.evaluation import judges
from training.evaluation.judges import JudgeError, load_naturalness


def test_mistakes_are_told_with_the_command_that_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JudgeError, match="no judge of naturalness 'ear'; there are speechmos, dis"):
        load_naturalness("speechmos,ear")
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    with pytest.raises(JudgeError, match="needs speechmos, which is not installed: .*eval"):
        load_naturalness("speechmos")
    with pytest.raises(JudgeError, match="pip install --no-deps distillmos xls-r-sqa"):
        load_naturalness("distillmos")


def test_both_packages_give_scores_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[tuple[str, Any]] = []

    class DNSMOS:
        def __init__(self) -> None:
            raise AssertionError("its sessions take every core")

        def __call__(self, samples: np.ndarray, rate: int, personal: bool) -> dict[str, float]:
            assert rate == 16_000 and personal is False and len(opened) == 2
            peak = float(np.abs(samples).max())
            return {"ovrl_mos": 2.0 + peak, "p808_mos": 3.0 + peak}

    class Distill(torch.nn.Module):
        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            assert samples.shape == (1, 2) and "torchaudio" not in sys.modules
            return torch.tensor([[4.25]])

    dnsmos = SimpleNamespace(DNSMOS=DNSMOS, __file__=str(tmp_path / "dnsmos.py"))
    runtime = SimpleNamespace(
        SessionOptions=SimpleNamespace,
        InferenceSession=lambda path, options: opened.append((path, options)),
    )
    monkeypatch.setitem(sys.modules, "speechmos", SimpleNamespace(dnsmos=dnsmos))
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setitem(sys.modules, "distillmos", SimpleNamespace(ConvTransformerSQAModel=Distill))
    monkeypatch.setattr(judges, "find_spec", lambda name: name)
    rate = load_naturalness("speechmos, distillmos")
    assert [options.intra_op_num_threads for _, options in opened] == [1, 1]
    # Samples above full scale are cut off.
    found = rate(np.array([0.5, 3.0]))
    assert found == {"dnsmos_p808": 4.0, "dnsmos_ovrl": 3.0, "distill_mos": 4.25}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "name"), [("speechmos", "dnsmos_p808"), ("distillmos", "distill_mos")]
)
def test_the_packages_give_scores_from_one_to_five(package: str, name: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    scores = load_naturalness(package)(np.sin(np.arange(32_000) / 20) * 0.3)
    assert 1.0 <= scores[name] <= 5.0
