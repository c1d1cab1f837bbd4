"""Who speaks: a profile of a person from a few recordings, and how like it another recording is.

A person says the phrase some times; the profile is the mean of the embeddings, and how far each of
the recordings lies from the others. A recording is scored for the phrase alone, whose words are
those of the profile, and for the phrase with what follows, which is longer but says other words;
the decision takes the mean of the two, as each is better where the other is worse (Marchi et al.,
2018, Generalised discriminative speaker embeddings, and Apple's "Personalized Hey Siri").

Shapes: S samples at the rate of the encoder, E embedding channels, P recordings of a profile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from tokenlm.atomic import atomic_path
from tokenlm.models.speaker_encoder import SpeakerEncoder

NUM_PHRASES = 5
"""Recordings that a person is asked for."""
MIN_SPREAD = 0.05
"""Least standard deviation that a profile is taken to have; five recordings may agree by chance."""
WINDOW_SECONDS = 2.0
"""Of the parts of a recording that are compared with one another."""
MAX_SPLITS = 60
"""Places of a recording at which it is split; all of half a minute."""
MIN_SIDE_SECONDS, SPLIT_STEP_SECONDS = 1.5, 0.5
"""Of the two sides of a place where a recording may change from one person to another."""
_METADATA_KEY = "tokenlm_speaker"
_FORMAT_VERSION = 1


class SpeakerProfileError(ValueError):
    """A file or recordings that are no profile; the message says why."""


@dataclass(frozen=True, kw_only=True)
class SpeakerScore:
    """How like a profile a recording is."""

    phrase: float
    """Cosine of the phrase alone, -1 to 1."""
    extended: float | None
    """Cosine of the phrase with what follows; None where nothing follows."""
    similarity: float
    """Mean of the two: what a decision looks at."""
    deviation: float
    """Standard deviations that this lies below the person's own recordings; negative above."""


@dataclass(frozen=True, kw_only=True)
class SpeakerProfile:
    """A person, as an encoder knows them."""

    mean: Tensor
    """(E,), of length 1."""
    own_similarity: float
    """Mean cosine of each recording with the mean of the others; 1 of a single recording."""
    spread: float
    """Standard deviation of the same, at least `MIN_SPREAD`."""
    num_recordings: int

    @classmethod
    def of(cls, embeddings: Tensor) -> SpeakerProfile:
        """Makes a profile of embeddings (P, E) of length 1.

        Raises:
            SpeakerProfileError: there are none.
        """
        count = embeddings.shape[0]
        if embeddings.ndim != 2 or count == 0:
            raise SpeakerProfileError("a profile needs at least one recording.")
        total = embeddings.sum(dim=0)
        own, spread = 1.0, MIN_SPREAD
        if count > 1:
            others = functional.normalize(total[None] - embeddings, dim=1)
            similarities = (embeddings * others).sum(dim=1)
            own = float(similarities.mean())
            spread = max(float(similarities.std()), MIN_SPREAD)
        return cls(
            mean=functional.normalize(total, dim=0),
            own_similarity=own,
            spread=spread,
            num_recordings=count,
        )

    def score(self, phrase: Tensor, extended: Tensor | None = None) -> SpeakerScore:
        """Compares a recording with the profile.

        Args:
            phrase: embedding (E,) of the phrase alone.
            extended: embedding (E,) of the phrase with what follows.
        """
        first = float(self.mean @ phrase)
        second = None if extended is None else float(self.mean @ extended)
        similarity = first if second is None else (first + second) / 2
        return SpeakerScore(
            phrase=first,
            extended=second,
            similarity=similarity,
            deviation=(self.own_similarity - similarity) / self.spread,
        )

    def save(self, path: str | Path) -> None:
        """Writes the profile to one safetensors file, whole or not at all."""
        facts = {
            "format_version": _FORMAT_VERSION,
            "own_similarity": self.own_similarity,
            "spread": self.spread,
            "num_recordings": self.num_recordings,
        }
        data = save(
            {"mean": self.mean.float().contiguous()}, metadata={_METADATA_KEY: json.dumps(facts)}
        )
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, path: str | Path) -> SpeakerProfile:
        """Reads a profile.

        Raises:
            SpeakerProfileError: there is none, or it is damaged.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                facts = json.loads((file.metadata() or {})[_METADATA_KEY])
                mean = file.get_tensor("mean").float()
            if facts["format_version"] != _FORMAT_VERSION or mean.ndim != 1:
                raise SpeakerProfileError(f"{path} is a profile of another format.")
            return cls(
                mean=mean,
                own_similarity=float(facts["own_similarity"]),
                spread=float(facts["spread"]),
                num_recordings=int(facts["num_recordings"]),
            )
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise SpeakerProfileError(f"{path} is not the profile of a speaker: {error}") from error


def enrol(encoder: SpeakerEncoder, recordings: Sequence[Tensor]) -> SpeakerProfile:
    """Makes the profile of a person who said the phrase some times, `NUM_PHRASES` at best.

    Args:
        encoder: its embeddings are compared.
        recordings: (S,) each.

    Raises:
        SpeakerProfileError: there are none.
        ValueError: one of them is shorter than a frame.
    """
    if not recordings:
        raise SpeakerProfileError("a profile needs at least one recording.")
    return SpeakerProfile.of(torch.stack([encoder.embed_recording(one) for one in recordings]))


def score_recording(
    encoder: SpeakerEncoder,
    profile: SpeakerProfile,
    phrase: Tensor,
    following: Tensor | None = None,
) -> SpeakerScore:
    """Scores the phrase (S,) alone, and with what follows it (S,) where something does."""
    alone = encoder.embed_recording(phrase)
    if following is None or following.shape[0] == 0:
        return profile.score(alone)
    return profile.score(alone, encoder.embed_recording(torch.cat([phrase, following])))


def embed_windows(encoder: SpeakerEncoder, waveform: Tensor) -> Tensor:
    """Embeddings (P, E) of the windows of a recording (S,), half of each shared with the next.

    The last window ends where the recording does.

    A recording shorter than two windows is cut into halves, so that they can be compared.

    Raises:
        ValueError: it is shorter than two frames.
    """
    rate = encoder.config.mel.sample_rate
    size = min(int(WINDOW_SECONDS * rate), waveform.shape[0] // 2)
    starts = [*range(0, waveform.shape[0] - size + 1, max(size // 2, 1))]
    if starts[-1] + size < waveform.shape[0]:
        starts.append(waveform.shape[0] - size)
    windows = [waveform[start : start + size] for start in starts]
    return torch.stack([encoder.embed_recording(window) for window in windows])


def split_agreement(encoder: SpeakerEncoder, waveform: Tensor) -> float:
    """The lowest cosine between what is before a place of a recording (S,) and what is behind it.

    Where a second person takes over, the two sides of that place agree least. Places are
    `SPLIT_STEP_SECONDS` apart, or `MAX_SPLITS` in a long recording, each side at least
    `MIN_SIDE_SECONDS` long; a recording too short for that is split in its middle.

    Raises:
        ValueError: it is shorter than two frames.
    """
    rate = encoder.config.mel.sample_rate
    edge, step = int(MIN_SIDE_SECONDS * rate), int(SPLIT_STEP_SECONDS * rate)
    step = max(step, (waveform.shape[0] - 2 * edge) // MAX_SPLITS)
    places = [*range(edge, waveform.shape[0] - edge + 1, step)] or [waveform.shape[0] // 2]
    return min(
        float(encoder.embed_recording(waveform[:place]) @ encoder.embed_recording(waveform[place:]))
        for place in places
    )
