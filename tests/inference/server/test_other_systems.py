"""What differs on Windows, macOS and file systems without links, simulated."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import pytest

from inference.server import voice_store
from inference.server.process import listen
from inference.server.settings import ServeConfig
from inference.server.voice_store import VoiceExistsError, VoiceStore
from tokenlm.atomic import publish
from tokenlm.synthesis import Synthesizer


def no_links(code: int, winerror: int | None = None) -> Any:
    def link(source: Path, target: Path) -> None:
        error = OSError(code, "links are not supported")
        if winerror is not None:
            error.winerror = winerror  # type: ignore[attr-defined]
        raise error

    return link


def add(store: VoiceStore, synthesizer: Synthesizer) -> None:
    voice = synthesizer.voice("ann")
    store.add(voice, who="Ann", statement="Yes.", audio_sha256="0" * 64, seconds=1.0)


@pytest.mark.parametrize(
    ("code", "winerror"),
    [(errno.EPERM, None), (errno.ENOTSUP, None), (errno.ENOSYS, None), (errno.EIO, 1)],
)
def test_voices_are_kept_where_there_are_no_links(
    synthesizer: Synthesizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    winerror: int | None,
) -> None:
    monkeypatch.setattr(voice_store.os, "link", no_links(code, winerror))
    store = VoiceStore(tmp_path / "voices", max_voices=10)
    add(store, synthesizer)
    assert store.names() == ["ann"] and store.load("ann").name == "ann"
    with pytest.raises(VoiceExistsError):
        add(store, synthesizer)
    # Another server was faster, behind the back of the check.
    monkeypatch.setattr(store, "check_free", lambda name: None)
    with pytest.raises(VoiceExistsError):
        add(store, synthesizer)
    assert len(list((tmp_path / "voices").iterdir())) == 2, "nothing else is left"


def test_an_error_of_the_disk_is_none_of_links(
    synthesizer: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_store.os, "link", no_links(errno.EIO))
    store = VoiceStore(tmp_path / "voices", max_voices=10)
    with pytest.raises(OSError, match="links are not supported"):
        add(store, synthesizer)
    assert list((tmp_path / "voices").iterdir()) == []


def test_a_record_that_is_not_written_leaves_no_name(
    synthesizer: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_store.os, "link", no_links(errno.ENOTSUP))
    path, draft = tmp_path / "a.yaml", tmp_path / "draft"
    draft.write_bytes(b"x")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(voice_store.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish(draft, path)
    assert not path.exists()


def test_a_port_is_not_shared_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    class Listener(socket.socket):
        def setsockopt(self, level: int, option: int, value: Any) -> None:  # type: ignore[override]
            if level == socket.SOL_SOCKET:
                chosen.append(option)

    monkeypatch.setattr("inference.server.process.socket.socket", Listener)
    listen(ServeConfig(port=0)).close()
    assert socket.SO_REUSEADDR in chosen
    chosen.clear()
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    listen(ServeConfig(port=0)).close()
    assert -5 in chosen and socket.SO_REUSEADDR not in chosen


def test_a_socket_has_no_user_timeout_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with listen(ServeConfig(port=0)) as listener:
        assert listener.getsockname()[1] > 0
