"""Adapters of what was trained: taken out of models with additions, and merged into bundles."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from tokenlm.checkpoint.adapter import AdapterError, check_part, read_adapter
from tokenlm.checkpoint.bundle import BundleManifest, finalize_bundle, read_manifest
from tokenlm.checkpoint.component import read_component, read_state, save_component
from tokenlm.synthesis import Voice
from training.bundle import exchange


def merge_adapter(bundle: Path, adapter: Path, output: Path) -> BundleManifest:
    """Write a whole bundle with the changes of an adapter, which then needs no adapter.

    The voice beside the adapter becomes one of the bundle.

    Args:
        bundle: the base; it stays as it is.
        adapter: the folder of the adapter.
        output: must not exist.

    Raises:
        AdapterError: it was learned on another bundle, does not fit, or its voice has the name of
            one of the bundle.
        BundleError: `output` exists.
        VoiceError: the voice beside it is damaged.
    """
    found = read_adapter(adapter)
    found.check_base(read_manifest(bundle), adapter)
    if not found.parts:
        raise AdapterError(f"{adapter} changes nothing.")
    voice = adapter.with_suffix(".voice")
    own = replace(Voice.load(voice), adapter="") if voice.is_file() else None
    if own is not None and (bundle / "voices" / voice.name).exists():
        raise AdapterError(
            f"{bundle} has a voice {voice.stem!r} of its own: rename {voice} and its adapter."
        )
    with tempfile.TemporaryDirectory(prefix="tokenlm-") as scratch:
        folders = {}
        for component, part in found.parts.items():
            files = read_component(bundle / component)
            state = read_state(files.state_path)
            where = f"{adapter}: {component}"
            check_part(part, {name: tensor.shape for name, tensor in state.items()}, where)
            folders[component] = Path(scratch) / component
            save_component(
                folders[component],
                kind=files.kind,
                config=files.config,
                state_dict=part.apply(state),
                extra=files.extra,
            )
        exchange(bundle, output, folders)
    if own is not None:
        own.save(output / "voices" / voice.name)
    return finalize_bundle(output, read_manifest(output))
