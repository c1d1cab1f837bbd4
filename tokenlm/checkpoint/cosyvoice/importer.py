"""Import of the published folders of CosyVoice 2 and 3, as an ordinary bundle.

Nothing in such a folder is executed: of the weights only tensors are read, and the YAML file that
builds its classes is ignored. Sizes are read from the shapes of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenlm.atomic import atomic_folder
from tokenlm.checkpoint.bundle import BundleManifest, finalize_bundle, is_bundle_name
from tokenlm.checkpoint.component import save_component
from tokenlm.checkpoint.cosyvoice.files import (
    broken_downloads,
    check_finite,
    damaged_part,
    read_weights,
)
from tokenlm.checkpoint.cosyvoice.flow import flow_config, flow_to_ours
from tokenlm.checkpoint.cosyvoice.graphs import AnyGraph, graph_to_ours, try_graphs
from tokenlm.checkpoint.cosyvoice.hift import hift_config, hift_to_ours
from tokenlm.checkpoint.cosyvoice.lm import TIED_HEAD, lm_config, lm_to_ours
from tokenlm.checkpoint.cosyvoice.text import END_OF_PROMPT, text_tokenizer
from tokenlm.checkpoint.key_table import WeightsError, refuse
from tokenlm.models.fingerprint import fingerprint
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm import SpeechLM
from tokenlm.models.onnx_models import (
    OnnxSpeakerConfig,
    OnnxSpeakerEncoder,
    OnnxTokenizer,
    OnnxTokenizerConfig,
    read_graph,
)
from tokenlm.models.vocoder import HiFT
from tokenlm.text.normalize import NormalizerName

Version = Literal[2, 3]

TOKENIZER_FILES: dict[Version, str] = {
    2: "speech_tokenizer_v2.onnx",
    3: "speech_tokenizer_v3.onnx",
}
SPEAKER_FILE = "campplus.onnx"
TEXT_FOLDER = "CosyVoice-BlankEN"
TEXT_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")
"""Of that folder; not all of them have to be there."""
OTHER_FILES = {
    "llm.rl.pt": "another llm.pt, which it replaces in a copy of the folder",
    "spk2info.pt": "speakers; make voices of recordings with prepare-voice",
}
"""Files of a published folder that nothing is made of, and what they are."""

INSTRUCTION = "You are a helpful assistant." + END_OF_PROMPT
"""What version 3 reads before everything."""

SILENT_TOKENS = (1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323)
"""Codes of silence of the tokenizer of version 3."""

MAX_SILENT_TOKENS = 5
"""In a row, of version 3. The published system drops the others after they were drawn; here they
are not drawn, so that the LM reads what is spoken."""


@dataclass(frozen=True)
class ImportReport:
    """What was made of a folder."""

    bundle: Path
    parameters: dict[str, int]
    """Parameters of each component."""
    remarks: list[str]
    """What is to be known about it."""


@dataclass(frozen=True)
class _Part:
    """A component that comes from a file of weights."""

    name: str
    kind: str
    file: str
    config: Callable[[Version, Mapping[str, tuple[int, ...]]], Any]
    convert: Callable[[Version, Any, Mapping[str, Tensor], str], dict[str, Tensor]]
    build: Callable[[Any], nn.Module]


PARTS = (
    _Part("speech_lm", "speech_lm", "llm.pt", lm_config, lm_to_ours, SpeechLM),
    _Part(
        "flow",
        "flow",
        "flow.pt",
        flow_config,
        lambda version, _, state, where: flow_to_ours(version, state, where),
        FlowDecoder,
    ),
    _Part(
        "vocoder",
        "hift",
        "hift.pt",
        hift_config,
        lambda _, config, state, where: hift_to_ours(config, state, where),
        HiFT,
    ),
)


def import_cosyvoice(
    folder: str | Path,
    bundle: str | Path,
    *,
    version: Version,
    dtype: torch.dtype | None = None,
    tokenizer: Literal["onnx", "torch"] = "onnx",
    normalizer: NormalizerName = "none",
    head_dims: Mapping[str, int] | None = None,
) -> ImportReport:
    """Makes a bundle of a published folder.

    Args:
        folder: holds `llm.pt`, `flow.pt`, `hift.pt`, the two ONNX graphs and the text tokenizer.
        bundle: is made, whole or not at all; must not exist.
        version: of CosyVoice.
        dtype: the type that weights are stored in; None keeps theirs.
        tokenizer: whether the speech tokenizer stays an ONNX graph, or its weights are read out
            of the graph (of version 2; needs the package onnx).
        normalizer: what texts go through before they are encoded; "english" writes numbers and
            abbreviations out, but knows no other language and drops what is written in one.
        head_dims: channels or number of attention heads where they are not those of full size:
            `lm_head_dim`, `flow_heads` and `tokenizer_head_dim`.

    Raises:
        WeightsError: files are missing, or weights are missing, unexpected or of another shape;
            all of them are named.
    """
    folder, bundle = Path(folder), Path(bundle)
    if tokenizer == "torch" and version != 2:
        raise WeightsError(
            f"the layers of {TOKENIZER_FILES[version]} are not known: its weights cannot be read "
            "out of it, it runs as a graph (tokenizer onnx)."
        )
    _check_folder(folder, version)
    if bundle.exists() or bundle.is_symlink():
        raise WeightsError(f"{bundle} exists already and is not replaced.")
    if not is_bundle_name(bundle.name):
        raise WeightsError(
            f"{bundle}: a bundle is named after its folder, and {bundle.name!r} is not a name "
            "(letters, digits, dot, dash, underscore)."
        )
    sizes = dict(head_dims or {})
    states, converted = {}, {}
    texts = [folder / TEXT_FOLDER / name for name in TEXT_FILES]
    files = [*(part.file for part in PARTS), TOKENIZER_FILES[version], SPEAKER_FILE]
    present = [folder / name for name in files] + [path for path in texts if path.is_file()]
    broken, problems = broken_downloads(present)
    for part in PARTS:
        if part.file in broken:
            continue
        try:
            states[part.name] = read_weights(folder / part.file)
            converted[part.name] = _convert(part, version, states[part.name], folder, sizes)
        except WeightsError as error:
            problems.append(str(error))
    if problems:
        raise WeightsError(" ".join(problems))
    flow = converted["flow"][0]
    speech = converted["speech_lm"][0]
    if speech.codebook_size != flow.codebook_size:
        raise WeightsError(
            f"{folder / 'llm.pt'} has {speech.codebook_size} codes, {folder / 'flow.pt'} "
            f"{flow.codebook_size}: they do not belong together."
        )
    vocab_size = speech.backbone.vocab_size
    text = text_tokenizer(folder / TEXT_FOLDER, version, normalizer, vocab_size)
    remarks = _remarks(folder, states["speech_lm"], version)
    graph = (folder / TOKENIZER_FILES[version]).read_bytes()
    kinds = {part.name: part.kind for part in PARTS}
    graphs: dict[Path, tuple[AnyGraph, dict[str, Tensor]]] = {}
    if tokenizer == "torch":
        listener = graph_to_ours(graph, head_dim=sizes.get("tokenizer_head_dim", 64))
        kinds["speech_tokenizer"] = "fsmn_tokenizer"
    else:
        digits = _num_digits(flow.codebook_size)
        config = OnnxTokenizerConfig(num_digits=digits, num_bytes=len(graph))
        listener = config, read_graph(graph)
        graphs[folder / TOKENIZER_FILES[version]] = OnnxTokenizer(config), listener[1]
        kinds["speech_tokenizer"] = "onnx_tokenizer"
    if listener[0].codebook_size != flow.codebook_size:
        raise WeightsError(
            f"{TOKENIZER_FILES[version]} has {listener[0].codebook_size} codes, flow.pt "
            f"{flow.codebook_size}."
        )
    converted["speech_tokenizer"] = listener
    mark = fingerprint(*listener)
    speaker = read_graph((folder / SPEAKER_FILE).read_bytes())
    speaker_config = OnnxSpeakerConfig(
        embedding_dim=flow.speaker_dim, num_bytes=speaker["graph.graph"].numel()
    )
    converted["speaker_encoder"] = (speaker_config, speaker)
    kinds["speaker_encoder"] = "onnx_speaker_encoder"
    graphs[folder / SPEAKER_FILE] = OnnxSpeakerEncoder(speaker_config), speaker
    remarks += try_graphs(graphs)
    with atomic_folder(bundle) as temporary:
        for name, (config, state) in converted.items():
            marked = name in ("speech_lm", "flow")
            save_component(
                temporary / name,
                kind=kinds[name],
                config=config,
                state_dict=state,
                dtype=dtype,
                extra={"tokenizer": mark} if marked else {},
            )
        text.save(temporary / "text_tokenizer")
        (temporary / "voices").mkdir()
        finalize_bundle(temporary, _manifest(bundle.name, version, kinds, flow.codebook_size))
    counts = {
        name: sum(tensor.numel() for tensor in state.values())
        for name, (_, state) in converted.items()
        if name in states
    }
    return ImportReport(bundle=bundle, parameters=counts, remarks=remarks)


def _check_folder(folder: Path, version: Version) -> None:
    if not folder.is_dir():
        raise WeightsError(f"{folder}: there is no such folder.")
    wanted = [part.file for part in PARTS] + [TOKENIZER_FILES[version], SPEAKER_FILE]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if not (folder / TEXT_FOLDER).is_dir():
        missing.append(f"{TEXT_FOLDER}/")
    if missing:
        other: Version = 3 if version == 2 else 2
        hint = f" It looks like one of CosyVoice {other}: import it as cosyvoice{other}."
        raise WeightsError(
            f"{folder} is not a folder of CosyVoice {version}; missing: {', '.join(missing)}."
            + hint * (folder / TOKENIZER_FILES[other]).is_file()
        )


def _convert(
    part: _Part, version: Version, state: Mapping[str, Tensor], folder: Path, sizes: dict[str, int]
) -> tuple[Any, dict[str, Tensor]]:
    """Config and weights of a part, checked against the model that they are for."""
    where = str(folder / part.file)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    options = {}
    if part.name == "speech_lm" and "lm_head_dim" in sizes:
        options["head_dim"] = sizes["lm_head_dim"]
    if part.name == "flow" and "flow_heads" in sizes:
        options["num_heads"] = sizes["flow_heads"]
    config = part.config(version, shapes, **options)
    ours = part.convert(version, config, state, where)
    with torch.device("meta"):
        wanted = part.build(config).state_dict()
    missing = [name for name in wanted if name not in ours]
    unexpected = [name for name in ours if name not in wanted]
    other = [
        f"{name} {tuple(ours[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in ours and ours[name].shape != tensor.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    refuse(where, {f"{title} (under our names)": names for title, names in problems.items()})
    check_finite(ours, where)
    return config, ours


def _remarks(folder: Path, state: Mapping[str, Tensor], version: Version) -> list[str]:
    remarks = ["the speaker encoder runs as it was published; nothing to compare it with is known"]
    table = state["llm.model.model.embed_tokens.weight"]
    head = state.get(TIED_HEAD)
    if head is not None and not torch.equal(head, table):
        remarks.append(f"{TIED_HEAD} differs from the text table; it is not used, and left out")
    if version == 3:
        remarks.append("the tokenizer of version 3 is run as it was published, unverified")
    for part in PARTS:
        if name := damaged_part(folder / part.file):
            remarks.append(f"{part.file} may be damaged: {name} in it has not its checksum")
    for name, what in OTHER_FILES.items():
        if (folder / name).is_file():
            remarks.append(f"{name} is not imported ({what})")
    return remarks


def _num_digits(codebook_size: int) -> int:
    digits = 0
    while 3**digits < codebook_size:
        digits += 1
    if 3**digits != codebook_size:
        raise WeightsError(f"a codebook of {codebook_size} is no power of three.")
    return digits


def generation_settings(version: Version, codebook_size: int) -> dict[str, Any]:
    """Settings of generation that fit the weights, as `bundle.yaml` has them."""
    settings: dict[str, Any] = {
        "num_steps": 10,
        "guidance_scale": 0.7,
        "max_prompt_seconds": 30.0,
        "instruction_end": END_OF_PROMPT,
    }
    if version == 3:
        settings["instruction"] = INSTRUCTION
        if codebook_size > max(SILENT_TOKENS):  # another tokenizer has other codes
            settings["guards"] = {
                "silent_tokens": list(SILENT_TOKENS),
                "max_silent_tokens": MAX_SILENT_TOKENS,
            }
    return settings


def _manifest(
    name: str, version: Version, kinds: dict[str, str], codebook_size: int
) -> BundleManifest:
    return BundleManifest(
        name=name,
        description=f"CosyVoice {version}, imported.",
        language="mul",
        licence="Apache-2.0",
        sample_rate=24_000,
        components=kinds,
        generation=generation_settings(version, codebook_size),
        provenance={"imported_from": f"CosyVoice {version}"},
    )
