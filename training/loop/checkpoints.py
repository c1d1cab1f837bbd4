"""The run folder, from which a killed run goes on as if it had never been interrupted.

    config.yaml         the resolved config
    environment.json    versions, device, command
    metrics.jsonl       one line per logged step, cut back to the checkpoint on resume
    samples/            what `Task.samples` writes, one folder per step
    step-000100/        <module>.safetensors, ema.safetensors, optimizer.pt, state.json
    export/             the inference components, written when the run ends

Nothing is ever half written: a checkpoint gets its name after all of it is on the disk.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokenlm.atomic import sync_to_disk, write_text
from tokenlm.checkpoint.component import load_state, read_state
from tokenlm.config import ConfigError, from_dict, save_config, to_dict

logger = logging.getLogger(__name__)

_STEP = re.compile(r"step-(\d{6,})")
_TEMPORARY = ".writing-"
_HARMLESS = (
    "run",
    "max_minutes",
    "max_skipped_steps",
    "log.",
    "optim.max_steps",
    "batch.num_workers",
    # What makes a step is the product with the number of ranks; the loop logs when that changes.
    "batch.accumulation",
)
_MISSING = "(not set)"
_SHOWN = 10
"""Different keys that a message lists."""
_DAMAGE = (
    SafetensorError,
    EOFError,
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
)
"""What the readers of a checkpoint raise at files that were emptied, cut or overwritten."""

T = TypeVar("T")


@dataclass(frozen=True)
class SavedState:
    """What a checkpoint holds beside weights."""

    numbers: dict[str, Any]
    """state.json: step, position in the data, counters."""
    optimizers: dict[str, Any]
    """State of each phase's optimizer, by phase name."""
    task: dict[str, Any]
    """What `Task.state` returned."""


def open_run(folder: Path, config: Any) -> Path | None:
    """Create the run folder, or check that it belongs to the same config.

    Returns:
        The newest checkpoint to go on from; None for a new run.

    Raises:
        ConfigError: If the folder was made with another config; names the stage, or lists the
            first keys that differ.
    """
    stored = folder / "config.yaml"
    # Without a checkpoint nothing was trained yet: a run that failed to start may be corrected.
    if stored.exists() and latest_checkpoint(folder) is not None:
        old, new = _read_yaml(stored), to_dict(config)
        if old.get("stage") != new["stage"]:
            raise ConfigError(
                f"The run folder {folder} is of the stage {old.get('stage')}, this is "
                f"{new['stage']}; give another `run`."
            )
        changed = changed_keys(_with_defaults(old, config), new)
        if changed:
            more = len(changed) - _SHOWN
            raise ConfigError(
                f"The run folder {folder} was started with another config. Different: "
                + "; ".join(changed[:_SHOWN])
                + (f"; and {more} more" if more > 0 else "")
                + ". Give the old values, or another `run`."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover)
    save_config(config, stored)
    return latest_checkpoint(folder)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def _with_defaults(old: dict[str, Any], config: Any) -> dict[str, Any]:
    """Add the defaults of keys that the config did not have when the run was started."""
    try:
        return to_dict(from_dict(type(config), old))
    except ConfigError:  # keys that are no more: the comparison names them
        return old


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested dict as one dict with dotted keys."""
    if isinstance(data, dict) and data:
        parts = (flatten(value, f"{prefix}{key}.") for key, value in data.items())
        return {key: value for part in parts for key, value in part.items()}
    return {prefix[:-1]: data}


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the keys whose values differ, as "key: old -> new", without the harmless ones."""
    before, after = flatten(dict(old)), flatten(dict(new))
    changed = []
    for key in sorted(before.keys() | after.keys()):
        if any(key == name or (name[-1] == "." and key.startswith(name)) for name in _HARMLESS):
            continue
        was, now = before.get(key, _MISSING), after.get(key, _MISSING)
        if was != now:
            changed.append(f"{key}: {was} -> {now}")
    return changed


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    found = [
        (int(match.group(1)), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _STEP.fullmatch(path.name)) and path.is_dir()
    ]
    return [path for _, path in sorted(found)]


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run, None where there is none."""
    found = checkpoints(folder)
    return found[-1] if found else None


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    averages: Mapping[str, Tensor],
    saved: SavedState,
    keep_last: int,
    *,
    states: Mapping[str, Mapping[str, Tensor]] | None = None,
    shards: Path | None = None,
) -> Path:
    """Write one checkpoint and remove the oldest ones.

    Args:
        folder: Run folder.
        step: Number of optimizer steps that were done.
        modules: Modules whose weights change in the run.
        averages: Averaged weights, by "<module>.<parameter>"; may be empty.
        saved: The rest of the state.
        keep_last: Checkpoints to keep.
        states: Whole weights of the modules, where they cannot give them themselves.
        shards: Folder of what is saved in pieces; it is moved into the checkpoint as `zero`.

    Returns:
        The new folder.
    """
    final = folder / f"step-{step:06d}"
    if final.exists():  # a finished run that was started once more: nothing has changed since
        if shards is not None:
            shutil.rmtree(shards)
        return final
    temporary = folder / f"{_TEMPORARY}{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, module in modules.items():
        state = module.state_dict() if states is None else states[name]
        save_file(_on_disk(state), temporary / f"{name}.safetensors")
    save_file(_on_disk(averages), temporary / "ema.safetensors")
    torch.save({"optimizers": saved.optimizers, "task": saved.task}, temporary / "optimizer.pt")
    (temporary / "state.json").write_text(json.dumps(saved.numbers, indent=1), encoding="utf-8")
    if shards is not None:
        shards.rename(temporary / "zero")
    for path in (*temporary.rglob("*"), temporary):
        sync_to_disk(path)
    temporary.rename(final)
    sync_to_disk(folder)
    for old in checkpoints(folder)[:-keep_last]:
        shutil.rmtree(old)
    return final


def _on_disk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Tied weights share memory, which safetensors refuses: each name gets its own copy.
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def load_checkpoint(
    checkpoint: Path,
    modules: Mapping[str, nn.Module],
    load: Callable[[nn.Module, dict[str, Tensor]], Any] = nn.Module.load_state_dict,
) -> tuple[SavedState, dict[str, Tensor]]:
    """Load the weights of a checkpoint into `modules`, each by `load`.

    Returns:
        The rest of the state, and the averaged weights.

    Raises:
        ValueError: If a file is missing or damaged, or the weights do not fit the modules.
    """
    for name, module in modules.items():
        path = checkpoint / f"{name}.safetensors"
        if not path.exists():
            raise ValueError(f"The checkpoint {checkpoint} has no weights of {name!r}.")
        state = _read(path, load_file)
        try:
            load(module, state)
        except RuntimeError as error:
            raise ValueError(f"The weights {path} do not fit the model: {error}") from error
    pickled = _read(checkpoint / "optimizer.pt", _read_optimizers)
    numbers = _read(checkpoint / "state.json", _read_numbers)
    saved = SavedState(numbers, pickled["optimizers"], pickled["task"])
    return saved, _read(checkpoint / "ema.safetensors", load_file)


def _read_optimizers(path: Path) -> dict[str, Any]:
    pickled = torch.load(path, map_location="cpu", weights_only=True)
    return {key: pickled[key] for key in ("optimizers", "task")}


def _read_numbers(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _read(path: Path, read: Callable[[Path], T]) -> T:
    """Read one file of a checkpoint.

    Raises:
        ValueError: If it cannot be read; says how to go on without it.
    """
    try:
        return read(path)
    except FileNotFoundError as error:
        problem, cause = "is missing", error
    except OSError as error:  # of the disk or its rights: the file may be whole
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    except _DAMAGE as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 100, placeholder=" ...")
        problem, cause = f"is damaged ({reason})", error
    folder = path.parent
    known = checkpoints(folder.parent)
    before = known[: known.index(folder)] if folder in known else []
    rest = f"go on from the checkpoint before it, {before[-1].name}" if before else "begin anew"
    raise ValueError(f"{path} {problem}; remove {folder} to {rest}.") from cause


def load_initial(
    modules: Mapping[str, nn.Module],
    initial: Mapping[str, Path],
    *,
    partial: bool = False,
    adapt: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> None:
    """Load the weights that a new run starts from.

    Args:
        modules: Modules of the task by name.
        initial: Component folder of some of them.
        partial: Whether weights that are missing or of another shape keep their random start, and
            those that the module has no place for are left out; which ones is logged.
        adapt: See `Task.adapt_initial`.

    Raises:
        ConfigError: If there is no module of a name.
        ComponentError: If a folder does not hold the weights of its module.
    """
    for name, folder in initial.items():
        if name not in modules:
            raise ConfigError(
                f"initial.{name}: there is no such module; valid: {', '.join(sorted(modules))}"
            )
        path = folder / "model.safetensors"
        state = read_state(path)
        if adapt is not None:
            state = adapt(modules[name], state)
        if partial:
            own = modules[name].state_dict()
            fresh = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
            if len(fresh) == len(own):
                raise ConfigError(f"initial.{name}: no weight of {path} fits")
            if fresh:
                logger.info("%s: start at random: %s", name, ", ".join(fresh))
            unused = [key for key in state if key not in own]
            if unused:
                logger.info("%s: not used: %s", name, ", ".join(unused))
            state = {key: own[key] if key in fresh else state[key] for key in own}
        load_state(modules[name], state, where=path)


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl that come after `step`, and a torn last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))
