"""Settings of the server, read from `configs/serve/*.yaml`."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inference.consent.settings import ConsentConfig, Policy, is_loopback
from inference.remote.settings import Local, Remote


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server. Requests beyond them are refused with status 413 or 429."""

    max_text_characters: int = 4096
    """Length of the text of one utterance."""
    max_streams: int = 16
    """Utterances that are spoken at the same time."""
    max_queue: int = 32
    """Requests that wait for one of them to end."""
    queue_timeout_seconds: float = 30.0
    """A request that waits longer is refused."""
    max_sockets: int = 64
    """Open WebSockets."""
    max_upload_bytes: int = 20_000_000
    """Size of a recording for a voice."""
    max_upload_seconds: float = 60.0
    """Length of a recording for a voice, once decoded."""
    max_uploads: int = 4
    """Recordings that are being made into voices or wait for it."""
    max_voices: int = 100_000
    """Voices in the folder."""
    max_buffer_seconds: float = 10.0
    """Speech that is made ahead of what the client has read."""
    stall_timeout_seconds: float = 60.0
    """An utterance ends if its models give nothing for this long."""
    write_timeout_seconds: float = 60.0
    """A client that reads nothing for this long is disconnected."""
    idle_timeout_seconds: float = 60.0
    """A WebSocket without messages in either direction is closed after this time, a kept-alive
    connection without a request after a twelfth of it."""
    body_timeout_seconds: float = 120.0
    """A request whose body takes longer to arrive is refused."""
    stream_timeout_seconds: float = 1800.0
    """Longest time for one utterance."""
    llm_stall_seconds: float = 20.0
    """A request to the LLM server that answers nothing for this long is made again."""
    llm_give_up_seconds: float = 30.0
    """An utterance whose LLM server fails for this long ends."""
    drain_seconds: float = 60.0
    """Time for live utterances to end after a signal to stop."""
    max_prompt_bytes: int = 1 << 30
    """Memory for cached voice prompts; the least recently used are dropped."""
    max_adapter_bytes: int = 1 << 30
    """Memory for the adapters of tuned voices; the least recently used are dropped."""
    socket_send_bytes: int = 131_072
    """Send buffer of the system for each client; 0 leaves it to the system."""

    def __post_init__(self) -> None:
        for name, low in {
            "max_text_characters": 1,
            "max_streams": 1,
            "max_queue": 0,
            "max_sockets": 0,
            "max_upload_bytes": 1,
            "max_uploads": 1,
            "max_voices": 0,
            "max_prompt_bytes": 0,
            "max_adapter_bytes": 0,
            "socket_send_bytes": 0,
            "drain_seconds": 0.0,
        }.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low:g}, got {getattr(self, name)}")
        for name in (
            "max_upload_seconds",
            "max_buffer_seconds",
            "queue_timeout_seconds",
            "stall_timeout_seconds",
            "write_timeout_seconds",
            "idle_timeout_seconds",
            "body_timeout_seconds",
            "stream_timeout_seconds",
            "llm_stall_seconds",
            "llm_give_up_seconds",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Settings of a server."""

    bundle: str = "mini-en"
    """Name of a bundle, its folder, or its id on the hub."""
    device: str = "cpu"
    """Where the models run. One server has one device."""
    weights: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision of the weights of the large models."""
    caches: Literal["float32", "float16", "int8"] = "float32"
    """Precision of what the flow keeps of a stream, in memory that grows with it where the flow has
    no window."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the large models compute in, with their caches; on a GPU bfloat16 is faster."""
    lexicon: Path | None = None
    """File of pronunciations for all requests; those of a request win."""
    llm: str = ""
    """Address of an LLM server that draws the speech tokens, such as http://127.0.0.1:8100; it
    serves what `tokenlm export llm` writes of the bundle. Empty draws them here."""
    llm_model: str = ""
    """Name of the model there; empty is the first that it lists."""
    llm_key_env: str = "TOKENLM_LLM_KEY"
    """Environment variable with the key of that server, if it wants one."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is every network of the machine."""
    port: int = 8000
    """0 takes any free port."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that are accepted in `Host` besides localhost and `host`, without port;
    "*.example.com" is every name that ends so, and "*" is all."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted."""
    voices: Path = Path("voices")
    """Folder of the voices that clients add, which is all the state of a server."""
    voice_files: dict[str, Path] = field(default_factory=dict)
    """Further voices of the server by name, such as tuned ones: voice files, each with its adapter
    beside it."""
    uploads: bool = True
    """Whether clients may add and delete voices."""
    consent: ConsentConfig = ConsentConfig()
    """What is asked for before a voice of somebody is made."""
    page: bool = True
    """Whether the page is served at /."""
    api_key_env: str = "TOKENLM_API_KEY"
    """Environment variable with the keys of clients, separated by commas. Without keys, everybody
    is served."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of these origins may use the server from a browser; "*" is all."""
    sentence_pause_seconds: float | None = 0.3
    """Over a WebSocket, the pause after a whole sentence after which it is spoken without waiting
    for more text; null always waits."""
    model_aliases: tuple[str, ...] = ()
    """Further names of the model besides that of the bundle."""
    voice_aliases: dict[str, str] = field(default_factory=dict)
    """Further names of voices, for clients whose voices cannot be set."""
    token_log: Path | None = None
    """JSON lines file with the speech tokens of every utterance, from which it can be rendered
    again; None writes nothing."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.llm:
            self.tokens()
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, got {self.port}")
        if self.sentence_pause_seconds is not None and not self.sentence_pause_seconds >= 0:
            raise ValueError(
                f"sentence_pause_seconds must not be negative, got {self.sentence_pause_seconds}"
            )
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                raise ValueError(
                    f"allowed_hosts has names without scheme or port, such as speech.example.com "
                    f"or *.example.com, not {name!r}"
                )
        for address in self.proxies:
            try:
                ipaddress.ip_network(address)
            except ValueError:
                raise ValueError(
                    "proxies has addresses or networks, such as 10.0.0.2 or 10.0.0.0/8, not "
                    f"{address!r}"
                ) from None

    @property
    def consent_policy(self) -> Policy:
        """What is asked for before a voice is made.

        A proxy or a further name means that others reach the server, wherever it listens.
        """
        others = [name for name in self.allowed_hosts if not is_loopback(name)]
        return self.consent.policy_of(self.host, is_published=bool(self.proxies or others))

    def tokens(self) -> Local | Remote:
        """Where speech tokens are drawn."""
        if not self.llm:
            return Local()
        return Remote(
            self.llm,
            model=self.llm_model,
            api_key=os.environ.get(self.llm_key_env, ""),
            stall_seconds=self.limits.llm_stall_seconds,
            give_up_seconds=self.limits.llm_give_up_seconds,
        )


_HOST = re.compile(r"\*|(?:\*\.)?[A-Za-z0-9_-][A-Za-z0-9._-]*|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]?")
