"""Verbs about voices: voices, prepare-voice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from inference.commands.options import BundleOption, DeviceOption, LexiconOption
from inference.commands.speech import load_synthesizer, read_lexicon
from tokenlm.checkpoint.resolve import resolve
from tokenlm.console import ProgressBar


def voices(bundle: BundleOption = "mini-en") -> None:
    """List the voices of a bundle."""
    folder = resolve(bundle)
    from tokenlm.checkpoint import read_manifest
    from tokenlm.checkpoint.registry import read_model_config
    from tokenlm.synthesis import Voice

    read_manifest(folder)
    token_rate = read_model_config(folder / "flow").token_rate
    paths = sorted((folder / "voices").glob("*.voice"))
    if not paths:
        typer.echo(f"{folder} has no voices; make one with: tokenlm prepare-voice")
        return
    width = max(len(path.stem) for path in paths)
    for path in paths:
        voice = Voice.load(path)
        seconds = voice.prompt_tokens.shape[0] / token_rate
        facts = f"{path.stem:<{width}}  {seconds:4.1f} s  {voice.description or voice.prompt_text}"
        typer.echo(facts.rstrip())


def prepare_voice(
    recording: Annotated[Path, typer.Argument(help="Recording of the voice, some seconds of it.")],
    text: Annotated[
        str | None, typer.Option("--text", help="What it says; better speech if given.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Voice file to write.", show_default="name of the recording"
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the voice.", show_default="that of the file"),
    ] = None,
    lexicon: LexiconOption = None,
    bundle: BundleOption = "mini-en",
    device: DeviceOption = "cpu",
) -> None:
    """Make a voice file of a recording, to be used with `say` and `convert`."""
    from tokenlm.audio.io import check_recording

    path = Path(f"{recording.stem}.voice") if output is None else output
    if path.suffix != ".voice":
        raise ValueError(f"{path}: a voice file ends in .voice.")
    check_recording(recording)
    own = read_lexicon(lexicon)
    with ProgressBar("listening"):
        synthesizer = load_synthesizer(bundle, device)
        voice = synthesizer.prepare_voice(recording, text, name=name)
        if own:
            synthesizer.components.text_tokenizer.with_lexicon(own)  # which checks its phones
            voice = replace(voice, lexicon=own.text)
        voice.save(path)
    seconds = voice.prompt_tokens.shape[0] / synthesizer.components.flow.config.token_rate
    typer.echo(f"{path}: the voice {voice.name}, from {seconds:.2f} s of speech")
