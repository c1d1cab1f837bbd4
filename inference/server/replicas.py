"""The server as an application of Ray Serve: as many replicas as there are listeners.

    serve run inference.server.replicas:application config=serve.yaml max_replicas=8

Each replica is the application of `tokenlm serve` with models of its own. Replicas share the folder
of voices and nothing else, so that any of them can take any request but one: the recording of a
sentence of spoken consent has to reach the replica that drew it, which Ray does not see to. With
several replicas, set `consent.policy` to `recorded`.

Ray sends a request to the replica with the fewest live ones, starts further replicas where streams
are many, and replaces one that is lost or whose models fail. A replica that is to stop takes no new requests and ends with its
last one. What goes on for longer than the longest utterance may (`limits.stream_timeout_seconds`),
as a WebSocket can, is cut off.

API keys are those of the environment in which the application is built: of `serve run`, or with
`serve deploy` the `runtime_env` of the application. Without any there, each replica looks in the
environment of its machine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from inference.server.access import keys_of_environment
from inference.server.settings import ServeConfig
from tokenlm.checkpoint import packaged_configs
from tokenlm.config import ConfigError, from_dict, load_config

logger = logging.getLogger(__name__)

SMALL_REQUESTS = 32
"""Requests besides those that speak or wait and WebSockets: health, voices, metrics."""
STOP_MARGIN_SECONDS = 60.0
"""What a replica that is to stop has beyond the wait in the queue and the longest utterance."""


@dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """How many replicas there are, and what each of them has.

    Raises:
        ValueError: a number is out of range.
    """

    config: Path | None = None
    """Settings of the server (`configs/serve`); None takes the default ones. Host and port are
    those of Ray Serve, and names other than localhost have to be among `allowed_hosts`."""
    settings: tuple[str, ...] = ()
    """Any setting of the server, as with `tokenlm serve --set`."""
    min_replicas: int = 1
    max_replicas: int = 4
    streams_per_replica: float = 0.0
    """Live streams of a replica that Ray aims at: above them it starts further ones. 0 takes half
    of the server's `limits.max_streams`; docs/sizing.md says how to measure it."""
    upscale_delay_seconds: float = 10.0
    """How long streams are too many before there is a further replica."""
    downscale_delay_seconds: float = 300.0
    """How long they are few before there is one less."""
    cpus: float = 1.0
    """Of a replica."""
    gpus: float = 0.0
    """Of a replica; a fraction lets several share one."""
    requires_keys: bool = False
    """Whether an application without API keys is refused. Otherwise it serves everybody."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ValueError(
                "min_replicas must be from 0 to max_replicas, and that at least 1, got "
                f"{self.min_replicas} and {self.max_replicas}"
            )
        for name in ("streams_per_replica", "cpus", "gpus"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def server(self) -> ServeConfig:
        """Settings of the server of each replica."""
        path = self.config or packaged_configs() / "serve" / "default.yaml"
        return load_config(ServeConfig, path, self.settings)


@serve.deployment
@serve.ingress()
class Speech:
    """One replica: the server of one process, on its own part of the machine."""

    def __init__(self, config: ServeConfig, keys: Sequence[str] | None = None) -> None:
        """Takes the settings; the models are loaded when the application is built.

        Args:
            config: of the server.
            keys: API keys; None takes those of the environment of this process.
        """
        self._config, self._keys = config, keys
        self._app: FastAPI | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application; Ray runs it in this process."""
        # Imported here: whoever only describes the application needs no models.
        from inference.server.app import build_app
        from tokenlm.synthesis import Synthesizer
        from tokenlm.synthesis.acceleration import accelerate

        config = self._config
        synthesizer = Synthesizer.from_pretrained(
            config.bundle, device=config.device, dtype=config.dtype, lexicon=config.lexicon
        )
        accelerate(synthesizer.components, weights=config.weights, caches=config.caches)
        self._app = build_app(config, synthesizer, keys=self._keys)
        return self._app

    def check_health(self) -> None:
        """Called by Ray every few seconds.

        Raises:
            RuntimeError: the models fail; Ray then replaces the replica.
        """
        service = getattr(self._app and self._app.state, "service", None)
        if service is None:
            return
        reason = service.health.reason
        if reason is not None:
            service.health.retry()
            raise RuntimeError(reason)


def application(arguments: Mapping[str, Any]) -> Application:
    """Builds the application; `serve run` and the YAML of `serve deploy` give the arguments.

    Args:
        arguments: fields of `ReplicaConfig` by name; strings, as a command line has them, are read
            as YAML.

    Raises:
        ConfigError: one of them, or a setting of the server, is wrong, or keys are required and
            there are none.
    """
    words = [f"{name}={value}" for name, value in arguments.items() if isinstance(value, str)]
    values = {name: value for name, value in arguments.items() if not isinstance(value, str)}
    config = from_dict(ReplicaConfig, values, where="arguments", overrides=words)
    server = config.server()
    keys = keys_of_environment(server)
    if not keys and config.requires_keys:
        raise ConfigError(
            f"requires_keys: there are no API keys. Set {server.api_key_env} in the environment of "
            "`serve run`, or with `serve deploy` under runtime_env: env_vars of the application; "
            "requires_keys=false serves everybody."
        )
    if not keys:
        logger.warning(
            "%s is not set here: where a machine of the cluster has no API keys of its own, its "
            "replicas serve everybody.",
            server.api_key_env,
        )
    limits = server.limits
    deployment = Speech.options(
        # The server itself refuses what is too much (429), with the reason. A WebSocket is a
        # request for as long as it is open, even when nothing is spoken.
        max_ongoing_requests=limits.max_streams
        + limits.max_queue
        + limits.max_sockets
        + SMALL_REQUESTS,
        graceful_shutdown_timeout_s=limits.queue_timeout_seconds
        + limits.stream_timeout_seconds
        + STOP_MARGIN_SECONDS,
        autoscaling_config={
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            "target_ongoing_requests": config.streams_per_replica or limits.max_streams / 2,
            "upscale_delay_s": config.upscale_delay_seconds,
            "downscale_delay_s": config.downscale_delay_seconds,
        },
        ray_actor_options={"num_cpus": config.cpus, "num_gpus": config.gpus},
    )
    return deployment.bind(server, keys or None)
