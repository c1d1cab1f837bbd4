"""Progress and log lines of commands."""

from __future__ import annotations

import io
import logging
import time

from rich.console import Console

from tokenlm.console import ProgressBar, show_logs, track


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


def test_tracked_items_are_all_there() -> None:
    assert list(track([3, 1, 2], "items")) == [3, 1, 2]
    assert list(track(range(0), "nothing")) == []


def test_training_logs_its_steps_and_libraries_their_warnings() -> None:
    show_logs()
    assert logging.getLogger("training.loop.tracking").isEnabledFor(logging.INFO)
    assert not logging.getLogger("somebody").isEnabledFor(logging.INFO)
