"""Folders of weights: components, the bundles they make up, and where these are found."""

from __future__ import annotations

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
from tokenlm.checkpoint.resolve import ResolveError, bundled_names, packaged_configs, resolve

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
