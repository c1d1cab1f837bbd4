"""The server as an application of Ray Serve: what it is told, and replicas that speak."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import CONSENT
from ray import serve

from tokenlm.config import ConfigError
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.acceleration import accelerate

TEXT = "The quick brown fox. Is it so?"


def deployment_of(**arguments: Any) -> Any:
    from inference.server.replicas import application

    return application(arguments)._bound_deployment


def test_arguments_of_a_command_line_and_of_a_file_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(
        "voices: shared\nlimits: {max_streams: 6, max_queue: 4, max_sockets: 5,"
        " queue_timeout_seconds: 7, stream_timeout_seconds: 90}\n"
    )
    said = deployment_of(
        config=str(path), max_replicas="3", settings="[bundle=other]", gpus="0.25", cpus="2"
    )
    for made in (
        said,
        deployment_of(
            config=str(path), max_replicas=3, settings=["bundle=other"], gpus=0.25, cpus=2
        ),
    ):
        scaling = made._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas) == (1, 3)
        assert scaling.target_ongoing_requests == 3.0
        assert made.max_ongoing_requests == 6 + 4 + 5 + 32
        assert made._deployment_config.graceful_shutdown_timeout_s == 7 + 90 + 60
        assert made.ray_actor_options == {"num_cpus": 2.0, "num_gpus": 0.25}
        config, _ = made.init_args
        assert config.bundle == "other" and config.voices == Path("shared")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas": 2}, "replicas"),
        ({"min_replicas": 5}, "from 0 to max_replicas"),
        ({"gpus": "-1"}, "gpus must not be negative"),
        ({"requires_keys": "true"}, "no API keys. Set TOKENLM_API_KEY"),
        ({"settings": ["limits.max_streams=0"]}, "max_streams must be at least 1"),
    ],
)
def test_wrong_arguments(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENLM_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=message):
        deployment_of(**arguments)


def test_keys_go_with_the_application(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TOKENLM_API_KEY", raising=False)
    assert deployment_of().init_args[1] is None  # a machine may have keys of its own
    assert "TOKENLM_API_KEY is not set here" in caplog.text
    caplog.clear()
    monkeypatch.setenv("TOKENLM_API_KEY", "one, two,")
    made = deployment_of(requires_keys=True)
    assert made.init_args[1] == ("one", "two") and not caplog.records


def test_a_replica_speaks_and_says_when_it_cannot(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started as Ray starts it, in this process."""
    settings = [f"bundle={tiny_bundle}", f"voices={tmp_path / 'voices'}", "caches=float16"]
    monkeypatch.setenv("TOKENLM_API_KEY", "secret")
    made = deployment_of(settings=settings)
    monkeypatch.delenv("TOKENLM_API_KEY")  # the replica is another process
    replica_class = made.func_or_class

    async def run() -> np.ndarray:
        replica = replica_class.__new__(replica_class)
        await replica_class.__init__(replica, *made.init_args)
        replica.check_health()  # nothing is known yet
        replica._set_asgi_app(replica.__serve_build_asgi_app__())
        await replica._run_asgi_lifespan_startup()
        transport = httpx.ASGITransport(app=replica)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            request = {"input": TEXT, "voice": "ann", "response_format": "pcm", "seed": 3}
            assert (await client.post("/v1/audio/speech", json=request)).status_code == 401
            client.headers["Authorization"] = "Bearer secret"
            answer = await client.post("/v1/audio/speech", json=request)
            assert answer.status_code == 200, answer.text
        health = replica.app.state.service.health
        replica.check_health()
        health.reason = "the last utterance failed: RuntimeError"
        with pytest.raises(RuntimeError, match="the last utterance failed"):
            replica.check_health()
        health.retry = lambda: None
        await replica._serve_asgi_lifespan.shutdown()
        return np.frombuffer(answer.content, dtype="<i2") / 32768.0

    heard = asyncio.run(run())
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    accelerate(synthesizer.components, caches="float16")
    expected = synthesizer.generate(TEXT, voice="ann", seed=3).numpy().clip(-1, 1)
    np.testing.assert_allclose(heard, expected, atol=2e-4)


@pytest.fixture(scope="module")
def url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two replicas on this machine."""
    import ray

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Processes of Ray take over the variables; a busy machine takes long to start them.
    variables = {
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_register_timeout_seconds": "600",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "600",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "600",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield from _serve(port, tiny_bundle, tmp_path_factory.mktemp("replicas"))


def _serve(port: int, bundle: Path, folder: Path) -> Iterator[str]:
    import ray

    from inference.server.replicas import application

    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        settings = [
            f"bundle={bundle}",
            f"voices={folder / 'voices'}",
        ]
        arguments = {"min_replicas": 2, "max_replicas": 2, "cpus": 0.5, "settings": settings}
        serve.run(application(arguments), name="speech", route_prefix="/")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.nightly
def test_replicas_speak_as_one_server(url: str, tiny_bundle: Path) -> None:
    """The client of OpenAI hears what the synthesizer says, whichever replica speaks."""
    from openai import OpenAI

    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    expected = synthesizer.generate(TEXT, voice="ann", seed=3).numpy()
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    for _ in range(6):
        with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="ann", input=TEXT, response_format="pcm", extra_body={"seed": 3}
        ) as response:
            pieces = [*response.iter_bytes(4096)]
        heard = np.frombuffer(b"".join(pieces), dtype="<i2") / 32768.0
        assert len(pieces) > 1 and heard.shape == expected.shape
        np.testing.assert_allclose(heard, expected.clip(-1, 1), atol=2e-4)


@pytest.mark.nightly
def test_voices_are_shared_and_a_lost_replica_is_replaced(url: str, recording: Path) -> None:
    import ray

    with httpx.Client(base_url=url, timeout=60) as client:
        body = {"name": "mine", "consent": CONSENT, "ref_text": "is it so?"}
        files = {"audio_sample": ("me.wav", recording.read_bytes())}
        added = client.post("/v1/audio/voices", data=body, files=files)
        assert added.status_code == 201, added.text
        # Each is asked several times, so that both replicas are.
        for _ in range(6):
            listed = client.get("/v1/audio/voices").json()["data"]
            assert any(voice["id"] == "mine" for voice in listed), listed
        actors = [
            actor
            for actor in ray.util.list_named_actors(all_namespaces=True)
            if "Speech" in actor["name"]
        ]
        assert len(actors) == 2
        ray.kill(ray.get_actor(**actors[0]))
        request = {"input": TEXT, "response_format": "pcm", "seed": 3}
        answers = [client.post("/v1/audio/speech", json=request) for _ in range(4)]
        assert any(answer.status_code == 200 for answer in answers)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            status = serve.status().applications["speech"]
            if status.status == "RUNNING" and status.deployments["Speech"].replica_states == {
                "RUNNING": 2
            }:
                break
            time.sleep(1)
        answers = [client.post("/v1/audio/speech", json=request) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
