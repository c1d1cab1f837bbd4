"""Components: written whole, loaded strictly, every mistake told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from tokenlm.checkpoint import (
    ComponentError,
    load_component,
    load_state,
    read_component,
    read_state,
    save_component,
)


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    dim: int = 4
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.dim <= 0:
            raise ValueError(f"dim must be positive, got {self.dim}")


class Net(nn.Module):
    table: Tensor
    ones: Tensor

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(config.dim, config.dim)
        self.norm = nn.BatchNorm1d(config.dim)
        self.head = nn.Linear(config.dim, config.dim, bias=False)
        self.head.weight = self.first.weight
        self.register_buffer("table", torch.arange(config.dim).float(), persistent=False)
        self.register_buffer("ones", nn.init.ones_(torch.empty(2)), persistent=False)


KINDS = {"net": (NetConfig, Net)}


def save(folder: Path, net: Net | None = None, **changes: Any) -> Net:
    net = net or Net(NetConfig())
    settings: dict[str, Any] = {"kind": "net", "config": net.config, "state_dict": net.state_dict()}
    save_component(folder, **(settings | changes))
    return net


def message(folder: Path) -> str:
    with pytest.raises(ComponentError) as caught:
        load_component(folder, KINDS)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_round_trip(tmp_path: Path) -> None:
    folder = tmp_path / "bundle" / "net"
    net = save(folder, Net(NetConfig(dim=3)), extra={"fingerprint": "abc"})
    assert sorted(item.name for item in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    assert [item.name for item in folder.parent.iterdir()] == ["net"]

    files = read_component(folder)
    assert files.kind == "net"
    assert files.config == {"dim": 3, "rate": 0.5}
    assert files.extra == {"fingerprint": "abc"}

    loaded = load_component(folder, KINDS)
    assert isinstance(loaded, Net)
    assert loaded.config == net.config and not loaded.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert torch.equal(loaded.table, torch.tensor([0.0, 1.0, 2.0]))
    assert torch.equal(loaded.ones, torch.ones(2))


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    net = save(tmp_path / "net")
    assert "head.weight" not in load_file(tmp_path / "net" / "model.safetensors")
    state = read_state(tmp_path / "net" / "model.safetensors")
    assert set(state) == set(net.state_dict())
    loaded = load_component(tmp_path / "net", KINDS)
    assert isinstance(loaded, Net)
    assert loaded.head.weight is loaded.first.weight


def test_views_of_one_memory_are_stored_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    state = {"rows": whole[:1], "columns": whole.T, "none": torch.zeros(0)}
    save(tmp_path / "net", state_dict=state | {"empty": torch.zeros(0)})
    read = read_state(tmp_path / "net" / "model.safetensors")
    assert set(read) == {"rows", "columns", "none", "empty"}
    assert torch.equal(read["columns"], whole.T) and torch.equal(read["rows"], whole[:1])


def test_half_precision_on_disk(tmp_path: Path) -> None:
    net = save(tmp_path / "net", dtype=torch.float16)
    state = read_state(tmp_path / "net" / "model.safetensors")
    assert state["first.weight"].dtype == torch.float16
    assert state["norm.num_batches_tracked"].dtype == torch.int64
    loaded = load_component(tmp_path / "net", KINDS)
    assert isinstance(loaded, Net)
    assert loaded.first.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.first.weight, net.first.weight, rtol=1e-3, atol=1e-4)
    half = load_component(tmp_path / "net", KINDS, dtype=torch.float16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}


def test_weights_that_the_type_cannot_hold(tmp_path: Path) -> None:
    net = Net(NetConfig())
    with torch.no_grad():
        net.first.weight[0, 0] = 70000.0
    with pytest.raises(ComponentError, match=r"first\.weight reaches 70000, more than .*float16"):
        save(tmp_path / "net", net, dtype=torch.float16)
    save(tmp_path / "net", net)
    with torch.no_grad():
        net.first.bias[0] = torch.nan
    with pytest.raises(ComponentError, match=r"first\.bias is NaN"):
        save(tmp_path / "net", net)
    assert [item.name for item in tmp_path.iterdir()] == ["net"]
    load_component(tmp_path / "net", KINDS)


def test_saving_replaces_a_component_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "net")
    save(tmp_path / "net", Net(NetConfig(dim=2)))
    assert read_component(tmp_path / "net").config["dim"] == 2
    (tmp_path / "net" / "thesis.txt").write_text("precious")
    with pytest.raises(ComponentError, match=r"holds more than a component \(thesis\.txt\)"):
        save(tmp_path / "net")
    with pytest.raises(ComponentError, match="a file"):
        save(tmp_path / "net" / "thesis.txt")
    assert (tmp_path / "net" / "thesis.txt").read_text() == "precious"
    assert [item.name for item in tmp_path.iterdir()] == ["net"]


def test_a_failed_save_leaves_the_old_component(tmp_path: Path) -> None:
    save(tmp_path / "net")
    with pytest.raises(yaml.YAMLError):
        save(tmp_path / "net", extra={"bad": object()})
    assert [item.name for item in tmp_path.iterdir()] == ["net"]
    load_component(tmp_path / "net", KINDS)


def test_loading_draws_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "net")
    drawn = []
    monkeypatch.setattr(
        Tensor, "uniform_", lambda self, *args, **kwargs: drawn.append(self) or self
    )
    load_component(tmp_path / "net", KINDS)
    assert drawn == []
    Net(NetConfig())
    assert drawn != []


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    save(tmp_path / "net")
    before = torch.random.get_rng_state()
    load_component(tmp_path / "net", KINDS)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_keys_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    state = Net(NetConfig()).state_dict()
    del state["norm.bias"], state["norm.weight"]
    state["stranger"] = torch.zeros(1)
    state["first.bias"] = torch.zeros(9)
    save(tmp_path / "net", state_dict=state)
    text = message(tmp_path / "net")
    assert "missing: norm.weight, norm.bias;" in text
    assert "unexpected: stranger;" in text
    assert "of another shape: first.bias (9,) for (4,)." in text


def test_long_lists_are_cut() -> None:
    many = nn.ModuleList(nn.Linear(1, 1) for _ in range(20))
    with pytest.raises(ComponentError, match="and 28 more"):
        load_state(many, {}, where="weights")


def test_unknown_kind(tmp_path: Path) -> None:
    save(tmp_path / "net", kind="web")
    assert "kind 'web'; valid kinds here: net" in message(tmp_path / "net")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format_version": 2}, "format_version 2, but this version of tokenlm reads 1"),
        ({"config": {"dimm": 4}}, "unknown key 'dimm'; did you mean 'dim'"),
        ({"config": {"dim": 0}}, "dim must be positive"),
        ({"config": 3}, "expected a mapping"),
        ({"weights": "x"}, "unknown key 'weights'"),
    ],
)
def test_bad_config(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    save(tmp_path / "net")
    rewrite(tmp_path / "net", **changes)
    assert expected in message(tmp_path / "net")


def test_missing_files(tmp_path: Path) -> None:
    assert "no such component folder" in message(tmp_path / "net")
    save(tmp_path / "net")
    (tmp_path / "net" / "config.yaml").write_text("kind: net")
    assert "missing keys format_version, config" in message(tmp_path / "net")
    (tmp_path / "net" / "config.yaml").unlink()
    assert "has no config.yaml" in message(tmp_path / "net")
    save(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").unlink()
    assert "has no model.safetensors" in message(tmp_path / "net")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_weights(tmp_path: Path, size: int) -> None:
    save(tmp_path / "net")
    path = tmp_path / "net" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot be read (is it whole?)" in message(tmp_path / "net")


def test_weights_that_are_no_safetensors(tmp_path: Path) -> None:
    save(tmp_path / "net")
    torch.save({"a": torch.zeros(3)}, tmp_path / "net" / "model.safetensors")
    assert "cannot be read" in message(tmp_path / "net")


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"weight": torch.zeros(100_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(
            ComponentError, match=r"the weights cannot be written: .*File too large"
        ):
            save_component(tmp_path / "part", kind="any", config={}, state_dict=state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
