"""Where speech tokens are drawn: in this process, or by an LLM server."""

from __future__ import annotations

from dataclasses import dataclass


class RemoteError(RuntimeError):
    """The LLM server cannot be used, or has failed for too long."""


@dataclass(frozen=True)
class Local:
    """Speech tokens by the LM of the bundle, in this process."""


@dataclass(frozen=True)
class Remote:
    """Speech tokens by an LLM server with a completions route as OpenAI has it."""

    url: str
    """Such as http://127.0.0.1:8100; /v1 behind it may be left out."""
    model: str = ""
    """Name of the model there; empty is the first that it lists."""
    api_key: str = ""
    stall_seconds: float = 20.0
    """A request that answers nothing for this long is made again."""
    give_up_seconds: float = 30.0
    """A stream that gets no token for this long, from its first failure on, ends with an error."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"the address of an LLM server begins with http://, not {self.url!r}")
        if not (self.stall_seconds > 0 and self.give_up_seconds > 0):
            raise ValueError("stall_seconds and give_up_seconds must be above 0")

    @property
    def base(self) -> str:
        """The address up to and with /v1."""
        return self.url.rstrip("/").removesuffix("/v1") + "/v1"
