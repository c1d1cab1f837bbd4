"""A wheel, installed elsewhere, speaks from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("tokenlm", "training", "inference", "configs")
FILES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")


def call(*command: object, cwd: Path) -> str:
    """Output of a command that sees neither the checkout nor settings of this shell."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TOKENLM", "VIRTUAL_ENV"))
    }
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, with a tiny bundle where the embedded one is not there."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, tree / name)
    embedded = ROOT / "checkpoints" / "mini-en"
    bundle = embedded if (embedded / "bundle.yaml").is_file() else tiny_bundle
    shutil.copytree(bundle, tree / "checkpoints" / "mini-en")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", tree, cwd=tree)
    (path,) = (tree / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    call(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A folder of a .pth file is searched, but the .pth files in it are not read: the editable
    # installation of this tree stays unseen.
    packages = call(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    )
    borrowed = Path(packages.strip()) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python.parent


@pytest.mark.slow
def test_wheel_holds_packages_configs_and_bundle(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "tokenlm/cli.py",
        "tokenlm/py.typed",
        "training/run.py",
        "training/rl/texts/grammar.yaml",
        "inference/demo.py",
        "inference/server/page/index.html",
        "inference/server/page/page.js",
        "tokenlm/_data/configs/train/flow.yaml",
        "tokenlm/_data/checkpoints/mini-en/bundle.yaml",
        "tokenlm/_data/checkpoints/mini-en/vocoder/model.safetensors",
    ):
        assert name in names
    left_out = ("tests", "scripts", "training/recipes")
    assert not [name for name in names if name.startswith(left_out)]


@pytest.mark.slow
def test_wheel_speaks_from_any_folder(environment: Path, tmp_path: Path) -> None:
    tokenlm = environment / "tokenlm"
    place = call(environment / "python", "-c", "import tokenlm; print(tokenlm.__file__)",
                 cwd=tmp_path)  # fmt: skip
    assert Path(place.strip()).is_relative_to(environment.parent)
    call(tokenlm, "inspect", "mini-en", cwd=tmp_path)
    assert call(tokenlm, "voices", cwd=tmp_path).strip()
    call(tokenlm, "say", "Hello there.", "-o", "out.wav", cwd=tmp_path)
    info = soundfile.info(str(tmp_path / "out.wav"))
    assert info.samplerate == 24_000 and info.frames > 0
    listed = call(tokenlm, "--help", cwd=tmp_path) + call(tokenlm, "data", "--help", cwd=tmp_path)
    for verb in ("train", "export", "evaluate", "precompute", "text-tokenizer"):
        assert f" {verb} " in listed
    program = (
        "from training.run import find_config, load_task\n"
        "load_task(find_config('flow'))\n"
        "load_task(find_config('dpo.mini_en'))\n"
        "from training.data.exclusion import evaluation_exclusion\n"
        "from training.rl.texts.grammar import load_grammar\n"
        "evaluation_exclusion(), load_grammar()\n"
    )
    call(environment / "python", "-c", program, cwd=tmp_path)
