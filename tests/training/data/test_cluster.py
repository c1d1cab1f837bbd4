"""Two nodes write what one process writes, whatever is killed or full."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes
from toy_faults import make_faulty_work
from toy_shards import make_work
from verb_runner import run_verb

from tokenlm.checkpoint import save_component
from tokenlm.models.speech_tokenizer import SpeechTokenizer
from training.data.cluster import Cluster, ClusterError
from training.data.commands import precompute
from training.data.manifest import read_manifest
from training.data.precompute import build_shards
from training.data.rejects import TooManyRejects

ROOT = Path(__file__).resolve().parents[3]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, leftovers among them."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of one process."""
    folder = tmp_path_factory.mktemp("whole")
    build_shards(read_manifest(recordings / "rows.jsonl"), folder, make_work())
    return folder


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes, each with room for one actor; `client_address` is for outsiders."""
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "training")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))  # of the actors
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": port}
        found = Nodes(initialize_head=True, head_node_args=head)
        found.client_address = f"ray://127.0.0.1:{port}"
        found.add_node(num_cpus=1)
        yield found
        found.shutdown()


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """Where the tokenizer is asked to fail."""
    (tmp_path / "requests").mkdir()
    return tmp_path / "requests"


def when(condition: Callable[[], Any], seconds: float = 900.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_shard_that_cannot_be_written_is_named_and_all_others_are_there(
    nodes: Any, whole: Path, recordings: Path, requests: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(recordings / "rows.jsonl")
    (requests / "full").touch()
    cluster = Cluster(address=nodes.address)
    with pytest.raises(ClusterError, match=r"^1 tasks failed\.\nshard-00002 failed 3 .*too large"):
        build_shards(manifest, tmp_path / "out", make_faulty_work(requests), cluster=cluster)
    found = contents(tmp_path / "out")
    assert found == {name: data for name, data in contents(whole).items() if name in found}
    assert sorted(found) == [
        *(f"shard-0000{n}.{end}" for n in (0, 1) for end in ("jsonl", "rejects.jsonl", "tar")),
        "shards.json",
    ]
    rejects = build_shards(manifest, tmp_path / "out", make_work())
    assert contents(tmp_path / "out") == contents(whole)
    assert (rejects.num_seen, rejects.num_bad) == (13, 3)


DRIVER = """
import sys
from pathlib import Path
from toy_faults import make_faulty_work
from training.data.cluster import Cluster
from training.data.manifest import read_manifest
from training.data.precompute import build_shards
build_shards(read_manifest(sys.argv[1]), sys.argv[2], make_faulty_work(Path(sys.argv[3])),
             cluster=Cluster(address=sys.argv[4]))
"""


@pytest.mark.nightly
def test_a_driver_that_is_killed_and_started_again(
    nodes: Any, whole: Path, recordings: Path, requests: Path, tmp_path: Path
) -> None:
    (requests / "wait").touch()
    words = [recordings / "rows.jsonl", tmp_path / "out", requests, nodes.address]
    with subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, words)]) as driver:
        when(lambda: len(list(requests.glob("working-*"))) == 2)
        driver.send_signal(signal.SIGKILL)
    (requests / "wait").unlink()
    manifest = read_manifest(recordings / "rows.jsonl")
    cluster = Cluster(address=nodes.client_address, num_actors=2)
    build_shards(manifest, tmp_path / "out", make_faulty_work(requests), cluster=cluster)
    assert contents(tmp_path / "out") == contents(whole)
    with pytest.raises(TooManyRejects, match=r"3 of 13 rows"):
        build_shards(manifest, tmp_path / "few", make_work(max_reject_share=0.2), cluster=cluster)
    assert not ray.is_initialized()


@pytest.mark.nightly
def test_a_node_that_is_killed(
    nodes: Any, whole: Path, recordings: Path, requests: Path, tmp_path: Path
) -> None:
    (requests / "wait").touch()

    def kill() -> None:
        try:
            when(lambda: len(list(requests.glob("working-*"))) == 2)
            (lost,) = nodes.worker_nodes
            nodes.remove_node(lost, allow_graceful=False)
        finally:
            (requests / "wait").unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    build_shards(
        read_manifest(recordings / "rows.jsonl"),
        tmp_path / "out",
        make_faulty_work(requests),
        cluster=Cluster(address=nodes.address, num_actors=2),
    )
    killer.join()
    assert not nodes.worker_nodes
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.slow
def test_the_command_on_this_machine_alone(recordings: Path, tmp_path: Path) -> None:
    tokenizer = make_work().tokenizer
    assert isinstance(tokenizer, SpeechTokenizer)
    save_component(
        tmp_path / "tokenizer",
        kind="speech_tokenizer",
        config=tokenizer.config,
        state_dict=tokenizer.state_dict(),
    )
    words = ["--tokenizer", tmp_path / "tokenizer", "--max-rejects", "0.5"]
    manifest = recordings / "rows.jsonl"
    for name, more in (("one", []), ("two", ["--cluster", "local", "--actors", "1"])):
        result = run_verb(precompute, manifest, tmp_path / f"{name}.jsonl", *words, *more)
        assert result.exit_code == 0, result.output
        assert "10 of 13 rows are good" in result.output
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    rejects = [(tmp_path / f"{name}.rejects.jsonl").read_bytes() for name in ("one", "two")]
    assert rejects[0] == rejects[1]
    assert (
        len(json.loads((tmp_path / "two.jsonl").read_text().split("\n")[0])["speech_tokens"]) == 7
    )


def test_mistakes_are_sentences(recordings: Path, tmp_path: Path) -> None:
    manifest = recordings / "rows.jsonl"
    for words, expected in (
        (["--actors", "2"], "--actors and --gpus-per-actor are options of a --cluster"),
        (["--cluster", "local", "--gpus-per-actor", "1.5"], "a fraction of one GPU or whole ones"),
        (["--cluster", "local", "--part", "0/2"], "--part for processes of your own, or --cluster"),
        (["--part", "2/2"], "--part is I/N with I from 0 to N - 1, not 2/2"),
    ):
        result = run_verb(precompute, manifest, tmp_path / "out", "--audio-rate", "8000", *words)
        assert (result.exit_code, expected in result.output) == (2, True), result.output
    assert not (tmp_path / "out").exists()
