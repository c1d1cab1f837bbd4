"""What is told to be typed to install more."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tokenlm import installation
from tokenlm.installation import install_command, install_command_for


def test_in_a_clone_the_clone_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(installation.__file__).parent.parent
    monkeypatch.chdir(root)
    assert install_command("serve") == "pip install -e '.[serve]'"
    monkeypatch.chdir(tmp_path)
    assert shlex.split(install_command("serve"))[2:] == ["-e", f"{root}[serve]"]


def test_elsewhere_the_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "tokenlm" / "installation.py"))
    assert install_command("serve") == "pip install 'tokenlm[serve]'"


def test_modules_come_by_the_extra_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = ["av>=13; extra == 'dev'", "av>=13; extra == 'audio'", "numpy"]
    monkeypatch.setattr(installation, "requires", lambda name: needs)
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "tokenlm" / "installation.py"))
    assert install_command_for("av") == "pip install 'tokenlm[audio]'"
    assert install_command_for("numpy") == "pip install numpy"
    assert install_command_for("yaml") == "pip install pyyaml"
