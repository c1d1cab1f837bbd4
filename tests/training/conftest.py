"""Makes the toy stage importable for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """A process has one precision for good, which runs of several in one process do not share."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
