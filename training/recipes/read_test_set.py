"""Lets the teacher read a set of texts in held-out voices, so that its reading stands beside ours.

    scripts/read_test_set development TEACHER OUTPUT
    tokenlm evaluate --bundle B --set OUTPUT/development.jsonl --heldout HELDOUT

TEACHER is the folder of `scripts/fetch_teacher`, HELDOUT the manifest of its held-out voices. The
set in OUTPUT has the same lines, each with its recording and the held-out speaker in whose voice it
is read and to be spoken. Figures and signs are read as they should be spoken. What is in place is
left alone, so that an interrupted call goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from tokenlm.atomic import write_text
from tokenlm.audio.io import save_audio
from training.evaluation.run import make_progress, make_tracker
from training.evaluation.sets import Line, TextSet, find_text_sets
from training.recipes.corpus.engines import EngineError, Request
from training.recipes.corpus.kokoro import SAMPLE_RATE, Kokoro

VOICES = ("af_sky", "am_liam", "bf_lily", "bm_fable")
"""Voices that no stage has: those of `heldout_natural.jsonl`."""
PAUSE_SECONDS = 0.25
"""Between parts of a text that is too long to be read at once."""
MIN_PART_WORDS = 8


def read_set(
    texts: TextSet, teacher: Kokoro, output: Path, voices: Sequence[str], console: Console
) -> Path:
    """Write a set whose lines name their recordings.

    Args:
        texts: the set.
        teacher: who reads it.
        output: folder of the recordings and the set.
        voices: of the teacher; line n is read by voice n, counted round.
        console: shows progress.

    Returns:
        The path of the set.

    Raises:
        EngineError: there is no such voice, or a line cannot be read.
    """
    folder = output / texts.name
    rows = []
    with make_progress(console) as progress:
        track = make_tracker(progress, f"{texts.name}: the teacher reads")
        for number, line in enumerate(track(texts.lines)):
            voice = voices[number % len(voices)]
            path = folder / f"{line.id}.flac"
            if not path.exists():
                waveform = torch.from_numpy(read_line(readable(line), voice, teacher))
                save_audio(path, waveform, SAMPLE_RATE)
            rows.append(
                {
                    "id": line.id,
                    "category": line.category,
                    "text": line.text,
                    "spoken": line.spoken,
                    "speaker": f"{voice}-f1000",
                    "reference_audio": path.relative_to(output).as_posix(),
                }
            )
    written = output / f"{texts.name}.jsonl"
    write_text(written, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return written


def read_line(text: str, voice: str, teacher: Kokoro) -> np.ndarray:
    """Samples (S,) of a text, in halves where it is too long for the teacher.

    Raises:
        EngineError: it cannot be read.
    """
    try:
        return teacher.speak(Request(text=text, voice=voice)).waveform
    except EngineError:
        words = text.split()
        if len(words) < 2 * MIN_PART_WORDS:
            raise
    middle = len(words) // 2
    # After the mark that is nearest to the middle, or there.
    marks = [place for place in range(1, len(words)) if words[place - 1][-1] in ",.?!;:"]
    cut = min(marks, key=lambda place: abs(place - middle), default=middle)
    if not MIN_PART_WORDS <= cut <= len(words) - MIN_PART_WORDS:
        cut = middle
    parts = [" ".join(words[:cut]), " ".join(words[cut:])]
    first, second = (read_line(part, voice, teacher) for part in parts)
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    return np.concatenate([first, pause, second])


def readable(line: Line) -> str:
    """The text with its marks, or the spoken form: how an engine reads figures is not judged."""
    bare = re.sub(r"[^\w\s',.?!;:]", " ", line.text)
    is_plain = " ".join(re.sub(r"[^\w\s']", " ", line.text).lower().split()) == line.spoken
    return bare if is_plain else line.spoken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 1 after a mistake that was explained in a sentence."""
    parser = argparse.ArgumentParser(
        prog="read_test_set",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", help="name of a set of texts, or its file")
    parser.add_argument("teacher", type=Path, help="folder of scripts/fetch_teacher")
    parser.add_argument("output", type=Path, help="folder of the recordings and the set")
    parser.add_argument("--voices", default=",".join(VOICES), help="of the teacher, with commas")
    given = parser.parse_args(arguments)
    try:
        [texts] = find_text_sets([given.set])
        teacher = Kokoro(given.teacher)
        path = read_set(texts, teacher, given.output, given.voices.split(","), Console())
    except (ValueError, OSError) as error:
        print(f"read_test_set: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {len(texts.lines)} lines")
    return 0
