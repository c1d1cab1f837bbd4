"""Export of a bundle of the architecture of CosyVoice 2 or 3 in the layout it was published in.

The inverse of the import: what is made here is imported again bit for bit, which is checked before
anything is in place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as fields_of
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenlm.atomic import atomic_folder
from tokenlm.checkpoint.bundle import BundleManifest, read_manifest
from tokenlm.checkpoint.component import read_component, read_state
from tokenlm.checkpoint.cosyvoice.flow import flow_to_theirs
from tokenlm.checkpoint.cosyvoice.hift import hift_to_theirs
from tokenlm.checkpoint.cosyvoice.importer import (
    PARTS,
    SPEAKER_FILE,
    TEXT_FOLDER,
    TOKENIZER_FILES,
    Version,
)
from tokenlm.checkpoint.cosyvoice.lm import lm_to_theirs
from tokenlm.checkpoint.key_table import WeightsError, listed
from tokenlm.checkpoint.registry import read_model_config
from tokenlm.text.tokenizers import TransformersTokenizer, load_text_tokenizer

CONFIG: dict[Version, dict[str, Any]] = {
    2: {"model_type": "cosyvoice2", "architectures": ["CosyVoice2Model"]},
    3: {"model_type": "cosyvoice3", "architectures": ["CosyVoice3Model"]},
}
"""`config.json`, by which engines know the architecture."""

SUPERSEDED = ("llm*.pt", "flow*", "hift*", "*.zip", "*.plan", "*.engine", ".*")
"""Files of a published folder that hold the weights in another form: not carried along."""


@dataclass(frozen=True)
class ExportReport:
    """What was made of a bundle."""

    folder: Path
    parameters: dict[str, int]
    """Parameters of each file of weights."""
    remarks: list[str]
    """What is to be known about it."""


def export_cosyvoice(
    bundle: str | Path,
    output: str | Path,
    *,
    version: Version,
    published: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> ExportReport:
    """Writes a bundle as it would have been published, whole or not at all.

    Args:
        bundle: of the architecture of that version, such as an imported one that was trained on.
        output: must not exist.
        version: of CosyVoice.
        published: the folder that the bundle was imported from. What no bundle holds is copied from
            there: its YAML file, the text model that the reference's own code builds on, a graph
            whose weights were read out.
        dtype: the type that weights are stored in; None keeps theirs.

    Raises:
        WeightsError: the bundle is of another architecture, or lacks a file that `published` would
            have; all are named.
    """
    bundle, output = Path(bundle), Path(output)
    source = None if published is None else Path(published)
    if output.exists() or output.is_symlink():
        raise WeightsError(f"{output} exists already and is not replaced.")
    if source is not None and not source.is_dir():
        raise WeightsError(f"{source}: there is no such folder.")
    manifest = read_manifest(bundle)
    _check_kinds(bundle, manifest, version)
    graphs = _graphs(bundle, manifest, version, source)
    states, parameters, remarks = {}, {}, []
    for part in PARTS:
        folder = bundle / part.name
        config = read_model_config(folder)
        ours = read_state(folder / "model.safetensors")
        if dtype is not None:
            ours = {name: tensor.to(dtype) for name, tensor in ours.items()}
        theirs = _to_theirs(part.name, version, config, ours, folder)
        again = part.convert(version, config, theirs, part.file)
        other = [
            name
            for name, tensor in ours.items()
            if name not in again or not torch.equal(again[name], tensor)
        ]
        if other or len(again) != len(ours):
            raise WeightsError(
                f"{folder} cannot be written as {part.file}: it would be read back otherwise: "
                f"{listed(other)}."
            )
        shapes = {key: tuple(tensor.shape) for key, tensor in theirs.items()}
        known = part.config(version, shapes, **_head_dims(part.name, config))
        lost = sorted(_differences(known, config))
        if lost:
            remarks.append(
                f"{part.file} holds weights alone: {', '.join(lost)} of {part.name}/config.yaml "
                "is set where it is read"
            )
        states[part.file] = theirs
        parameters[part.file] = sum(tensor.numel() for tensor in ours.values())
    text = load_text_tokenizer(bundle / "text_tokenizer")
    assert isinstance(text, TransformersTokenizer)
    with atomic_folder(output) as temporary:
        for name, state in states.items():
            torch.save({key: part.contiguous() for key, part in state.items()}, temporary / name)
        for name, data in graphs.items():
            (temporary / name).write_bytes(data)
        (temporary / "config.json").write_text(
            json.dumps(CONFIG[version], indent=2) + "\n", encoding="utf-8"
        )
        text.save_library_files(temporary / TEXT_FOLDER)
        if source is not None:
            left_out = _carry(source, temporary)
            if left_out:
                remarks.append(
                    f"left out, as they hold earlier weights in another form: {listed(left_out)}"
                )
        else:
            remarks.append(
                "the reference's own code needs its YAML file and the text model in "
                f"{TEXT_FOLDER}, too: give the folder that they were published in (--published)"
            )
    return ExportReport(folder=output, parameters=parameters, remarks=remarks)


def _check_kinds(bundle: Path, manifest: BundleManifest, version: Version) -> None:
    kinds = {part.name: part.kind for part in PARTS}
    other = [name for name, kind in kinds.items() if manifest.components.get(name) != kind]
    if not other:
        lm = read_model_config(bundle / "speech_lm")
        is_third = lm.specials_in_speech_table
        if is_third == (version == 3) and lm.any_special_ends:
            return
        if lm.any_special_ends:
            number = 3 if is_third else 2
            raise WeightsError(
                f"{bundle} is of the architecture of CosyVoice {number}: export it as "
                f"cosyvoice{number}."
            )
        other = ["speech_lm"]
    raise WeightsError(
        f"{bundle} is not of the architecture of CosyVoice {version}: {', '.join(other)} "
        f"{'is' if len(other) == 1 else 'are'} of another kind. `tokenlm export llm` takes any "
        "speech LM."
    )


def _to_theirs(
    name: str, version: Version, config: Any, ours: Mapping[str, Tensor], where: Path
) -> dict[str, Tensor]:
    try:
        if name == "speech_lm":
            return lm_to_theirs(version, config, ours)
        if name == "flow":
            return flow_to_theirs(version, ours, config.head_dim or config.dim // config.num_heads)
        return hift_to_theirs(config, ours)
    except (WeightsError, KeyError) as error:
        raise WeightsError(
            f"{where} is not of the architecture of CosyVoice {version}: {error}"
        ) from error


def _head_dims(name: str, config: Any) -> dict[str, int]:
    """What no shape says of an architecture."""
    if name == "speech_lm":
        return {"head_dim": config.backbone.channels_per_head}
    return {"num_heads": config.num_heads} if name == "flow" else {}


def _differences(first: Any, second: Any, prefix: str = "") -> Iterator[str]:
    """Names of the fields in which two configs differ."""
    for item in fields_of(first):
        one, two = getattr(first, item.name), getattr(second, item.name)
        if is_dataclass(one) and type(one) is type(two):
            yield from _differences(one, two, f"{prefix}{item.name}.")
        elif one != two:
            yield prefix + item.name


def _graphs(
    bundle: Path, manifest: BundleManifest, version: Version, source: Path | None
) -> dict[str, bytes]:
    """The ONNX graphs by the name of their file: out of the bundle, or as they were published."""
    graphs, missing = {}, []
    for name, kind, file in (
        ("speech_tokenizer", "onnx_tokenizer", TOKENIZER_FILES[version]),
        ("speaker_encoder", "onnx_speaker_encoder", SPEAKER_FILE),
    ):
        if manifest.components.get(name) == kind:
            files = read_component(bundle / name)
            graphs[file] = read_state(files.state_path)["graph.graph"].numpy().tobytes()
        elif source is not None and (source / file).is_file():
            graphs[file] = (source / file).read_bytes()
        else:
            missing.append(file)
    if missing:
        raise WeightsError(
            f"{bundle} holds no {' and no '.join(missing)}, whose weights were read out at the "
            "import: give the folder that it was published in (--published)."
        )
    return graphs


def _carry(source: Path, target: Path) -> list[str]:
    """Copies the files that are not there yet; names of those that are left out."""
    left_out = []
    for item in sorted(source.iterdir()):
        if (target / item.name).is_file():
            continue
        if any(fnmatchcase(item.name, pattern) for pattern in SUPERSEDED):
            left_out.append(item.name)
        elif item.name == TEXT_FOLDER:
            # As it was published: the import puts the added tokens behind its own.
            shutil.rmtree(target / TEXT_FOLDER)
            shutil.copytree(item, target / TEXT_FOLDER)
        elif item.is_dir():
            shutil.copytree(item, target / item.name)
        else:
            shutil.copy2(item, target / item.name)
    return left_out
