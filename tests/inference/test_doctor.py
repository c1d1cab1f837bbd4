"""The verb `doctor`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from verb_runner import run_verb

from inference.commands import doctor as module
from inference.commands.doctor import doctor
from tokenlm import __version__, installation


def test_doctor_says_what_a_report_needs(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TOKENLM_API_KEY", "sesame")
    result = run_verb(doctor, "--bundle", tiny_bundle, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["tokenlm"]["version"] == __version__ and report["tokenlm"]["torch"]
    assert report["devices"]["cpu"].endswith("threads") and "GB free" in report["disk"]["temporary"]
    assert report["environment"]["OMP_NUM_THREADS"] == "1"
    assert "sesame" not in result.output
    test = report["self-test"]
    assert test["result"] == "ok" and test["load"].startswith("2 voices (")
    assert "s of speech" in test["whole"] and "the first after" in test["stream"]


def test_doctor_names_what_fails(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, damaged)
    (damaged / "voices" / "ann.voice").write_bytes(b"x")
    result = run_verb(doctor, "--bundle", damaged)
    assert result.exit_code == 1
    assert "files   failed: ValueError: error: voices/ann.voice: The file was altered" in (
        result.stdout
    )
    assert "files failed" in result.stdout.splitlines()[-1]
    result = run_verb(doctor, "--bundle", tiny_bundle, "--device", "mps:7")
    assert result.exit_code == 1 and "load    failed: DeviceError: the device 'mps:7'" in (
        result.stdout
    )


def test_doctor_works_where_little_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "requires", lambda name: ["nothing_such>=1; extra == 'new'"])
    monkeypatch.delattr(module.os, "sysconf")  # as on Windows
    monkeypatch.setattr(module.shutil, "which", lambda name: None)

    def no_disk(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.shutil, "disk_usage", no_disk)
    result = run_verb(doctor, "--no-test")
    assert result.exit_code == 0, result.output
    assert "new  missing: nothing_such; pip install" in result.stdout
    assert "memory     unknown" in result.stdout and "Input/output error" in result.stdout
    assert "self-test" not in result.stdout
