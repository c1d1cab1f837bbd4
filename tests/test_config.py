"""Configs: what is accepted, and that every mistake is told with its file and key."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from tokenlm.config import ConfigError, from_dict, load_config, read_config, save_config, to_dict


@dataclass(frozen=True, kw_only=True)
class Layer:
    dim: int = 4
    dropout: float = 0.1
    activation: Literal["relu", "gelu"] = "relu"

    def __post_init__(self) -> None:
        if self.dim <= 0:
            raise ValueError(f"dim must be positive, got {self.dim}")


@dataclass(frozen=True, kw_only=True)
class Model:
    layer: Layer = field(default_factory=Layer)
    layers: tuple[Layer, ...] = ()
    name: str = "model"
    limit: float | None = None
    parent: Layer | None = None


@dataclass(frozen=True, kw_only=True)
class Adam:
    kind: Literal["adam"] = "adam"
    learning_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Sgd:
    kind: Literal["sgd"] = "sgd"
    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Run:
    model: Model = field(default_factory=Model)
    optimizer: Adam | Sgd = field(default_factory=Adam)
    steps: int = 10
    folder: Path = Path("runs")
    betas: tuple[float, float] = (0.9, 0.99)
    sizes: list[int] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    precision: Literal["no", "fp16"] = "no"
    resume: bool = True
    seed: int | str = 0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Needs:
    first: int
    second: str
    third: int = 3


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def message(cls: type, data: Any, where: str = "run.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        from_dict(cls, data, where=where)
    return str(caught.value)


def test_defaults_and_nesting() -> None:
    run = from_dict(Run, {"model": {"layer": {"dim": 8}, "layers": [{"dim": 1}, {}]}})
    assert run.model.layer == Layer(dim=8)
    assert run.model.layers == (Layer(dim=1), Layer())
    assert run.optimizer == Adam()


def test_unknown_key_lists_valid_ones_and_suggests() -> None:
    text = message(Run, {"model": {"layer": {"dimm": 8}}})
    assert text.startswith("run.yaml: model.layer: unknown key 'dimm'")
    assert "did you mean 'dim'" in text
    assert "activation, dim, dropout" in text
    assert "did you mean" not in message(Run, {"zzzzzz": 1})


@pytest.mark.parametrize(
    ("data", "place", "expected"),
    [
        ({"steps": "many"}, "steps", "a whole number"),
        ({"steps": 1.5}, "steps", "a whole number"),
        ({"steps": True}, "steps", "a whole number"),
        ({"steps": None}, "steps", "a whole number"),
        ({"steps": math.inf}, "steps", "a whole number"),
        ({"model": {"limit": "x"}}, "model.limit", "a number"),
        ({"model": {"limit": True}}, "model.limit", "a number"),
        ({"model": {"limit": math.nan}}, "model.limit", "a number"),
        ({"model": {"name": 3}}, "model.name", "quotes"),
        ({"model": 3}, "model", "a mapping of Model"),
        ({"model": {"layers": {"dim": 1}}}, "model.layers", "a list"),
        ({"model": {"layers": [{}, {"dim": "a"}]}}, "model.layers.1.dim", "a whole number"),
        ({"resume": 1}, "resume", "true or false"),
        ({"folder": 1}, "folder", "Path"),
        ({"betas": [0.9]}, "betas", "a list of 2, got 1"),
        ({"betas": 0.9}, "betas", "a list"),
        ({"sizes": [1, "x"]}, "sizes.1", "a whole number"),
        ({"weights": {"mel": "x"}}, "weights.mel", "a number"),
        ({"weights": [1]}, "weights", "a mapping"),
        ({"weights": {3: 1}}, "weights.3", "text"),
        ({"seed": [1]}, "seed", "a whole number or text"),
    ],
)
def test_wrong_type_names_the_key(data: dict[str, Any], place: str, expected: str) -> None:
    text = message(Run, data)
    assert text.startswith(f"run.yaml: {place}: ")
    assert expected in text


def test_top_level_must_be_a_mapping() -> None:
    assert message(Run, [1]) == "run.yaml: expected a mapping of Run, got [1] (list)"


def test_missing_keys_are_named() -> None:
    assert message(Needs, {}) == "run.yaml: missing keys first, second"
    assert message(Needs, {"first": 1}) == "run.yaml: missing key second"


def test_value_refused_by_the_dataclass_names_key_and_file() -> None:
    text = message(Run, {"model": {"layer": {"dim": 0}}})
    assert text == "run.yaml: model.layer: dim must be positive, got 0"


def test_literal() -> None:
    text = message(Layer, {"activation": "rellu"})
    assert "'relu', 'gelu'" in text and "did you mean 'relu'" in text
    assert "put quotes" in message(Run, {"precision": False})
    assert from_dict(Run, {"precision": "fp16"}).precision == "fp16"


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("2E3", 2000.0), ("-1e+2", -100.0)])
def test_exponents_without_a_dot_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path / "a.yaml", f"optimizer: {{kind: adam, learning_rate: {text}}}")
    run = load_config(Run, path)
    assert isinstance(run.optimizer, Adam) and run.optimizer.learning_rate == value


def test_numbers_keep_their_declared_type() -> None:
    assert from_dict(Run, {"steps": "1e4"}).steps == 10_000
    assert isinstance(from_dict(Run, {"steps": 2.0}).steps, int)
    assert isinstance(from_dict(Layer, {"dropout": 0}).dropout, float)
    assert from_dict(Run, {"seed": "12"}).seed == "12"
    assert from_dict(Run, {"seed": 12}).seed == 12
    assert message(Run, {"steps": "1.5"}).endswith("got '1.5' (str)")


def test_optional() -> None:
    assert from_dict(Model, {"limit": None, "parent": None}) == Model()
    model = from_dict(Model, {"limit": 2, "parent": {"dim": 3}})
    assert model.limit == 2.0 and model.parent == Layer(dim=3)
    assert "parent.dim" in message(Model, {"parent": {"dim": "x"}})


def test_containers() -> None:
    run = from_dict(Run, {"sizes": [1, 2], "weights": {"mel": 1}, "extra": {"a": [1, {"b": 2}]}})
    assert run.sizes == [1, 2] and run.weights == {"mel": 1.0}
    assert run.extra == {"a": [1, {"b": 2}]}
    assert from_dict(Run, {"betas": [0, 1]}).betas == (0.0, 1.0)


def test_kind_chooses_among_dataclasses() -> None:
    run = from_dict(Run, {"optimizer": {"kind": "sgd", "momentum": 0.5}})
    assert run.optimizer == Sgd(momentum=0.5)
    assert "unknown kind 'lion'; valid kinds: adam, sgd" in message(
        Run, {"optimizer": {"kind": "lion"}}
    )
    assert "missing key 'kind'" in message(Run, {"optimizer": {}})
    assert "unknown key 'momentum'" in message(Run, {"optimizer": {"kind": "adam", "momentum": 1}})


def test_instances_pass_through() -> None:
    assert from_dict(Run, {"optimizer": Sgd(), "model": Model(name="x")}).model.name == "x"


def test_string_where_a_dataclass_stands_is_a_file_beside_the_config(tmp_path: Path) -> None:
    write(tmp_path / "model" / "small.yaml", "layer: ../layer.yaml\nname: small")
    write(tmp_path / "layer.yaml", "dim: 7")
    write(tmp_path / "sgd.yaml", "kind: sgd")
    path = write(
        tmp_path / "train" / "run.yaml", "model: ../model/small.yaml\noptimizer: ../sgd.yaml"
    )
    run = load_config(Run, path)
    assert run.model == Model(name="small", layer=Layer(dim=7))
    assert run.optimizer == Sgd()

    write(tmp_path / "layer.yaml", "dim: x")
    with pytest.raises(ConfigError, match=r"layer\.yaml: model\.layer\.dim: expected a whole"):
        load_config(Run, path)
    write(path, "model: nowhere.yaml")
    with pytest.raises(ConfigError, match=r"run\.yaml: model: .*nowhere\.yaml: there is no such"):
        load_config(Run, path)


def test_the_config_of_a_component_may_be_named(tmp_path: Path) -> None:
    """Of the file of a component what stands under `config` is taken."""
    component = "format_version: 1\nkind: model\nconfig: {name: trained, layer: {dim: 9}}\n"
    write(tmp_path / "flow" / "config.yaml", component + "extra: {tokenizer: abc}")
    path = write(tmp_path / "run.yaml", "model: flow/config.yaml")
    assert load_config(Run, path).model == Model(name="trained", layer=Layer(dim=9))
    assert load_config(Run, path, ["model.layer.dim=3"]).model.layer == Layer(dim=3)
    write(tmp_path / "flow" / "config.yaml", "format_version: 1\nkind: model\nconfig: 3")
    with pytest.raises(ConfigError, match="expected a mapping of keys, got 3"):
        load_config(Run, path)


SECRET = "name: marmalade\nlayer: {dim: 9}\n"


@pytest.mark.parametrize(
    "data",
    [
        {"model": "{file}"},
        {"model": "../secret.yaml"},
        {"model": {"layer": "{file}"}},
        {"model": {"layers": ["{file}"]}},
        {"model": {"parent": "{file}"}},
        {"optimizer": "{file}"},
        {"base": "{file}"},
    ],
)
def test_the_data_of_strangers_name_no_file(tmp_path: Path, data: dict[str, Any]) -> None:
    secret = write(tmp_path / "secret.yaml", SECRET)
    text = yaml.safe_dump(data).replace("{file}", str(secret))
    path = write(tmp_path / "bundle" / "config.yaml", text)

    def refused(message: str, read: Callable[[], Any]) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            read()
        assert "marmalade" not in str(caught.value)

    told = "unknown key 'base'" if "base" in data else "expected a"
    given = yaml.safe_load(text)
    refused(told, lambda: from_dict(Run, given, where=path))
    refused(told, lambda: read_config(Run, path))
    # A change below such a path reads it no more than the path itself.
    below = {"model": "model.layer.dim=3", "optimizer": "optimizer.momentum=0.1"}
    changes = [below[key] for key in data.keys() & below.keys()]
    if changes:
        refused("without keys|expected a", lambda: from_dict(Run, given, overrides=changes))


def test_overrides_of_the_data_of_strangers_are_yours(tmp_path: Path) -> None:
    write(tmp_path / "layer.yaml", "dim: 7")
    mine = write(tmp_path / "mine.yaml", "name: mine\nlayer: layer.yaml")
    run = from_dict(Run, {"model": {"name": "theirs"}}, overrides=[f"model={mine}"])
    assert run.model == Model(name="mine", layer=Layer(dim=7))
    with pytest.raises(ConfigError, match="expected a mapping of Layer"):
        from_dict(Run, {"model": {"layer": str(mine)}}, overrides=["model.name=mine"])


def test_base_is_merged_below(tmp_path: Path) -> None:
    write(
        tmp_path / "base.yaml",
        "steps: 5\nmodel: {name: base, layer: {dim: 2, dropout: 0.5}}\nsizes: [1, 2]",
    )
    path = write(tmp_path / "run.yaml", "base: base.yaml\nmodel: {layer: {dim: 3}}\nsizes: [9]")
    run = load_config(Run, path)
    assert run.steps == 5 and run.sizes == [9]
    assert run.model == Model(name="base", layer=Layer(dim=3, dropout=0.5))


def test_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "model: {layer: {dim: x}}\nstepz: 1")
    path = write(tmp_path / "run.yaml", "base: base.yaml\nmodel: {name: a}")
    with pytest.raises(ConfigError, match=r"base\.yaml: unknown key 'stepz'"):
        load_config(Run, path)
    write(tmp_path / "base.yaml", "model: {layer: {dim: x}}")
    with pytest.raises(ConfigError, match=r"base\.yaml: model\.layer\.dim"):
        load_config(Run, path)


def test_base_in_another_folder_keeps_its_own_references(tmp_path: Path) -> None:
    write(tmp_path / "shared" / "model.yaml", "name: shared\nlayer: {dim: 6}")
    write(tmp_path / "shared" / "base.yaml", "model: model.yaml\nsteps: 2")
    path = write(tmp_path / "runs" / "run.yaml", "base: ../shared/base.yaml")
    assert load_config(Run, path).model.name == "shared"
    write(path, "base: ../shared/base.yaml\nmodel: {layer: {dropout: 0.25}}")
    assert load_config(Run, path).model == Model(name="shared", layer=Layer(dim=6, dropout=0.25))


def test_another_kind_takes_nothing_from_the_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "optimizer: {kind: adam, learning_rate: 1}")
    path = write(tmp_path / "run.yaml", "base: base.yaml\noptimizer: {kind: sgd}")
    assert load_config(Run, path).optimizer == Sgd()
    write(path, "base: base.yaml\noptimizer: {learning_rate: 2}")
    assert load_config(Run, path).optimizer == Adam(learning_rate=2.0)


@pytest.mark.parametrize(
    ("base", "expected"),
    [("nowhere.yaml", "no such file"), ("3", "expected the path"), ("two.yaml", "of its own")],
)
def test_bad_base(tmp_path: Path, base: str, expected: str) -> None:
    write(tmp_path / "two.yaml", "base: one.yaml")
    path = write(tmp_path / "run.yaml", f"base: {base}")
    with pytest.raises(ConfigError, match=expected):
        load_config(Run, path)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", "steps: 5\noptimizer: {kind: sgd, momentum: 0.1}")
    run = load_config(
        Run,
        path,
        [
            "steps=7",
            "model.layer.dim=9",
            "sizes=[1, 2]",
            "optimizer={kind: adam}",
            "optimizer.learning_rate=1e-5",
            "model.limit=null",
        ],
    )
    assert run.steps == 7 and run.sizes == [1, 2]
    assert run.model.layer.dim == 9
    assert run.optimizer == Adam(learning_rate=1e-5)


def test_override_below_a_referenced_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model.yaml", "name: there\nlayer: layer.yaml")
    write(tmp_path / "layer.yaml", "dim: 5")
    path = write(tmp_path / "run.yaml", "model: model.yaml")
    run = load_config(Run, path, ["model.layer.dropout=0.75"])
    assert run.model == Model(name="there", layer=Layer(dim=5, dropout=0.75))

    write(tmp_path / "elsewhere" / "other.yaml", "name: other")
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = load_config(Run, path, ["model=other.yaml", "model.layer.dim=2"])
    assert run.model == Model(name="other", layer=Layer(dim=2))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps", "expected key.sub=value"),
        ("=3", "expected key.sub=value"),
        ("model..dim=3", "expected key.sub=value"),
        ("steps=[1", "not YAML"),
        ("steps=x", r"override 'steps=x': steps: expected a whole number"),
        ("step=1", r"override 'step=1': unknown key 'step'; did you mean 'steps'"),
        ("model.layer.dim=0", "dim must be positive"),
        ("steps.more=1", "steps is 5, without keys"),
    ],
)
def test_bad_override(tmp_path: Path, override: str, expected: str) -> None:
    path = write(tmp_path / "run.yaml", "steps: 5")
    with pytest.raises(ConfigError, match=expected):
        load_config(Run, path, [override])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", "expected a mapping"),
        ("just words", "expected a mapping"),
        ("a: [1", "not valid YAML"),
        ("steps: 1\nsteps: 2", "'steps' is given twice .line 2"),
        ("x: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "run.yaml", text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(Run, path)
    assert str(path) in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(Run, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Run, tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa\x00a")
    with pytest.raises(ConfigError, match=r"bytes\.yaml"):
        load_config(Run, tmp_path / "bytes.yaml")


def test_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_config(Run, write(tmp_path / "run.yaml", "# nothing\n")) == Run()


def test_merge_keys_of_yaml_still_work(tmp_path: Path) -> None:
    text = "a: &a {name: x}\nb: {<<: *a, limit: 1}"
    path = write(tmp_path / "m.yaml", text)
    assert load_config(Pair, path) == Pair(a=Model(name="x"), b=Model(name="x", limit=1.0))


@dataclass(frozen=True, kw_only=True)
class Pair:
    a: Model
    b: Model


def test_round_trip(tmp_path: Path) -> None:
    run = Run(
        model=Model(layers=(Layer(dim=2),), name="3", limit=1e-5),
        optimizer=Sgd(),
        weights={"mel": 0.5},
        folder=Path("a/b"),
    )
    plain = to_dict(run)
    assert plain["model"]["layers"] == [{"dim": 2, "dropout": 0.1, "activation": "relu"}]
    assert plain["folder"] == "a/b"
    assert from_dict(Run, plain) == run
    path = tmp_path / "new" / "run.yaml"
    save_config(run, path)
    assert load_config(Run, path) == run
    assert [item.name for item in path.parent.iterdir()] == ["run.yaml"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    save_config(Run(steps=3), path)
    with pytest.raises(yaml.YAMLError):
        save_config(Run(extra={"a": object()}), path)
    assert load_config(Run, path).steps == 3
    assert [item.name for item in tmp_path.iterdir()] == ["run.yaml"]


def test_data_given_is_not_changed() -> None:
    data = {"model": {"layer": {"dim": 8}}, "extra": {"a": [1]}}
    run = from_dict(Run, data)
    run.extra["a"].append(2)
    assert data == {"model": {"layer": {"dim": 8}}, "extra": {"a": [1]}}
