"""The verbs of the command line on an imported bundle, whose parts are of other kinds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from published_folder import DIGITS, graphs, imported_bundle, text_folder, tokenizer
from typer.testing import CliRunner, Result

from tokenlm.cli import build_app
from training.refine.speakers import load_encoder

__all__ = ["graphs", "imported_bundle", "text_folder", "tokenizer"]


def run(*arguments: object) -> Result:
    words = [str(word) for word in arguments]
    return CliRunner().invoke(build_app(words), words)


@pytest.fixture
def bundle(imported_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imported_bundle, tmp_path / "copy"))


def test_voices_of_an_imported_bundle(bundle: Path, recording: Path) -> None:
    none = run("voices", "--bundle", bundle)
    assert none.exit_code == 0 and "has no voices; make one with: tokenlm prepare" in none.stdout
    voice = bundle / "voices" / "me.voice"
    assert run("prepare-voice", recording, "-o", voice, "--bundle", bundle).exit_code == 0
    listed = run("voices", "--bundle", bundle)
    assert listed.exit_code == 0 and listed.stdout.split() == ["me", "2.0", "s"]


def test_tokens_of_a_graph(imported_bundle: Path, recording: Path) -> None:
    for folder in (imported_bundle, imported_bundle / "speech_tokenizer"):
        told = run("tokens", recording, "--bundle", folder)
        assert told.exit_code == 0, told.stderr
        assert f"codebook     {3**DIGITS}" in told.stdout and "tokens       50" in told.stdout


def test_transcribe_says_that_there_is_no_recogniser(
    imported_bundle: Path, recording: Path
) -> None:
    told = run("transcribe", recording, "--bundle", imported_bundle)
    assert told.exit_code == 2 and "has no component 'token_recognizer'" in told.stderr


def test_the_speaker_encoder_groups_clips(imported_bundle: Path) -> None:
    import torch

    embed, _ = load_encoder(imported_bundle / "speaker_encoder")
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    torch.testing.assert_close(embed(noise).norm(), torch.tensor(1.0))


def test_instructions_are_given_apart_from_the_text(
    imported_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    def clone(text: str, *more: object) -> Result:
        path = tmp_path / "out.wav"
        prompt = ("--prompt-audio", recording, "--prompt-text", "is it so?", "--steps", 1)
        return run("clone", text, *prompt, "-o", path, "--bundle", imported_bundle, *more)

    wrong = clone("用四川话说。<|endofprompt|>你好。")
    assert wrong.exit_code == 2 and "the text holds <|endofprompt|>: give" in wrong.stderr
    assert not list(tmp_path.iterdir())
    told = clone("你好。[breath]", "--instruct", "用四川话说。")
    assert told.exit_code == 0, told.stderr
