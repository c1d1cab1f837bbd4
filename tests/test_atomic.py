"""Atomic writing: the old or the new, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenlm import atomic
from tokenlm.atomic import atomic_folder, atomic_path, write_text
from tokenlm.text.pronunciation import write_lexicon


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "öne")
    write_text(path, "two")
    assert path.read_text(encoding="utf-8") == "two"
    assert names(path.parent) == ["b.txt"]


def test_file_is_untouched_by_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == tmp_path
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["b.txt"]


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    for name in ("one", "two"):
        with atomic_folder(folder) as temporary:
            assert names(temporary) == []
            (temporary / "deep").mkdir()
            (temporary / "deep" / name).write_text(name)
    assert names(folder / "deep") == ["two"]
    assert names(tmp_path) == ["x"]


def test_folder_is_untouched_by_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    with atomic_folder(folder) as temporary:
        (temporary / "old").touch()
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "new").touch()
        raise RuntimeError
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["x"]


def test_a_file_that_is_open_elsewhere_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that somebody reads cannot be replaced."""
    tries = []
    real = os.replace

    def busy(source: Path, target: Path) -> None:
        tries.append(target)
        if len(tries) < 4:
            raise PermissionError(13, "Access is denied")
        real(source, target)

    monkeypatch.setattr(atomic.os, "replace", busy)
    with pytest.raises(PermissionError):  # elsewhere it means what it says
        write_text(tmp_path / "a.txt", "one")
    assert len(tries) == 1
    monkeypatch.setattr(atomic.sys, "platform", "win32")
    write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "two" and len(tries) == 4
    monkeypatch.setattr(atomic, "REPLACE_SECONDS", 0.0)
    tries.clear()
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a.txt", "three")
    assert names(tmp_path) == ["a.txt"]


def test_the_same_bytes_are_written_on_every_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_text

    def translating(path: Path, text: str, newline: str | None = None, **options: str) -> int:
        return real(path, text, newline="\r\n" if newline is None else newline, **options)

    monkeypatch.setattr(Path, "write_text", translating)  # as on Windows
    write_text(tmp_path / "a.txt", "one\ntwo\n")
    write_lexicon({"so": ("s", "ow1")}, tmp_path / "lexicon.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "lexicon.txt").read_bytes() == b"so  s ow1\n"
