"""Scripts as modules, for their tests."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load_script(name: str) -> ModuleType:
    """Import `scripts/NAME`, which has no suffix."""
    module_name = f"script_{name}"
    if module_name not in sys.modules:
        loader = SourceFileLoader(module_name, str(SCRIPTS / name))
        spec = spec_from_loader(module_name, loader)
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        loader.exec_module(module)
    return sys.modules[module_name]
