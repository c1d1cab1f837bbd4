"""Components of every kind are found by what they are in a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tokenlm.audio.mel import MelConfig
from tokenlm.checkpoint import save_component
from tokenlm.checkpoint.resolve import resolve
from tokenlm.config import ConfigError
from tokenlm.models.flow import FlowDecoder, cosyvoice_flow_config
from tokenlm.models.fsmn_tokenizer import FSMNTokenizer, FSMNTokenizerConfig
from tokenlm.models.lm import NO_GUARDS, GuardConfig, SamplingConfig
from tokenlm.models.onnx_models import OnnxSpeakerConfig, OnnxSpeakerEncoder
from tokenlm.models.vocoder import HiFT, HiFTConfig
from training.evaluation.command import PLAIN_SAMPLING
from training.evaluation.parts import find_parts


def test_imported_components_are_found(tmp_path: Path) -> None:
    mel = MelConfig()
    flow = cosyvoice_flow_config(
        mel=mel, codebook_size=27, speaker_dim=12, encoder_dim=16, encoder_hidden_dim=24,
        encoder_layers=1, encoder_up_layers=1, encoder_heads=2, dim=16, num_heads=2, head_dim=8,
        blocks_per_level=1, num_mid_levels=1,
    )  # fmt: skip
    tokenizer = FSMNTokenizerConfig(dim=16, num_heads=2, num_layers=1, num_digits=3)
    models: dict[str, tuple[str, nn.Module]] = {
        "flow": ("flow", FlowDecoder(flow)),
        "vocoder": ("hift", HiFT(HiFTConfig(mel=mel, dim=16, pitch_dim=8))),
        "speech_tokenizer": ("fsmn_tokenizer", FSMNTokenizer(tokenizer)),
        "speaker_encoder": (
            "onnx_speaker_encoder",
            OnnxSpeakerEncoder(OnnxSpeakerConfig(embedding_dim=12, num_bytes=4)),
        ),
    }
    mark = models["speech_tokenizer"][1].fingerprint
    assert isinstance(mark, str)
    for name, (kind, model) in models.items():
        save_component(
            tmp_path / name,
            kind=kind,
            config=model.config,
            state_dict=model.state_dict(),
            extra={"tokenizer": mark} if name == "flow" else {},
        )
    parts = find_parts(None, [tmp_path])
    assert parts.folders == {name: tmp_path / name for name in models}
    assert not parts.missing("resynthesis") and parts.missing("cloned")
    parts.check()
    assert isinstance(parts.flow, FlowDecoder) and isinstance(parts.vocoder, HiFT)
    assert isinstance(parts.speech_tokenizer, FSMNTokenizer)
    assert isinstance(parts.speaker_encoder, OnnxSpeakerEncoder)
    assert parts.manifest.sample_rate == mel.sample_rate
    assert torch.equal(
        parts.flow.encoder.embedding.weight,
        models["flow"][1].get_parameter("encoder.embedding.weight"),
    )


def test_settings_of_generation_can_be_changed(tmp_path: Path) -> None:
    bundle = resolve("mini-en")
    given = find_parts(str(bundle)).generation
    changed = find_parts(
        str(bundle), generation=["sampling.temperature=1", "guards={loop_tokens: 7}"]
    ).generation
    assert given.sampling.temperature != 1.0 and given.guards.loop_tokens != 7
    assert changed.sampling == replace(given.sampling, temperature=1.0)
    assert changed.guards == GuardConfig(loop_tokens=7)
    assert changed.num_steps == given.num_steps and changed.voice_fit == given.voice_fit
    with pytest.raises(ConfigError, match="temprature"):
        find_parts(str(bundle), generation=["sampling.temprature=1"])
    with pytest.raises(ConfigError, match="must not be negative"):
        find_parts(str(bundle), generation=["sampling.temperature=-1"])


def test_plain_sampling_is_what_the_lm_gives() -> None:
    plain = find_parts("mini-en", generation=PLAIN_SAMPLING).generation
    assert plain.sampling == SamplingConfig(top_k=0, top_p=1.0, repetition_window=0)
    assert plain.guards == replace(NO_GUARDS, length_bounds=True)
