"""Servers to be asked, and what to ask them with."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_engine import FakeEngine
from live_server import LiveServer

from inference.server.settings import Limits, ServeConfig
from tokenlm.synthesis import Synthesizer

StartServer = Callable[..., LiveServer]
CONSENT = '{"who": "Ann Example", "statement": "My voice may be used in these tests."}'


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    """Reads the certificates of the system once, not for every client: no server here has any."""
    context = ssl.create_default_context()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", lambda *_, **__: context)
        yield


@pytest.fixture(scope="session")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.fixture
def start(synthesizer: Synthesizer, tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server with a fake engine; limits and other settings by name."""
    with ExitStack() as stack:

        def begin(
            *, keys: tuple[str, ...] = (), engine: type[FakeEngine] = FakeEngine, **settings: Any
        ) -> LiveServer:
            limits = {name: settings.pop(name) for name in list(settings) if hasattr(Limits, name)}
            settings.setdefault("voices", tmp_path / "voices")
            config = ServeConfig(limits=Limits(**limits), **settings)
            return stack.enter_context(LiveServer(config, synthesizer, engine, keys=keys))

        yield begin


@pytest.fixture(scope="session")
def shared(
    synthesizer: Synthesizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A server with a fake engine and default settings, for tests that leave no trace."""
    config = ServeConfig(voices=tmp_path_factory.mktemp("serve") / "voices",
                         model_aliases=("tts-1",), voice_aliases={"alloy": "bob"})  # fmt: skip
    with LiveServer(config, synthesizer, FakeEngine) as server:
        yield server


@pytest.fixture
def client(shared: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared.url, timeout=20.0) as found:
        yield found
