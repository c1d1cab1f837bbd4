"""The blocks of code in the documentation do what they say."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from tokenlm.cli import build_app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]
    if not any(
        part in ("dist", "build", "demo") or part.startswith(".")
        for part in path.relative_to(ROOT).parts
    )
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path, *languages: str) -> list[str]:
    """The blocks of a document in one of `languages`."""
    found = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [code for language, code in found if language in languages]


def commands() -> list[str]:
    """Every command of the documentation, continued lines joined, comments cut off."""
    found = []
    for path in DOCUMENTS:
        for block in blocks(path, "sh", "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ").strip()
                if line and not line.startswith("#"):
                    found.append(line)
    return found


def test_there_is_something_to_check() -> None:
    assert any(line.startswith("make demo") for line in commands())
    assert sum("tokenlm " in line for line in commands()) >= 5


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_compile(path: Path) -> None:
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_merge_is_left_half_done(path: Path) -> None:
    assert not re.search(r"^(<{7}|={7}|>{7})( |$)", path.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_the_five_line_program_runs(
    tiny_bundle: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = next(
        block for block in blocks(ROOT / "README.md", "python") if "from_pretrained" in block
    )
    shutil.copytree(tiny_bundle, tmp_path / "checkpoints" / "mini-en")
    shutil.copy(recording, tmp_path / "me.wav")
    monkeypatch.setenv("TOKENLM_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), names)
    assert names["waveform"].ndim == 1 and names["waveform"].shape[0] > 0


def test_the_streaming_program_runs(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = next(
        block for block in blocks(ROOT / "README.md", "python") if "synthesizer.stream" in block
    )
    shutil.copytree(tiny_bundle, tmp_path / "checkpoints" / "mini-en")
    monkeypatch.setenv("TOKENLM_CHECKPOINTS", str(tmp_path / "checkpoints"))
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("seconds") > 1


def words_of(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words and words[0] == "accelerate":
        words = ["python", *words[words.index("-m") :]]
    return words


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_exist(line: str) -> None:
    for part in re.split(r"\s(?:&&|\|)\s", line):
        words = words_of(part)
        program = Path(words[0]).name
        if program == "tokenlm":
            check_verb(words[1:])
        elif program == "make":
            check_targets(words[1:])
        elif program == "python" and words[1] == "-m":
            assert importlib.util.find_spec(words[2]) is not None, words[2]
            check_config(words)
        elif words[0].startswith("scripts/"):
            assert (ROOT / words[0]).is_file(), words[0]
            check_config(words)
        else:
            assert program in ("pip", "git", "cd", "pytest", "ruff", "apt-get", "cat", "aplay"), (
                line
            )


def check_verb(words: list[str]) -> None:
    """The verb exists and takes these options."""
    verb = typer.main.get_command(build_app())
    if words[0].startswith("-"):
        return
    while hasattr(verb, "commands"):
        name, *words = words
        verb = verb.commands[name]  # type: ignore[attr-defined]
    assert not verb.hidden, f"{name} cannot be used here"
    with verb.make_context(name, words):
        pass


def check_targets(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" not in word:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), word


def check_config(words: list[str]) -> None:
    """Files of the repository that a command names are there."""
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).exists(), word
