"""The root command: finding verbs, telling errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tokenlm import __version__, cli, installation


class FakeEntry:
    """An entry point that gives a function or fails."""

    def __init__(self, name: str, found: Callable[..., Any] | Exception) -> None:
        self.name = name
        self.found = found

    def load(self) -> Callable[..., Any]:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def run(
    monkeypatch: pytest.MonkeyPatch, verbs: dict[str, Callable[..., Any] | Exception], *words: str
) -> Result:
    entries = [FakeEntry(name, found) for name, found in verbs.items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries)
    return CliRunner().invoke(cli.build_app(), words)


def hello(name: str = "you") -> None:
    """Say hello."""
    typer.echo(f"hello {name}")


def raising(error: Exception) -> Callable[[], None]:
    def verb() -> None:
        raise error

    return verb


def test_verbs_are_found_and_get_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, {"hello": hello}, "hello", "--name", "world")
    assert (result.exit_code, result.stdout) == (0, "hello world\n")
    assert "Say hello." in run(monkeypatch, {"hello": hello}, "--help").stdout


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, {"hello": hello}, "--version")
    assert (result.exit_code, result.stdout) == (0, f"tokenlm {__version__}\n")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("the pitch is too high."), "error: the pitch is too high.\n"),
        (PermissionError(13, "Permission denied", "a.wav"), "error: a.wav: Permission denied\n"),
        (
            ModuleNotFoundError("No module named 'jiwer'", name="jiwer"),
            "error: this needs jiwer, which is not installed: pip install -e '.[train]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'ghost.body'", name="ghost.body"),
            "error: this needs ghost, which is not installed: pip install ghost\n",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        installation, "requires", lambda name: ["jiwer>=3.0; extra == 'train'", "numpy"]
    )
    result = run(monkeypatch, {"err": raising(error)}, "err")
    assert (result.exit_code, result.stderr) == (2, told)


def test_verbose_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("the pitch is too high.")
    result = run(monkeypatch, {"err": raising(error)}, "--verbose", "err")
    assert result.exception is error


def test_other_errors_are_ours_and_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    error = AssertionError("impossible")
    assert run(monkeypatch, {"err": raising(error)}, "err").exception is error


def test_a_missing_extra_hides_only_its_own_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "requires", lambda name: ["uvicorn>=0.30; extra == 'serve'"])
    missing = ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
    verbs: dict[str, Callable[..., Any] | Exception] = {"hello": hello, "serve": missing}
    listed = run(monkeypatch, verbs, "--help").stdout
    assert "hello" in listed and "serve" not in listed
    assert run(monkeypatch, verbs, "hello").exit_code == 0
    result = run(monkeypatch, verbs, "serve", "--port", "80", "more")
    assert result.exit_code == 2
    assert "serve cannot be used: this needs uvicorn" in result.stderr
    assert "pip install -e '.[serve]'" in result.stderr
    assert run(monkeypatch, verbs, "--verbose", "serve").exception is missing


def test_every_installed_verb_loads() -> None:
    found = {entry.name: entry for entry in cli.entry_points(group=cli.GROUP)}
    assert {"clone", "say", "convert", "voices", "inspect", "transcribe", "validate"} <= set(found)
    for entry in found.values():
        assert isinstance(entry, EntryPoint)
        assert (entry.load().__doc__ or "").strip(), f"{entry.name} has no help"


def test_help_comes_without_loading_models(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from tokenlm.cli import build_app\n"
        "result = CliRunner().invoke(build_app(), ['clone', '--help'])\n"
        "assert result.exit_code == 0 and '--prompt-audio' in result.stdout, result.output\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
