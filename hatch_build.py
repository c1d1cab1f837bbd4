"""Build hook: puts the configs and the embedded bundle into the wheel as data of the package.

An editable installation reads both from the checkout instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DATA = {
    "configs": "tokenlm/_data/configs",
    "checkpoints/mini-en": "tokenlm/_data/checkpoints/mini-en",
}


class PackageData(BuildHookInterface):
    """Adds `DATA` to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling; `version` is `standard` or `editable`."""
        if version == "editable":
            return
        for source, target in DATA.items():
            if (Path(self.root) / source).is_dir():
                build_data["force_include"][source] = target
            else:
                self.app.display_warning(f"{source} is not there: the wheel is built without it")
