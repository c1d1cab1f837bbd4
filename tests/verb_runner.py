"""Runs a verb of the command line as `tokenlm` would, without its entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.testing import CliRunner, Result

from tokenlm import cli


def run_verb(verb: Callable[..., Any], *words: object) -> Result:
    """Exit status and output of a verb."""
    app = typer.Typer()
    app.command(cls=cli.VerbCommand)(cli.guarded(verb, cli.Settings()))
    return CliRunner().invoke(app, [str(word) for word in words])
