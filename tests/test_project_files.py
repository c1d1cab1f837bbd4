"""Files that people and platforms look for: they are valid, and say what the rest says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from test_repository import MAX_BYTES

from tokenlm import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def steps_of_ci() -> dict[str, str]:
    """Name and make target of every step of `.ci/run`, in order."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    return dict(re.findall(r"^step (\w+) make --no-print-directory (\w+)$", script, re.MULTILINE))


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^(\w+):", makefile, re.MULTILINE))


def test_the_public_workflow_has_the_steps_of_ci() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    run = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    expected = {name: f"make {target}" for name, target in steps_of_ci().items()}
    assert {name: run.get(name) for name in expected} == expected
    assert [name for name in run if name in expected] == list(expected)
    assert {"test", "lint", "types", "imports", "docs", "slow"} == set(expected)
    assert set(steps_of_ci().values()) <= targets()


def test_the_public_workflow_runs_the_oldest_python_and_pins_its_actions() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    versions = job["strategy"]["matrix"]["python"]
    assert versions[0] == PROJECT["requires-python"].removeprefix(">=")
    named = {name.rsplit(" ", 1)[-1] for name in PROJECT["classifiers"]}
    assert set(versions) <= named
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) for name in used)


def test_pre_commit_checks_the_same_formats() -> None:
    hooks = {hook["id"]: hook for repo in read(".pre-commit-config.yaml")["repos"]
             for hook in repo["hooks"]}  # fmt: skip
    assert set(hooks) == {
        "ruff-check", "ruff-format", "end-of-file-fixer", "check-yaml", "check-added-large-files",
    }  # fmt: skip
    (largest,) = hooks["check-added-large-files"]["args"]
    assert 0 <= MAX_BYTES - int(largest.removeprefix("--maxkb=")) * 1024 < 1024
    assert all(repo["rev"].startswith("v") for repo in read(".pre-commit-config.yaml")["repos"])


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["authors"] == [{"name": "tokenlm contributors"}]
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert {"message", "title"} <= set(citation)


def test_issue_forms_have_what_the_platform_needs() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert {"bug.yml", "feature.yml"} <= {path.name for path in forms}
    for path in forms:
        form = read(path.relative_to(ROOT).as_posix())
        if path.name == "config.yml":
            assert set(form) <= {"blank_issues_enabled", "contact_links"}
            continue
        assert {"name", "description", "body"} <= set(form)
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert len({part["id"] for part in fields}) == len(fields) > 0
        assert all(part["attributes"]["label"] for part in fields)


def test_contributing_names_targets_that_are_there() -> None:
    for name in ("CONTRIBUTING.md", ".github/pull_request_template.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
        assert named and named <= targets()


def test_extras_of_the_documentation_are_there() -> None:
    text = (ROOT / "docs" / "get-started.md").read_text(encoding="utf-8")
    table = text[text.index("| extra | for |") :].split("\n\n")[0]
    named = {
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(PROJECT["optional-dependencies"])
