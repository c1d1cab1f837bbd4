"""What others may build on. A change here is a change of the version."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tokenlm
from tokenlm import Synthesizer, Voice

SYNTHESIZER = {
    "adapters": None,
    "drop_adapter": ["name"],
    "load_adapter": ["folder", "name"],
    "astream": ["text", "options"],
    "components": None,
    "convert": [
        "source",
        "voice",
        "seed",
        "sample_rate",
        "context",
        "num_steps",
        "guidance_scale",
        "solver",
    ],
    "design_voice": ["attributes", "description", "base", "seed", "name"],
    "from_pretrained": ["name", "device", "dtype", "revision", "compile", "lexicon"],
    "edit": [
        "source",
        "text",
        "replace",
        "insert",
        "delete",
        "span",
        "continue_with",
        "occurrence",
        "sample_rate",
        "seed",
        "sampling",
        "num_steps",
        "guidance_scale",
        "solver",
        "lexicon",
    ],
    "generate": [
        "text",
        "voice",
        "seed",
        "speed",
        "context",
        "sampling",
        "num_steps",
        "guidance_scale",
        "solver",
        "layout",
        "instruction",
        "lexicon",
        "markup",
        "sentence_gap",
        "paragraph_gap",
        "guards",
        "word_times",
        "duration",
        "on_progress",
        "should_stop",
    ],
    "lookahead_ms": None,
    "mix_voices": ["parts", "name"],
    "new_session": [
        "layout",
        "voice",
        "seed",
        "speed",
        "sampling",
        "context",
        "num_steps",
        "guidance_scale",
        "solver",
        "instruction",
        "lexicon",
        "markup",
        "sentence_gap",
        "paragraph_gap",
        "guards",
        "word_times",
        "duration",
        "cache",
        "token_server",
        "forced_tokens",
        "find_voice",
        "should_stop",
    ],
    "open_session": [
        "text",
        "cache",
        "token_server",
        "forced_tokens",
        "find_voice",
        "should_stop",
        "options",
    ],
    "prepare_voice": ["source", "prompt_text", "sample_rate", "name", "enhance"],
    "prompts": None,
    "render": [
        "tokens",
        "pauses",
        "styles",
        "voice",
        "seed",
        "speed",
        "context",
        "num_steps",
        "guidance_scale",
        "solver",
    ],
    "sample_rate": None,
    "stream": ["text", "options"],
    "tokenize": ["source", "sample_rate"],
    "transcribe": ["source", "sample_rate"],
    "voice": ["name"],
    "voice_space": None,
    "voices": None,
}
VOICE = {
    "adapter": None,
    "consent": None,
    "description": None,
    "digest": None,
    "lexicon": None,
    "load": ["path"],
    "mel_offset": None,
    "name": None,
    "prompt_mel": None,
    "prompt_text": None,
    "prompt_tokens": None,
    "save": ["path"],
    "seed": None,
    "speaker_embedding": None,
    "tokenizer": None,
}


def members(cls: type, *also: str) -> dict[str, list[str] | None]:
    """Public attributes of a class; of methods, the names of their parameters."""
    found: dict[str, list[str] | None] = dict.fromkeys(also)
    for name in [*vars(cls), *getattr(cls, "__annotations__", {})]:
        if name.startswith("_"):
            continue
        member = getattr(cls, name, None)
        is_method = inspect.isfunction(member) or inspect.ismethod(member)
        names = list(inspect.signature(member).parameters) if is_method else None
        found[name] = None if names is None else [part for part in names if part != "self"]
    return found


def test_the_package_offers() -> None:
    assert sorted(tokenlm.__all__) == ["Synthesizer", "Voice", "__version__"]
    assert set(dir(tokenlm)) == set(tokenlm.__all__)
    assert tokenlm.__version__.count(".") == 2


def test_the_classes_offer() -> None:
    assert members(Synthesizer, "components", "prompts") == SYNTHESIZER
    assert members(Voice) == VOICE


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Synthesiser'"):
        tokenlm.Synthesiser  # noqa: B018


def test_the_package_is_imported_lazily(tmp_path: Path) -> None:
    program = (
        "import sys, tokenlm\n"
        "heavy = {'torch', 'transformers', 'numpy', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
