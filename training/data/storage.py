"""Folders of data on a disk, or at an address that `fsspec` knows, such as `s3://bucket/shards`.

What is written appears whole under its name: on a disk a temporary sibling is flushed and renamed,
at an address a finished file is uploaded, which object stores show when it is there.
"""

from __future__ import annotations

import os
import platform
import posixpath
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenlm.atomic import replace as replace_file
from tokenlm.atomic import sync_to_disk
from training.data.manifest import Manifest, ManifestError, read_manifest
from training.data.table import cache_folder, digest

_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(://|::)")


def is_address(path: str | Path) -> bool:
    """Whether this is an address with a protocol, and not a path."""
    return isinstance(path, str) and _ADDRESS.match(path) is not None


class Folder:
    """A folder that is written to.

    Attributes:
        name: Its path or address.
        path: Its path; None at an address that is not on a disk.
    """

    def __init__(self, where: str | Path) -> None:
        """Name a folder.

        Raises:
            ImportError: If a library that fsspec needs for the protocol is missing.
        """
        self.name = str(where).rstrip("/") if is_address(where) else str(where)
        self.path: Path | None = None
        self._filesystem: Any = None
        self._root = ""
        if not is_address(where):
            self.path = Path(where)
            return
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self._filesystem, self._root = url_to_fs(self.name)
        if isinstance(self._filesystem, LocalFileSystem):
            self.path = Path(self._root)

    def __str__(self) -> str:
        return self.name

    def file(self, name: str) -> str:
        """Path or address of a file of the folder."""
        return str(self.path / name) if self.path is not None else f"{self.name}/{name}"

    def make(self) -> None:
        """Make the folder, where such a thing exists."""
        if self.path is not None:
            self.path.mkdir(parents=True, exist_ok=True)

    def names(self) -> set[str]:
        """Names of the files that are there."""
        if self.path is not None:
            return set(os.listdir(self.path)) if self.path.is_dir() else set()
        self._filesystem.invalidate_cache()  # other machines write here, too
        with suppress(FileNotFoundError):
            found = self._filesystem.ls(self._root, detail=False)
            return {name.rstrip("/").rsplit("/", 1)[-1] for name in found}
        return set()

    def read_text(self, name: str) -> str:
        """The content of a text file.

        Raises:
            FileNotFoundError: If it is not there.
        """
        if self.path is not None:
            return (self.path / name).read_text(encoding="utf-8")
        return self._filesystem.cat_file(f"{self._root}/{name}").decode("utf-8")

    def temporary(self, name: str) -> Path:
        """A path on this machine where the file `name` can be prepared.

        On a disk it names machine and process, so that no two writers share it.
        """
        if self.path is not None:
            return self.path / f".{name}.{platform.node()}.{os.getpid()}.partial"
        descriptor, path = tempfile.mkstemp(prefix="tokenlm-", suffix=f"-{name}")
        os.close(descriptor)
        return Path(path)

    def put(self, temporary: Path, name: str) -> None:
        """Put a file that was prepared in its place."""
        if self.path is not None:
            sync_to_disk(temporary)
            replace_file(temporary, self.path / name)
            sync_to_disk(self.path)
            return
        self._filesystem.put_file(str(temporary), f"{self._root}/{name}")
        temporary.unlink()

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        temporary = self.temporary(name)
        try:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            self.put(temporary, name)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def remove_leftovers(self, names: Collection[str]) -> None:
        """Remove what processes that were killed have prepared for names and not put in place."""
        if self.path is not None:
            for left in self.path.glob(".*"):
                if left.name[1:].partition(".")[0] in names:
                    left.unlink(missing_ok=True)


def fetch_manifest(address: str) -> Manifest:
    """Read a manifest at an address; `audio` in it is relative to the address.

    The rows are copied to the cache folder, and copied again when the file has changed. Sound is
    fetched by `on_disk`.

    Raises:
        ManifestError: If there is no such file.
    """
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(address)
    try:
        facts = filesystem.info(path)
        changes = [facts.get(key) for key in ("size", "mtime", "ETag", "LastModified", "created")]
        copy = cache_folder() / f"{digest(address, changes)}.jsonl"
        if not copy.exists():
            folder = Folder(copy.parent)
            folder.make()
            temporary = folder.temporary(copy.name)
            filesystem.get_file(path, str(temporary))
            folder.put(temporary, copy.name)
    except OSError as error:
        raise ManifestError(f"{address}: the manifest cannot be read: {error}") from error
    return replace(read_manifest(copy), address=address)


@contextmanager
def on_disk(manifest: Manifest) -> Iterator[tuple[Manifest, dict[str, str]]]:
    """Give the rows with their sound on this machine: what lies at an address is fetched.

    That goes for all rows of a manifest that was read from an address, and for rows whose `audio`
    is an address. A recording that does not exist is left out, so that it is found missing; the
    files are removed when the block ends.

    Yields:
        The rows, and the address of each file that was fetched.

    Raises:
        OSError: If recordings cannot be fetched for another reason, such as the network.
    """
    audio: list[str] = manifest.utterances.column("audio").tolist()
    sources = [name if is_address(name) else _beside(manifest.address, name) for name in audio]
    if not any(sources):
        yield manifest, {}
        return
    from fsspec.core import url_to_fs

    with tempfile.TemporaryDirectory(prefix="tokenlm-") as folder:
        places: list[str] = []
        for number, (name, source) in enumerate(zip(audio, sources, strict=True)):
            if not source:
                places.append(str((manifest.path.parent / name).absolute()))
                continue
            place = Path(folder, f"{number:06d}", source.rsplit("/", 1)[-1])
            place.parent.mkdir()
            filesystem, path = url_to_fs(source)
            with suppress(FileNotFoundError):
                filesystem.get_file(path, str(place))
            places.append(str(place))
        fetched = {place: name for place, name in zip(places, sources, strict=True) if name}
        yield replace(manifest, utterances=manifest.utterances.with_audio(places)), fetched


def _beside(address: str, name: str) -> str:
    """The address of a file by its path relative to the folder of another; '' beside none."""
    if not address:
        return ""
    protocol, separator, path = address.partition("://")
    return protocol + separator + posixpath.normpath(posixpath.join(path, "..", name))
