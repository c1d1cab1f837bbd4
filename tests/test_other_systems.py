"""Modules that only Unix has are imported nowhere but where they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, pkgutil, sys

UNIX = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "crypt"}
OURS = {"tokenlm", "inference"}


class OnlyUnix:
    def find_spec(self, name, path=None, target=None):
        if name in UNIX and sys._getframe(1).f_globals:
            frame = sys._getframe(1)
            while frame and not frame.f_globals.get("__name__", "").startswith(tuple(OURS)):
                if not frame.f_globals.get("__name__", "").startswith("importlib"):
                    return None  # asked for by a library, which knows what it does
                frame = frame.f_back
            raise ModuleNotFoundError(f"{name} is there on Unix alone", name=name)
        return None


import torch, uvicorn, fastapi, transformers
for name in UNIX:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, OnlyUnix())
count = 0
for package in sorted(OURS):
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        # What runs within vLLM is imported by vLLM alone, which Linux alone has.
        if not module.name.endswith(("__main__", "vllm_logits")):
            importlib.import_module(module.name)
            count += 1
print(count)
"""


@pytest.mark.slow
def test_every_module_is_imported_without_those_of_unix() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 90
