"""Puts trained components into a copy of a bundle: in place of its own, or as one that it lacks.

python -m training.exchange BUNDLE OUTPUT flow=RUN/export/flow vocoder=RUN/export/vocoder
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokenlm.atomic import atomic_folder
from tokenlm.checkpoint.bundle import BundleError, BundleManifest, finalize_bundle, read_manifest
from tokenlm.checkpoint.component import read_component
from tokenlm.checkpoint.resolve import resolve
from tokenlm.synthesis.components import Components
from training.bundle import COMPONENTS


def exchange(bundle: Path, output: Path, folders: Mapping[str, Path]) -> BundleManifest:
    """Writes the bundle to `output`, whole or not at all.

    Args:
        bundle: stays as it is.
        output: must not exist.
        folders: folder of each new component by its name in the bundle.

    Raises:
        ValueError: `output` exists, no bundle has a component of a name, or a new component does
            not fit the others; both are named.
    """
    if output.exists():
        raise BundleError(f"{output} exists already and is not replaced.")
    manifest = read_manifest(bundle)
    unknown = sorted(folders.keys() - manifest.components.keys() - set(COMPONENTS))
    if unknown or not folders:
        named = f"has no component {', '.join(unknown)}" if unknown else "would stay as it is"
        lacking = [name for name in COMPONENTS if name not in manifest.components]
        more = f", and may be given {', '.join(lacking)}" if lacking else ""
        raise BundleError(
            f"{bundle} {named}; it has {', '.join(manifest.components)}{more}: name=FOLDER each."
        )
    kinds = {name: read_component(folder).kind for name, folder in folders.items()}
    with atomic_folder(output) as temporary:
        shutil.copytree(bundle, temporary, dirs_exist_ok=True)
        for name, folder in folders.items():
            if name in manifest.components:
                shutil.rmtree(temporary / name)
            shutil.copytree(folder, temporary / name)
        written = finalize_bundle(
            temporary,
            replace(
                manifest,
                name=output.name,
                components={**manifest.components, **kinds},
                provenance={
                    **manifest.provenance,
                    "from_bundle": manifest.name,
                    "exchanged": sorted(folders),
                },
            ),
        )
        components = Components(temporary)  # whether the parts agree
        for name in folders:  # and load, those that others wait with, too
            getattr(components, name)
        if "speech_tokenizer" in folders:
            components.check_tokenizer()
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.exchange", description=__doc__)
    parser.add_argument("bundle", help="name or folder of the bundle")
    parser.add_argument("output", type=Path, help="bundle to make; must not exist")
    parser.add_argument("folders", nargs="+", metavar="component=FOLDER")
    options = parser.parse_args(arguments)
    try:
        pairs = [entry.partition("=") for entry in options.folders]
        wrong = [name for name, equals, folder in pairs if not equals or not folder]
        if wrong:
            raise BundleError(f"{wrong[0]!r} is not of the form component=FOLDER.")
        folders = {name: Path(folder) for name, _, folder in pairs}
        exchange(Path(resolve(options.bundle)), options.output, folders)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {', '.join(folders)} exchanged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
