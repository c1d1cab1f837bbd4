"""Load on a server: figures worked out by hand, and those of a server that runs."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from inference.benchmark.command import benchmark
from inference.benchmark.serving import StreamFigures, listen, percentile, summarise, underrun
from inference.server.settings import ServeConfig
from tokenlm.synthesis import Synthesizer

sys.path.insert(0, str(Path(__file__).parent / "server"))

from fake_engine import FakeEngine
from live_server import LiveServer


def test_a_player_waits_for_what_comes_late() -> None:
    assert underrun([(5.0, 1.0)]) == 0.0
    assert underrun([(5.0, 1.0), (5.9, 1.0), (7.0, 0.5)]) == 0.0
    # Half a second too late, and then no later than that: the player has waited already.
    assert underrun([(5.0, 1.0), (6.5, 1.0), (7.5, 1.0)]) == 0.5
    assert underrun([(5.0, 1.0), (6.5, 1.0), (8.0, 1.0)]) == 1.0


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 21)], 0.95) == 19.0
    assert percentile([4.0], 0.95) == 4.0 and math.isnan(percentile([], 0.5))


def test_streams_that_fail_are_not_continuous() -> None:
    heard = [StreamFigures(100.0, 0.5, late, 2.0) for late in (0.0, 100.0, 101.0)]
    load = summarise(2, [*heard, None], 3.0)
    assert (load.requests, load.failed, load.continuous, load.throughput) == (4, 1, 0.5, 2.0)
    assert (load.audio_ttfp_ms, load.audio_rtf, load.audio_underrun_ms_p95) == (100.0, 0.5, 101.0)
    assert summarise(1, [None], 1.0).continuous == 0.0


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(benchmark)
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.output


def test_a_server_is_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    config = ServeConfig(voices=tmp_path / "voices")
    with LiveServer(config, synthesizer, FakeEngine, keys=()) as server:
        output = tmp_path / "out"
        code, said = run(
            "--serve", server.url, "--streams", "1,3", "--runs", "2", "--output", str(output)
        )
    assert code == 0, said
    loads = json.loads((output / "serving.json").read_text(encoding="utf-8"))
    assert [(load["streams"], load["requests"], load["failed"]) for load in loads] == [
        (1, 2, 0),
        (3, 6, 0),
    ]
    assert all(load["audio_ttfp_ms"] > 0 and load["throughput"] > 0 for load in loads)
    assert "audio_underrun" in (output / "serving.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--streams", "1,x"), "whole numbers above 0"),
        (("--runs", "0"), "runs must be at least 1"),
        ((), "does not speak"),
        (("--serve", "http://127.0.0.1:port"), "is no address of a server"),
        (("--serve", "http://127.0.0.1:99999"), "its port is above 65535"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, said = run("--serve", "http://127.0.0.1:9", "--output", str(tmp_path), *arguments)
    assert code == 2 and message in said


def test_another_kind_of_server_is_named() -> None:
    async def ask() -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, text="hello"))
        async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
            await listen(client, "Yes.", "", 0)

    with pytest.raises(ValueError, match="http://web.* answers without X-Sample-Rate"):
        asyncio.run(ask())
