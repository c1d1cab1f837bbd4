"""Writing files and folders so that a reader sees the old or the new, never a part of either."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REPLACE_SECONDS = 2.0
"""How long a file that another process has open is waited for on Windows."""


def replace(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`.

    Windows refuses while another process has `target` open, such as a reader or a virus scanner:
    there it is tried again for a while.
    """
    end = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
            time.sleep(0.02)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""Errors of file systems that have no links."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to, and put it in place when the block ends.

    The sibling is flushed to the disk before it is renamed, so that a crash leaves no empty file
    under the final name. If the block raises, the sibling is removed and `path` is untouched.

    Args:
        path: where the file is to be in the end; its folder is made if it is missing.

    Yields:
        A path in the same folder with the same suffix (writers often go by the suffix).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        sync_to_disk(temporary)
        replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename, error.filename2 = (
                str(path),
                None,
            )  # not the temporary name
        raise
    sync_to_disk(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary sibling folder to fill, and put it in place of `path` when the block ends.

    A folder that is already there is replaced with all that it holds: the caller answers for it.
    If the block raises, it is untouched.

    Args:
        path: where the folder is to be in the end; its parents are made if they are missing.

    Yields:
        An empty folder beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    previous = path.with_name(f".{path.name}.{os.getpid()}.previous")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process of the same id that was killed
    temporary.mkdir()
    try:
        yield temporary
        for item in sorted(temporary.rglob("*")):
            sync_to_disk(item)
        sync_to_disk(temporary)
        if path.exists():
            replace(path, previous)
        try:
            replace(temporary, path)
        except OSError:
            if previous.exists():
                replace(previous, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
    sync_to_disk(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; the same bytes on every system."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def publish(draft: Path, path: Path) -> None:
    """Gives a finished file its name, where there is none of that name yet.

    Unlike a rename, a link does not replace what another server wrote meanwhile. File systems
    without links (exFAT, some network folders) get a file that is created only if it is new; until
    it is complete, a reader sees a part of it.

    Raises:
        FileExistsError: there is such a file.
    """
    try:
        os.link(draft, path)
        return
    except FileExistsError:
        raise
    except OSError as error:
        is_windows = getattr(error, "winerror", None) in (1, 50)  # not a function of this volume
        if error.errno not in _NO_LINKS and not is_windows:
            raise
    content, mode = draft.read_bytes(), draft.stat().st_mode & 0o777
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    with os.fdopen(handle, "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def sync_to_disk(path: Path) -> None:
    """Ask the system to put a file, or the list of names of a folder, on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folder
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
