"""Where a stage finds its data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokenlm.checkpoint.component import CONFIG_FILE, read_component
from tokenlm.checkpoint.registry import load_model
from tokenlm.config import ConfigError
from tokenlm.models.token_recognizer import TokenRecognizer
from training.config import RunConfig, ranks_of_launch, run_folder
from training.data.augment import AugmentConfig
from training.data.dataset import UtteranceDataset
from training.data.exclusion import evaluation_exclusion
from training.data.manifest import Manifest, read_manifest
from training.data.rejects import REJECTS, Reject, Rejects, add_rejects
from training.data.shards import ShardDataset


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Manifests of a stage and what is taken from them."""

    train: Path | None = None
    """Manifest (JSONL) to train on."""
    shards: str = ""
    """Folder or `fsspec` address of shards (`tokenlm data precompute`), in place of `train`."""
    max_reject_share: float = 0.05
    """Share of rows, or of recordings, that may be unusable; beyond it a run stops."""
    valid: Path | None = None
    """Manifest to evaluate on."""
    min_seconds: float = 0.5
    """Shorter utterances are left out."""
    max_seconds: float = 30.0
    """Longer utterances are left out."""
    test_sets: tuple[Path, ...] = ()
    """Test sets beside those of `configs/eval`, whose texts are left out of both splits as theirs
    are (`training.data.exclusion`): JSONL with `text`, one text per line, or a `meta.lst`."""
    num_processes: int = 1
    """Processes that read the texts of a large corpus, which is done once."""
    max_valid_items: int = 400
    """Most utterances to evaluate on, the first ones of the manifest."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ConfigError("min_seconds must be less than max_seconds and not negative.")
        if self.num_processes < 1:
            raise ConfigError("num_processes must be at least 1.")
        if not 0 <= self.max_reject_share <= 1:
            raise ConfigError("max_reject_share must be between 0 and 1.")
        if self.train is None and not self.shards:
            raise ConfigError("give either train, a manifest, or shards, their folder or address.")
        if self.train is not None and self.shards:
            raise ConfigError(
                "give either train, a manifest, or shards, their folder or address; "
                "data.train= (empty) clears the manifest of the config."
            )


def open_split(
    config: DataConfig,
    split: str,
    sample_rate: int,
    augmentation: AugmentConfig | None = None,
    rejects: Path | None = None,
) -> UtteranceDataset | None:
    """Open the split "train" or "valid"; None where the config names no manifest for it.

    Args:
        config: Where the data are.
        split: "train" or "valid".
        sample_rate: Of the waveforms, in Hz.
        augmentation: What `draw` does to those of "train".
        rejects: Rejects file, to which the rows that cannot be used are added, as are those
            whose texts are those of test sets; see `rejects_file`.

    Raises:
        TooManyRejects: If more than the allowed share of the rows cannot be used.
        ValueError: If there are no data, or none are left.
    """
    exclusion = evaluation_exclusion(config.test_sets)
    if split == "train" and config.shards:
        found: UtteranceDataset = ShardDataset(
            config.shards,
            sample_rate,
            min_seconds=config.min_seconds,
            max_seconds=config.max_seconds,
            max_reject_share=config.max_reject_share,
            augmentation=augmentation,
            exclusion=exclusion,
        )
    else:
        path = config.train if split == "train" else config.valid
        if path is None:
            return None
        found = UtteranceDataset(
            _checked(read_manifest(path), config.max_reject_share),
            sample_rate,
            min_seconds=config.min_seconds,
            max_seconds=config.max_seconds,
            augmentation=augmentation if split == "train" else None,
            exclusion=exclusion,
        )
    if rejects is not None and found.rejects:
        add_rejects(rejects, found.rejects)
    if split == "valid":
        return UtteranceDataset(found.utterances[: config.max_valid_items], sample_rate)
    return found


def _checked(manifest: Manifest, max_share: float) -> Manifest:
    rejects = Rejects(None, max_share)
    rejects.accept(len(manifest.utterances))
    for bad in manifest.bad_rows:
        rejects.reject(Reject(str(manifest.path), bad.line, bad.reason))
    rejects.check()
    return manifest


def rejects_file(config: RunConfig) -> Path | None:
    """Return the rejects file of a run; None in the processes that leave it to the first one."""
    return run_folder(config) / REJECTS if ranks_of_launch()[0] == 0 else None


def require_tokens(datasets: Iterable[UtteranceDataset | None], codebook_size: int) -> str:
    """Checks that all utterances have speech tokens of one tokenizer; returns its fingerprint.

    Raises:
        ConfigError: tokens are missing, of several tokenizers, or outside the codebook.
    """
    fingerprints: set[str] = set()
    largest = 0
    for dataset in datasets:
        if dataset is None:
            continue
        rows = dataset.utterances
        counts = rows.column("num_tokens")
        if not counts.all():
            without = rows[int(np.argmin(counts))]
            raise ConfigError(
                f"utterance {without.id!r} has no speech tokens; "
                "write them with: tokenlm data precompute MANIFEST OUTPUT --tokenizer FOLDER"
            )
        fingerprints.update(name or "" for name in rows.table.coded("tokenizer")[0])
        largest = max(largest, int(rows.column("max_token").max()))
    if len(fingerprints) != 1:
        raise ConfigError(
            f"the manifests mix tokens of {len(fingerprints)} tokenizers: "
            + ", ".join(sorted(fingerprints))
        )
    if largest >= codebook_size:
        raise ConfigError(
            f"a manifest has the speech token {largest}, but the codebook has {codebook_size}"
        )
    return fingerprints.pop()


def check_initial_tokens(config: RunConfig, module: str, fingerprint: str) -> None:
    """Checks that the component that a module starts from knows the tokens of the data.

    Raises:
        ConfigError: it was trained with those of another tokenizer, and `initial_partial` does not
            say that this is meant.
    """
    folder = config.initial.get(module)
    if folder is None or config.initial_partial or not (folder / CONFIG_FILE).is_file():
        return
    known = read_component(folder).extra.get("tokenizer")
    if known and fingerprint and known != fingerprint:
        raise ConfigError(
            f"initial.{module}: {folder} was trained with tokens of the tokenizer {known}, but the "
            f"data have those of {fingerprint}; write them with the tokenizer of the same bundle "
            "(tokenlm data precompute MANIFEST OUTPUT --tokenizer FOLDER), or start from what fits "
            "with initial_partial=true"
        )


def load_recognizer(folder: Path, fingerprint: str, codebook_size: int) -> TokenRecognizer:
    """The token recogniser of a stage that reads its own tokens back.

    Args:
        folder: its component.
        fingerprint: of the tokenizer of the data.
        codebook_size: of the same.

    Raises:
        ConfigError: it reads tokens of another tokenizer.
    """
    recognizer = load_model(folder, TokenRecognizer)
    known = read_component(folder).extra.get("tokenizer")
    size = math.prod(recognizer.config.levels)
    if size != codebook_size or (known and fingerprint and known != fingerprint):
        raise ConfigError(
            f"token_recognizer: {folder} reads {size:,} codes of the tokenizer "
            f"{known or '(not named)'}, but the data have {codebook_size:,} of "
            f"{fingerprint or '(not named)'}; the stage token_recognizer trains one for them"
        )
    return recognizer
