"""Voices: files, their errors, their seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tokenlm.synthesis.voice import METADATA_KEY, Voice, VoiceError


def voice(**changes: Any) -> Voice:
    generator = torch.Generator().manual_seed(0)
    facts: dict[str, Any] = {
        "name": "ann",
        "prompt_text": "hello there.",
        "prompt_tokens": torch.tensor([3, 1, 26]),
        "prompt_mel": torch.randn(6, 80, generator=generator),
        "speaker_embedding": torch.randn(8, generator=generator),
        "tokenizer": "0123456789abcdef",
        "description": "Somebody — wîth a “voice”.",
    }
    return Voice(**{**facts, **changes})


def test_saved_and_loaded(tmp_path: Path) -> None:
    before = voice()
    before.save(tmp_path / "ann.voice")
    after = Voice.load(tmp_path / "ann.voice")
    for name in ("name", "prompt_text", "tokenizer", "description"):
        assert getattr(after, name) == getattr(before, name)
    assert torch.equal(after.prompt_tokens, before.prompt_tokens)
    assert after.prompt_tokens.dtype == torch.int64
    assert torch.equal(after.prompt_mel, before.prompt_mel.half().float())
    assert torch.equal(after.speaker_embedding, before.speaker_embedding)
    assert after.seed == before.seed
    assert [path.name for path in tmp_path.iterdir()] == ["ann.voice"]


def test_saving_again_changes_nothing(tmp_path: Path) -> None:
    voice().save(tmp_path / "one")
    Voice.load(tmp_path / "one").save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_offset_is_kept(tmp_path: Path) -> None:
    offset = torch.linspace(-1.0, 1.0, 80)
    before = voice(mel_offset=offset)
    before.save(tmp_path / "ann.voice")
    after = Voice.load(tmp_path / "ann.voice")
    assert after.mel_offset is not None
    assert torch.equal(after.mel_offset, offset)
    assert before.digest != voice().digest
    assert before.seed == voice().seed


def test_views_and_empty_prompts_are_saved(tmp_path: Path) -> None:
    mel = torch.zeros(12, 160)[::2, ::2]
    voice(prompt_mel=mel, speaker_embedding=torch.zeros(16)[::2]).save(tmp_path / "view")
    assert Voice.load(tmp_path / "view").prompt_mel.shape == (6, 80)
    nothing = voice(prompt_tokens=torch.zeros(0, dtype=torch.long), prompt_mel=torch.zeros(0, 80))
    nothing.save(tmp_path / "nothing")
    assert Voice.load(tmp_path / "nothing").prompt_tokens.shape == (0,)


def test_seed_is_a_function_of_the_prompt() -> None:
    first = voice().seed
    assert voice(name="bob", prompt_text="", description="").seed == first
    assert voice(prompt_tokens=torch.tensor([3, 1, 25])).seed != first
    assert voice(speaker_embedding=torch.zeros(8)).seed != first
    assert 0 <= first < 1 << 56


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt_tokens": torch.zeros(1, 3, dtype=torch.long)}, "prompt_tokens \\(N,\\)"),
        ({"prompt_mel": torch.zeros(6)}, "prompt_mel \\(T, M\\)"),
        ({"speaker_embedding": torch.zeros(1, 8)}, "speaker_embedding \\(E,\\)"),
        ({"prompt_tokens": torch.zeros(3)}, "numbers of codes"),
        ({"prompt_tokens": torch.tensor([1, -1])}, "numbers of codes"),
        ({"prompt_mel": torch.full((6, 80), float("nan"))}, "not finite"),
        ({"speaker_embedding": torch.full((8,), float("inf"))}, "not finite"),
        ({"mel_offset": torch.zeros(79)}, "one finite number for each mel bin"),
        ({"mel_offset": torch.full((80,), float("nan"))}, "one finite number for each mel bin"),
    ],
)
def test_impossible_voices(change: dict[str, Tensor], words: str) -> None:
    with pytest.raises(VoiceError, match=words):
        voice(**change)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="no such voice file"):
        Voice.load(tmp_path / "none.voice")
    with pytest.raises(VoiceError, match="no such voice file"):
        Voice.load(tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "ann.voice"
    voice().save(path)
    data = path.read_bytes()
    for damaged in (b"", data[:5], data[: len(data) // 2], data[:-1], b"RIFF" + data[4:]):
        path.write_bytes(damaged)
        with pytest.raises(VoiceError, match="not a voice file, or is damaged"):
            Voice.load(path)


def write(path: Path, tensors: dict[str, Tensor], facts: object) -> Path:
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(facts)})
    return path


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x.voice"
    tensors = {
        "prompt_tokens": torch.zeros(1, dtype=torch.int32),
        "prompt_mel": torch.zeros(2, 80),
        "speaker_embedding": torch.zeros(8),
    }
    facts = {"format_version": 1, "name": "x", "prompt_text": "", "tokenizer": "t"}
    assert Voice.load(write(path, tensors, facts)).description == ""
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(VoiceError, match="is not a voice file"):
        Voice.load(path)
    with pytest.raises(VoiceError, match="format 2; this version of tokenlm reads 1"):
        Voice.load(write(path, tensors, {"format_version": 2}))
    for broken in ([], 3, {}, {"format_version": 1, "name": "x"}):
        with pytest.raises(VoiceError, match="not a complete voice file"):
            Voice.load(write(path, tensors, broken))
    save_file(tensors, path, metadata={METADATA_KEY: "{"})
    with pytest.raises(VoiceError, match="not a complete voice file"):
        Voice.load(path)
    del tensors["prompt_mel"]
    with pytest.raises(VoiceError, match="not a complete voice file: 'prompt_mel'"):
        Voice.load(write(path, tensors, facts))


def test_wrong_tensors_in_a_file_name_the_file(tmp_path: Path) -> None:
    tensors = {
        "prompt_tokens": torch.zeros(1, dtype=torch.int32),
        "prompt_mel": torch.full((2, 80), float("nan")),
        "speaker_embedding": torch.zeros(8),
    }
    facts = {"format_version": 1, "name": "x", "prompt_text": "", "tokenizer": "t"}
    path = write(tmp_path / "x.voice", tensors, facts)
    with pytest.raises(VoiceError, match="x.voice.*not finite"):
        Voice.load(path)


def test_voices_are_frozen() -> None:
    with pytest.raises(AttributeError):
        voice().name = "bob"  # type: ignore[misc]
    assert replace(voice(), name="bob").name == "bob"
