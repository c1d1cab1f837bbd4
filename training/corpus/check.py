"""Measures a finished corpus: hours, words, levels, and whether phones lie where they are said."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

VOWELS = frozenset(
    ("aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
)
PAUSES = frozenset(("pau", "#", "sil"))
EDGE_SECONDS = 0.01
"""Left out at both ends of a phone when its level is measured."""
CLIPPED = 0.999


def check_corpus(folder: Path, *, max_audio: int = 2000) -> dict[str, Any]:
    """Measure every manifest of a corpus.

    Args:
        folder: the corpus.
        max_audio: audio files read per manifest, spread evenly over it.

    Returns:
        Figures by manifest, `distinct_words` by manifest among them, and
        `texts_of_other_splits_in_train` (of every manifest whose name begins with train), which has
        to be 0.

    Raises:
        ValueError: the folder holds no manifest, or an audio file is not as its row says.
    """
    manifests = sorted(folder.glob("*.jsonl"))
    if not manifests:
        raise ValueError(f"{folder} holds no manifest")
    figures: dict[str, Any] = {}
    texts: dict[str, set[str]] = {}
    for path in manifests:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        texts[path.stem] = {" ".join(_words(row["text"])) for row in rows}
        figures[path.stem] = _text_figures(rows) | _audio_figures(rows, folder, max_audio)
    # Manifests of training (train, train_hard, with tokens or without) may share texts.
    trained = [found for name, found in texts.items() if name.startswith("train")]
    others = [found for name, found in texts.items() if not name.startswith("train")]
    shared = set().union(*others) & set().union(*trained)
    figures["texts_of_other_splits_in_train"] = len(shared)
    return figures


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _text_figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    words = Counter(word for row in rows for word in _words(row["text"]))
    hours: dict[str, float] = defaultdict(float)
    for row in rows:
        hours[f"{row['engine']} {row['person']}"] += row["duration"] / 3600
    per_speaker = Counter(row["speaker"] for row in rows)
    durations = [row["duration"] for row in rows] or [0.0]
    return {
        "utterances": len(rows),
        "distinct_ids": len({row["id"] for row in rows}),
        "hours": round(sum(durations) / 3600, 2),
        "hours_by_voice": {name: round(value, 2) for name, value in sorted(hours.items())},
        "speakers": len(per_speaker),
        "utterances_per_speaker": [
            min(per_speaker.values(), default=0),
            max(per_speaker.values(), default=0),
        ],
        "seconds_5_50_95_max": _percentiles(durations, (5, 50, 95, 100)),
        "words": sum(words.values()),
        "distinct_words": len(words),
        "words_said_5_times": sum(count >= 5 for count in words.values()),
        "with_phones": sum("phones" in row for row in rows),
    }


def _audio_figures(rows: list[dict[str, Any]], folder: Path, max_audio: int) -> dict[str, Any]:
    peaks, offsets, levels = [], [], []
    pauses: dict[str, list[float]] = defaultdict(list)
    vowels: dict[str, list[float]] = defaultdict(list)
    for row in rows[:: max(1, -(-len(rows) // max_audio))]:
        waveform, rate = soundfile.read(folder / row["audio"], dtype="float64")
        if abs(len(waveform) / rate - row["duration"]) > 1e-3:
            raise ValueError(f"{row['audio']} does not last {row['duration']} seconds")
        peaks.append(np.abs(waveform).max())
        offsets.append(abs(waveform.mean()))
        levels.append(_decibel(waveform))
        voice = f"{row['engine']} {row['person']}"
        start = 0.0
        for phone, end in row.get("phones", ()):
            inside = waveform[
                round((start + EDGE_SECONDS) * rate) : round((end - EDGE_SECONDS) * rate)
            ]
            start = end
            if len(inside) < 2 * EDGE_SECONDS * rate:
                continue
            if phone in PAUSES:
                pauses[voice].append(_decibel(inside) - levels[-1])
            elif phone in VOWELS:
                vowels[voice].append(_decibel(inside) - levels[-1])
    if not peaks:
        return {}
    return {
        "audio_read": len(peaks),
        "clipped_files": int(sum(peak >= CLIPPED for peak in peaks)),
        "peak_max": round(float(max(peaks)), 3),
        "dc_offset_max": round(float(max(offsets)), 5),
        "level_dbfs_5_50_95": _percentiles(levels, (5, 50, 95)),
        "pause_db_5_50_95": {k: _percentiles(v, (5, 50, 95)) for k, v in sorted(pauses.items())},
        "vowel_db_5_50_95": {k: _percentiles(v, (5, 50, 95)) for k, v in sorted(vowels.items())},
    }


def _decibel(waveform: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(waveform**2) + 1e-10))


def _percentiles(values: list[float], at: tuple[int, ...]) -> list[float]:
    return [round(float(value), 2) for value in np.percentile(values, at)]
