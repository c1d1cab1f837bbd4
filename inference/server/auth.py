"""Keys of clients."""

from __future__ import annotations

import hmac
import os

from inference.server.errors import ApiError
from inference.server.settings import ServeConfig


class Keys:
    """The keys that open the server; without any, it is open."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(key.encode() for key in keys)

    @classmethod
    def from_environment(cls, config: ServeConfig) -> Keys:
        """Reads the keys from the environment variable that the settings name."""
        words = os.environ.get(config.api_key_env, "").split(",")
        return cls(tuple(word.strip() for word in words if word.strip()))

    @property
    def needed(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._keys)

    def opens(self, key: str) -> bool:
        """Whether this is one of the keys, in a time that does not tell how near it comes."""
        given = key.encode(errors="surrogateescape")
        found = [hmac.compare_digest(given, known) for known in self._keys]
        return any(found) or not self._keys

    def check(self, authorization: str | None) -> None:
        """Checks the header `Authorization: Bearer KEY`.

        Raises:
            ApiError: 401.
        """
        if not self.needed:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not self.opens(key.strip()):
            reason = "is wrong" if key else "is missing: send the header Authorization: Bearer KEY"
            raise ApiError(
                401,
                f"The key {reason}.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
