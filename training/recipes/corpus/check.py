"""Measures a finished corpus: hours, words, levels, and whether phones lie where they are said.

It also looks for texts of test sets among what is trained on, post-training included.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile

from tokenlm.text.normalize import normalize
from training.data.exclusion import Exclusion, evaluation_exclusion, read_texts, spoken_key
from training.rl.texts import counted_texts
from training.rl.texts.hard_texts import harden

VOWELS = frozenset(
    ("aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
)
PAUSES = frozenset(("pau", "#", "sil"))
EDGE_SECONDS = 0.01
"""Left out at both ends of a phone when its level is measured."""
CLIPPED = 0.999
HELDOUT = "heldout"
"""Begin of the names of the manifests that hold evaluation texts, and are never trained on."""
MAX_EXAMPLES = 5
NUM_DRAWN = 2000
"""Texts of post-training that are drawn from each manifest."""


def check_corpus(
    folder: Path,
    *,
    max_audio: int = 2000,
    post_training: Sequence[Path] = (),
    test_sets: Sequence[Path] = (),
) -> dict[str, Any]:
    """Measure every manifest of a corpus.

    Args:
        folder: the corpus.
        max_audio: audio files read per manifest, spread evenly over it.
        post_training: further manifests or files of texts that post-training takes.
        test_sets: files of evaluation texts beside those of `configs/eval`.

    Returns:
        Figures by manifest, `distinct_words` and `evaluation_texts` among them; the latter of texts
        of post-training, under `post_training`, `NUM_DRAWN` of them drawn from each training
        manifest as post-training draws them; and two sums that have to be 0:
        `texts_of_other_splits_in_train` (of every manifest whose name begins with train) and
        `evaluation_texts_in_training` (of all manifests but those of held-out speakers, and of
        post-training).

    Raises:
        ValueError: the folder holds no manifest, a file of texts cannot be read, or an audio file
            is not as its row says.
    """
    exclusion = evaluation_exclusion(test_sets)
    manifests = sorted(folder.glob("*.jsonl"))
    if not manifests:
        raise ValueError(f"{folder} holds no manifest")
    figures: dict[str, Any] = {}
    texts: dict[str, set[str]] = {}
    post: dict[str, Any] = {}
    for path in manifests:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        written = [row["text"] for row in rows]
        texts[path.stem] = {spoken_key(text) for text in written}
        figures[path.stem] = (
            _text_figures(rows)
            | {"evaluation_texts": _evaluation_texts(written, exclusion)}
            | _audio_figures(rows, folder, max_audio)
        )
        if path.stem.startswith("train"):
            drawn = draw_harder(written, NUM_DRAWN, exclusion)
            post[f"{path.stem}, made harder"] = _evaluation_texts(drawn, exclusion, read=True)
    # Manifests of training (train, train_hard, with tokens or without) may share texts.
    trained = [found for name, found in texts.items() if name.startswith("train")]
    others = [found for name, found in texts.items() if not name.startswith("train")]
    shared = set().union(*others) & set().union(*trained)
    figures["texts_of_other_splits_in_train"] = len(shared)
    for path in post_training:
        post[str(path)] = _evaluation_texts(read_texts(path), exclusion)
    rng = Random("counted")
    counted = [counted_texts.draw(rng, exclusion=exclusion) for _ in range(NUM_DRAWN)]
    post["counted texts"] = _evaluation_texts(counted, exclusion, read=True)
    figures["post_training"] = post
    trained_on = [figures[name] for name in texts if not name.startswith(HELDOUT)]
    counts = [found["evaluation_texts"]["found"] for found in trained_on]
    counts += [found["found"] for found in post.values()]
    figures["evaluation_texts_in_training"] = sum(counts)
    return figures


def draw_harder(texts: Sequence[str], count: int, exclusion: Exclusion) -> list[str]:
    """Texts made harder as the stages of post-training make them; the same ones every time."""
    rng = Random("post-training")
    return [
        harden(normalize(rng.choice(texts)), normalize(rng.choice(texts)), rng, None, exclusion)
        for _ in range(count if texts else 0)
    ]


def _evaluation_texts(
    texts: Sequence[str], exclusion: Exclusion, *, read: bool = False
) -> dict[str, Any]:
    """How many are evaluation texts; with `read` all are read out first, as the LM gets them."""
    spoken = [normalize(text) for text in texts] if read else texts
    found = [text for text in spoken if exclusion.excludes(text)]
    return {"texts": len(texts), "found": len(found), "first": found[:MAX_EXAMPLES]}


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
