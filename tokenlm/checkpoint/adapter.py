"""An adapter: what was learned on top of a bundle, as a folder beside the voice that it speaks.

```
ann.voice              the voice, which names the folder
ann.adapter/
  adapter.yaml         kind, name, base (name and fingerprint of the bundle), where it comes from
  adapter.safetensors  the parameters
```

An adapter of the kind `weights` changes parameters of the models that speak. A parameter
`COMPONENT/NAME` is stored as its new value, or as a low-rank addition to the old one (Hu et al.,
2021): `COMPONENT/NAME.down` (R, …) and `COMPONENT/NAME.up` (out, R), whose product has the shape of
the parameter, any dimensions behind the first laid in a row.

Shapes: R rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tokenlm.atomic import atomic_folder
from tokenlm.checkpoint.bundle import BundleManifest, is_bundle_name
from tokenlm.config import ConfigError, read_config, save_config

FORMAT_VERSION = 1
SUFFIX = ".adapter"
"""Of the name of the folder."""
CONFIG_FILE = "adapter.yaml"
WEIGHTS_FILE = "adapter.safetensors"
COMPONENTS = ("speech_lm", "flow", "vocoder")
"""The components that an adapter may change: those that speak."""
DOWN, UP = ".down", ".up"
"""Ends of the names of the two factors of an addition."""

AdapterKind = Literal["weights"]
"""What an adapter does to its base."""


class AdapterError(ValueError):
    """An adapter that cannot be read, written or used; the message names it."""


@dataclass(frozen=True, kw_only=True)
class AdapterBase:
    """The bundle that an adapter was learned on."""

    name: str
    fingerprint: str
    """See `bundle_fingerprint`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint or 'without a fingerprint'})"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The content of `adapter.yaml`."""

    format_version: int = FORMAT_VERSION
    kind: AdapterKind = "weights"
    name: str
    base: AdapterBase
    description: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    """How it was learned: recipe, recordings, what the checks said."""

    def __post_init__(self) -> None:
        if not is_bundle_name(self.name):
            raise ValueError(
                f"{self.name!r} is not a name (letters, digits, dot, dash, underscore)"
            )


@dataclass(frozen=True)
class PartChange:
    """What an adapter changes in one component."""

    values: Mapping[str, Tensor]
    """New values of parameters, by name."""
    additions: Mapping[str, tuple[Tensor, Tensor]]
    """Down (R, …) and up (out, R) of parameters, by name."""

    def apply(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the component with the changes."""
        changed = dict(state)
        for name, value in self.values.items():
            changed[name] = value.to(state[name].dtype)
        for name, (down, up) in self.additions.items():
            whole = state[name].float() + product(down, up, state[name].shape)
            changed[name] = whole.to(state[name].dtype)
        return changed


@dataclass(frozen=True)
class Adapter:
    """An adapter that was read."""

    config: AdapterConfig
    parts: Mapping[str, PartChange]
    """By component."""
    digest: str
    """Hash of the parameters."""

    @property
    def num_parameters(self) -> int:
        """Numbers that are stored."""
        return sum(tensor.numel() for tensor in flatten(self.parts).values())

    def check_base(self, manifest: BundleManifest, where: str | Path) -> None:
        """Check that a bundle is the one that the adapter was learned on.

        Raises:
            AdapterError: It is another one; both are named.
        """
        found = AdapterBase(name=manifest.name, fingerprint=bundle_fingerprint(manifest))
        if found.fingerprint != self.config.base.fingerprint:
            raise AdapterError(
                f"{where} was learned on the bundle {self.config.base} and does not fit "
                f"{found}: load it over the former, or tune again."
            )


def product(down: Tensor, up: Tensor, shape: torch.Size) -> Tensor:
    """The addition to a parameter of a shape, of its factors (R, …) and (out, R)."""
    return (up.float() @ down.float().flatten(1)).view(shape)


def bundle_fingerprint(manifest: BundleManifest) -> str:
    """Sixteen hexadecimal digits that change with the models that speak.

    Voices, the model card and settings of generation may change without making adapters useless.
    """
    digest = hashlib.sha256()
    found = [
        f"{path} {checksum}\n"
        for path, checksum in sorted(manifest.files.items())
        if path.split("/")[0] in COMPONENTS
    ]
    if not found:
        return ""
    digest.update("".join(found).encode())
    return digest.hexdigest()[:16]


def flatten(parts: Mapping[str, PartChange]) -> dict[str, Tensor]:
    """All tensors of an adapter under the names of its file."""
    tensors = {}
    for component, part in parts.items():
        for name, value in part.values.items():
            tensors[f"{component}/{name}"] = value
        for name, (down, up) in part.additions.items():
            tensors[f"{component}/{name}{DOWN}"] = down
            tensors[f"{component}/{name}{UP}"] = up
    return tensors


def save_adapter(
    folder: str | Path,
    config: AdapterConfig,
    parts: Mapping[str, PartChange],
    *,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write an adapter folder, whole or not at all.

    Args:
        folder: ends in `.adapter`; if it exists it is replaced, and must be empty or an adapter.
        config: what it is.
        parts: changes of each component.
        dtype: that its parameters are stored in.

    Raises:
        AdapterError: the folder holds something else or is called otherwise, or a parameter is not
            finite or too large for `dtype`.
    """
    folder = Path(folder)
    check_replaceable(folder)
    stored = {}
    for name, tensor in flatten(parts).items():
        cast = tensor.detach().cpu().to(dtype).clone(memory_format=torch.contiguous_format)
        if not cast.isfinite().all():
            raise AdapterError(f"{folder}: {name} holds numbers that {dtype} cannot store.")
        stored[name] = cast
    if not stored:
        raise AdapterError(f"{folder}: the adapter would change nothing.")
    with atomic_folder(folder) as temporary:
        try:
            save_file(stored, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        except SafetensorError as error:
            raise AdapterError(f"{folder}: the weights cannot be written: {error}") from error
        (temporary / WEIGHTS_FILE).chmod(0o644)
        save_config(config, temporary / CONFIG_FILE)


def check_replaceable(folder: Path) -> None:
    """Check that an adapter may be written to a folder: there is none, or an adapter at most.

    Raises:
        AdapterError: it holds something else, or is called otherwise.
    """
    if folder.suffix != SUFFIX:
        raise AdapterError(f"the name of an adapter folder ends in {SUFFIX}, not {folder.name!r}.")
    if folder.exists():
        others = {item.name for item in folder.iterdir()} if folder.is_dir() else {"a file"}
        if others - {CONFIG_FILE, WEIGHTS_FILE}:
            raise AdapterError(f"{folder} holds more than an adapter and is not replaced.")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder is that of an adapter."""
    return (Path(folder) / CONFIG_FILE).is_file()


def read_adapter_config(folder: str | Path) -> AdapterConfig:
    """Read what an adapter is, without its parameters.

    Raises:
        AdapterError: it is none, or of a format or kind that this version does not read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AdapterError(f"{folder}: there is no such adapter folder.")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder} is not an adapter: it has no {name}.")
    try:
        config = read_config(AdapterConfig, folder / CONFIG_FILE)
    except ConfigError as error:
        raise AdapterError(str(error)) from error
    if config.format_version != FORMAT_VERSION or config.kind not in get_args(AdapterKind):
        raise AdapterError(
            f"{folder} is of format {config.format_version}, kind {config.kind!r}; this version of "
            f"tokenlm reads {FORMAT_VERSION}, {', '.join(get_args(AdapterKind))}."
        )
    return config


def read_adapter(folder: str | Path) -> Adapter:
    """Read an adapter whole.

    Raises:
        AdapterError: it is none, damaged, or names what no adapter changes.
    """
    folder = Path(folder)
    config = read_adapter_config(folder)
    path = folder / WEIGHTS_FILE
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} cannot be read (is it whole?): {error}") from error
    for key, tensor in tensors.items():
        if not tensor.ndim or not tensor.numel() or not tensor.float().isfinite().all():
            raise AdapterError(
                f"{path}: {key} is damaged: it is empty, has no dimension, or holds numbers that "
                "are not finite."
            )
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    values: dict[str, dict[str, Tensor]] = {}
    factors: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        component, slash, name = key.partition("/")
        if component not in COMPONENTS or not slash:
            raise AdapterError(
                f"{path}: {key} belongs to no component that an adapter changes; those are "
                f"{', '.join(COMPONENTS)}."
            )
        end = next((end for end in (DOWN, UP) if name.endswith(end)), "")
        if end:
            factors.setdefault((component, name.removesuffix(end)), {})[end] = tensor.float()
        else:
            values.setdefault(component, {})[name] = tensor.float()
    additions: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
    for (component, name), pair in factors.items():
        if len(pair) < 2:
            raise AdapterError(f"{path}: one of the two factors of {component}/{name} is missing.")
        additions.setdefault(component, {})[name] = (pair[DOWN], pair[UP])
    parts = {
        component: PartChange(values.get(component, {}), additions.get(component, {}))
        for component in COMPONENTS
        if component in values or component in additions
    }
    return Adapter(config, parts, digest.hexdigest()[:16])


def check_part(part: PartChange, shapes: Mapping[str, torch.Size], where: str) -> None:
    """Check that a component has all that an adapter changes, in the same shapes.

    Args:
        part: the changes.
        shapes: of the weights of the component.
        where: what error messages call the adapter and the component.

    Raises:
        AdapterError: listing what the component lacks or has in another shape.
    """
    problems = []
    for name, value in part.values.items():
        if name not in shapes:
            problems.append(f"unexpected: {name}")
        elif value.shape != shapes[name]:
            problems.append(f"{name} {tuple(value.shape)} for {tuple(shapes[name])}")
    for name, (down, up) in part.additions.items():
        shape = shapes.get(name)
        if shape is None or len(shape) < 2:
            problems.append(f"unexpected: {name}")
        elif (
            up.ndim != 2
            or up.shape != (shape[0], down.shape[0])
            or down[0].numel() != shape[1:].numel()
        ):
            problems.append(f"{name} {tuple(up.shape)} {tuple(down.shape)} for {tuple(shape)}")
    if problems:
        shown = "; ".join(problems[:8]) + (" …" if len(problems) > 8 else "")
        raise AdapterError(f"{where}: the adapter does not fit: {shown}.")
