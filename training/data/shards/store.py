"""Reads shards from a disk or any address that `fsspec` knows.

The rows of all shards are read once; what the tars hold is read item by item, when it is needed.
As any item can be had at any time, the order of training is that of the sampler, a function of the
seed alone: shuffled over all shards, the same on any number of processes, resumed in the middle of
an epoch. Caching of a remote address is left to fsspec: `simplecache::s3://bucket/shards`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import soundfile
import torch
from torch import Tensor

from tokenlm.audio.io import AudioError
from tokenlm.audio.resample import resample
from training.data.augment import AugmentConfig
from training.data.dataset import UtteranceDataset
from training.data.exclusion import Exclusion
from training.data.manifest import Utterance
from training.data.rejects import Reject, Rejects
from training.data.shards.layout import (
    HEADER_BYTES,
    INFO,
    KINDS,
    ShardError,
    ShardInfo,
    decode_array,
    decode_member,
    shard_name,
)


@dataclass(frozen=True, kw_only=True)
class ShardUtterance(Utterance):
    """A row of a shard; `audio` is its name only, the sound is in the tar."""

    shard: int = 0
    key: str = ""
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset of the tar header and size of the content, by kind."""


class ShardStore:
    """The members of a folder of shards."""

    def __init__(self, url: str) -> None:
        """Read shards.json.

        Args:
            url: Folder or address, with or without a protocol.

        Raises:
            ShardError: If there are no shards.
            ImportError: If a library that fsspec needs for the protocol is missing.
        """
        import fsspec

        self.url = url.rstrip("/")
        # A chained address (simplecache::s3://…) opens files only: no listing is ever needed.
        self._open = fsspec.open
        try:
            text = self._whole(INFO).decode("utf-8")
        except (OSError, ValueError) as error:
            raise ShardError(f"{url} is no folder of shards: {error}") from error
        self.info = ShardInfo.from_json(text, f"{self.url}/{INFO}")

    def address(self, name: str) -> str:
        """The address of a file of the folder."""
        return f"{self.url}/{name}"

    def _whole(self, name: str) -> bytes:
        with self._open(self.address(name), "rb") as file:
            return file.read()  # type: ignore[attr-defined]

    def read(self, utterance: ShardUtterance, kind: str) -> bytes:
        """Return the content of one member.

        Raises:
            ShardError: If the item has none, or the tar cannot be read there.
        """
        if kind not in utterance.members:
            raise ShardError(
                f"the shards {self.url} have no {kind} of {utterance.id!r}, only: "
                + ", ".join(utterance.members)
            )
        offset, size = utterance.members[kind]
        address = self.address(f"{shard_name(utterance.shard)}.tar")
        try:
            with self._open(address, "rb") as file:
                file.seek(offset)  # type: ignore[attr-defined]
                block = file.read(HEADER_BYTES + size)  # type: ignore[attr-defined]
        except OSError as error:
            raise ShardError(f"{address} cannot be read: {error}") from error
        return decode_member(block, f"{utterance.key}.{KINDS[kind]}", address)

    def rows(self, rejects: Rejects) -> list[ShardUtterance]:
        """Return the rows of all shards, in order; bad rows and shards go to `rejects`.

        Raises:
            TooManyRejects: If more than the allowed share is bad.
        """
        found: list[ShardUtterance] = []
        seen: dict[str, str] = {}
        for number in range(self.info.num_shards):
            address = self.address(f"{shard_name(number)}.jsonl")
            try:
                lines = self._whole(f"{shard_name(number)}.jsonl").decode("utf-8").split("\n")
                end = self._size(f"{shard_name(number)}.tar")
            except (OSError, UnicodeDecodeError) as error:
                first = number * self.info.items_per_shard
                size = min(self.info.items_per_shard, self.info.num_items - first)
                rejects.reject(Reject(address, None, f"the shard cannot be read: {error}"), size)
                continue
            for line, text in enumerate(lines, start=1):
                if not text.strip():
                    continue
                place = f"{address}:{line}"
                try:
                    row = self._row(text, number, end)
                    if row.id in seen:
                        raise ShardError(f"the id {row.id!r} is already that of {seen[row.id]}.")
                except ValueError as error:
                    rejects.reject(Reject(address, line, str(error)))
                    continue
                seen[row.id] = place
                found.append(row)
                rejects.accept()
        rejects.num_expected = 0  # rows that were deleted are neither good nor bad
        rejects.check()
        return found

    def _size(self, name: str) -> int:
        with self._open(self.address(name), "rb") as file:
            return file.seek(0, 2)  # type: ignore[attr-defined]

    def _row(self, text: str, number: int, end: int) -> ShardUtterance:
        try:
            data: dict[str, Any] = json.loads(text)
            members = {kind: (int(at), int(size)) for kind, (at, size) in data["members"].items()}
            texts = {name: data[name] for name in ("id", "text", "speaker", "audio", "key")}
            duration = float(data["duration"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"not a row of a shard: {type(error).__name__} {error}.") from None
        empty = [name for name, value in texts.items() if not str(value).strip()]
        if empty:
            raise ShardError(f"{empty[0]!r} is empty.")
        if not math.isfinite(duration) or duration <= 0:
            raise ShardError(f"'duration' must be a positive number of seconds, not {duration}.")
        if any(at + HEADER_BYTES + size > end for at, size in members.values()):
            raise ShardError(f"the tar beside it ends at {end}, before this item: it is damaged.")
        row = ShardUtterance(
            id=texts["id"],
            audio=Path(texts["audio"]),
            text=texts["text"],
            speaker=str(texts["speaker"]),
            duration=duration,
            shard=number,
            key=texts["key"],
            members=members,
            phones=_phones(data.get("phones")),
        )
        if "tokens" in members:
            tokens = ShardTokens(self, row, int(data.get("num_tokens", 0)))
            # The field is that of rows read from a manifest; both are sequences of numbers.
            object.__setattr__(row, "speech_tokens", tokens)
            object.__setattr__(row, "tokenizer", self.info.tokenizer)
        return row


def _phones(value: Any) -> tuple[tuple[str, float], ...] | None:
    return None if value is None else tuple((str(phone), float(end)) for phone, end in value)


class ShardTokens(Sequence[int]):
    """Speech tokens that are read when they are looked at; their number is known before."""

    __slots__ = ("_row", "_size", "_store")

    def __init__(self, store: ShardStore, row: ShardUtterance, size: int) -> None:
        """Remember where they are."""
        self._store, self._row, self._size = store, row, size

    @property
    def codebook_size(self) -> int:
        """Number of codes of the tokenizer: no token is as large."""
        return self._store.info.codebook_size

    def __len__(self) -> int:
        return self._size

    def numbers(self) -> list[int]:
        """Read them.

        Raises:
            ShardError: If the shard cannot be read, or holds another number of tokens.
        """
        found = decode_array(self._store.read(self._row, "tokens")).tolist()
        if len(found) != self._size:
            raise ShardError(
                f"{self._row.id!r} has {len(found)} tokens, but its row says {self._size}"
            )
        return found

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self.numbers()[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers())


class ShardDataset(UtteranceDataset):
    """The rows of shards as every stage takes them; `dataset[i]` needs the kind `audio`."""

    def __init__(
        self,
        url: str,
        sample_rate: int,
        *,
        min_seconds: float = 0.0,
        max_seconds: float = float("inf"),
        max_reject_share: float = 0.05,
        augmentation: AugmentConfig | None = None,
        exclusion: Exclusion | None = None,
    ) -> None:
        """Read the rows.

        Args:
            url: Folder or address of the shards.
            sample_rate: Of the waveforms, in Hz.
            min_seconds: Shorter utterances are left out.
            max_seconds: Longer utterances are left out.
            max_reject_share: Share of bad rows over which nothing is trained.
            augmentation: What `draw` does to the waveforms.
            exclusion: Texts that are left out and told, as those of test sets.

        Raises:
            ShardError: If there are no shards.
            TooManyRejects: If too many rows are bad.
        """
        self.store = ShardStore(url)
        expected = self.store.info.num_items
        rejects = Rejects(None, max_reject_share, num_expected=expected)
        rows = self.store.rows(rejects)
        if rejects.found:
            print(rejects.report(), flush=True)
        super().__init__(
            rows,
            sample_rate,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            augmentation=augmentation,
            exclusion=exclusion,
        )
        self.rejects = rejects.found + self.rejects

    def waveform(self, index: int) -> Tensor:
        """Return the waveform (S,) of one utterance."""
        row = self.utterances[index]
        assert isinstance(row, ShardUtterance)
        payload = self.store.read(row, "audio")
        try:
            samples, rate = soundfile.read(io.BytesIO(payload), dtype="float32")
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(f"the sound of {row.id!r} in {self.store.url}: {error}") from error
        return resample(torch.from_numpy(np.asarray(samples)), rate, self.sample_rate)

    def array(self, index: int, kind: str) -> np.ndarray:
        """Return the embedding (D,) or mel (T, M) of one utterance."""
        row = self.utterances[index]
        assert isinstance(row, ShardUtterance)
        return decode_array(self.store.read(row, kind))
