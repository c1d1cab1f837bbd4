"""What is there to run on, and what to type to install more."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*;.*extra\s*==\s*['\"]([\w-]+)['\"]")
_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "sherpa_onnx": "sherpa-onnx"}
"""Modules whose package has another name."""


_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|hpu|npu|mtia|xla)(:[0-9]+)?")


class DeviceError(ValueError):
    """A device that cannot be used; the message says why."""


def check_device(name: object, *, by_name: bool = False) -> None:
    """Check that models can run on a device.

    Args:
        name: such as cpu, cuda, cuda:1 or mps.
        by_name: whether to look at the name alone, for which torch need not be imported.

    Raises:
        DeviceError: there is no such device.
    """
    problem = f"the device {str(name)!r} cannot be used"
    match = _DEVICE.fullmatch(str(name))
    names = "devices are cpu, cuda, cuda:1 and so on, and mps"
    if by_name and match is None:
        raise DeviceError(f"{problem}: {names}.")
    if by_name or (match and match[1] == "cpu"):
        return
    import torch

    if match is None:  # a device that a package of its own has made known to torch
        try:
            torch.device(str(name))
        except RuntimeError as error:
            raise DeviceError(f"{problem}: {names}.") from error
        return
    if match[1] == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            f"{problem}: it is the GPU of a Mac, and there is none that torch can use."
        )
    if match[1] == "cuda" and not torch.cuda.is_available():
        has_cuda = torch.version.cuda or torch.version.hip
        why = "there is no GPU that it can use" if has_cuda else "it was built without CUDA"
        raise DeviceError(f"{problem} by the torch that is installed: {why}.")
    if match[1] == "cuda" and match[2] and int(match[2][1:]) >= torch.cuda.device_count():
        raise DeviceError(f"{problem}: the last one is cuda:{torch.cuda.device_count() - 1}.")
    try:
        torch.zeros(1, device=str(name))
    except Exception as error:  # each kind of device has errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DeviceError(f"{problem}: {reason}.") from error


def extras() -> dict[str, list[str]]:
    """The extras of the package, and which of their packages are missing."""
    found: dict[str, list[str]] = {}
    try:
        requirements = requires("tokenlm") or []
    except PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        missing = found.setdefault(match[2], [])
        if package_version(match[1]) is None:
            missing.append(match[1])
    return found


def package_version(name: str) -> str | None:
    """Version of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def install_command(extra: str) -> str:
    """The command that installs an extra, for a source checkout or for the installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        return f"pip install 'tokenlm[{extra}]'"
    # pip would take the name alone from a registry, and not what lies here.
    where = "." if root == Path.cwd() else root
    return f"pip install -e '{where}[{extra}]'"


def install_command_for(module: str) -> str:
    """The command that installs a module: by the extra that brings it, where one does."""
    try:
        requirements = requires("tokenlm") or []
    except PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match and match[1].replace("-", "_").lower() == module.lower() and match[2] != "dev":
            return install_command(match[2])
    return f"pip install {_NAMES.get(module, module)}"
