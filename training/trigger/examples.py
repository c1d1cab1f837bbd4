"""Recordings of a phrase, and of what sounds close, where there are none: a bundle speaks them."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenlm.atomic import write_text
from tokenlm.audio.io import recording_seconds, save_audio
from tokenlm.console import track
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.text.tokenizers import PhonemeTokenizer
from training.data.phrases import close_phrases, draw_text

_SHARES = (0.3, 0.5, 0.7)
_SPEEDS = (0.85, 1.0, 1.0, 1.15)


def blend_voices(names: Sequence[str]) -> list[str]:
    """Voices, and mixtures of any two of them."""
    pairs = itertools.combinations(names, 2)
    mixed = [f"{a}:{s:g}+{b}:{1 - s:g}" for a, b in pairs for s in _SHARES]
    return [*names, *mixed]


def split_voices(
    names: Sequence[str], valid_share: float, rng: random.Random
) -> dict[str, list[str]]:
    """Voices and mixtures of each split, so that no voice is in both, mixtures included.

    Raises:
        ValueError: there are fewer than two voices.
    """
    if len(names) < 2:
        raise ValueError(
            f"the bundle has {len(names)} voices; two or more are needed, as thresholds are chosen "
            "on voices that are not trained on: give another bundle, or manifests of recordings"
        )
    drawn = rng.sample(list(names), len(names))
    # Two voices have mixtures, but of three or fewer training needs the others.
    count = max(round(valid_share * len(names)), 2 if len(names) > 3 else 1)
    return {"train": blend_voices(drawn[count:]), "valid": blend_voices(drawn[:count])}


def speak_examples(
    synthesizer: Synthesizer,
    tokenizer: PhonemeTokenizer,
    phrases: Sequence[str],
    folder: Path,
    count: int,
    *,
    valid_share: float,
    seed: int = 0,
) -> Path:
    """Speaks texts of `draw_text` in the voices of a bundle and mixtures of them.

    Rows name their `split`; no voice is in both, see `split_voices`.

    Args:
        synthesizer: who speaks.
        tokenizer: knows what sounds close.
        phrases: normalised.
        folder: gets `examples.jsonl` and the recordings; those that are there are kept where text,
            voice, speed, seed and bundle are the same.
        count: recordings.
        valid_share: of recordings and voices for thresholds.
        seed: of texts, voices and speech.

    Returns:
        The manifest.
    """
    rng = random.Random(f"examples:{seed}")
    close = {phrase: close_phrases(phrase, tokenizer) for phrase in phrases}
    voices = split_voices(synthesizer.voices, valid_share, rng)
    for drawn in voices.values():
        rng.shuffle(drawn)
    num_valid = round(valid_share * count)
    bundle = asdict(synthesizer.components.manifest)
    rows = []
    for number in track(range(count), "speaking"):
        text, speed = draw_text(rng, phrases, close), rng.choice(_SPEEDS)
        split = "valid" if number < num_valid else "train"
        voice = voices[split][number % len(voices[split])]
        spoken = _digest([text, voice, speed, seed + number, bundle])
        name = f"examples/{number:05d}-{spoken}.wav"
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
                "split": split,
                "duration": round(recording_seconds(path), 4),
            }
        )
    manifest = folder / "examples.jsonl"
    write_text(manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return manifest


def _digest(facts: Sequence[Any]) -> str:
    """What a recording is made of, in twelve hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
