"""A default dtype that another library has set changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from published_folder import graphs, imported_bundle, text_folder, tokenizer
from torch import Tensor

from tokenlm.checkpoint.resolve import resolve
from tokenlm.synthesis import Synthesizer
from tokenlm.text.tokenizers import load_text_tokenizer

__all__ = ["graphs", "imported_bundle", "text_folder", "tokenizer"]

DTYPES = [torch.float64, torch.bfloat16, torch.float16]
TEXT = "is it so? yes, it is."


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def same(first: Any, second: Any, where: str) -> None:
    assert type(first) is type(second), where
    if isinstance(first, Tensor):
        assert first.dtype == second.dtype, where
        torch.testing.assert_close(second, first, rtol=0, atol=0, msg=lambda m: f"{where}: {m}")
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            same(first[name], second[name], f"{where}, {name}")
    else:
        assert first == second, where


def speak(folder: Path, recording: Path) -> dict[str, Any]:
    """All that a bundle can do, once."""
    synthesizer = Synthesizer.from_pretrained(folder)
    parts = synthesizer.components
    voice = synthesizer.prepare_voice(recording, "is it so?", name="me")
    own = synthesizer.voice("ann") if synthesizer.voices else voice
    found: dict[str, Any] = {
        "tokens": voice.prompt_tokens,
        "mel": voice.prompt_mel,
        "embedding": voice.speaker_embedding,
        "own": own.prompt_mel,
        "one_shot": synthesizer.generate(TEXT, voice=voice, seed=3),
        "full": synthesizer.generate(TEXT, voice=own, seed=3, context="full"),
        "faster": synthesizer.generate(TEXT, voice=own, seed=3, speed=1.25),
    }
    with synthesizer.stream([*TEXT], voice=own, seed=3) as stream:
        found["interleaved"] = torch.cat(
            [torch.zeros(0, dtype=torch.float32), *(chunk.clone() for chunk in stream)]
        )
    found["converted"] = synthesizer.convert(recording, voice=own, seed=3)
    if "token_recognizer" in parts.manifest.components:
        reading = parts.read_back(["is it so"], [voice.prompt_tokens.tolist()])
        found["read_back"] = repr(reading)
        found["text"] = parts.token_recognizer.transcribe(voice.prompt_tokens[None])
    for name in ("speech_lm", "flow", "vocoder"):
        found[f"weights of {name}"] = dict(getattr(parts, name).named_buffers())
    return found


@pytest.fixture(scope="module")
def spoken(tiny_bundle: Path, recording: Path) -> dict[str, Any]:
    return speak(tiny_bundle, recording)


@pytest.mark.parametrize("dtype", DTYPES)
def test_speech_is_the_same_under_any_default(
    dtype: torch.dtype, tiny_bundle: Path, recording: Path, spoken: dict[str, Any]
) -> None:
    with default_dtype(dtype):
        found = speak(tiny_bundle, recording)
        assert torch.get_default_dtype() == dtype
    same(spoken, found, "bundle")


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_imported_models_are_the_same_under_any_default(
    dtype: torch.dtype, imported_bundle: Path, recording: Path
) -> None:
    plain = speak(imported_bundle, recording)
    with default_dtype(dtype):
        found = speak(imported_bundle, recording)
    same(plain, found, "imported")


@pytest.mark.parametrize("dtype", DTYPES)
def test_words_of_no_dictionary_are_pronounced_the_same(dtype: torch.dtype) -> None:
    folder = resolve("mini-en") / "text_tokenizer"
    words = "glorvik unzapped the quaffery, mirthlessly."
    plain = load_text_tokenizer(folder).encode(words)
    with default_dtype(dtype):
        assert load_text_tokenizer(folder).encode(words) == plain
