"""Bundles: manifests, checksums, what is found wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tokenlm.checkpoint import (
    BundleError,
    BundleManifest,
    Finding,
    finalize_bundle,
    read_manifest,
    save_component,
    validate_bundle,
    write_manifest,
)

FACTS: dict[str, Any] = {
    "name": "tiny",
    "description": "A voice.",
    "language": "en",
    "licence": "Apache-2.0",
    "sample_rate": 24000,
    "components": {"flow": "flow", "vocoder": "vocoder"},
    "generation": {"num_steps": 4},
    "provenance": {"data": "made up"},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    for name in ("flow", "vocoder"):
        save_component(
            folder / name, kind=name, config={"dim": 1}, state_dict={"w": torch.zeros(1)}
        )
    (folder / "voices").mkdir()
    (folder / "voices" / "anna.txt").write_text("hello")
    finalize_bundle(folder, BundleManifest(**FACTS))
    return folder


def found(folder: Path, **settings: Any) -> list[tuple[str, str]]:
    return [(finding.severity, finding.path) for finding in validate_bundle(folder, **settings)]


def test_finalized_bundle_is_valid(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert list(manifest.files) == [
        "flow/config.yaml",
        "flow/model.safetensors",
        "vocoder/config.yaml",
        "vocoder/model.safetensors",
        "voices/anna.txt",
    ]
    assert manifest.files["voices/anna.txt"] == hashlib.sha256(b"hello").hexdigest()
    assert dataclasses.replace(manifest, files={}) == BundleManifest(**FACTS)
    assert validate_bundle(bundle) == []
    assert validate_bundle(bundle, known_kinds={"flow", "vocoder"}) == []


def test_finalizing_again_gives_the_same(bundle: Path) -> None:
    before = (bundle / "bundle.yaml").read_bytes()
    finalize_bundle(bundle, BundleManifest(**FACTS))
    assert (bundle / "bundle.yaml").read_bytes() == before


def test_missing_and_altered_files(bundle: Path) -> None:
    (bundle / "voices" / "anna.txt").unlink()
    weights = bundle / "flow" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    findings = validate_bundle(bundle)
    assert [finding.path for finding in findings] == ["flow/model.safetensors", "voices/anna.txt"]
    assert str(findings[0]).startswith("error: flow/model.safetensors: The file was altered")
    assert "missing" in findings[1].message


def test_foreign_files_are_a_warning_and_hidden_ones_nothing(bundle: Path) -> None:
    (bundle / "voices" / "mine.wav").touch()
    (bundle / ".gitattributes").touch()
    (bundle / ".cache").mkdir()
    (bundle / ".cache" / "x").touch()
    assert found(bundle) == [("warning", "voices/mine.wav")]


def test_links_of_a_download_cache_count_as_files(bundle: Path, tmp_path: Path) -> None:
    """As the client of the hub lays its cache out: the same names, relative links."""
    snapshot = tmp_path / "models--them--bundle" / "snapshots" / "0123abcd"
    shutil.copytree(bundle, snapshot)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for number, path in enumerate(path for path in snapshot.rglob("*") if path.is_file()):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    assert validate_bundle(snapshot) == []
    elsewhere = tmp_path / "through"
    elsewhere.symlink_to(snapshot)
    assert validate_bundle(elsewhere) == []


@pytest.mark.parametrize(
    "path", ["bundle.yaml", "flow", "flow/config.yaml", "voices", "voices/anna.txt", "new/link"]
)
def test_links_that_leave_the_bundle_are_refused(bundle: Path, tmp_path: Path, path: str) -> None:
    place, target = bundle / path, tmp_path / "blobs" / "outside"
    target.parent.mkdir()
    if place.exists():
        place.rename(target)
    else:
        target.write_text("secret")
        place.parent.mkdir()
    for link in (target, os.path.relpath(target, place.parent)):
        place.symlink_to(link)
        with pytest.raises(BundleError, match="is a link to .*outside, outside the bundle"):
            read_manifest(bundle)
        assert [finding.severity for finding in validate_bundle(bundle)] == ["error"]
        place.unlink()
    inside = bundle / "kept"
    target.rename(inside)
    place.symlink_to(os.path.relpath(inside, place.parent))
    read_manifest(bundle)


def test_what_a_bundle_says_of_itself_reads_no_other_file(bundle: Path, tmp_path: Path) -> None:
    """Neither by a base, nor by a path where settings are expected, nor by the name of a part."""
    other = tmp_path / "other.yaml"
    other.write_text("name: theirs\nlicence: none\n")
    path = bundle / "bundle.yaml"
    plain = path.read_text()
    path.write_text(plain + f"base: {other}\n")
    with pytest.raises(BundleError, match="unknown key 'base'"):
        read_manifest(bundle)
    for name in ("..", ".", "../other", "/etc", "a/b", "a\\b", "~", ""):
        with pytest.raises(ValueError, match="is not a name"):
            BundleManifest(**{**FACTS, "components": {name: "flow"}})
        with pytest.raises(ValueError, match="is not a path inside the bundle|is not a name"):
            BundleManifest(**{**FACTS, "files": {f"../{name}": "0" * 64}})


def test_component_missing_or_of_another_kind(bundle: Path) -> None:
    write_manifest(
        bundle, dataclasses.replace(read_manifest(bundle), components={"flow": "dit", "lm": "lm"})
    )
    findings = {finding.path: finding.message for finding in validate_bundle(bundle)}
    assert "of the kind 'flow', the manifest says 'dit'" in findings["flow"]
    assert "no such component folder" in findings["lm"]
    assert "does not name this component" in findings["vocoder"]


def test_unknown_kind(bundle: Path) -> None:
    findings = validate_bundle(bundle, known_kinds={"flow"})
    assert len(findings) == 1
    assert "unknown kind 'vocoder'; valid kinds: flow" in findings[0].message


@pytest.mark.parametrize("components", [{"flow": "flow"}, {"flow": "flow", "vocoder": "x"}])
def test_finalize_refuses_what_does_not_agree(bundle: Path, components: dict[str, str]) -> None:
    with pytest.raises(BundleError, match=r"not complete.*vocoder"):
        finalize_bundle(bundle, BundleManifest(**{**FACTS, "components": components}))
    assert validate_bundle(bundle) == []


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(BundleError, match=r"has no bundle\.yaml"):
        read_manifest(tmp_path)
    assert found(tmp_path) == [("error", "bundle.yaml")]
    assert isinstance(validate_bundle(tmp_path)[0], Finding)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format_version": 2}, "this version of tokenlm reads 1"),
        ({"name": "../x"}, "is not a name"),
        ({"components": {"a/b": "flow"}}, "is not a name"),
        ({"sample_rate": 0}, "sample_rate must be positive"),
        ({"sample_rate": "fast"}, "sample_rate: expected a whole number"),
        ({"files": {"../secret": "0" * 64}}, "not a path inside the bundle"),
        ({"files": {"/etc/passwd": "0" * 64}}, "not a path inside the bundle"),
        ({"files": {"a": "abc"}}, "not a SHA-256"),
        ({"license": "MIT"}, "did you mean 'licence'"),
    ],
)
def test_bad_manifest(bundle: Path, changes: dict[str, Any], expected: str) -> None:
    path = bundle / "bundle.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
