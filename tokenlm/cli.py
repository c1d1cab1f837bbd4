"""The command line, `tokenlm VERB ...` or `tokenlm GROUP VERB ...`.

Verbs are the entry points of the group `tokenlm.commands` (name = verb or group.verb, value =
function), so that this module imports no layer above it, and another package can add its own. The
module of a verb imports heavy libraries inside its functions, and only that of the verb that is
asked for is imported: help, version and errors of usage come at once.
"""

from __future__ import annotations

import functools
import gc
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from tokenlm import __version__
from tokenlm.console import show_details
from tokenlm.installation import install_command_for

GROUP = "tokenlm.commands"
VERB_GROUPS = {
    "data": "Corpora: import, check, refine, prepare for training.",
    "lexicon": "Pronunciations of your own.",
    "personal": "Your own voice: sentences to read, takes and their checks, recordings.",
    "trigger": "Phrases that wake: train what hears them, and measure it.",
    "export": "Bundles: put one together, or write one for other systems.",
}
"""Help of the groups of verbs; a group that is not listed here has none."""
UNNAMED_VERBS = {"export": "bundle"}
"""Verb of a group that is meant where none is named: `tokenlm export OUTPUT ...` is
`tokenlm export bundle OUTPUT ...`."""
FORMER_VERBS = {"import-data": "import"}
"""Verbs of earlier versions and what they are called in their group."""
MISTAKE = 2
"""Exit status after a mistake of the user."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as of every program that SIGINT ends."""

_OPTION = re.compile(r"--?[A-Za-z][\w-]*|--[A-Za-z][\w-]*=.*|-[A-Za-z]\S*\.\w+", re.DOTALL)
"""What is an option, perhaps with its value, and no text that begins with a dash."""


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
    accept_all_characters()
    logging.basicConfig(format="%(message)s")
    build_app(sys.argv[1:])()


def accept_all_characters() -> None:
    """Lets output that goes to a pipe or a file hold what its encoding lacks.

    On Windows that is the one of the region, in which IPA and names of voices may not be written.
    """
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
        if encoding not in ("utf8", "utf16") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class VerbCommand(TyperCommand):
    """A verb that takes texts that begin with a dash ("- hello", "-5 degrees") for what they are.

    What cannot be an option is put behind `--`, which ends them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        taking = {
            name
            for parameter in self.params
            if parameter.param_type_name == "option" and not getattr(parameter, "is_flag", False)
            for name in parameter.opts
        }
        options, words, waits = [], [], False
        for place, word in enumerate(args):
            if word == "--" and not waits:
                words += args[place + 1 :]
                break
            is_word = word.startswith("-") and word != "-" and not _OPTION.fullmatch(word)
            (words if is_word and not waits else options).append(word)
            waits = not waits and word in taking
        try:
            return super().parse_args(ctx, [*options, "--", *words] if words else options)
        except Exception as error:
            has_text = any(parameter.name == "text" for parameter in self.params)
            if has_text and type(error).__name__ == "NoSuchOption":
                error.message += "; a text that begins with a dash is given behind --"  # type: ignore[attr-defined]
            raise


def build_app(words: Sequence[str] = ()) -> typer.Typer:
    """Builds the command line out of the verbs that are installed.

    Args:
        words: what was typed. Where it names a verb, the others are left out.
    """
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
            bool,
            typer.Option(
                "--verbose", "-v", help="Log what is done, and show where an error comes from."
            ),
        ] = False,
    ) -> None:
        """Text-to-speech with models that speak in tokens."""
        settings.verbose = verbose
        if verbose:
            show_details()

    groups = {"": app}
    for name, entry in sorted(_asked_for(words).items()):
        group, _, verb = name.rpartition(".")
        if group not in groups:
            groups[group] = typer.Typer(help=VERB_GROUPS.get(group), no_args_is_help=True)
            app.add_typer(groups[group], name=group)
        try:
            function = entry.load()
        except Exception as error:  # whatever is wrong with one verb, the others work
            _add_broken(groups[group], verb, error, settings)
        else:
            groups[group].command(verb, cls=VerbCommand)(guarded(function, settings))
    _add_moved(app, words, settings)
    _add_unknown(groups, words, settings)
    return app


def _add_moved(app: typer.Typer, words: Sequence[str], settings: Settings) -> None:
    """Adds a hidden verb in place of one that is in a group, which says where it is."""
    name = next((word for word in words if not word.startswith("-")), "")
    verbs = installed_verbs()
    if not name or name in verbs or any(verb.startswith(f"{name}.") for verb in verbs):
        return
    known = FORMER_VERBS.get(name, name)
    found = sorted(
        verb
        for verb in verbs
        if "." in verb and known in (verb.rpartition(".")[2], verb.replace(".", "-"))
    )
    if found:
        told = "it is " + " or ".join(f"`tokenlm {verb.replace('.', ' ')}`" for verb in found)
        _add_broken(app, name, ValueError(told), settings)


def _add_unknown(groups: dict[str, typer.Typer], words: Sequence[str], settings: Settings) -> None:
    """Adds a hidden verb in place of one that a group lacks, which says what it has."""
    named = [word for word in words if not word.startswith("-")][:2]
    group, verb = named if len(named) == 2 else ("", "")
    start = f"{group}."
    has = sorted(name.removeprefix(start) for name in installed_verbs() if name.startswith(start))
    if group not in groups or not has or not verb or verb in has:
        return
    told = f"`tokenlm {group}` has no verb {verb!r}; it has {', '.join(has)}."
    if unnamed := UNNAMED_VERBS.get(group):
        told += f" Without one it is `tokenlm {group} {unnamed}`: see its --help."
    _add_broken(groups[group], verb, ValueError(told), settings, is_known=False)


@functools.cache
def installed_verbs() -> dict[str, EntryPoint]:
    """The verbs by name. Cached: the metadata of every installed package is read for it."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _asked_for(words: Sequence[str]) -> dict[str, EntryPoint]:
    """The verbs by name: the one that `words` name, or those of the group, or all."""
    verbs = installed_verbs()
    first = next((at for at, word in enumerate(words) if not word.startswith("-")), len(words))
    named = list(words[first : first + 2])
    for name in (".".join(named), *named[:1]):
        if name in verbs:
            return {name: verbs[name]}
    if named:
        inside = {n: entry for n, entry in verbs.items() if n.startswith(f"{named[0]}.")}
        unnamed = f"{named[0]}.{UNNAMED_VERBS.get(named[0])}"
        # Its arguments have the form COMPONENT=FOLDER, which no name of a verb has.
        if unnamed in verbs and any("=" in word for word in words[first + 1 :]):
            return {named[0]: verbs[unnamed]}
        return inside or verbs
    return verbs


def guarded(function: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    """Makes a mistake of the user one red sentence and exit status 2, and Ctrl-C status 130.

    What a verb has to say after Ctrl-C is the message of the `KeyboardInterrupt` that it raises.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt as interrupt:
            if interrupt.args:
                typer.echo(f"interrupted: {interrupt}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (ImportError, ValueError, OSError) as error:
            if settings.verbose:
                raise
            _fail(explain(error))

    return call


def explain(error: Exception) -> str:
    """One sentence for the user about an error."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        return f"this needs {module}, which is not installed: {install_command_for(module)}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _add_broken(
    app: typer.Typer, name: str, error: Exception, settings: Settings, *, is_known: bool = True
) -> None:
    """Adds a hidden verb that says why it cannot be used."""

    def broken() -> None:
        if settings.verbose:
            raise error
        _fail(f"{name} cannot be used: {explain(error)}" if is_known else explain(error))

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
