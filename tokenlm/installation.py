"""What is installed, and what to type to install more."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*;.*extra\s*==\s*['\"]([\w-]+)['\"]")
_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "sherpa_onnx": "sherpa-onnx"}
"""Modules whose package has another name."""


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
