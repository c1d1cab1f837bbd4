"""Folders of weights: components, bundles of them, and how both are found.

Most names are imported when first used: finding a bundle needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once: its name is that of its module, which would take its place.
from tokenlm.checkpoint.resolve import ResolveError, bundled_names, packaged_configs, resolve

if TYPE_CHECKING:
    from tokenlm.checkpoint.bundle import (
        BundleError,
        BundleManifest,
        Finding,
        finalize_bundle,
        read_manifest,
        validate_bundle,
        write_manifest,
    )
    from tokenlm.checkpoint.card import Metric, write_model_card
    from tokenlm.checkpoint.component import (
        ComponentError,
        ComponentFiles,
        load_component,
        load_state,
        read_component,
        read_state,
        save_component,
    )

_NAMES = {
    "bundle": (
        "BundleError", "BundleManifest", "Finding", "finalize_bundle", "read_manifest",
        "validate_bundle", "write_manifest",
    ),
    "card": ("Metric", "write_model_card"),
    "component": (
        "ComponentError", "ComponentFiles", "load_component", "load_state", "read_component",
        "read_state", "save_component",
    ),
}  # fmt: skip
"""Names of each module."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "BundleError",
    "BundleManifest",
    "ComponentError",
    "ComponentFiles",
    "Finding",
    "Metric",
    "ResolveError",
    "bundled_names",
    "finalize_bundle",
    "load_component",
    "load_state",
    "packaged_configs",
    "read_component",
    "read_manifest",
    "read_state",
    "resolve",
    "save_component",
    "validate_bundle",
    "write_manifest",
    "write_model_card",
]
