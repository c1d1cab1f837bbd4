"""Nothing is left running when a launch is ended, by time or by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.distributed.processes import run_command

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = """
import subprocess, sys, time
rank = "import time; print(flush=True); time.sleep(120)"
ranks = [subprocess.Popen([sys.executable, "-c", rank], start_new_session=True) for _ in range(2)]
open("ranks", "w").write(" ".join(str(rank.pid) for rank in ranks) + " ")
time.sleep(120)
"""
"""A launcher as torchrun is one: its ranks lead sessions of their own."""
CHECK = f"""
import sys
from pathlib import Path
from tests.distributed.processes import run_command, stopped_by_signals
with stopped_by_signals():
    command = [sys.executable, "-c", {LAUNCH!r}]
    run_command(command, limit=100, environment={{}}, folder=Path.cwd())
"""


def hear_interrupts() -> None:
    """Undo that what a script starts in its background ignores Ctrl-C, with all its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_ranks(folder: Path) -> list[int]:
    path = folder / "ranks"
    for _ in range(600):
        if path.exists() and path.read_text().endswith(" "):
            return [int(pid) for pid in path.read_text().split()]
        time.sleep(0.05)
    raise AssertionError("no ranks were started")


def require_gone(pids: list[int]) -> None:
    for _ in range(200):
        left = [pid for pid in pids if psutil.pid_exists(pid)]
        left = [pid for pid in left if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"{left} are left of {pids}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_launcher_and_ranks(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", CHECK],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=hear_interrupts,
    ) as check:
        ranks = wait_for_ranks(tmp_path)
        launcher = psutil.Process(ranks[0]).ppid()
        assert launcher not in (check.pid, os.getpid())
        check.send_signal(number)
        status = check.wait(timeout=30)
    assert status == (-number if number == signal.SIGINT else 128 + number)
    require_gone([launcher, *ranks])


@pytest.mark.slow
def test_a_launch_that_takes_too_long_is_ended_with_its_ranks(tmp_path: Path) -> None:
    for limit in (3, 12, 48):  # a loaded machine may not have started the ranks before
        with pytest.raises(subprocess.TimeoutExpired):
            run_command(
                [sys.executable, "-c", LAUNCH], limit=limit, environment={}, folder=tmp_path
            )
        if (tmp_path / "ranks").exists():
            break
    require_gone(wait_for_ranks(tmp_path))


def test_status_output_and_environment_are_those_of_the_command(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getcwd(), os.environ['X']); sys.exit('bad')"
    status, output = run_command(
        [sys.executable, "-c", program], limit=60, environment={"X": "7"}, folder=tmp_path
    )
    assert status == 1
    assert output == f"{tmp_path} 7\nbad\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_check_itself_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [str(ROOT / "scripts" / "check_distributed"), "-k", "flow and ddp and not cosy"]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    ) as check:
        family: list[psutil.Process] = []
        for _ in range(300):
            family = psutil.Process(check.pid).children(recursive=True)
            if sum("tests.distributed.worker" in " ".join(_order(p)) for p in family) > 2:
                break
            time.sleep(0.5)
        else:
            raise AssertionError("the ranks were not started")
        check.send_signal(number)
        assert check.wait(timeout=60) == (2 if number == signal.SIGINT else 128 + number)
    require_gone([process.pid for process in family])


def _order(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
