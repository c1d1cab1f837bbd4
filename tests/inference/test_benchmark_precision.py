"""What fewer bits change: on the reference numbers of CosyVoice, and on a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from script_module import load_script
from torch import nn

PRECISION = load_script("benchmark_precision")
Case, golden_cases, main, measure_precision = (
    PRECISION.Case, PRECISION.golden_cases, PRECISION.main, PRECISION.measure_precision,
)  # fmt: skip

# Greatest share of the root mean square by which a result may be off.
BOUNDS = {"float32": 1e-4, "bfloat16": 0.03, "int8": 0.06}


def test_golden_models_with_fewer_bits(golden_folder: Path) -> None:
    found = measure_precision(golden_cases(golden_folder))
    outputs = {"lm": 1, "cv3_lm": 1, "flow_cfm": 4, "cv3_flow": 4}
    there = {name for name in outputs if (golden_folder / f"{name}.json").is_file()}
    assert {"lm", "cv3_flow"} <= there == {row.case for row in found}
    assert len(found) == 3 * sum(outputs[name] for name in there)
    for row in found:
        assert row.share < BOUNDS[row.precision], row
        if row.precision != "float32":
            assert row.share > 1e-4 and row.megabytes > 0, row
    sizes = {(row.case, row.precision): row.megabytes for row in found}
    for case in there:
        assert sizes[case, "int8"] < sizes[case, "bfloat16"] < sizes[case, "float32"]


def test_deviations_are_those_of_the_outputs() -> None:
    layer = nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(16) * (1 + 2**-10))  # bfloat16 has 8 bits of it
    model = nn.Module()
    model.encoder = nn.Sequential(layer)
    x = torch.eye(16)
    case = Case("one", model, lambda model: {"logits": model.encoder(x)})
    plain, reduced = measure_precision([case], ["bfloat16"])
    assert plain.share == 0 and plain.agreement == 1
    assert reduced.share == pytest.approx(2**-10, rel=0.01)
    assert reduced.largest == pytest.approx(4 * 2**-10, rel=0.01)  # rms is a quarter of the ones
    assert reduced.agreement == 1
    assert (plain.megabytes, reduced.megabytes) == pytest.approx((1024e-6, 512e-6))
    assert isinstance(model.encoder[0], nn.Linear)


@pytest.mark.slow
def test_the_command(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tiny_bundle), "--seconds", "1", "--weights", "int8"]) == 0
    out = capsys.readouterr().out
    assert "| language model | logits | int8 |" in out and "| flow | mel | int8 |" in out
    assert "bfloat16" not in out
    assert main(["--bundle", str(tiny_bundle), "--seconds", "1", "--caches"]) == 0
    out = capsys.readouterr().out
    assert "| flow | mel | float16 |" in out and "| flow | mel | int8 |" in out
    assert "language model" not in out
    assert main(["--golden", str(tmp_path)]) == 2
    assert "has none of lm.json" in capsys.readouterr().err
    assert main(["--bundle", str(tmp_path / "none")]) == 2
