"""The process of a server: its port, and how it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import State

from inference.server.service import Service
from inference.server.settings import ServeConfig

LAST_SECONDS = 5
"""For connections to close, once all utterances have ended or the time for them is over."""

logger = logging.getLogger(__name__)


def serve_app(app: FastAPI, config: ServeConfig) -> None:
    """Serves until a signal (SIGINT or SIGTERM), then finishes what is being spoken.

    Raises:
        ValueError: the address cannot be listened at.
    """
    server = build_server(app, config)
    listener = listen(config)
    host, port = listener.getsockname()[:2]
    logger.info(
        "serving at http://%s:%d until interrupted", f"[{host}]" if ":" in host else host, port
    )
    server.run(sockets=[listener])


def build_server(app: FastAPI, config: ServeConfig) -> DrainingServer:
    """Builds the server of an app."""
    limits = config.limits
    return DrainingServer(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http="h11",
            loop="asyncio",
            ws_max_size=12 * limits.max_text_characters + 65_536,
            ws_per_message_deflate=False,  # 16-bit samples hardly shrink
            # Pings keep proxies from closing a silent connection. Answers are not required: they
            # wait behind the sound that a slow client has not read.
            ws_ping_timeout=None,
            timeout_keep_alive=max(1, round(limits.idle_timeout_seconds / 12)),
            timeout_graceful_shutdown=LAST_SECONDS,
            server_header=False,
            # Anybody could write these headers: they are trusted from the named proxies only.
            proxy_headers=bool(config.proxies),
            forwarded_allow_ips=list(config.proxies),
            log_level="info",
        ),
        app.state,
        limits.drain_seconds,
    )


class DrainingServer(uvicorn.Server):
    """On a signal, finishes every utterance and accepts no new one, then stops.

    uvicorn by itself would close WebSockets at once. The port stays open meanwhile, so that
    `/health` can send a load balancer elsewhere. A second signal stops the server at once.
    """

    def __init__(self, config: uvicorn.Config, state: State, drain_seconds: float) -> None:
        """Creates a server that does not listen yet.

        Args:
            config: of uvicorn.
            state: of the app, which holds the service.
            drain_seconds: longest time for utterances to end after a signal.
        """
        super().__init__(config)
        self._state = state
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal, between any two instructions."""
        if self._loop is None or self._draining is not None:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Begins to stop. Must be called in the event loop."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        service: Service | None = getattr(self._state, "service", None)
        if service is not None:
            logger.info(
                "stopping: %d utterances have %g s to end",
                service.admission.num_live,
                self._drain_seconds,
            )
            if not await service.admission.drain(self._drain_seconds):
                logger.warning("%d utterances are cut off", service.admission.num_live)
        self.should_exit = True


def listen(config: ServeConfig) -> socket.socket:
    """Opens the port.

    Raises:
        ValueError: it cannot be opened.
    """
    try:
        found = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # On Windows SO_REUSEADDR would let two servers share a port.
            exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
            reuse = socket.SO_REUSEADDR if exclusive is None else exclusive
            listener.setsockopt(socket.SOL_SOCKET, reuse, 1)
            if size := config.limits.socket_send_bytes:
                # Connections inherit it. By default the system buffers megabytes for a slow
                # client: minutes of speech that may never be heard.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # A closed connection still waits for its client to read what was sent; without a
                # timeout, for ever.
                milliseconds = round(2000 * config.limits.write_timeout_seconds)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            listener.bind(address)
            listener.listen(256)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot listen at {config.host} port {config.port}: {reason}") from error
    listener.setblocking(False)
    return listener


__all__ = ["DrainingServer", "build_server", "listen", "serve_app"]
