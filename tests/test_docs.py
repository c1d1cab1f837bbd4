"""Pages that are made from the code, and tutorials."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_readme import check_verb, load_hooks

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
SOURCE = re.compile(r"`((?:tokenlm|training|inference)/[\w/]+\.py)`")
hooks = load_hooks()


def nav_pages(entry: Any) -> list[str]:
    """Pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in nav_pages(part)]


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    made = hooks.page_names()
    assert not written & made
    assert sorted(nav_pages(config["nav"])) == sorted(written | made)


def test_the_build_fetches_nothing() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False and config["strict"] is True
    assert not {"extra_javascript", "site_url", "repo_url"} & set(config)
    assert all((ROOT / "docs" / name).is_file() for name in config["extra_css"])


@pytest.mark.slow
def test_public_objects_are_found_once() -> None:
    for entry in hooks.public_names().values():
        for name in entry["names"]:
            assert len(hooks.find_object(name)) == 1, name


def test_the_page_of_a_config_has_every_field() -> None:
    page = hooks.config_page("models", "tokenlm")
    section = page[page.index("## SamplingConfig") :].split("\n## ")[0]
    sampling = hooks.config_classes()["SamplingConfig"]
    assert [part.name for part in sampling.fields]
    for part in sampling.fields:
        assert f"| `{part.name}` | `{part.kind}` |" in section
    told = hooks.config_page("training", "training")
    assert "Also has the fields of [RunConfig](#runconfig)." in told
    assert "[FlowConfig](models.md#flowconfig)" in told


def test_defaults_of_configs_are_shown() -> None:
    limits = hooks.config_classes()["Limits"]
    from inference.server.settings import Limits

    for part in limits.fields:
        assert eval(part.default) == getattr(Limits(), part.name)


def test_the_page_of_commands_has_every_verb() -> None:
    page = hooks.commands_page()
    for verb in ("say", "clone", "convert", "serve", "evaluate"):
        assert f"## tokenlm {verb}\n" in page
    assert "`--speed" in page


def test_links_of_documents_lead_to_pages() -> None:
    text = "[a](docs/serve.md#http) [b](CHANGELOG.md) [c](LICENSE) [d](https://x) [e](#f)"
    moved = hooks.move_links(text, "", "reference/commands.md")
    assert moved == "[a](../serve.md#http) [b](../changelog.md) c [d](https://x) [e](#f)"
    assert hooks.move_links("[a](../training/LOG.md)", "docs", "data.md") == "[a](log.md)"


def test_the_glossary_is_a_page() -> None:
    page = hooks.glossary_page()
    assert "| `waveform`, `mel`" in page and "\n## Renamed\n" in page


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_files_of_the_documentation_are_there(path: Path) -> None:
    for name in SOURCE.findall(path.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_are_pages(path: Path) -> None:
    program = path.read_text(encoding="utf-8")
    page = hooks.tutorial_page(program)
    assert page.startswith("# ") and page.count("```") % 2 == 0
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(program))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_name_commands_that_are_there(path: Path) -> None:
    """Calls of `tokenlm(…)` in a tutorial; a word that is not written out stands for anything."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "tokenlm":
            words = [part.value if isinstance(part, ast.Constant) else "." for part in call.args]
            check_verb(words, ast.unparse(call))


@pytest.mark.nightly
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(path: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "TOKENLM_RUNS": str(tmp_path / "runs"),
    }
    subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, check=True)
