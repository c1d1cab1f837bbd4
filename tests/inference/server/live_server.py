"""A real server on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_engine import FakeEngine

from inference.server.app import build_app
from inference.server.process import build_server, listen
from inference.server.service import Service
from inference.server.settings import ServeConfig
from tokenlm.synthesis import Synthesizer


class LiveServer:
    """Runs while the block does."""

    def __init__(
        self,
        config: ServeConfig,
        synthesizer: Synthesizer,
        make_engine: Callable[[], Any],
        *,
        keys: tuple[str, ...] = (),
        folder: Path | None = None,
    ) -> None:
        self.config = replace(config, port=0)
        if folder is not None:
            self.config = replace(self.config, voices=folder / "voices")
        self.app = build_app(self.config, synthesizer, make_engine, keys=keys)
        self._listener = listen(self.config)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.socket_url = f"ws://127.0.0.1:{self.port}/v1/audio/speech/stream"
        self.server = build_server(self.app, self.config)
        self.server.config.log_level = "warning"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            await self.server.serve(sockets=[self._listener])

        asyncio.run(run())

    @property
    def service(self) -> Service:
        return self.app.state.service

    @property
    def fake_engine(self) -> FakeEngine:
        engine = self.service.engine
        assert isinstance(engine, FakeEngine)
        return engine

    def call(self, function: Callable[[], object]) -> None:
        """Calls a function in the event loop of the server."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def drain(self) -> None:
        """What a signal does."""
        self.call(self.server.drain)

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def join(self, seconds: float = 10.0) -> None:
        self._thread.join(seconds)
        assert self.has_ended

    def __enter__(self) -> LiveServer:
        self._thread.start()
        eventually(lambda: self.server.started, "the server starts")
        return self

    def __exit__(self, *error: object) -> None:
        if not self.has_ended:
            self.call(lambda: setattr(self.server, "should_exit", True))
            self.join()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.01)
