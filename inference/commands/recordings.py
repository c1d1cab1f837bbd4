"""Verbs that take recordings: enhance, transcribe, tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inference.commands.options import BundleOption, DeviceOption, OutputOption
from inference.commands.speech import check_output, load_synthesizer
from tokenlm.checkpoint.resolve import resolve
from tokenlm.console import ProgressBar

if TYPE_CHECKING:
    from tokenlm.checkpoint.registry import AnySpeechTokenizer


def transcribe(
    recording: Annotated[Path, typer.Argument(help="Recording to write down.")],
    bundle: BundleOption = "mini-en",
    device: DeviceOption = "cpu",
) -> None:
    """Transcribe a recording with the recogniser of the bundle's speech tokens."""
    from tokenlm.audio.io import check_recording

    check_recording(recording)
    with ProgressBar("listening"):
        text = load_synthesizer(bundle, device).transcribe(recording)
    typer.echo(text)


def enhance(
    recording: Annotated[Path, typer.Argument(help="Recording of speech, of any length.")],
    output: OutputOption = Path("out.wav"),
    method: Annotated[
        Literal["isolation", "recovery"] | None,
        typer.Option(
            "--method",
            help="isolation masks what is no voice; recovery makes the sound anew by the vocoder.",
            show_default="isolation",
        ),
    ] = None,
    always: Annotated[
        bool, typer.Option("--always", help="Enhance clean recordings, too, which are left alone.")
    ] = False,
    calibration: Annotated[
        float | None,
        typer.Option(
            "--calibration",
            help="Sound pressure in dB SPL of 0 dBFS on the microphone, where it is known.",
        ),
    ] = None,
    bundle: BundleOption = "mini-en",
    device: DeviceOption = "cpu",
) -> None:
    """Take noise, other voices and the room out of a recording, at its own rate and level."""
    from tokenlm.audio.io import check_recording, recording_seconds

    check_output(output)
    check_recording(recording)
    with ProgressBar("loading") as progress:
        from tokenlm.synthesis.enhancing import Enhancer

        enhancer = Enhancer.from_pretrained(bundle, device=device)
        seconds = recording_seconds(recording)
        progress.describe("enhancing")
        condition, used = enhancer.enhance_file(
            recording,
            output,
            method=method,
            always=always,
            on_progress=lambda done: progress.update(min(done / seconds, 1.0)),
        )
    for problem in condition.problems(calibration):
        typer.echo(f"warning: {problem}", err=True)
    done = "clean, left as it is" if used is None else f"enhanced by {used}"
    typer.echo(f"{output}: {seconds:.2f} s, {condition}; {done}")


def tokens(
    sources: Annotated[list[Path], typer.Argument(help="Recordings, or manifests (JSONL).")],
    bundle: BundleOption = "mini-en",
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Most recordings that are read; 0 is all.")
    ] = 0,
) -> None:
    """Report how many codes of the speech tokenizer recordings use, and how evenly."""
    folder = resolve(bundle)
    paths = [path for source in sources for path in list_recordings(source)]
    paths = paths[:limit] if limit else paths
    import torch

    from tokenlm.audio.io import AudioError, load_audio
    from tokenlm.models.speech_tokenizer import codebook_usage

    tokenizer = load_tokenizer(folder)
    rate = tokenizer.config.mel.sample_rate
    found, num_samples = [], 0
    with ProgressBar("listening") as progress:
        for number, path in enumerate(paths):
            try:
                waveform = load_audio(path, rate)
                found.append(tokenizer.encode(waveform[None])[0][0])
                num_samples += waveform.shape[0]
            except AudioError as error:
                typer.echo(f"left out: {error}", err=True)
            except ValueError as error:
                typer.echo(f"left out: {path}: {error}", err=True)
            progress.update((number + 1) / len(paths))
    if not found:
        raise ValueError("there is no recording that can be read.")
    usage = codebook_usage(torch.cat(found), tokenizer.config.codebook_size)
    typer.echo(f"recordings   {len(found)}, {num_samples / rate:.1f} s")
    typer.echo(f"tokens       {sum(len(row) for row in found)}")
    typer.echo(f"codebook     {tokenizer.config.codebook_size}")
    typer.echo(f"utilisation  {usage['codebook_utilisation']:.4f}")
    typer.echo(
        f"perplexity   {usage['codebook_perplexity']:.1f} "
        f"({usage['relative_perplexity']:.4f} of the codebook)"
    )


def load_tokenizer(name: str | Path) -> AnySpeechTokenizer:
    """The speech tokenizer of a bundle, or of its own component folder."""
    from tokenlm.checkpoint.registry import SPEECH_TOKENIZERS, load_model

    folder = resolve(name)
    inside = folder / "speech_tokenizer"
    return load_model(inside if inside.is_dir() else folder, *SPEECH_TOKENIZERS)


def list_recordings(source: Path) -> list[Path]:
    """A recording itself, or those of a manifest; rows that name none are reported by line.

    Raises:
        ValueError: the manifest cannot be read.
    """
    if source.suffix != ".jsonl":
        return [source]
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not a manifest: it is not UTF-8 text.") from error
    paths = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            paths.append(source.parent / row["audio"])
        except (json.JSONDecodeError, KeyError, TypeError):
            typer.echo(f"left out: {source}:{number}: the row names no audio.", err=True)
    return paths
