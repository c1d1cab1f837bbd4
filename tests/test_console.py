"""The progress bar of the command line."""

from __future__ import annotations

import io
import time

from rich.console import Console

from tokenlm.console import ProgressBar


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_short_work_shows_nothing() -> None:
    console = terminal()
    with ProgressBar("working", console=console) as progress:
        progress.update(0.5)
    assert written(console) == ""


def test_long_work_shows_a_bar_and_takes_it_away() -> None:
    console = terminal()
    with ProgressBar("working", delay_seconds=0.01, console=console) as progress:
        limit = time.monotonic() + 10.0
        while not progress.is_shown and time.monotonic() < limit:
            time.sleep(0.01)
        assert progress.is_shown
        progress.describe("still working")
        progress.update(0.5)
    assert "working" in written(console)
    assert not progress.is_shown


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with ProgressBar("working", delay_seconds=0.0, console=console):
        time.sleep(0.05)
    assert written(console) == ""
