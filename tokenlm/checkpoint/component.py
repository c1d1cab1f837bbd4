"""A component: one model as a folder of `config.yaml` and `model.safetensors`.

Nothing in the folder is code, and nothing is a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tokenlm.atomic import atomic_folder
from tokenlm.config import ConfigError, from_dict, read_config, save_config
from tokenlm.earlier import present_config, present_kind, present_weights

FORMAT_VERSION = 1
CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"

# In the metadata of the weights: tensors that are the same memory as another and stored once.
_ALIASES = "aliases"
_NUM_LISTED = 12


class ComponentError(ValueError):
    """A component folder that cannot be read or written; the message names it."""


@dataclass(frozen=True, kw_only=True)
class ComponentFiles:
    """Kind, config and paths of a component, read before any model is built."""

    kind: str
    """Which model it is, a key of the registry that loads it."""
    config: dict[str, Any]
    """The config of the model, as plain data."""
    extra: dict[str, Any]
    """Facts beside the config, such as the fingerprint of the speech tokenizer."""
    config_path: Path
    """Where the config was read."""
    state_path: Path
    """Where the weights lie."""


@dataclass(frozen=True, kw_only=True)
class _ConfigFile:
    """The layout of a component's `config.yaml`."""

    format_version: int
    kind: str
    config: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)


def save_component(
    folder: str | Path,
    *,
    kind: str,
    config: Any,
    state_dict: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a component folder, whole or not at all.

    Args:
        folder: the folder; if it exists it is replaced, and must be empty or a component.
        kind: which model it is.
        config: its config dataclass, or the same as plain data.
        state_dict: its weights by name. Tensors that share their memory are stored once.
        dtype: the type that floating-point weights are stored in; None keeps theirs.
        extra: facts beside the config, plain data.

    Raises:
        ComponentError: if the folder holds something else, or a weight is NaN or too large for
            `dtype`, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists():
        others = [item.name for item in folder.iterdir()] if folder.is_dir() else ["a file"]
        others = sorted(set(others) - {CONFIG_FILE, WEIGHTS_FILE})
        if others:
            raise ComponentError(
                f"{folder} holds more than a component ({_listed(others)}) and is not replaced."
            )
    tensors, aliases = _without_aliases(state_dict)
    stored = {name: _stored(name, tensor, dtype, folder) for name, tensor in tensors.items()}
    # A single entry: the library writes several in any order, and files would differ by chance.
    metadata = {_ALIASES: json.dumps(aliases)} if aliases else {"format": "pt"}
    content = {"format_version": FORMAT_VERSION, "kind": kind, "config": config}
    with atomic_folder(folder) as temporary:
        try:
            save_file(stored, temporary / WEIGHTS_FILE, metadata=metadata)
        except SafetensorError as error:  # a full disk, too, is an error of the library's own kind
            raise ComponentError(f"{folder}: the weights cannot be written: {error}") from error
        # The library makes files that only their owner can read; a bundle is for everyone.
        (temporary / WEIGHTS_FILE).chmod(0o644)
        save_config(content | ({"extra": extra} if extra else {}), temporary / CONFIG_FILE)


def read_component(folder: str | Path) -> ComponentFiles:
    """Read kind and config of a component folder, without its weights.

    Raises:
        ComponentError: if the folder or one of its files is missing, or the config is not one that
            this version reads.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ComponentError(f"{folder}: there is no such component folder.")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ComponentError(f"{folder} is not a component: it has no {name}.")
    try:
        file = read_config(_ConfigFile, folder / CONFIG_FILE)
    except ConfigError as error:
        raise ComponentError(str(error)) from error
    if file.format_version != FORMAT_VERSION:
        raise ComponentError(
            f"{folder / CONFIG_FILE} has format_version {file.format_version}, but this version "
            f"of tokenlm reads {FORMAT_VERSION}."
        )
    return ComponentFiles(
        kind=present_kind(file.kind),
        config=present_config(file.kind, file.config),
        extra=file.extra,
        config_path=folder / CONFIG_FILE,
        state_path=folder / WEIGHTS_FILE,
    )


def read_state(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Read the weights of a component, each name with its tensor.

    Where the config beside them is of an earlier kind, the names are those of the present one.

    Raises:
        ComponentError: if the file is missing, cut short or not a safetensors file.
    """
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
            aliases = json.loads((file.metadata() or {}).get(_ALIASES, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ComponentError(f"{path} cannot be read (is it whole?): {error}") from error
    state |= {alias: state[name] for alias, name in aliases.items() if name in state}
    config = Path(path).with_name(CONFIG_FILE)
    return (
        present_weights(read_config(_ConfigFile, config).kind, state) if config.is_file() else state
    )


def load_component(
    folder: str | Path,
    kinds: Mapping[str, tuple[type, Callable[[Any], nn.Module]]],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = torch.float32,
) -> nn.Module:
    """Build the model of a component folder and load its weights, strictly.

    Args:
        folder: the component.
        kinds: for every kind that may be loaded its config class and what builds the model of it.
        device: where the model is put.
        dtype: the type of its floating-point weights; None for that of the built model.

    Returns:
        The model, in evaluation mode.

    Raises:
        ComponentError: for an unknown kind, a config that does not fit, weights that are missing,
            left over or of another shape (all of them are named), or a damaged file.
    """
    files = read_component(folder)
    if files.kind not in kinds:
        raise ComponentError(
            f"{folder} is of the kind {files.kind!r}; valid kinds here: {_listed(sorted(kinds))}."
        )
    config_class, build = kinds[files.kind]
    try:
        config = from_dict(config_class, files.config, where=files.config_path)
    except ConfigError as error:
        raise ComponentError(str(error)) from error
    # All weights are about to be overwritten: drawing them first would only take time, and move
    # the random state of the caller.
    with float32_by_default(), without_initialisation():
        module = build(config)
    load_state(module, read_state(files.state_path), where=files.state_path)
    return module.to(device=device, dtype=dtype).eval()


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, where: str | Path) -> None:
    """Copy weights into a model, strictly.

    Raises:
        ComponentError: listing the weights that are missing, left over or of another shape.
    """
    wanted = module.state_dict()
    problems = []
    missing = [name for name in wanted if name not in state]
    if missing:
        problems.append(f"missing: {_listed(missing)}")
    unexpected = [name for name in state if name not in wanted]
    if unexpected:
        problems.append(f"unexpected: {_listed(unexpected)}")
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if shapes:
        problems.append(f"of another shape: {_listed(shapes)}")
    if problems:
        raise ComponentError(f"{where} does not fit its config; {'; '.join(problems)}.")
    module.load_state_dict(dict(state))


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Inside, what is built has 32 bits, whatever default another library has set.

    Tables of a model (windows, filters, wavelengths) would keep the error of fewer for good.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Inside, modules are built whose weights hold anything: they are about to be overwritten.

    The random state of the caller stays as it is.
    """
    with torch.random.fork_rng(devices=[]), _WithoutInitialisation():
        yield


class _WithoutInitialisation(TorchFunctionMode):
    """Makes the functions of `torch.nn.init` leave parameters as they are."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if isinstance(tensor, nn.Parameter):  # a buffer may be one that no file holds
                return tensor
        return func(*args, **kwargs)


def _without_aliases(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state dict into its distinct tensors and the further names of some of them."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    for name, tensor in state_dict.items():
        if not isinstance(tensor, Tensor):
            raise ComponentError(f"{name} is a {type(tensor).__name__}, not a tensor.")
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() > 0 and memory in names:
            aliases[name] = names[memory]
        else:
            names[memory] = name
            tensors[name] = tensor
    return tensors, aliases


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None, folder: Path) -> Tensor:
    """Give the tensor as it is written, in memory of its own."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        if tensor.isnan().any():
            raise ComponentError(f"{folder}: the weight {name} is NaN in places and is not saved.")
        cast = tensor.to(dtype or tensor.dtype)
        if (cast.isinf() & ~tensor.isinf()).any():
            raise ComponentError(
                f"{folder}: the weight {name} reaches {tensor.abs().max().item():g}, more than "
                f"{dtype} holds."
            )
        tensor = cast
    return tensor.clone(memory_format=torch.contiguous_format)


def _listed(names: list[str]) -> str:
    """Name the first of many, and how many there are."""
    more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return ", ".join(names[:_NUM_LISTED]) + more
