"""Make prompts of a real person from the recordings that come with Debian's alsa-utils.

    scripts/alsa_recordings recordings
    tokenlm evaluate --bundle mini-en --heldout CORPUS/heldout.jsonl --recordings recordings

The package names the loudspeakers of a room ("Front Left", "Rear Center") to test them. The words
are joined to prompts of 1 to 10 s, which are written to OUTPUT with their `manifest.jsonl`. Nothing
is downloaded, and the recordings stay what they are: those of the package.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tokenlm.audio.io import load_audio, save_audio
from tokenlm.audio.level import trim_silence
from training.data.manifest import Utterance, write_manifest
from training.evaluation.prompts import join
from training.evaluation.recordings import MANIFEST_FILE, MIN_SECONDS

SOURCE = Path("/usr/share/sounds/alsa")
INSTALL = "apt-get install --no-install-recommends alsa-utils"
WORDS = (
    "Front Left",
    "Front Center",
    "Front Right",
    "Side Right",
    "Rear Right",
    "Rear Center",
    "Rear Left",
    "Side Left",
)
"""What the recordings say, around the room; their noise is no voice."""
NUM_JOINED = (1, 1, 2, 2, 3, 3, 4, 5)
"""How many of them each prompt joins."""
SAMPLE_RATE = 48_000
"""Of the recordings, in hertz."""


def make_recordings(source: Path, output: Path) -> list[Utterance]:
    """Write the prompts and their manifest.

    Args:
        source: folder of the package's recordings.
        output: folder of the prompts; made where there is none.

    Raises:
        ValueError: a recording is not there, or cannot be read.
    """
    paths = [source / f"{words.replace(' ', '_')}.wav" for words in WORDS]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{missing[0]}: there is no such recording. It comes with: {INSTALL}")
    whole = [load_audio(path, SAMPLE_RATE) for path in paths]
    rows: list[Utterance] = []
    place = 0
    for number, count in enumerate(NUM_JOINED):
        chosen = [(place + step) % len(WORDS) for step in range(count)]
        place += count
        pieces = [trim_silence(whole[index], SAMPLE_RATE) for index in chosen]
        waveform = join(pieces, SAMPLE_RATE)
        # A single one may be shorter than a prompt has to be.
        missing_samples = round(MIN_SECONDS * SAMPLE_RATE) - waveform.shape[0]
        waveform = torch.nn.functional.pad(waveform, (0, max(missing_samples, 0)))
        path = output / f"alsa-{number}.wav"
        save_audio(path, waveform, SAMPLE_RATE)
        rows.append(
            Utterance(
                id=path.stem,
                audio=path,
                text=" ".join(f"{WORDS[index].capitalize()}." for index in chosen),
                speaker="alsa",
                duration=round(waveform.shape[0] / SAMPLE_RATE, 4),
            )
        )
    write_manifest(output / MANIFEST_FILE, rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words of the command line, None for those of the process.

    Returns:
        0; 1 after a mistake that was explained in a sentence.
    """
    parser = argparse.ArgumentParser(
        prog="alsa_recordings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="folder of the prompts")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the recordings")
    given = parser.parse_args(arguments)
    try:
        rows = make_recordings(given.source, given.output)
    except ValueError as error:
        print(f"alsa_recordings: {error}", file=sys.stderr)
        return 1
    for row in rows:
        print(f"{row.duration:5.2f} s  {row.text}")
    print(f"Written to {given.output / MANIFEST_FILE}.")
    return 0
