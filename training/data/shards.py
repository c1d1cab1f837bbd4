"""Shards: tar files of precomputed tokens, embeddings, mels and sound, with rows beside them.

    shards.json            what is inside, made of which manifest and by which models
    shard-00000.tar        KEY.json, KEY.tokens.npy, KEY.embedding.npy, KEY.mel.npy, KEY.flac …
    shard-00000.jsonl      one row per item: manifest keys, and where its members stand in the tar
    shard-00000.rejects.jsonl

The tar files are those of WebDataset, which any of its readers takes. The rows beside them count,
and may be edited (a text, a speaker) or deleted without touching the tar. `members` gives the
offset of each member's tar header and its size, so that an item is read with one seek, from a disk
or any address that `fsspec` knows. As any item can be had at any time, the order of training is
that of the sampler, a function of the seed alone. The `.jsonl` gets its name last: a shard that has
one is complete. Caching of a remote address is left to fsspec: `simplecache::s3://bucket/shards`.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import soundfile
import torch
from torch import Tensor

from tokenlm.audio.io import AudioError
from tokenlm.audio.resample import resample
from training.data.augment import AugmentConfig
from training.data.dataset import ShardError, UtteranceDataset
from training.data.exclusion import Exclusion
from training.data.manifest import ROW_SCHEMA, ManifestError, Rows, Utterance, row_columns
from training.data.rejects import Reject, Rejects, rejects_text
from training.data.storage import Folder
from training.data.table import Columns, Table, digest, in_columns

logger = logging.getLogger(__name__)

INFO = "shards.json"
FORMAT = 1
HEADER_BYTES = 512
KINDS = {"tokens": "tokens.npy", "embedding": "embedding.npy", "mel": "mel.npy", "audio": "flac"}
"""Suffix of the member of each kind of content."""
SHARD_SCHEMA = pa.schema(
    [
        *ROW_SCHEMA,
        ("shard", pa.int32()),
        ("key", pa.string()),
        ("kinds", pa.list_(pa.string())),
        ("offsets", pa.list_(pa.int64())),
        ("sizes", pa.list_(pa.int64())),
        ("num_lost", pa.int64()),  # rows that a bad row stands for
    ]
)
_OWN_KEYS = ("key", "members", "num_tokens")


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

    def items(self, number: int) -> range:
        """Which rows of the manifest stand in a shard."""
        first = number * self.items_per_shard
        return range(first, min(first + self.items_per_shard, self.num_items))

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


def open_folder(folder: Folder, info: ShardInfo) -> None:
    """Create a folder of shards, or check that what lies there was begun with the same settings.

    Raises:
        ShardError: If they differ; names the keys.
    """
    folder.make()
    if INFO in folder.names():
        old = asdict(ShardInfo.from_json(folder.read_text(INFO), folder.file(INFO)))
        new = asdict(info)
        changed = [f"{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]
        if changed:
            raise ShardError(
                f"{folder} was begun with other settings: {'; '.join(changed)}. Give the old "
                "ones, or another folder."
            )
        return
    folder.write_text(INFO, info.to_json())


def shard_name(number: int) -> str:
    """Name of a shard without suffix."""
    return f"shard-{number:05d}"


def complete_shards(folder: Folder, info: ShardInfo) -> set[int]:
    """Numbers of the shards that have been written, by one listing of the folder."""
    names = folder.names()
    return {n for n in range(info.num_shards) if f"{shard_name(n)}.jsonl" in names}


class ShardWriter:
    """Writes one shard; nothing has its name before `commit`."""

    def __init__(self, folder: Folder, number: int) -> None:
        """Open a temporary file; what is left of earlier attempts is removed."""
        from webdataset.writer import TarWriter

        self._folder, self._name = folder, shard_name(number)
        folder.remove_leftovers({self._name})  # a shard has one owner: nobody is at work on it
        self._temporary = folder.temporary(f"{self._name}.tar")
        self._file = self._temporary.open("wb")
        # Without times and owners the same data give the same bytes.
        self._tar = TarWriter(self._file, user="", group="", mode=0o644, mtime=0, encoder=False)
        self._rows: list[str] = []

    def add(self, row: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
        """Append an item.

        Args:
            row: Its metadata; `key` and `members` are added.
            members: Content of each kind, encoded.
        """
        key = f"{len(self._rows):06d}"
        text = json.dumps(row, ensure_ascii=False)
        self._tar.write({"__key__": key, "json": text.encode("utf-8")})
        places = {}
        for kind, payload in members.items():
            places[kind] = [self._tar.tarstream.offset, len(payload)]
            self._tar.write({"__key__": key, KINDS[kind]: payload})
        full = {**row, "key": key, "members": places}
        self._rows.append(json.dumps(full, ensure_ascii=False) + "\n")

    def commit(self, rejects: list[Reject]) -> None:
        """Put tar, rejects and rows in place, the rows last."""
        self._close()
        self._folder.put(self._temporary, f"{self._name}.tar")
        self._folder.write_text(f"{self._name}.rejects.jsonl", rejects_text(rejects))
        self._folder.write_text(f"{self._name}.jsonl", "".join(self._rows))

    def discard(self) -> None:
        """Remove the temporary file, even if the disk is full."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        self._tar.close()
        self._file.close()


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

    def rows(self, rejects: Rejects) -> Rows:
        """Return the rows of all shards, in order; bad rows and shards go to `rejects`.

        The rows are converted as those of a manifest are (`training.data.table`).

        Raises:
            TooManyRejects: If more than the allowed share is bad.
        """
        names = [shard_name(number) for number in range(self.info.num_shards)]
        states = self._states([f"{name}{end}" for name in names for end in (".jsonl", ".tar")])
        sizes = {name: size for name, (size, _) in states.items()}
        key = digest(FORMAT, self.url, self.info, sorted(states.items()))
        num_bytes = sum(size for name, size in sizes.items() if name.endswith(".jsonl"))
        table = Table.convert(key, num_bytes, SHARD_SCHEMA, lambda: self._read_rows(sizes))
        good = table.is_null("problem")
        for row in table.select(~good):
            address = self.address(f"{shard_name(row['shard'])}.jsonl")
            rejects.reject(Reject(address, row["line"], row["problem"]), row["num_lost"])
            if row["line"] is None:
                table.forget()  # the shard may be readable at the next start
        rejects.accept(int(good.sum()))
        rejects.num_expected = 0  # rows that were deleted are neither good nor bad
        rejects.check()
        return Rows(table if good.all() else table.select(good), self._utterance)

    def _states(self, names: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Size of each file that is there, and what changes when it is written anew."""
        from fsspec.core import url_to_fs

        filesystem, root = url_to_fs(self.url)
        with suppress(OSError, NotImplementedError):
            filesystem.ls(root)  # of an object store: one listing, and no question for each file
        states = {}
        for name in names:
            with suppress(OSError):
                facts = filesystem.info(f"{root}/{name}")
                changes = [facts.get(key) for key in ("mtime", "ETag", "LastModified", "created")]
                states[name] = (int(facts.get("size") or 0), str(changes))
        return states

    def _read_rows(self, sizes: Mapping[str, int]) -> Iterator[Columns]:
        return in_columns(self._parse_rows(sizes), SHARD_SCHEMA)

    def _parse_rows(self, sizes: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        seen: dict[str, str] = {}
        for number in range(self.info.num_shards):
            name = shard_name(number)
            bad = {"shard": number, "duration": 0.0, "num_tokens": 0, "max_token": 0, "num_lost": 1}
            try:
                lines = self._whole(f"{name}.jsonl").decode("utf-8").split("\n")
                if f"{name}.tar" not in sizes:
                    raise FileNotFoundError(f"there is no {name}.tar")
            except (OSError, UnicodeDecodeError) as error:
                problem = f"the shard cannot be read: {error}"
                yield {**bad, "problem": problem, "num_lost": len(self.info.items(number))}
                continue
            for line, text in enumerate(lines, start=1):
                if not text.strip():
                    continue
                try:
                    row = self._parse_row(text, sizes[f"{name}.tar"])
                    if row["id"] in seen:
                        raise ShardError(
                            f"the id {row['id']!r} is already that of {seen[row['id']]}."
                        )
                    seen[row["id"]] = f"{self.address(name)}.jsonl:{line}"
                except ValueError as error:
                    row = {**bad, "problem": str(error)}
                yield {**row, "shard": number, "line": line}

    def _parse_row(self, text: str, end: int) -> dict[str, Any]:
        try:
            data: dict[str, Any] = json.loads(text)
            members = {kind: (int(at), int(size)) for kind, (at, size) in data["members"].items()}
            key, num_tokens = str(data["key"]), int(data.get("num_tokens", 0))
            row = row_columns({k: v for k, v in data.items() if k not in _OWN_KEYS})
        except ManifestError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"not a row of a shard: {type(error).__name__} {error}.") from None
        if any(at + HEADER_BYTES + size > end for at, size in members.values()):
            raise ShardError(f"the tar beside it ends at {end}, before this item: it is damaged.")
        row |= {"key": key, "kinds": list(members)}
        row |= {"offsets": [at for at, _ in members.values()]}
        row |= {"sizes": [size for _, size in members.values()]}
        if "tokens" in members:
            largest = max(self.info.codebook_size - 1, 0)  # the tar is not read for this
            row |= {"num_tokens": num_tokens, "max_token": largest}
            row["tokenizer"] = self.info.tokenizer
        return row

    def _utterance(self, row: dict[str, Any]) -> ShardUtterance:
        places = zip(row["offsets"], row["sizes"], strict=True)
        phones = row["phones"]
        utterance = ShardUtterance(
            id=row["id"],
            audio=Path(row["audio"]),
            text=row["text"],
            speaker=row["speaker"],
            duration=row["duration"],
            shard=row["shard"],
            key=row["key"],
            members=dict(zip(row["kinds"], places, strict=True)),
            phones=None if phones is None else tuple(zip(phones, row["phone_ends"], strict=True)),
            extra=json.loads(row["extra"]) if row["extra"] else {},
        )
        if "tokens" in utterance.members:
            tokens = ShardTokens(self, utterance, row["num_tokens"])
            # The field is that of rows read from a manifest; both are sequences of numbers.
            object.__setattr__(utterance, "speech_tokens", tokens)
            object.__setattr__(utterance, "tokenizer", self.info.tokenizer)
        return utterance


class ShardTokens(Sequence[int]):
    """Speech tokens that are read when they are looked at; their number is known before."""

    __slots__ = ("_row", "_size", "_store")

    def __init__(self, store: ShardStore, row: ShardUtterance, size: int) -> None:
        """Remember where they are."""
        self._store, self._row, self._size = store, row, size

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
            exclusion: Texts that are left out and logged, as those of test sets.

        Raises:
            ShardError: If there are no shards.
            TooManyRejects: If too many rows are bad.
        """
        self.store = ShardStore(url)
        expected = self.store.info.num_items
        rejects = Rejects(None, max_reject_share, num_expected=expected)
        rows = self.store.rows(rejects)
        if rejects.found:
            logger.warning(rejects.report())
        super().__init__(
            rows,
            sample_rate,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            augmentation=augmentation,
            exclusion=exclusion,
        )
        self.rejects = rejects.found + self.rejects

    def _row(self, index: int) -> ShardUtterance:
        row = self.utterances[index]
        assert isinstance(row, ShardUtterance)
        return row

    def waveform(self, index: int) -> Tensor:
        """Return the waveform (S,) of one utterance."""
        row = self._row(index)
        payload = self.store.read(row, "audio")
        try:
            samples, rate = soundfile.read(io.BytesIO(payload), dtype="float32")
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(f"the sound of {row.id!r} in {self.store.url}: {error}") from error
        return resample(torch.from_numpy(np.asarray(samples)), rate, self.sample_rate)

    def array(self, index: int, kind: str) -> np.ndarray:
        """Return the embedding (D,) or mel (T, M) of one utterance."""
        return decode_array(self.store.read(self._row(index), kind))
