"""The command line, `tokenlm VERB ...`.

Verbs are the entry points of the group `tokenlm.commands` (name = verb, value = function), so that
this module imports no layer above it, and another package can add its own. The module of a verb
imports heavy libraries inside its functions: help and version come at once.
"""

from __future__ import annotations

import functools
import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires
from typing import Annotated, Any, NoReturn

import typer

from tokenlm import __version__

GROUP = "tokenlm.commands"
MISTAKE = 2
"""Exit status after a mistake of the user."""

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*;.*extra\s*==\s*['\"]([\w-]+)['\"]")


@dataclass
class Settings:
    """Options that stand before the verb."""

    verbose: bool = False
    """Show where an error comes from."""


def main() -> None:
    """Runs the command line."""
    # Two thousand modules are imported, hardly a cycle among them: looking for some after every 700
    # objects takes a tenth of the time to the first sound.
    gc.set_threshold(50_000)
    build_app()()


def build_app() -> typer.Typer:
    """Builds the command line out of the verbs that are installed."""
    settings = Settings()
    app = typer.Typer(
        name="tokenlm",
        help="Text-to-speech with models that speak in tokens.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option(
                "--version", help="Print the version.", is_eager=True, callback=_print_version
            ),
        ] = False,
        verbose: Annotated[
            bool, typer.Option("--verbose", "-v", help="Show where an error comes from.")
        ] = False,
    ) -> None:
        """Text-to-speech with models that speak in tokens."""
        settings.verbose = verbose

    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name, entry in sorted(found.items()):
        try:
            function = entry.load()
        except Exception as error:  # whatever is wrong with one verb, the others work
            _add_broken(app, name, error, settings)
        else:
            app.command(name)(guarded(function, settings))
    return app


def guarded(function: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    """Makes a mistake of the user one red sentence and exit status 2."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (ImportError, ValueError, OSError) as error:
            if settings.verbose:
                raise
            _fail(explain(error))

    return call


def explain(error: Exception) -> str:
    """One sentence for the user about an error."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        return f"this needs {module}, which is not installed: pip install {provider(module)}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def provider(module: str) -> str:
    """What to give to `pip install` for a module: an extra of tokenlm if one brings it."""
    try:
        requirements = requires("tokenlm") or []
    except PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match and match[1].replace("-", "_").lower() == module.lower():
            return f"'tokenlm[{match[2]}]'"
    return module


def _add_broken(app: typer.Typer, name: str, error: Exception, settings: Settings) -> None:
    """Adds a hidden verb that says why it cannot be used."""

    def broken() -> None:
        if settings.verbose:
            raise error
        _fail(f"{name} cannot be used: {explain(error)}")

    anything = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, hidden=True, context_settings=anything)(broken)


def _fail(sentence: str) -> NoReturn:
    typer.secho(f"error: {sentence}", fg=typer.colors.RED, err=True)
    raise typer.Exit(MISTAKE)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tokenlm {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
