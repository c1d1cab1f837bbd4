"""The verb doctor: all that a bug report needs to say about a machine, and a self-test."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from inference.commands.options import BundleOption, DeviceOption
from tokenlm import __version__
from tokenlm.checkpoint.resolve import bundled_names, resolve
from tokenlm.console import ProgressBar
from tokenlm.installation import extras, install_command, package_version

TEXT = "This is a test."
"""What the self-test says."""
PROGRAMS = ("ffmpeg", "aplay", "pacat", "play", "ffplay", "nvidia-smi", "git")
"""Programs that are of use where they are installed."""
VARIABLES = (
    "TOKENLM_CHECKPOINTS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME",
    "HF_HUB_CACHE", "HF_HUB_OFFLINE", "PYTORCH_ENABLE_MPS_FALLBACK", "TMPDIR",
)  # fmt: skip
"""Environment variables that change what is done; no secrets."""
PACKAGES = ("torch", "transformers", "safetensors", "sentencepiece", "soundfile", "soxr", "numpy",
            "huggingface_hub", "typer")  # fmt: skip

Report = dict[str, dict[str, Any]]


def doctor(
    bundle: BundleOption = "mini-en",
    device: DeviceOption = "cpu",
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Load the bundle and speak a sentence.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Describe this installation and machine, and test it: put this into a report of a bug."""
    with ProgressBar("looking"):
        report = {
            "tokenlm": describe_package(),
            "machine": describe_machine(),
            "devices": describe_devices(),
            "extras": describe_extras(),
            "programs": {name: shutil.which(name) or "not installed" for name in PROGRAMS},
            "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
            "disk": describe_disk(),
        }
    if test:
        with ProgressBar("testing"):
            report["self-test"] = self_test(bundle, device)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        for line in show(report):
            typer.echo(line)
    if str(report.get("self-test", {}).get("result", "ok")) != "ok":
        raise typer.Exit(1)


def show(report: Report) -> list[str]:
    """The lines of a report: the title of each part, and its facts indented below it."""
    lines = []
    for title, facts in report.items():
        lines.append(title)
        width = max(map(len, facts), default=0)
        lines += [f"  {name:<{width}}  {value}" for name, value in facts.items()]
    return lines


def describe_package() -> dict[str, Any]:
    """Versions of the package and of what it needs."""
    found = {name: package_version(name) or "not installed" for name in PACKAGES}
    where = Path(__file__).resolve().parents[2]
    return {"version": __version__, "folder": str(where), **found}


def describe_machine() -> dict[str, Any]:
    """System, Python, processor, number of cores, encodings, and memory in GB."""
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "locale": f"{sys.getfilesystemencoding()}, output {sys.stdout.encoding}",
    }
    try:  # not on Windows
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts["memory"] = f"{pages / 1e9:.1f} GB"
    except (AttributeError, ValueError, OSError):
        facts["memory"] = "unknown"
    return facts


def describe_devices() -> dict[str, Any]:
    """For cpu, cuda and mps: whether torch has them here, and which devices they are."""
    import torch

    facts: dict[str, Any] = {"cpu": f"{torch.get_num_threads()} threads"}
    built = torch.version.cuda or torch.version.hip
    facts["cuda"] = f"torch is built for {built}" if built else "torch is built without it"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            facts[f"cuda:{number}"] = f"{card.name}, {card.total_memory / 1e9:.1f} GB"
    elif built:
        facts["cuda"] += ", but there is no GPU that it can use"
    mps = torch.backends.mps
    facts["mps"] = "yes" if mps.is_available() else ("built, no GPU" if mps.is_built() else "no")
    return facts


def describe_extras() -> dict[str, Any]:
    """Which extras are installed, and how to install the others."""
    facts = {}
    for extra, missing in extras().items():
        needed = f"missing: {', '.join(missing)}; {install_command(extra)}"
        facts[extra] = needed if missing else "installed"
    return facts


def describe_disk() -> dict[str, Any]:
    """Free space where something is written, bundles at hand, and what caches hold."""
    facts = {"working folder": _free(Path.cwd()), "temporary": _free(Path(tempfile.gettempdir()))}
    try:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = Path(HF_HUB_CACHE)
        facts["hub cache"] = f"{_size(cache)} in {cache}" if cache.is_dir() else f"none at {cache}"
    except ImportError:
        facts["hub cache"] = "huggingface_hub is not installed"
    for name in bundled_names():
        folder = resolve(name)
        facts[f"bundle {name}"] = f"{_size(folder)} in {folder}"
    return facts


def _free(folder: Path) -> str:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder}: {error.strerror}"
    writable = "" if os.access(folder, os.W_OK) else ", not writable"
    return f"{free / 1e9:.1f} GB free in {folder}{writable}"


def _size(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{sum(sizes) / 1e6:.1f} MB in {len(sizes)} files"


def self_test(bundle: str, device: str) -> dict[str, Any]:
    """Loads a bundle, checks its files, and speaks: whole, streamed, and read back.

    Every step has its seconds; the first that fails ends the test, and is named.
    """
    facts: dict[str, Any] = {"bundle": bundle, "device": device}
    speaks: dict[str, Any] = {}

    def check_files() -> str:
        from tokenlm.checkpoint import validate_bundle
        from tokenlm.checkpoint.registry import KINDS

        findings = validate_bundle(resolve(bundle), KINDS)
        errors = [str(finding) for finding in findings if finding.severity == "error"]
        if errors:
            raise ValueError("; ".join(errors))
        return "as they were made"

    def load() -> str:
        from tokenlm.synthesis import Synthesizer

        speaks["synthesizer"] = Synthesizer.from_pretrained(bundle, device=device)
        return f"{len(speaks['synthesizer'].voices)} voices"

    def whole() -> str:
        speaks["whole"] = speaks["synthesizer"].generate(TEXT)
        return f"{speaks['whole'].shape[0] / speaks['synthesizer'].sample_rate:.2f} s of speech"

    def streamed() -> str:
        import torch

        begun, chunks = time.perf_counter(), []
        for chunk in speaks["synthesizer"].stream(TEXT):
            if not chunks:
                first = time.perf_counter() - begun
            chunks.append(chunk)
        sound = torch.cat(chunks)
        if not bool(sound.isfinite().all()) or float(sound.abs().max()) < 1e-3:
            raise ValueError("the speech is silent, or not finite")
        return f"{len(chunks)} chunks, the first after {first:.2f} s"

    steps: dict[str, Callable[[], str]] = {
        "files": check_files, "load": load, "whole": whole, "stream": streamed,
    }  # fmt: skip
    for name, step in steps.items():
        begun = time.perf_counter()
        try:
            told = step()
        except Exception as error:  # whatever fails is what the report is about
            facts[name] = f"failed: {type(error).__name__}: {error}"
            facts["result"] = f"{name} failed"
            return facts
        facts[name] = f"{told} ({time.perf_counter() - begun:.2f} s)"
    facts["result"] = "ok"
    return facts
