"""Puts a server under load, and checks that it said the right thing to everybody.

    scripts/load_test [--clients 16] [--seconds 120] [--bundle NAME] [--output FOLDER]

Clients ask without pause, in every format and over WebSockets; some leave early, some read slowly.
Afterwards the tokens of every request are rendered again alone and compared with what its client
got; no admitted request may have failed, and memory and sessions must be back to where they were.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from inference.server.checks.clients import FORMATS, Outcome, Wish, fulfil, make_wish
from inference.server.checks.replay import Comparison, compare, load_synthesizer
from inference.server.checks.running import running_server
from inference.server.monitoring import read_token_log

MEMORY_SHARE = 0.1
"""Share of its memory that a server may have grown by in the end."""
REST_SECONDS = 60.0
"""Time for sessions to be freed after the last request."""
WARM_ROUNDS = 2
"""Times that every client asks before memory is read: libraries keep what they once needed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the test; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/load_test", description="Put a server under load and check what it said."
    )
    parser.add_argument("--bundle", default="mini-en", help="name of a bundle or its folder")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--streams", type=int, default=16, help="utterances spoken at once")
    parser.add_argument("--seed", type=int, default=0, help="of what clients ask")
    parser.add_argument("--output", type=Path, default=Path("load_test"), help="for the report")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "tokens.jsonl"
        with running_server(
            folder, "--bundle", options.bundle, "--set", f"token_log={log}",
            "--set", f"limits.max_streams={options.streams}",
        ) as (url, _):  # fmt: skip
            found = asyncio.run(put_under_load(url, options))
        outcomes: list[Outcome] = found.pop("outcomes")
        comparisons, missing = replay(options.bundle, outcomes, read_token_log(log))
        server_log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
    report = summarize(outcomes, comparisons, missing, found, "Traceback" in server_log)
    (options.output / "server.log").write_text(server_log, encoding="utf-8")
    path = options.output / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in report if key != "comparisons"}, indent=2))
    print(f"{'passed' if not report['problems'] else 'FAILED'}; the report is {path}")
    return 1 if report["problems"] else 0


async def put_under_load(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Lets clients ask for a while; figures of the server before and after."""
    async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
        listed = (await client.get("/v1/audio/voices")).json()["data"]
    voices = [voice["id"] for voice in listed]
    warm = [_several(number, url, voices, options.seed) for number in range(options.clients)]
    warmed = [outcome for several in await asyncio.gather(*warm) for outcome in several]
    before = await _rest(url)
    start = time.perf_counter()
    end = start + options.seconds
    clients = [_client(number, url, voices, end, options) for number in range(options.clients)]
    groups = await asyncio.gather(*clients)
    seconds = time.perf_counter() - start
    after = await _rest(url)
    outcomes = [outcome for group in groups for outcome in group]
    return {"outcomes": [*warmed, *outcomes], "before": before, "after": after,
            "num_warm": len(warmed), "seconds": seconds}  # fmt: skip


async def _several(number: int, url: str, voices: list[str], seed: int) -> list[Outcome]:
    draws = random.Random(f"warm {seed} {number}")
    found = []
    for turn in range(WARM_ROUNDS):
        wish = make_wish(draws, voices)
        audio_format = FORMATS[(number + turn) % len(FORMATS)]
        wish = Wish(**{**asdict(wish), "audio_format": audio_format, "manner": "plain"})
        found.append(await fulfil(wish, url, draws))
    return found


async def _client(
    number: int, url: str, voices: list[str], end: float, options: argparse.Namespace
) -> list[Outcome]:
    draws = random.Random(f"{options.seed} {number}")
    found = []
    while time.perf_counter() < end:
        found.append(await fulfil(make_wish(draws, voices), url, draws))
        if found[-1].status == 429:
            await asyncio.sleep(1.0)
    return found


async def _rest(url: str) -> dict[str, float]:
    """Figures of a server once nothing is live, or after a while of waiting for that."""
    end = time.monotonic() + REST_SECONDS
    async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
        while True:
            text = (await client.get("/metrics")).text
            figures = {
                match[1]: float(match[2])
                for match in re.finditer(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
            }
            names = ("tokenlm_live_streams", "tokenlm_engine_sessions", "tokenlm_queue_length",
                     "tokenlm_sockets")  # fmt: skip
            if not any(figures[name] for name in names) or time.monotonic() > end:
                return {
                    **{name: figures[name] for name in names},
                    "resident_bytes": figures["process_resident_memory_bytes"],
                    "open_files": figures["process_open_fds"],
                    "failed": figures['tokenlm_utterances_total{end="failed"}'],
                }
            await asyncio.sleep(0.5)


def replay(
    bundle: str, outcomes: list[Outcome], logged: dict[str, dict[str, Any]]
) -> tuple[list[Comparison], list[str]]:
    """Compares every request whose client got something; and those that the log does not have."""
    synthesizer = load_synthesizer(bundle)
    comparisons, missing = [], []
    for outcome in outcomes:
        if not outcome.request_id or not outcome.data:
            continue
        if outcome.request_id not in logged:
            missing.append(outcome.request_id)
        else:
            comparisons.append(compare(synthesizer, outcome, logged[outcome.request_id]))
    return comparisons, missing


def summarize(
    outcomes: list[Outcome],
    comparisons: list[Comparison],
    missing: list[str],
    found: dict[str, Any],
    has_traceback: bool,
) -> dict[str, Any]:
    """The report; `problems` is empty where all is as it should be."""
    before, after = found["before"], found["after"]
    admitted = [outcome for outcome in outcomes if outcome.status != 429]
    failed = [
        f"{outcome.wish.audio_format} {outcome.wish.manner}: {outcome.problem or 'cut off'}"
        for outcome in admitted
        if outcome.problem or (not outcome.is_whole and outcome.wish.manner != "leaves")
    ]
    growth = after["resident_bytes"] / before["resident_bytes"] - 1
    problems = [f"failed: {told}" for told in failed]
    problems += [f"other audio: {item.request_id}: {item.audio_format}: {item.problem}"
                 for item in comparisons if item.problem]  # fmt: skip
    problems += [f"not in the log: {name}" for name in missing]
    for name in ("live_streams", "engine_sessions", "queue_length", "sockets"):
        if after[f"tokenlm_{name}"]:
            problems.append(f"{name} is {after[f'tokenlm_{name}']:g} in the end")
    if growth > MEMORY_SHARE:
        problems.append(f"memory grew by {100 * growth:.1f} %")
    if after["failed"]:
        problems.append(f"the server counts {after['failed']:g} failed utterances")
    if has_traceback:
        problems.append("the log of the server has a traceback")
    firsts = [o.first_audio_seconds for o in outcomes if o.first_audio_seconds is not None]
    exact = [item for item in comparisons if item.audio_format not in ("mp3", "opus")]
    lossy = [item for item in comparisons if item.audio_format in ("mp3", "opus")]
    return {
        "requests": len(outcomes),
        "of_them_to_warm_up": found["num_warm"],
        "refused_with_429": len(outcomes) - len(admitted),
        "by_format": dict(Counter(outcome.wish.audio_format for outcome in outcomes)),
        "by_manner": dict(Counter(outcome.wish.manner for outcome in outcomes)),
        "seconds_of_load": found["seconds"],
        "seconds_of_speech_heard": sum(item.num_samples for item in comparisons) / 24_000,
        "first_audio_seconds": {
            f"p{share}": float(np.percentile(firsts, share)) for share in (50, 95) if firsts
        },
        "compared": len(comparisons),
        "largest_difference": max((item.difference for item in exact), default=None),
        "largest_loss_db_of_lossy": max((item.loss_db for item in lossy), default=None),
        "memory_growth": growth,
        "before": before,
        "after": after,
        "problems": problems,
        "comparisons": [asdict(item) for item in comparisons],
    }


if __name__ == "__main__":
    sys.exit(main())
