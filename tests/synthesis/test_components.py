"""Bundles whose parts are missing or disagree: both are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenlm.checkpoint.bundle import BundleError
from tokenlm.checkpoint.component import ComponentError
from tokenlm.config import ConfigError
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.components import Components, GenerationConfig
from tokenlm.text.tokenizers import SentencePieceTokenizer


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def test_a_whole_bundle(tiny_bundle: Path) -> None:
    components = Components(tiny_bundle)
    assert components.generation == GenerationConfig(num_steps=2, guidance_scale=0.7)
    assert components.fingerprint == components.speech_tokenizer.fingerprint
    components.check_tokenizer()
    models = (
        components.speech_lm,
        components.flow,
        components.vocoder,
        components.speech_tokenizer,
        components.token_recognizer,
        components.speaker_encoder,
    )
    for model in models:
        assert not model.training
        assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("name", ["speech_lm", "flow", "vocoder"])
def test_missing_parts(bundle: Path, name: str) -> None:
    edit(bundle / "bundle.yaml", lambda data: data["components"].pop(name))
    with pytest.raises(BundleError, match=f"has no component '{name}'"):
        Components(bundle)


def test_what_reads_recordings_may_be_left_out(bundle: Path, recording: Path) -> None:
    def leave_out(data: dict[str, Any]) -> None:
        for name in ("speech_tokenizer", "token_recognizer", "speaker_encoder"):
            del data["components"][name]

    edit(bundle / "bundle.yaml", leave_out)
    synthesizer = Synthesizer.from_pretrained(bundle)
    assert synthesizer.generate("so.").shape[0] > 0
    with pytest.raises(BundleError, match="has no component 'speech_tokenizer'"):
        synthesizer.prepare_voice(recording)


def test_missing_folder_and_damaged_weights(bundle: Path) -> None:
    weights = bundle / "vocoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ComponentError, match="vocoder/model.safetensors cannot be read"):
        Components(bundle)
    shutil.rmtree(bundle / "vocoder")
    with pytest.raises(ComponentError, match="vocoder: there is no such component folder"):
        Components(bundle)


def test_a_part_of_another_kind(bundle: Path) -> None:
    shutil.rmtree(bundle / "vocoder")
    shutil.copytree(bundle / "flow", bundle / "vocoder")
    with pytest.raises(
        ComponentError, match="holds a FlowDecoder, but a Vocoder or a HiFT is needed"
    ):
        Components(bundle)


def disagree(bundle: Path, part: str, change: Callable[[dict[str, Any]], object]) -> str:
    edit(bundle / part / "config.yaml", change)
    with pytest.raises(BundleError) as error:
        Components(bundle)
    return str(error.value).partition(": ")[2]


def test_fingerprints(bundle: Path) -> None:
    told = disagree(
        bundle, "speech_lm", lambda data: data["extra"].update(tokenizer="0000000000000000")
    )
    assert told.startswith(
        "speech_lm and flow disagree about the speech tokenizer that they were trained with: "
        "0000000000000000 and "
    )


def test_another_tokenizer_is_found_when_it_is_used(bundle: Path, recording: Path) -> None:
    for name in ("speech_lm", "flow"):
        edit(
            bundle / name / "config.yaml",
            lambda data: data["extra"].update(tokenizer="0000000000000000"),
        )
    synthesizer = Synthesizer.from_pretrained(bundle)
    with pytest.raises(BundleError, match="speech_tokenizer and flow disagree"):
        synthesizer.prepare_voice(recording)
    with pytest.raises(BundleError, match="speech_tokenizer and flow disagree"):
        synthesizer.tokenize(recording)


def test_sample_rates(bundle: Path) -> None:
    edit(bundle / "bundle.yaml", lambda data: data.update(sample_rate=22_050))
    with pytest.raises(BundleError, match="vocoder and bundle.yaml .* sample rate: 24000 and 2205"):
        Components(bundle)


def test_mels(bundle: Path) -> None:
    told = disagree(bundle, "vocoder", lambda data: data["config"].update(mel={"fmax": 7600.0}))
    assert told.startswith("flow and vocoder disagree about the mel: MelConfig(")


def test_codebooks(bundle: Path) -> None:
    def levels(data: dict[str, Any]) -> None:
        data["config"]["levels"] = [3, 3, 4]

    told = disagree(bundle, "speech_tokenizer", levels)
    assert told == "speech_tokenizer and flow disagree about the codebook size: 36 and 27."


def test_levels(bundle: Path) -> None:
    def levels(data: dict[str, Any]) -> None:
        data["config"]["levels"] = [9, 3]

    told = disagree(bundle, "token_recognizer", levels)
    assert told.startswith("speech_tokenizer and token_recognizer disagree about the levels")


def test_token_rates(bundle: Path) -> None:
    def slower(data: dict[str, Any]) -> None:
        data["config"]["mel"]["hop_length"] = 200

    told = disagree(bundle, "speech_tokenizer", slower)
    assert "speech_tokenizer and flow disagree about the token rate: 20 and 25" in told
    told = disagree(bundle, "speech_lm", lambda data: data["config"].update(token_rate=50))
    assert "speech_lm and flow disagree about the token rate: 50 and 25" in told


def test_speaker_embeddings(bundle: Path) -> None:
    told = disagree(bundle, "speaker_encoder", lambda data: data["config"].update(embedding_dim=16))
    assert told == (
        "speaker_encoder and flow disagree about the size of a speaker embedding: 16 and 8."
    )


def test_text_tokenizers(bundle: Path) -> None:
    texts = [f"word{chr(97 + i)}{chr(97 + j)} and more" for i in range(26) for j in range(26)]
    SentencePieceTokenizer.train(texts, 66).save(bundle / "text_tokenizer")
    with pytest.raises(BundleError, match="text_tokenizer has 66 pieces, but speech_lm knows 64"):
        Components(bundle)


def test_generation_settings(bundle: Path) -> None:
    edit(bundle / "bundle.yaml", lambda data: data["generation"].update(num_step=3))
    with pytest.raises(ConfigError, match="num_step"):
        Components(bundle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"num_steps": 2.5}, "num_steps must be at least 1 and whole"),
        ({"guidance_scale": -0.1}, "guidance_scale must be a number, 0 or more"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a number, 0 or more"),
        ({"guidance_scale": float("inf")}, "guidance_scale must be a number, 0 or more"),
        ({"max_segment_characters": 5}, "max_segment_characters must be at least 20"),
        ({"max_prompt_seconds": 0.0}, "max_prompt_seconds at least 1"),
    ],
)
def test_impossible_settings(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GenerationConfig(**change)
