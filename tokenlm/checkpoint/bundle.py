"""A bundle: everything that one voice model needs, as a folder with a manifest.

```
bundle.yaml            what it is, its components, a checksum of every file
README.md              the model card
<component>/           config.yaml, model.safetensors
text_tokenizer/        and other folders that the components need
voices/
```
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tokenlm.checkpoint.component import CONFIG_FILE, WEIGHTS_FILE, ComponentError, read_component
from tokenlm.checkpoint.resolve import MANIFEST_FILE
from tokenlm.config import ConfigError, read_config, save_config
from tokenlm.earlier import present_kind

FORMAT_VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 1 << 20


class BundleError(ValueError):
    """A bundle folder that cannot be used; the message names it."""


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """The content of `bundle.yaml`."""

    format_version: int = FORMAT_VERSION
    """Layout of the folder; this version reads one."""
    name: str
    """Short name, that of the folder."""
    description: str
    """What it is, in a sentence or two."""
    language: str
    """Language code, such as `en`."""
    licence: str
    """SPDX name of the licence of the weights."""
    sample_rate: int
    """Of the sound it makes, in hertz."""
    components: dict[str, str] = field(default_factory=dict)
    """Folder of each component, and its kind."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Settings of generation that fit these weights."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the weights come from: data, recipes, commands, revision of the code."""
    files: dict[str, str] = field(default_factory=dict)
    """Path of every file, relative to the folder, and its SHA-256."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"format_version is {self.format_version}, but this version of tokenlm reads "
                f"{FORMAT_VERSION}"
            )
        for name in (self.name, *self.components):
            if not is_bundle_name(name):
                raise ValueError(f"{name!r} is not a name (letters, digits, dot, dash, underscore)")
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, got {self.sample_rate}")
        for path, checksum in self.files.items():
            parts = PurePosixPath(path)
            if not path or parts.is_absolute() or ".." in parts.parts or "\\" in path:
                raise ValueError(f"files: {path!r} is not a path inside the bundle")
            if not _CHECKSUM.fullmatch(checksum):
                raise ValueError(f"files: the checksum of {path} is not a SHA-256")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a bundle that is not as it should be."""

    severity: Literal["error", "warning"]
    """An error makes the bundle unfit for use, a warning does not."""
    path: str
    """The file or folder, relative to the bundle."""
    message: str
    """A sentence about it."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.message}"


def is_bundle_name(name: str) -> bool:
    """Whether a bundle or a component may be called so."""
    return _NAME.fullmatch(name) is not None


def write_manifest(folder: str | Path, manifest: BundleManifest) -> None:
    """Write `bundle.yaml`, whole or not at all."""
    save_config(manifest, Path(folder) / MANIFEST_FILE)


def read_manifest(folder: str | Path) -> BundleManifest:
    """Read `bundle.yaml`.

    Raises:
        BundleError: if the folder or the file is missing, the file is not a manifest, or a link in
            the folder leads out of it.
    """
    path = Path(folder) / MANIFEST_FILE
    if not Path(folder).is_dir():
        raise BundleError(f"{folder}: there is no such bundle folder.")
    if not path.is_file():
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_FILE}.")
    _refuse_links_outside(Path(folder))
    try:
        manifest = read_config(BundleManifest, path)
    except ConfigError as error:
        raise BundleError(str(error)) from error
    components = {name: present_kind(kind) for name, kind in manifest.components.items()}
    return dataclasses.replace(manifest, components=components)


def _refuse_links_outside(folder: Path) -> None:
    """Whoever made a bundle must not choose what else is read on the machine that uses it."""
    home = folder.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":  # the cache of the hub: files are links to its blobs
        allowed.append(home.parents[1] / "blobs")
    for root, folders, files in os.walk(home):  # which goes through no links to folders
        folders[:] = [name for name in folders if not name.startswith(".")]  # nothing is read there
        for name in (*folders, *files):
            path = Path(root) / name
            if not path.is_symlink():
                continue
            target = Path(os.path.realpath(path))
            if not any(target.is_relative_to(inside) for inside in allowed):
                raise BundleError(
                    f"{folder / path.relative_to(home)} is a link to {target}, outside the bundle: "
                    "put the file itself there."
                )


def finalize_bundle(folder: str | Path, manifest: BundleManifest) -> BundleManifest:
    """Take the checksums of all files of a filled folder and write its manifest.

    Args:
        folder: holds the components that the manifest names, and whatever else belongs to it.
        manifest: its `files` are filled in here.

    Returns:
        The manifest as written.

    Raises:
        BundleError: if a component is missing, of another kind than the manifest says, or not
            named by it.
    """
    folder = Path(folder)
    findings = _component_findings(folder, manifest, None)
    if findings:
        raise BundleError(f"{folder} is not complete; " + "; ".join(map(str, findings)))
    checksums = {path: file_checksum(folder / path) for path in bundle_files(folder)}
    manifest = dataclasses.replace(manifest, files=checksums)
    write_manifest(folder, manifest)
    return manifest


def validate_bundle(
    folder: str | Path, known_kinds: Collection[str] | None = None
) -> list[Finding]:
    """Compare a bundle folder with its manifest, every byte of it.

    Args:
        folder: the bundle.
        known_kinds: kinds of component that can be loaded; None to leave that unchecked.

    Returns:
        What is wrong: files that are missing or altered, components that are missing, of another
        kind or unknown (errors); files that the manifest does not list (warnings). Empty for a
        bundle as it was made.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        return [Finding(severity="error", path=MANIFEST_FILE, message=str(error))]
    findings = _component_findings(folder, manifest, known_kinds)
    for path, checksum in manifest.files.items():
        if not (folder / path).is_file():
            message = "The file is missing."
        elif file_checksum(folder / path) != checksum:
            message = "The file was altered: its checksum is not that of the manifest."
        else:
            continue
        findings.append(Finding(severity="error", path=path, message=message))
    findings += [
        Finding(severity="warning", path=path, message="The manifest does not list this file.")
        for path in bundle_files(folder)
        if path not in manifest.files
    ]
    return findings


def bundle_files(folder: str | Path) -> list[str]:
    """List the files of a bundle besides its manifest, sorted; hidden ones do not count."""
    folder = Path(folder)
    paths = [item.relative_to(folder) for item in folder.rglob("*") if item.is_file()]
    return sorted(
        path.as_posix()
        for path in paths
        if path.as_posix() != MANIFEST_FILE and not any(part.startswith(".") for part in path.parts)
    )


def file_checksum(path: str | Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _component_findings(
    folder: Path, manifest: BundleManifest, known_kinds: Collection[str] | None
) -> list[Finding]:
    """Compare the component folders with the manifest."""
    problems = {}
    for name, kind in manifest.components.items():
        try:
            actual = read_component(folder / name).kind
        except ComponentError as error:
            problems[name] = str(error)
            continue
        if actual != kind:
            problems[name] = f"The component is of the kind {actual!r}, the manifest says {kind!r}."
        elif known_kinds is not None and kind not in known_kinds:
            valid = ", ".join(sorted(known_kinds))
            problems[name] = f"The component is of the unknown kind {kind!r}; valid kinds: {valid}."
    for item in sorted(folder.iterdir()) if folder.is_dir() else []:
        is_component = (item / CONFIG_FILE).is_file() and (item / WEIGHTS_FILE).is_file()
        if is_component and item.name not in manifest.components and item.name[0] != ".":
            problems[item.name] = "The manifest does not name this component."
    return _errors(problems)


def _errors(messages: Mapping[str, str]) -> list[Finding]:
    return [
        Finding(severity="error", path=path, message=message) for path, message in messages.items()
    ]
