"""Chooses the virtual speakers of Kokoro: blends and small resamplings, far from one another.

    python -m training.recipes.corpus.spacing TEACHER

It prints `speakers` of configs/data/natural.yaml.

Every candidate voice says one sentence, which is also resampled by a few factors (formants and
pitch move together). A speaker encoder (the extra `eval` brings it) hears all of them, and speakers
are taken one by one, always the candidate whose nearest taken one is farthest, the sexes in turn
(Gonzalez, 1985, "Clustering to minimize the maximum intercluster distance").

Shapes: n candidates, E embedding channels.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from tokenlm.console import track
from training.evaluation.voice_encoder import SAMPLE_RATE as ENCODER_RATE
from training.evaluation.voice_encoder import VoiceEncoder
from training.recipes.corpus.engines import Request
from training.recipes.corpus.kokoro import SAMPLE_RATE, Kokoro, blend_parts

SENTENCE = "Nobody knew why the old boat was still lying there."
HELD_OUT = frozenset(("af_sky", "am_liam", "bf_lily", "bm_fable"))
"""Voices that enter no stage, in no blend: the test of unheard voices."""
FORMANTS = (0.94, 0.97, 1.0, 1.03, 1.06)
WEIGHTS = (0.35, 0.5, 0.65)


@dataclass(frozen=True)
class Candidate:
    """A speaker that may be taken."""

    voice: str
    """Voice or blend of Kokoro."""
    formant: float
    """Factor of the resampling."""

    @property
    def is_female(self) -> bool:
        """Whether most of the blend is female: the second letter of the names of voices."""
        return sum(w for name, w in blend_parts(self.voice) if name[1] == "f") > 0.5


def candidate_voices(names: Sequence[str], num_blends: int, seed: int) -> list[str]:
    """All voices but the held-out ones, then blends of two and three of them, drawn.

    Args:
        names: the voices there are.
        num_blends: blends wanted.
        seed: of the draw.
    """
    rng = random.Random(seed)
    free = sorted(set(names) - HELD_OUT)
    pairs = [
        f"{first}:{weight}+{second}:{round(1 - weight, 2)}"
        for first, second in itertools.combinations(free, 2)
        for weight in WEIGHTS
        # A blend of a woman and a man is nobody in particular; a few are enough.
        if first[1] == second[1] or rng.random() < 0.1
    ]
    triples = [
        f"{first}:0.34+{second}:0.33+{third}:0.33"
        for first, second, third in itertools.combinations(free, 3)
        if first[1] == second[1] == third[1]
    ]
    num_triples = num_blends // 4
    return free + rng.sample(pairs, num_blends - num_triples) + rng.sample(triples, num_triples)


def space(
    embeddings: np.ndarray, groups: Sequence[bool], first: Sequence[int], count: int
) -> list[int]:
    """Indices of candidates, each the farthest from those before it, the groups in turn.

    Args:
        embeddings: (n, E), of length 1.
        groups: to which of two groups each belongs.
        first: taken before any other.
        count: how many are wanted.

    Returns:
        Indices in the order in which they are taken.
    """
    groups_array = np.asarray(groups)
    taken = list(first)
    nearest = (embeddings @ embeddings[taken].T).max(axis=1)
    while len(taken) < min(count, len(embeddings)):
        share = np.mean(groups_array[taken])
        allowed = groups_array == (share <= 0.5)
        scores = np.where(allowed, nearest, np.inf)
        scores[taken] = np.inf
        best = int(scores.argmin())
        if not np.isfinite(scores[best]):  # one group is used up
            scores = nearest.copy()
            scores[taken] = np.inf
            best = int(scores.argmin())
        taken.append(best)
        nearest = np.maximum(nearest, embeddings @ embeddings[best])
    return taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher", type=Path, help="folder of scripts/fetch_teacher")
    parser.add_argument("--speakers", type=int, default=480)
    parser.add_argument("--blends", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    teacher, encoder = Kokoro(given.teacher), VoiceEncoder.load()
    candidates: list[Candidate] = []
    found: list[np.ndarray] = []
    voices = candidate_voices(teacher.voices(), given.blends, given.seed)
    for voice in track(voices, "voices"):
        speech = teacher.speak(Request(text=SENTENCE, voice=voice))
        for formant in FORMANTS:
            waveform = soxr.resample(speech.waveform, SAMPLE_RATE * formant, ENCODER_RATE)
            candidates.append(Candidate(voice, formant))
            found.append(encoder.embed(waveform))
    embeddings = np.stack(found)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    own = [n for n, c in enumerate(candidates) if "+" not in c.voice and c.formant == 1.0]
    groups = [candidate.is_female for candidate in candidates]
    taken = space(embeddings, groups, own, given.speakers)
    similarity = embeddings[taken] @ embeddings[taken].T - 2 * np.eye(len(taken))
    nearest = similarity.max(axis=1)
    print(
        f"      # {len(taken)} of {len(candidates)} candidates; similarity of each to its nearest "
        f"other: median {np.median(nearest):.3f}, at most {nearest.max():.3f}"
    )
    for index in taken:
        print(f"      - {candidates[index].voice}@{candidates[index].formant}")


if __name__ == "__main__":
    main()
