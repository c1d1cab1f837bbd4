"""Recordings of a phrase, and of what sounds close, where there are none: a bundle speaks them."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

from tokenlm.atomic import write_text
from tokenlm.audio.io import recording_seconds, save_audio
from tokenlm.console import track
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.text.tokenizers import PhonemeTokenizer
from training.data.phrases import close_phrases, draw_text

RATE = 16_000
_SHARES = (0.3, 0.5, 0.7)
_SPEEDS = (0.85, 1.0, 1.0, 1.15)


def blend_voices(names: Sequence[str]) -> list[str]:
    """The voices of a bundle, and mixtures of any two of them."""
    pairs = itertools.combinations(names, 2)
    mixed = [f"{a}:{s:g}+{b}:{1 - s:g}" for a, b in pairs for s in _SHARES]
    return [*names, *mixed]


def speak_examples(
    synthesizer: Synthesizer,
    tokenizer: PhonemeTokenizer,
    phrases: Sequence[str],
    folder: Path,
    count: int,
    *,
    seed: int = 0,
) -> Path:
    """Speaks texts of `draw_text` in the voices of a bundle and mixtures of them.

    Args:
        synthesizer: who speaks.
        tokenizer: knows what sounds close.
        phrases: normalised.
        folder: gets `examples.jsonl` and the recordings; those that are there are kept.
        count: recordings.
        seed: of texts, voices and speech.

    Returns:
        The manifest.
    """
    rng = random.Random(f"examples:{seed}")
    close = {phrase: close_phrases(phrase, tokenizer) for phrase in phrases}
    voices = blend_voices(synthesizer.voices)
    rng.shuffle(voices)
    rows = []
    for number in track(range(count), "speaking"):
        text, speed = draw_text(rng, phrases, close), rng.choice(_SPEEDS)
        voice = voices[number % len(voices)]
        name = f"examples/{number:05d}.wav"
        path = folder / name
        if not path.is_file():
            waveform = synthesizer.generate(
                text, voice=voice, seed=seed + number, speed=speed, markup=False
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            save_audio(path, waveform, synthesizer.sample_rate)
        rows.append(
            {
                "id": f"example-{number:05d}",
                "audio": name,
                "text": text,
                "speaker": voice,
                "duration": round(recording_seconds(path), 4),
            }
        )
    manifest = folder / "examples.jsonl"
    write_text(manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return manifest
