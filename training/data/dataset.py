"""Utterances with their waveforms.

Shapes: S samples.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.audio.io import AudioError, load_audio
from training.data.augment import AugmentConfig, augment
from training.data.exclusion import Exclusion
from training.data.manifest import Manifest, ManifestError, Rows, Utterance, read_manifest
from training.data.rejects import Reject

logger = logging.getLogger(__name__)


class ShardError(ValueError):
    """Shards that cannot be used; the message names the file."""


@dataclass
class AudioItem:
    """One utterance, read."""

    utterance: Utterance
    """Its row."""
    waveform: Tensor
    """(S,) mono float32 at the sample rate of the dataset, augmented in training if asked for."""
    clean: Tensor
    """(S,) the same without augmentation."""
    index: int
    """Place in the dataset."""


class UtteranceDataset:
    """Map-style dataset of a manifest: `dataset[i]` gives an `AudioItem`.

    Attributes:
        utterances: The rows that are left after filtering.
        durations: Seconds (rows,) of each of them, as the manifest says.
        rejects: Rows that cannot be used, and those whose texts are excluded.
        num_excluded: How many of these there are.
    """

    def __init__(
        self,
        manifest: str | Path | Manifest | Sequence[Utterance],
        sample_rate: int,
        *,
        min_seconds: float = 0.0,
        max_seconds: float = float("inf"),
        augmentation: AugmentConfig | None = None,
        exclusion: Exclusion | None = None,
    ) -> None:
        """Read the manifest and filter it.

        Args:
            manifest: A manifest or its path (its bad rows are logged and left out), or rows.
            sample_rate: In Hz; files of another rate are resampled.
            min_seconds: Shorter utterances are left out.
            max_seconds: Longer utterances are left out.
            augmentation: What `draw` does to the waveforms.
            exclusion: Texts that are left out and logged, as those of test sets.

        Raises:
            ManifestError: If nothing is left.
        """
        if isinstance(manifest, (str, Path)):
            manifest = read_manifest(manifest)
        name = "the data"
        self.rejects: list[Reject] = []
        if isinstance(manifest, Manifest):
            name, rows = str(manifest.path), manifest.utterances
            self.rejects = [Reject(name, bad.line, bad.reason) for bad in manifest.bad_rows]
            if manifest.bad_rows:
                logger.warning(manifest.report())
        else:
            rows = Rows.of(manifest)
        self.sample_rate = sample_rate
        self.augmentation = augmentation
        seconds = rows.column("duration")
        self.utterances = rows
        if ((seconds < min_seconds) | (seconds > max_seconds)).any():
            self.utterances = rows.select((seconds >= min_seconds) & (seconds <= max_seconds))
        self.num_excluded = 0 if exclusion is None else self._leave_out(exclusion, name)
        self.durations = self.utterances.column("duration")
        if not len(self.utterances):
            raise ManifestError(
                f"{name}: no utterance is left (of {len(rows)} rows, between {min_seconds:g} and "
                f"{max_seconds:g} s; {self.num_excluded} of them have texts of test sets)."
            )

    def _leave_out(self, exclusion: Exclusion, name: str) -> int:
        matches = exclusion.matches(self.utterances.table)
        free = matches.is_null("match")
        if free.all():
            return 0
        for row, match in zip(
            self.utterances.select(~free), matches.select(~free).column("match"), strict=True
        ):
            reason = f"the text of {row.id!r} is or holds one of a test set: {match!r}."
            self.rejects.append(Reject(name, None, reason))
        count = int((~free).sum())
        logger.warning(
            "%s: %d of %d utterances have texts of test sets and are left out. The first: %s",
            name,
            count,
            len(free),
            self.rejects[-count].reason,
        )
        self.utterances = self.utterances.select(free)
        return count

    def __len__(self) -> int:
        return len(self.utterances)

    def waveform(self, index: int) -> Tensor:
        """Return the waveform (S,) of one utterance."""
        return load_audio(self.utterances[index].audio, self.sample_rate)

    def __getitem__(self, index: int) -> AudioItem:
        """Return an utterance as it is."""
        waveform = self.waveform(index)
        return AudioItem(self.utterances[index], waveform, waveform, index)

    def draw(self, index: int, generator: torch.Generator) -> AudioItem:
        """Return an utterance, augmented with draws from `generator`."""
        item = self[index]
        if self.augmentation is not None:
            item.waveform = augment(
                item.clean, self.sample_rate, generator, self.augmentation, self.draw_waveform
            )
        return item

    def draw_waveform(self, generator: torch.Generator) -> Tensor:
        """Return the waveform (S,) of any utterance, empty where it cannot be read."""
        index = int(torch.randint(len(self), (), generator=generator))
        try:
            return self.waveform(index)
        except (AudioError, ShardError):  # a voice less in the babble
            return torch.zeros(0)
