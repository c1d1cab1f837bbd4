"""Atomic writing: the old or the new, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlm.atomic import atomic_folder, atomic_path, write_text


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
