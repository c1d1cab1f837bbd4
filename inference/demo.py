"""Speaks a sentence in a cloned voice with the embedded bundle: `make demo`.

    python -m inference.demo [--output FOLDER] [--text TEXT]

Writes `out.wav`, the speech, and `mel.png`, its mel spectrogram.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenlm.console import ProgressBar

if TYPE_CHECKING:
    from tokenlm import Synthesizer

TEXT = "Hello! This voice was cloned from a few seconds of speech, on this very computer."
PROMPT = "demo_prompt"
"""Stem of the recording (wav) and its text (txt) in the bundle whose voice is cloned."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m inference.demo")
    parser.add_argument("--bundle", default="mini-en", help="name of a bundle or its folder")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write to")
    parser.add_argument("--text", default=TEXT, help="text to say")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        demonstrate(options.bundle, options.output, options.text, options.seed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def demonstrate(bundle: str, folder: Path, text: str, seed: int) -> None:
    """Clones the prompt of a bundle, speaks, writes audio and spectrogram, and prints timings.

    Raises:
        ValueError: there is no such bundle, or the text cannot be said.
    """
    start = time.perf_counter()
    sound, picture = folder / "out.wav", folder / "mel.png"
    with ProgressBar("loading") as progress:
        from tokenlm import Synthesizer, Voice
        from tokenlm.audio.io import save_audio

        synthesizer = Synthesizer.from_pretrained(bundle)
        loaded = time.perf_counter()
        progress.describe("listening")
        prompt = synthesizer.components.folder / f"{PROMPT}.wav"
        voice: Voice | None = None
        if prompt.is_file():
            words = prompt.with_suffix(".txt").read_text(encoding="utf-8")
            voice = synthesizer.prepare_voice(prompt, words)
        begun = time.perf_counter()
        progress.describe("speaking")
        speech = synthesizer.generate(text, voice=voice, seed=seed, on_progress=progress.update)
        ended = time.perf_counter()
        progress.describe("drawing")
        seconds = speech.shape[0] / synthesizer.sample_rate
        name = synthesizer.components.manifest.name
        comment = f"Synthesised speech, not a recording: tokenlm, bundle {name}, seed {seed}"
        save_audio(sound, speech, synthesizer.sample_rate, comment=comment)
        draw_mel(picture, synthesizer, sound)
    print(f"text              {text}")
    print(f"voice             {prompt if voice is not None else synthesizer.voices[0]}")
    print(f"speech            {sound.resolve()} ({seconds:.2f} s)")
    print(f"mel spectrogram   {picture.resolve()}")
    print(f"loading           {loaded - start:.2f} s")
    print(f"cloning           {begun - loaded:.2f} s")
    print(f"speaking          {ended - begun:.2f} s")
    print(f"real-time factor  {(ended - begun) / seconds:.2f}")


def draw_mel(path: Path, synthesizer: Synthesizer, sound: Path) -> None:
    """Draws the mel spectrogram of an audio file, as the models of a synthesizer see it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from tokenlm.atomic import atomic_path
    from tokenlm.audio.io import load_audio
    from tokenlm.audio.mel import MelSpectrogram

    config = synthesizer.components.flow.config.mel
    mel = MelSpectrogram(config)(load_audio(sound, config.sample_rate)[None])[0]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seconds = mel.shape[0] / config.frame_rate
    image = axes.imshow(
        mel.T.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0.0, seconds, 0.0, float(config.num_mels)),
    )
    axes.set_xlabel("seconds")
    axes.set_ylabel("mel bin")
    figure.colorbar(image, ax=axes, label="natural logarithm")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
