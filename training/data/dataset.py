"""Utterances with their waveforms.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.audio.io import AudioError, load_audio
from training.data.augment import AugmentConfig, augment
from training.data.exclusion import Exclusion
from training.data.manifest import Manifest, ManifestError, Utterance, read_manifest
from training.data.rejects import Reject
from training.data.shards.layout import ShardError


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
        durations: Seconds of each of them, as the manifest says.
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
        keep: Callable[[Utterance], bool] | None = None,
        augmentation: AugmentConfig | None = None,
        exclusion: Exclusion | None = None,
    ) -> None:
        """Read the manifest and filter it.

        Args:
            manifest: A manifest or its path (its bad rows are printed and left out), or rows.
            sample_rate: In Hz; files of another rate are resampled.
            min_seconds: Shorter utterances are left out.
            max_seconds: Longer utterances are left out.
            keep: Further filter.
            augmentation: What `draw` does to the waveforms.
            exclusion: Texts that are left out and told, as those of test sets.

        Raises:
            ManifestError: If nothing is left.
        """
        if isinstance(manifest, (str, Path)):
            manifest = read_manifest(manifest)
        name = "the data"
        rows = manifest
        self.rejects: list[Reject] = []
        if isinstance(manifest, Manifest):
            name = str(manifest.path)
            rows = manifest.utterances
            self.rejects = [Reject(name, bad.line, bad.reason) for bad in manifest.bad_rows]
            if manifest.bad_rows:
                print(manifest.report(), flush=True)
        assert not isinstance(rows, Manifest)
        self.sample_rate = sample_rate
        self.augmentation = augmentation
        self.utterances = [
            row
            for row in rows
            if min_seconds <= row.duration <= max_seconds and (keep is None or keep(row))
        ]
        self.num_excluded = 0 if exclusion is None else self._leave_out(exclusion, name)
        self.durations = [row.duration for row in self.utterances]
        if not self.utterances:
            raise ManifestError(
                f"{name}: no utterance is left (of {len(rows)} rows, between {min_seconds:g} and "
                f"{max_seconds:g} s; {self.num_excluded} of them have texts of test sets)."
            )

    def _leave_out(self, exclusion: Exclusion, name: str) -> int:
        kept: list[Utterance] = []
        found: list[Reject] = []
        for row in self.utterances:
            match = exclusion.match(row.text)
            if match is None:
                kept.append(row)
            else:
                reason = f"the text of {row.id!r} is or holds one of a test set: {match!r}."
                found.append(Reject(name, None, reason))
        if found:
            print(
                f"{name}: {len(found)} of {len(self.utterances)} utterances have texts of test "
                f"sets and are left out. The first: {found[0].reason}",
                flush=True,
            )
        self.utterances = kept
        self.rejects += found
        return len(found)

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
                item.clean, self.sample_rate, generator, self.augmentation, self._other
            )
        return item

    def _other(self, generator: torch.Generator) -> Tensor:
        index = int(torch.randint(len(self), (), generator=generator))
        try:
            return self.waveform(index)
        except (AudioError, ShardError):  # a voice less in the babble
            return torch.zeros(0)
