"""Verbs that speak: clone, say, convert."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference.commands.options import (
    BundleOption,
    ContextOption,
    DeviceOption,
    GuidanceOption,
    OutputOption,
    PromptAudioOption,
    PromptTextOption,
    SeedOption,
    StepsOption,
    TextArgument,
    TextFileOption,
)
from inference.commands.progress import DelayedProgress

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlm.synthesis import Synthesizer, Voice


def clone(
    text: TextArgument = None,
    *,
    prompt_audio: Annotated[
        Path, typer.Option("--prompt-audio", help="Recording of the voice, some seconds of it.")
    ],
    prompt_text: PromptTextOption = None,
    output: OutputOption = Path("out.wav"),
    text_file: TextFileOption = None,
    seed: SeedOption = 0,
    bundle: BundleOption = "mini-en",
    context: ContextOption = "default",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Say a text in the voice of a recording."""
    words = _read_text(text, text_file)
    with DelayedProgress("loading") as progress:
        check_output(output)
        synthesizer = load_synthesizer(bundle, device)
        progress.describe("listening")
        voice = synthesizer.prepare_voice(prompt_audio, prompt_text)
        progress.describe("speaking")
        speech, seconds = timed(
            lambda: synthesizer.generate(
                words,
                voice=voice,
                seed=seed,
                context=context,
                num_steps=steps,
                guidance_scale=guidance,
                on_progress=progress.update,
            )
        )
    write_speech(output, speech, synthesizer, voice=voice, seed=seed, seconds=seconds)


def say(
    text: TextArgument = None,
    *,
    voice: Annotated[
        str | None,
        typer.Option("--voice", help="Voice of the bundle, or a voice file.  [default: the first]"),
    ] = None,
    output: OutputOption = Path("out.wav"),
    text_file: TextFileOption = None,
    seed: SeedOption = 0,
    bundle: BundleOption = "mini-en",
    context: ContextOption = "default",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Say a text in a voice of the bundle, or in one that `prepare-voice` made."""
    words = _read_text(text, text_file)
    with DelayedProgress("loading") as progress:
        check_output(output)
        synthesizer = load_synthesizer(bundle, device)
        chosen = _choose_voice(synthesizer, voice, None, None)
        progress.describe("speaking")
        speech, seconds = timed(
            lambda: synthesizer.generate(
                words,
                voice=chosen,
                seed=seed,
                context=context,
                num_steps=steps,
                guidance_scale=guidance,
                on_progress=progress.update,
            )
        )
    write_speech(output, speech, synthesizer, voice=chosen, seed=seed, seconds=seconds)


def convert(
    source: Annotated[Path, typer.Argument(help="Recording to say again.")],
    *,
    voice: Annotated[
        str | None, typer.Option("--voice", help="Voice of the bundle, or a voice file.")
    ] = None,
    prompt_audio: PromptAudioOption = None,
    prompt_text: PromptTextOption = None,
    output: OutputOption = Path("out.wav"),
    seed: SeedOption = 0,
    bundle: BundleOption = "mini-en",
    context: ContextOption = "default",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Say what a recording says in another voice."""
    if (voice is None) == (prompt_audio is None):
        raise ValueError("give the new voice as either --voice or --prompt-audio.")
    with DelayedProgress("loading") as progress:
        check_output(output)
        synthesizer = load_synthesizer(bundle, device)
        chosen = _choose_voice(synthesizer, voice, prompt_audio, prompt_text)
        progress.describe("speaking")
        speech, seconds = timed(
            lambda: synthesizer.convert(
                source,
                voice=chosen,
                seed=seed,
                context=context,
                num_steps=steps,
                guidance_scale=guidance,
            )
        )
    write_speech(output, speech, synthesizer, voice=chosen, seed=seed, seconds=seconds)


def load_synthesizer(bundle: str, device: str = "cpu") -> Synthesizer:
    """Loads a bundle on a device.

    Raises:
        ValueError: there is no such bundle or device.
    """
    import torch

    from tokenlm.synthesis import Synthesizer

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the device {device!r} cannot be used: {reason}") from error
    return Synthesizer.from_pretrained(bundle, device=device)


def check_output(path: Path) -> None:
    """Checks that a sound file can be written to `path`, before any work is done for it.

    Raises:
        ValueError: it has another suffix, or is a folder.
    """
    from tokenlm.audio.io import WRITABLE_SUFFIXES

    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ValueError(
            f"{path}: sound is written to files that end in {', '.join(WRITABLE_SUFFIXES)}."
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder.")


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What `work` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def write_speech(
    path: Path,
    speech: Tensor,
    synthesizer: Synthesizer,
    *,
    voice: Voice,
    seed: int,
    seconds: float,
) -> None:
    """Writes synthesised speech, marked as such, and says what it took.

    Args:
        path: sound file.
        speech: (S,) at the rate of the synthesizer.
        synthesizer: what made it.
        voice: whose voice it is in.
        seed: of its draws.
        seconds: time that it took to make.
    """
    from tokenlm import __version__
    from tokenlm.audio.io import save_audio

    bundle = synthesizer.components.manifest.name
    rate = synthesizer.sample_rate
    save_audio(
        path,
        speech,
        rate,
        comment=(
            f"Synthesised speech, not a recording: tokenlm {__version__}, bundle {bundle}, "
            f"voice {voice.name}, seed {seed}"
        ),
    )
    length = speech.shape[0] / rate
    typer.echo(
        f"{path}: {length:.2f} s of speech in {seconds:.2f} s "
        f"(real-time factor {seconds / length:.2f})"
    )


def _choose_voice(
    synthesizer: Synthesizer,
    name: str | None,
    prompt_audio: Path | None,
    prompt_text: str | None,
) -> Voice:
    if prompt_audio is not None:
        return synthesizer.prepare_voice(prompt_audio, prompt_text)
    if name is None:
        if not synthesizer.voices:
            raise ValueError("the bundle has no voices: use clone with a recording.")
        name = synthesizer.voices[0]
    return synthesizer.voice(name)


def _read_text(text: str | None, text_file: str | None) -> str:
    """The text of the argument, of a file or of standard input."""
    if (text is None) == (text_file is None):
        raise ValueError("give the text as either an argument or --text-file.")
    if text is not None:
        return text
    assert text_file is not None
    data = sys.stdin.buffer.read() if text_file == "-" else Path(text_file).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{text_file} is not UTF-8 text.") from error
