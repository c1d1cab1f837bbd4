"""Run a stage: `tokenlm train STAGE key=value ...`, or `python -m training.run --config STAGE ...`.

Also under `accelerate launch -m training.run ...` for several GPUs. The same command again goes on
from the newest checkpoint of the run folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tokenlm.checkpoint.resolve import packaged_configs
from tokenlm.config import ConfigError, load_config
from tokenlm.console import show_logs
from tokenlm.installation import install_command
from training.stages import STAGES, stage_classes

if TYPE_CHECKING:
    from training.config import RunConfig
    from training.loop.task import Task


_EARLIER_STAGES = {"cosyvoice_flow": "the stage flow with configs/train/flow.cosyvoice.yaml"}
"""What stages of earlier versions are in this one."""


def require_extra() -> None:
    """Check that what training needs is installed.

    Raises:
        ConfigError: With the command that installs it.
    """
    missing = [name for name in ("accelerate", "safetensors") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Training needs {' and '.join(missing)}; install with: {install_command('train')}"
        )


def find_config(name: str) -> Path:
    """Return the path of a training config: `name` itself, or that name among those of the package.

    Raises:
        ConfigError: If there is no such file.
    """
    folder = packaged_configs() / "train"
    for path in (Path(name), folder / f"{name}.yaml"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    raise ConfigError(
        f"{name}: there is no such file, nor a config of that name; there are {', '.join(names)}, "
        "and those of the folders full and toy"
    )


def read_stage(path: Path, overrides: Sequence[str]) -> str:
    """Return the stage that a training config names, itself or through its base.

    Raises:
        ConfigError: If there is no such file, or it names no known stage.
    """
    for override in reversed(overrides):
        if override.startswith("stage="):
            return _known(override.removeprefix("stage=").strip(), "override")
    data = _mapping(path)
    if "stage" not in data and isinstance(data.get("base"), str):
        data = _mapping(path.parent / data["base"])
    return _known(data.get("stage"), str(path))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return data if isinstance(data, dict) else {}


def _known(stage: Any, where: str) -> str:
    if stage not in STAGES:
        named = "names no stage" if stage is None else f"names the unknown stage {stage!r}"
        if stage in _EARLIER_STAGES:
            named += f", which is {_EARLIER_STAGES[stage]} now"
        raise ConfigError(f"{where}: stage: {named}; valid stages: {', '.join(STAGES)}")
    return stage


def load_task(path: Path, overrides: Sequence[str] = ()) -> tuple[RunConfig, Task]:
    """Read a training config and make its task, not yet built."""
    config_class, task_class = stage_classes(read_stage(path, overrides))
    config = load_config(config_class, path, overrides)
    return config, task_class(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.run", description=__doc__)
    parser.add_argument("--config", required=True, help="training config: YAML file, or its name")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FOLDER",
        help="train nothing: write the inference components of the newest checkpoint",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optim.lr=3e-4")
    options = parser.parse_intermixed_args(arguments)
    show_logs()
    try:
        require_extra()
        config, task = load_task(find_config(options.config), options.overrides)
        from training.config import run_folder
        from training.loop.checkpoints import latest_checkpoint
        from training.loop.processes import leave_group
        from training.loop.trainer import Trainer, TrainingError

        if options.export is not None and latest_checkpoint(run_folder(config)) is None:
            raise ConfigError(f"The run {run_folder(config)} has no checkpoint to export.")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        trainer = Trainer(task, config)
        if options.export is not None:
            trainer.export(options.export)
        else:
            trainer.run()
        leave_group()
    except (ValueError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
