"""Components of a bundle are exchanged for others that fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenlm.checkpoint import read_component, read_manifest, read_state, save_component
from tokenlm.checkpoint import validate_bundle as validate
from tokenlm.checkpoint.registry import KINDS
from tokenlm.models.flow import CosyVoiceFlow, CosyVoiceFlowConfig
from tokenlm.synthesis.components import Components
from training.exchange import main


@pytest.fixture
def flow(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A flow of another kind that fits the bundle."""
    facts = read_component(tiny_bundle / "flow")
    own = Components(tiny_bundle).flow.config
    config = CosyVoiceFlowConfig(
        mel=own.mel, codebook_size=own.codebook_size, speaker_dim=own.speaker_dim,
        encoder_dim=16, encoder_hidden_dim=16, encoder_layers=1, encoder_up_layers=1,
        encoder_heads=2, dim=16, num_heads=2, head_dim=8, blocks_per_level=1, num_mid_levels=1,
    )  # fmt: skip
    save_component(
        tmp_path / "trained",
        kind="cosyvoice_flow",
        config=config,
        state_dict=CosyVoiceFlow(config).state_dict(),
        extra=facts.extra,
    )
    return tmp_path / "trained"


def test_the_copy_is_a_bundle(tiny_bundle: Path, flow: Path, tmp_path: Path) -> None:
    before = (tiny_bundle / "bundle.yaml").read_text()
    assert main([str(tiny_bundle), str(tmp_path / "new"), f"flow={flow}"]) == 0
    assert (tiny_bundle / "bundle.yaml").read_text() == before
    assert not validate(tmp_path / "new", KINDS)
    manifest = read_manifest(tmp_path / "new")
    assert manifest.name == "new" and manifest.components["flow"] == "cosyvoice_flow"
    assert manifest.provenance["exchanged"] == ["flow"]
    state = read_state(tmp_path / "new" / "flow" / "model.safetensors")
    expected = read_state(flow / "model.safetensors")
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert isinstance(Components(tmp_path / "new").flow, CosyVoiceFlow)


def test_what_does_not_fit_is_not_written(
    tiny_bundle: Path, flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> str:
        assert main([str(tiny_bundle), str(tmp_path / "new"), *arguments]) == 1
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    assert "has no component flaw; it has" in told(f"flaw={flow}")
    assert "'flow' is not of the form component=FOLDER" in told("flow")
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
    assert main([str(tiny_bundle), str(tmp_path / "there"), f"flow={flow}"]) == 1
    assert "exists already" in capsys.readouterr().err
