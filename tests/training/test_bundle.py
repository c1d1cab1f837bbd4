"""Components of a bundle are exchanged for others that fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import Result
from verb_runner import run_verb

from tokenlm.audio.mel import MelConfig
from tokenlm.checkpoint import (
    finalize_bundle,
    read_component,
    read_manifest,
    read_state,
    save_component,
)
from tokenlm.checkpoint import validate_bundle as validate
from tokenlm.checkpoint.registry import KINDS
from tokenlm.config import from_dict
from tokenlm.models.enhancer import MelEnhancer, MelEnhancerConfig
from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.synthesis.components import Components
from training.commands import export


def exchange(bundle: Path, output: Path, *components: str) -> Result:
    return run_verb(export, output, "--bundle", bundle, *components)


@pytest.fixture
def flow(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A flow of another kind that fits the bundle."""
    facts = read_component(tiny_bundle / "flow")
    own = Components(tiny_bundle).flow.config
    config = cosyvoice_flow_config(
        mel=own.mel, codebook_size=own.codebook_size, speaker_dim=own.speaker_dim,
        encoder_dim=16, encoder_hidden_dim=16, encoder_layers=1, encoder_up_layers=1,
        encoder_heads=2, dim=16, num_heads=2, head_dim=8, blocks_per_level=1, num_mid_levels=1,
    )  # fmt: skip
    save_component(
        tmp_path / "trained",
        kind="flow",
        config=config,
        state_dict=FlowDecoder(config).state_dict(),
        extra=facts.extra,
    )
    return tmp_path / "trained"


def test_the_copy_is_a_bundle(tiny_bundle: Path, flow: Path, tmp_path: Path) -> None:
    before = (tiny_bundle / "bundle.yaml").read_text()
    assert exchange(tiny_bundle, tmp_path / "new", f"flow={flow}").exit_code == 0
    assert (tiny_bundle / "bundle.yaml").read_text() == before
    assert not validate(tmp_path / "new", KINDS)
    manifest = read_manifest(tmp_path / "new")
    assert manifest.name == "new" and manifest.components["flow"] == "flow"
    assert manifest.provenance["exchanged"] == ["flow"]
    state = read_state(tmp_path / "new" / "flow" / "model.safetensors")
    expected = read_state(flow / "model.safetensors")
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert isinstance(Components(tmp_path / "new").flow, FlowDecoder)


@pytest.fixture
def deaf(tmp_path: Path, tiny_bundle: Path) -> Path:
    """The bundle without its recogniser, as imported ones are."""
    folder = tmp_path / "deaf"
    shutil.copytree(tiny_bundle, folder)
    shutil.rmtree(folder / "token_recognizer")
    manifest = read_manifest(folder)
    kinds = {n: kind for n, kind in manifest.components.items() if n != "token_recognizer"}
    finalize_bundle(folder, replace(manifest, components=kinds))
    return folder


def test_what_a_bundle_lacks_is_added(deaf: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    reader = tiny_bundle / "token_recognizer"
    assert exchange(deaf, tmp_path / "new", f"token_recognizer={reader}").exit_code == 0
    assert not validate(tmp_path / "new", KINDS)
    manifest = read_manifest(tmp_path / "new")
    assert manifest.components["token_recognizer"] == "token_recognizer"
    assert manifest.provenance["exchanged"] == ["token_recognizer"]
    assert Components(tmp_path / "new").token_recognizer.config.levels == (3, 3, 3)
    assert not (deaf / "token_recognizer").exists()


def test_what_is_added_must_fit(deaf: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        result = exchange(deaf, tmp_path / "new", *arguments)
        assert result.exit_code == 2 and not (tmp_path / "new").exists()
        return result.stderr

    def copy(**config: object) -> str:
        files = read_component(tiny_bundle / "token_recognizer")
        extra = {"tokenizer": config.pop("tokenizer")} if "tokenizer" in config else {}
        model = TokenRecognizer(from_dict(TokenRecognizerConfig, {**files.config, **config}))
        target = tmp_path / "reader"
        save_component(
            target, kind=files.kind, config=model.config, state_dict=model.state_dict(), extra=extra
        )
        return f"token_recognizer={target}"

    assert "may be given token_recognizer: name=FOLDER" in told(f"reader={tiny_bundle / 'flow'}")
    message = told(f"token_recognizer={tiny_bundle / 'flow'}")
    assert "is a flow, but a TokenRecognizer is needed" in message
    assert "token_recognizer and flow disagree about the codebook size: 9 and 27" in told(
        copy(levels=[3, 3])
    )
    assert "speech_tokenizer and token_recognizer disagree about the levels" in told(
        copy(levels=[9, 3])
    )
    message = told(copy(tokenizer="another"))
    assert "token_recognizer and flow disagree about the speech tokenizer" in message
    # Its weights are not needed to speak, but are tried all the same.
    mark = read_component(deaf / "flow").extra["tokenizer"]
    bound = copy(tokenizer=mark)
    (tmp_path / "reader" / "model.safetensors").write_bytes(b"cut")
    assert "cannot be read (is it whole?)" in told(bound)
    assert exchange(deaf, tmp_path / "new", copy(tokenizer=mark)).exit_code == 0


def test_what_does_not_fit_is_not_written(tiny_bundle: Path, flow: Path, tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        result = exchange(tiny_bundle, tmp_path / "new", *arguments)
        assert result.exit_code == 2 and not (tmp_path / "new").exists()
        return result.stderr

    assert "has no component flaw; it has" in told(f"flaw={flow}")
    assert "'flow' is not of the form COMPONENT=FOLDER" in told("flow")
    files = read_component(flow)
    save_component(
        tmp_path / "stranger",
        kind=files.kind,
        config=files.config,
        state_dict=read_state(files.state_path),
        extra={"tokenizer": "another"},
    )
    message = told(f"flow={tmp_path / 'stranger'}")
    assert "speech_lm and flow disagree about the speech tokenizer" in message
    (tmp_path / "there").mkdir()
    result = exchange(tiny_bundle, tmp_path / "there", f"flow={flow}")
    assert result.exit_code == 2 and "exists already" in result.stderr


def test_an_enhancer_is_added_and_must_fit(
    tiny_bundle: Path, enhancer_bundle: Path, tmp_path: Path
) -> None:
    parts = [f"{name}={enhancer_bundle / name}" for name in ("voice_isolator", "mel_enhancer")]
    assert exchange(tiny_bundle, tmp_path / "new", *parts).exit_code == 0
    assert not validate(tmp_path / "new", KINDS)
    assert Components(tmp_path / "new").mel_enhancer is not None
    assert Components(tiny_bundle).mel_enhancer is None
    config = MelEnhancerConfig(mel=MelConfig(num_mels=40), channels=(4, 6), dim=4)
    weights = MelEnhancer(config).state_dict()
    save_component(tmp_path / "odd", kind="mel_enhancer", config=config, state_dict=weights)
    result = exchange(tiny_bundle, tmp_path / "no", f"mel_enhancer={tmp_path / 'odd'}")
    assert result.exit_code != 0
    assert "mel_enhancer and vocoder disagree about the mel" in result.stderr
    assert not (tmp_path / "no").exists()
