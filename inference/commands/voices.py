"""Verbs about voices: voices, prepare-voice, design-voice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from inference.commands.consent import read_statement, spoken_consent, stated_consent
from inference.commands.options import (
    BundleOption,
    ConsentBundleOption,
    DeviceOption,
    EnhanceOption,
    ForOthersOption,
    LexiconOption,
    WhoOption,
    read_lexicon,
)
from inference.commands.speech import load_synthesizer
from tokenlm.checkpoint.resolve import find_voices, resolve
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
    enhance: EnhanceOption = False,
    lexicon: LexiconOption = None,
    for_others: ForOthersOption = False,
    consent_bundle: ConsentBundleOption = "",
    who: WhoOption = None,
    statement: Annotated[
        str | None,
        typer.Option(
            "--statement",
            help="What this person agreed to; stored in the voice.",
            show_default="asked for",
        ),
    ] = None,
    consent: Annotated[
        Path | None,
        typer.Option(
            "--consent",
            help="YAML file in which an operator states, once, that all persons agreed: operator,"
            " statement.",
            show_default="none",
        ),
    ] = None,
    synthetic_detector: Annotated[
        Path | None,
        typer.Option(
            "--synthetic-detector",
            help="Model that says whether the spoken sentence is itself synthetic.",
            show_default="none",
        ),
    ] = None,
    bundle: BundleOption = "mini-en",
    device: DeviceOption = "cpu",
) -> None:
    """Make a voice file of a recording, to be used with `say` and `convert`."""
    from inference.consent.settings import ConsentConfig
    from tokenlm.audio.io import check_recording

    path = Path(f"{recording.stem}.voice") if output is None else output
    if path.suffix != ".voice":
        raise ValueError(f"{path}: a voice file ends in .voice.")
    check_recording(recording)
    own, operator = read_lexicon(lexicon), read_statement(consent)
    if for_others and (statement or consent):
        raise ValueError("--for-others listens to a sentence; it takes no statement in writing.")
    with ProgressBar("loading"):
        synthesizer = load_synthesizer(bundle, device)
    spoken = None
    if for_others:
        config = ConsentConfig(synthetic_detector=synthetic_detector, bundle=consent_bundle)
        spoken = spoken_consent(synthesizer, recording, who, config)
    with ProgressBar("listening"):
        voice = synthesizer.prepare_voice(recording, text, name=name, enhance=enhance)
        if own:
            synthesizer.components.text_tokenizer.with_lexicon(own)  # which checks its phones
            voice = replace(voice, lexicon=own.text)
    if spoken is None:
        voice = stated_consent(voice, recording, who, statement, operator)
    else:
        manager, evidence = spoken
        voice = manager.seal(voice, evidence)
    voice.save(path)
    seconds = voice.prompt_tokens.shape[0] / synthesizer.components.flow.config.token_rate
    typer.echo(f"{path}: the voice {voice.name}, from {seconds:.2f} s of speech")


def design_voice(
    output: Annotated[Path, typer.Option("--output", "-o", help="Voice file to write.")],
    describe: Annotated[
        str, typer.Option("--describe", help="In words: a calm older man.", show_default="none")
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An attribute in standard deviations, -3 to 3: pitch=-1.5; may be repeated.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Voice that is changed, or a mixture: ann:0.7+bob:0.3.",
            show_default="none: a new one",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is left open.")] = 0,
    bundle: BundleOption = "mini-en",
    device: DeviceOption = "cpu",
) -> None:
    """Design a voice that nobody has, by words and attributes, or mix some; for `say`."""
    if output.suffix != ".voice":
        raise ValueError(f"{output}: a voice file ends in .voice.")
    attributes = dict(_read_attribute(text) for text in settings or [])
    if not (describe.strip() or attributes or base):
        raise ValueError("say what voice it is to be: --describe, --set or --base.")
    folder = resolve(bundle)
    if base is not None:
        find_voices(folder, base)
    with ProgressBar("designing"):
        synthesizer = load_synthesizer(bundle, device)
        if base is not None and not (describe.strip() or attributes):
            voice = replace(synthesizer.voice(base), name=output.stem)
        else:
            voice = synthesizer.design_voice(
                attributes, description=describe, base=base, seed=seed, name=output.stem
            )
        voice.save(output)
    typer.echo(f"{output}: the voice {voice.name}; {voice.description or base}")


def _read_attribute(text: str) -> tuple[str, float]:
    """The name and value of an option such as `pitch=-1.5`.

    Raises:
        ValueError: it is none.
    """
    name, equals, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise ValueError(f"--set takes an attribute and a number, pitch=-1.5, not {text!r}.") from (
            None
        )
