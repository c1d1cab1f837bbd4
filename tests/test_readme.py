"""The blocks of code in README and docs/ do what they say."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from tokenlm.cli import build_app

ROOT = Path(__file__).resolve().parents[1]


def load_hooks() -> Any:
    """The module that makes the generated pages."""
    specification = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["docs_hooks"] = module
    specification.loader.exec_module(module)
    return module


DOCUMENTS = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("*/*/README.md"),
        *ROOT.glob("docs/**/*.md"),
    ]
    if not any(
        part in ("dist", "build", "demo") or part.startswith(".")
        for part in path.relative_to(ROOT).parts
    )
)
GENERATED = {ROOT / "docs" / page for page in load_hooks().page_names()}
"""Pages that are made when the documentation is built."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: .+ -->\n+```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""A program that a test cannot run, and why."""
LONGEST_PARAGRAPH = 600
"""Characters of a paragraph of prose in the README."""


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
            place = (path.parent / target).resolve()
            assert place.exists() or place in GENERATED, f"{path}: {target}"


def test_paragraphs_of_the_readme_are_short() -> None:
    text = BLOCK.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
    prose = [part for part in text.split("\n\n") if not part.startswith(("|", "#"))]
    assert not [part for part in prose if len(part) > LONGEST_PARAGRAPH]


def programs() -> list[Any]:
    """Every Python program of README and docs/ that can be run, with its document and number."""
    found = []
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        not_run = NOT_RUN.findall(path.read_text(encoding="utf-8"))
        for number, program in enumerate(blocks(path, "python")):
            if program not in not_run:
                found.append(pytest.param(program, id=f"{path.name}-{number}"))
    return found


@pytest.mark.parametrize("program", programs())
def test_programs_run(
    program: str,
    phoneme_bundle: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(phoneme_bundle, tmp_path / "checkpoints" / "mini-en")
    shutil.copy(recording, tmp_path / "me.wav")
    monkeypatch.setenv("TOKENLM_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(program, "program", "exec"), names)
    if "waveform" in names:
        assert names["waveform"].ndim == 1 and names["waveform"].shape[0] > 0
    if "stream(" in program:
        assert "seconds" in capsys.readouterr().out


def test_the_first_programs_are_run() -> None:
    first = blocks(ROOT / "README.md", "python")[0]
    assert "from_pretrained" in first and "generate" in first
    streaming = blocks(ROOT / "docs" / "clone-and-stream.md", "python")
    assert any("synthesizer.stream" in program for program in streaming)


OTHER_PROGRAMS = (
    "pip", "git", "cd", "pytest", "ruff", "apt-get", "cat", "aplay", "ray", "curl", "serve", "helm",
    "kubectl", "podman",
)  # fmt: skip


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
            check_verb(words[1:], line)
        elif program == "make":
            check_targets(words[1:])
        elif program == "python" and words[1] == "-m":
            if words[2] == "tokenlm":
                check_verb([word for word in words[3:] if word != "…"], line)
            assert is_there(words[2]), words[2]
            check_config(words)
        elif words[0].startswith("scripts/"):
            assert (ROOT / words[0]).is_file(), words[0]
            check_config(words)
        elif program == "sbatch":
            wrapped = shlex.split(words[words.index("--wrap") + 1])
            assert wrapped[0] == "tokenlm", line
            check_verb(wrapped[1:], line)
        else:
            assert program in OTHER_PROGRAMS, line


def is_there(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it would be in
        return False


@cache
def root_command() -> Any:
    """`tokenlm` with all its verbs."""
    return typer.main.get_command(build_app())


def check_verb(words: list[str], line: str) -> None:
    """The verb exists and takes these options."""
    command = root_command()
    if words[0].startswith("-"):
        return
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, line
        command = command.commands[name]
        assert not command.hidden, f"{name} cannot be used here"
    with command.make_context(name, words):
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
