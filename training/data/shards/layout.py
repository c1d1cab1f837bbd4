"""What a folder of shards looks like, and how one shard is written.

    shards.json            what is inside, made of which manifest and by which models
    shard-00000.tar        members KEY.tokens.npy, KEY.embedding.npy, KEY.mel.npy, KEY.flac
    shard-00000.jsonl      one row per item: manifest keys, and where its members stand in the tar
    shard-00000.rejects.jsonl

The rows may be edited (a text, a speaker) or deleted without touching the tar. `members` gives
the offset of each member's tar header and its size, so that an item is read with one seek, from a
disk or an object store. The `.jsonl` gets its name last: a shard that has one is complete.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokenlm.atomic import sync_to_disk, write_text
from training.data.rejects import Reject, write_rejects

INFO = "shards.json"
FORMAT = 1
HEADER_BYTES = 512
KINDS = {"tokens": "tokens.npy", "embedding": "embedding.npy", "mel": "mel.npy", "audio": "flac"}
"""Suffix of the member of each kind of content."""


class ShardError(ValueError):
    """Shards that cannot be used; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """shards.json."""

    manifest: str
    """Fingerprint of the rows of the manifest: the same manifest gives the same shards."""
    num_items: int
    items_per_shard: int
    contents: tuple[str, ...]
    """Kinds, out of `KINDS`."""
    tokenizer: str = ""
    """Fingerprint of the speech tokenizer."""
    codebook_size: int = 0
    token_rate: float = 0.0
    speaker_encoder: str = ""
    """Digest of the component that made the embeddings."""
    mel: dict[str, Any] = field(default_factory=dict)
    """Config of the mel spectrogram."""
    audio_rate: int = 0
    """Sample rate of the stored sound, in Hz."""
    format: int = FORMAT

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_items // self.items_per_shard)

    def to_json(self) -> str:
        """The text of shards.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> ShardInfo:
        """Read shards.json.

        Raises:
            ShardError: If it is not what this code writes.
        """
        try:
            data = json.loads(text)
            data["contents"] = tuple(data["contents"])
            info = cls(**data)
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{where} is not the description of shards: {error}") from error
        if info.format != FORMAT:
            raise ShardError(f"{where} has the format {info.format}; this version reads {FORMAT}")
        return info


def open_folder(folder: Path, info: ShardInfo) -> None:
    """Create a folder of shards, or check that what lies there was begun with the same settings.

    Raises:
        ShardError: If they differ; names the keys.
    """
    path = folder / INFO
    if path.exists():
        old = asdict(ShardInfo.from_json(path.read_text(encoding="utf-8"), str(path)))
        new = asdict(info)
        changed = [f"{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]
        if changed:
            raise ShardError(
                f"{folder} was begun with other settings: {'; '.join(changed)}. Give the old "
                "ones, or another folder."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, info.to_json())


def shard_name(number: int) -> str:
    """Name of a shard without suffix."""
    return f"shard-{number:05d}"


def is_complete(folder: Path, number: int) -> bool:
    """Whether a shard has been written."""
    return (folder / f"{shard_name(number)}.jsonl").exists()


class ShardWriter:
    """Writes one shard; nothing has its name before `commit`."""

    def __init__(self, folder: Path, number: int) -> None:
        """Open a temporary file in `folder`."""
        self._folder, self._name = folder, shard_name(number)
        self._temporary = folder / f".{self._name}.{os.getpid()}.partial"
        self._archive = tarfile.open(self._temporary, "w", format=tarfile.USTAR_FORMAT)
        self._rows: list[str] = []

    def add(self, row: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
        """Append an item.

        Args:
            row: Its metadata; `key` and `members` are added.
            members: Content of each kind, encoded.
        """
        key = f"{len(self._rows):06d}"
        places = {}
        for kind, payload in members.items():
            member = tarfile.TarInfo(f"{key}.{KINDS[kind]}")
            member.size = len(payload)
            # Without times and owners the same data give the same bytes.
            places[kind] = [self._archive.offset, len(payload)]
            self._archive.addfile(member, io.BytesIO(payload))
        full = {**row, "key": key, "members": places}
        self._rows.append(json.dumps(full, ensure_ascii=False) + "\n")

    def commit(self, rejects: list[Reject]) -> None:
        """Put tar, rejects and rows in place, the rows last."""
        self._archive.close()
        sync_to_disk(self._temporary)
        os.replace(self._temporary, self._folder / f"{self._name}.tar")
        aside = self._folder / f".{self._name}.{os.getpid()}.rejects"
        write_rejects(aside, rejects)
        sync_to_disk(aside)
        os.replace(aside, self._folder / f"{self._name}.rejects.jsonl")
        write_text(self._folder / f"{self._name}.jsonl", "".join(self._rows))

    def discard(self) -> None:
        """Remove the temporary file."""
        self._archive.close()
        self._temporary.unlink(missing_ok=True)


def encode_array(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def decode_array(payload: bytes) -> np.ndarray:
    """The array of the bytes of a .npy file."""
    return np.load(io.BytesIO(payload), allow_pickle=False)


def decode_member(block: bytes, name: str, where: str) -> bytes:
    """Take the content out of header and content of a tar member.

    Args:
        block: Bytes from the header of the member to its end.
        name: Name that it must have.
        where: The shard, for messages.

    Raises:
        ShardError: If this is no such member: the tar is damaged, or is not that of the rows.
    """
    try:
        header = tarfile.TarInfo.frombuf(block[:HEADER_BYTES], "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise ShardError(f"{where} is damaged where {name} should begin: {error}") from error
    if header.name != name:
        raise ShardError(f"{where} has {header.name} where the rows beside it place {name}")
    payload = block[HEADER_BYTES : HEADER_BYTES + header.size]
    if len(payload) != header.size:
        raise ShardError(f"{where} ends within {name}")
    return payload
