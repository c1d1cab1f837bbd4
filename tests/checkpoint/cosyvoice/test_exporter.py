"""The export is the inverse of the import, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published_folder import SIZES, write_folder
from verb_runner import run_verb

from inference.commands import exports
from tokenlm.checkpoint.bundle import file_checksum, read_manifest
from tokenlm.checkpoint.component import read_component, read_state, save_component
from tokenlm.checkpoint.cosyvoice.exporter import export_cosyvoice
from tokenlm.checkpoint.cosyvoice.importer import TOKENIZER_FILES, import_cosyvoice
from tokenlm.checkpoint.key_table import WeightsError

WEIGHTS = ("llm.pt", "flow.pt", "hift.pt")


def checksums(folder: Path) -> dict[str, str]:
    """Of every file of a bundle but its manifest, which names the bundle."""
    return {
        path.relative_to(folder).as_posix(): file_checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("bundle.yaml", "README.md")
    }


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("carries", [False, True])
def test_there_and_back(
    version: Any, carries: bool, tmp_path: Path, graphs: dict[str, bytes], text_folder: Path
) -> None:
    published, bundle = tmp_path / "published", tmp_path / "bundle"
    write_folder(published, version, graphs, text_folder)
    (published / f"cosyvoice{version}.yaml").write_text("sample_rate: 24000\n")
    (published / "llm.rl.pt").write_bytes(b"other")
    (published / "flow.encoder.fp32.zip").write_bytes(b"earlier")
    (published / "asset").mkdir()
    (published / "asset" / "prompt.wav").write_bytes(b"sound")
    import_cosyvoice(published, bundle, version=version, head_dims=SIZES)
    report = export_cosyvoice(
        bundle, tmp_path / "out", version=version, published=published if carries else None
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [f"CosyVoice{version}Model"]
    assert (tmp_path / "out" / "cosyvoice2.yaml").exists() == (carries and version == 2)
    assert (tmp_path / "out" / "asset" / "prompt.wav").exists() == carries
    assert not (tmp_path / "out" / "llm.rl.pt").exists()
    assert not (tmp_path / "out" / "flow.encoder.fp32.zip").exists()
    told = " ".join(report.remarks)
    assert ("flow.encoder.fp32.zip, llm.rl.pt" in told) == carries == ("YAML file" not in told)
    for name in WEIGHTS[:2]:
        before = torch.load(published / name, weights_only=True)
        after = torch.load(tmp_path / "out" / name, weights_only=True)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.load(tmp_path / "out" / "hift.pt", weights_only=True).keys() == (
        torch.load(published / "hift.pt", weights_only=True).keys()
    )
    import_cosyvoice(tmp_path / "out", tmp_path / "again", version=version, head_dims=SIZES)
    assert checksums(bundle) == checksums(tmp_path / "again")
    first, second = read_manifest(bundle), read_manifest(tmp_path / "again")
    assert first.generation == second.generation and first.components == second.components


def test_a_bundle_that_was_trained_on(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path
) -> None:
    """Half precision, other settings, and a tokenizer whose weights were read out of its graph."""
    published, bundle = tmp_path / "published", tmp_path / "bundle"
    write_folder(published, 2, graphs, text_folder)
    import_cosyvoice(
        published, bundle, version=2, head_dims=SIZES, dtype=torch.bfloat16, tokenizer="torch"
    )
    files = read_component(bundle / "flow")
    state = read_state(files.state_path)
    state = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in state.items()}
    config = files.config | {"noise": "seeded", "left_tokens": 75}
    save_component(bundle / "flow", kind="flow", config=config, state_dict=state, extra=files.extra)
    with pytest.raises(WeightsError, match=r"holds no speech_tokenizer_v2\.onnx.*--published"):
        export_cosyvoice(bundle, tmp_path / "out", version=2)
    report = export_cosyvoice(bundle, tmp_path / "out", version=2, published=published)
    assert any("left_tokens, noise of flow/config.yaml" in text for text in report.remarks)
    assert (tmp_path / "out" / TOKENIZER_FILES[2]).read_bytes() == graphs["tokenizer"]
    import_cosyvoice(tmp_path / "out", tmp_path / "again", version=2, head_dims=SIZES)
    for name in ("speech_lm", "flow", "vocoder"):
        before = read_state(bundle / name / "model.safetensors")
        after = read_state(tmp_path / "again" / name / "model.safetensors")
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, after[key])


def test_what_is_refused(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path, tiny_bundle: Path
) -> None:
    published, bundle = tmp_path / "published", tmp_path / "bundle"
    write_folder(published, 2, graphs, text_folder)
    import_cosyvoice(published, bundle, version=2, head_dims=SIZES)
    with pytest.raises(WeightsError, match="of CosyVoice 2: export it as cosyvoice2"):
        export_cosyvoice(bundle, tmp_path / "out", version=3)
    with pytest.raises(WeightsError, match=r"not of the architecture .* vocoder.* another kind"):
        export_cosyvoice(tiny_bundle, tmp_path / "out", version=2)
    with pytest.raises(WeightsError, match="there is no such folder"):
        export_cosyvoice(bundle, tmp_path / "out", version=2, published=tmp_path / "none")
    assert not (tmp_path / "out").exists()
    done = run_verb(exports.export_cosyvoice2, bundle, tmp_path / "out")
    assert done.exit_code == 0 and "made" in done.stdout and "llm.pt" in done.stdout
    done = run_verb(exports.export_cosyvoice3, bundle, tmp_path / "out")
    assert done.exit_code == 2 and "exists already" in done.stderr
