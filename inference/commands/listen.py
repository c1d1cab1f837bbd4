"""The verb listen: a trigger hears a file or the microphone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference.commands.speech import load_synthesizer

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlm.trigger.cascade import Event


def listen(
    trigger: Annotated[
        Path, typer.Argument(help="Folder of a trigger, as `tokenlm trigger train` makes it.")
    ],
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Recordings; without any, the microphone is heard.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--microphone", help="Number or name of the microphone.", show_default="the system's"
        ),
    ] = None,
    bundle: Annotated[
        str,
        typer.Option(
            help="Bundle that writes down what follows a phrase, for a trigger that tells by words "
            "whether it was meant for the device."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Listen for phrases; print what is decided, with scores, and where speech ends."""
    from tokenlm.audio.io import load_audio
    from tokenlm.trigger.cascade import Trigger
    from tokenlm.trigger.cascade import listen as hear

    heard = Trigger.load(trigger, transcribe=_transcriber(bundle) if bundle else None)
    if not recordings:
        _hear_microphone(heard, device, as_json)
        return
    for path in recordings:
        report = hear(heard, load_audio(path, 16_000))
        if as_json:
            events = [_fields(event) for event in report.events]
            facts = {"recording": str(path), "reason": report.reason, "notes": report.notes}
            typer.echo(json.dumps({**facts, "events": events}, ensure_ascii=False))
            continue
        typer.echo(f"{path}: {report.reason}" + "".join(f"; {note}" for note in report.notes))
        for event in report.events:
            typer.echo(f"  {describe(event)}")


def _transcriber(bundle: str) -> Callable[[Tensor], str]:
    synthesizer = load_synthesizer(bundle, "cpu")
    return lambda waveform: synthesizer.transcribe(waveform, sample_rate=16_000)


def _hear_microphone(trigger: Any, device: str | None, as_json: bool) -> None:
    from tokenlm.audio.microphone import Microphone

    stream = trigger.stream()
    with Microphone(device) as microphone:
        typer.echo(f"Listening for {', '.join(trigger.config.phrases)}; Ctrl-C ends it.", err=True)
        for samples in resampled(microphone.blocks(), microphone.sample_rate):
            for event in stream.push(samples):
                line = json.dumps(_fields(event)) if as_json else describe(event)
                typer.echo(line)


def resampled(blocks: Iterator[Tensor], sample_rate: int) -> Iterator[Tensor]:
    """Blocks (S,) at a rate in Hz as blocks at 16 kHz, without seams."""
    import soxr
    import torch

    stream = soxr.ResampleStream(sample_rate, 16_000, 1, dtype="float32")
    for block in blocks:
        yield torch.from_numpy(stream.resample_chunk(block.numpy()))


def describe(event: Event) -> str:
    """A line about what was decided."""
    from tokenlm.trigger.cascade import Decision

    if not isinstance(event, Decision):
        line = f"{event.seconds:.2f} s  end of speech: {event.reason}"
        if event.is_directed is not None:
            scores = ", ".join(f"{name} {value:.2f}" for name, value in event.scores.items())
            line += f"; {'meant' if event.is_directed else 'not meant'} for the device  [{scores}]"
        return line
    scores = ", ".join(f"{name} {value:.2f}" for name, value in event.scores.items())
    outcome = "accepted" if event.is_accepted else "refused"
    return (
        f'{event.start_seconds:.2f}–{event.end_seconds:.2f} s  {outcome} "{event.phrase}": '
        f"{event.reason}  [{scores}]"
    )


def _fields(event: Event) -> dict[str, Any]:
    return {"event": type(event).__name__, **asdict(event)}
