"""Finding bundles: paths first, then names, then the hub; never the network without need."""

from __future__ import annotations

import builtins
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tokenlm.checkpoint import ResolveError, bundled_names, packaged_configs, resolve

resolving = sys.modules["tokenlm.checkpoint.resolve"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a source checkout with one bundle, and a hub that must not be asked."""
    package = tmp_path / "repository" / "tokenlm"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").touch()
    make_bundle(package.parent / "checkpoints" / "tiny")
    (package.parent / "configs").mkdir()
    monkeypatch.setattr(resolving.resources, "files", lambda name: package)
    monkeypatch.delenv("TOKENLM_CHECKPOINTS", raising=False)
    offer(monkeypatch, lambda *args, **kwargs: pytest.fail("the network was asked"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return package.parent


def make_bundle(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "bundle.yaml").touch()
    return folder


def offer(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_local_path_comes_first(checkout: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "elsewhere" / "org" / "name")
    make_bundle(tmp_path / "elsewhere" / "tiny")
    assert resolve("org/name") == Path("org/name")
    assert resolve("tiny") == Path("tiny")
    assert resolve(tmp_path / "elsewhere" / "tiny") == tmp_path / "elsewhere" / "tiny"


def test_home_is_expanded(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = make_bundle(tmp_path / "mine")
    assert resolve("~/mine") == folder


def test_bundled_names(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("tiny") == checkout / "checkpoints" / "tiny"
    packaged = make_bundle(checkout / "tokenlm" / "_data" / "checkpoints" / "tiny")
    assert resolve("tiny") == packaged
    own = make_bundle(tmp_path / "bundles" / "own")
    monkeypatch.setenv("TOKENLM_CHECKPOINTS", str(own.parent))
    (own.parent / "not-a-bundle").mkdir()
    assert resolve("own") == own
    assert bundled_names() == ["own", "tiny"]
    assert resolve("tiny") == packaged
    make_bundle(own.parent / "tiny")
    assert resolve("tiny") == own.parent / "tiny"


def test_installed_package_looks_not_beside_itself(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    assert bundled_names() == []
    with pytest.raises(ResolveError, match="no configs"):
        packaged_configs()
    (checkout / "tokenlm" / "_data" / "configs").mkdir(parents=True)
    assert packaged_configs() == checkout / "tokenlm" / "_data" / "configs"


def test_configs_of_the_checkout(checkout: Path) -> None:
    assert packaged_configs() == checkout / "configs"


@pytest.mark.parametrize("name", ["tinny", "", "./none", "/none/at/all", "a/b/c", "~/none"])
def test_unknown_name_lists_the_bundled_ones(checkout: Path, name: str) -> None:
    with pytest.raises(ResolveError, match="Bundled names: tiny") as caught:
        resolve(name)
    assert ("did you mean 'tiny'" in str(caught.value)) == (name == "tinny")


def test_a_path_object_is_never_a_hub_id(checkout: Path) -> None:
    with pytest.raises(ResolveError, match="neither a folder"):
        resolve(Path("org/name"))


def test_file_and_revision(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "file").touch()
    with pytest.raises(ResolveError, match="is a file"):
        resolve("file")
    with pytest.raises(ResolveError, match="has no revision 'v1'"):
        resolve("tiny", revision="v1")


def test_hub(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    snapshot = make_bundle(tmp_path / "cache" / "snapshot")

    def download(hub_id: str, *, revision: str | None, ignore_patterns: list[str]) -> str:
        asked.append((hub_id, revision))
        assert "*.pt" in ignore_patterns and "*.py" in ignore_patterns
        return str(snapshot)

    offer(monkeypatch, download)
    assert resolve("org/name", revision="v1") == snapshot
    assert asked == [("org/name", "v1")]
    (snapshot / "bundle.yaml").unlink()
    with pytest.raises(ResolveError, match="org/name on the hub is not a bundle"):
        resolve("org/name")


def test_hub_out_of_reach(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: Any, **kwargs: Any) -> str:
        raise ConnectionError("no route\nto host")

    offer(monkeypatch, download)
    with pytest.raises(ResolveError, match=r"failed: no route\. Without a network.*names: tiny"):
        resolve("org/name")


def test_hub_client_not_installed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResolveError, match="pip install huggingface_hub"):
        resolve("org/name")


def test_the_real_client_offline(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ResolveError, match=r"org/name.*failed.*Bundled names|bundled names: tiny"):
        resolve("org/name")
