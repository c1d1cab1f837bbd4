"""No item is lost or doubled, whatever is killed; every bad one is told with its line."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from toy_shards import NUM_ROWS, RATE, make_work
from verb_runner import run_verb

from training.config import ranks_of_launch
from training.data.commands import precompute
from training.data.dataset import ShardError
from training.data.manifest import read_manifest
from training.data.precompute import build_shards
from training.data.rejects import TooManyRejects, read_rejects

ROOT = Path(__file__).resolve().parents[3]
SOUND = {"tokenizer": None, "speaker_encoder": None, "mel": None}
GOOD = [f"i{n}" for n in range(NUM_ROWS) if n not in (3, 7)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "shards.json"}


def ids(folder: Path) -> list[str]:
    lines = [line for path in sorted(folder.glob("shard-?????.jsonl")) for line in path.open("r")]
    return [json.loads(line)["id"] for line in lines]


@pytest.fixture(scope="session")
def whole(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    build_shards(read_manifest(recordings / "rows.jsonl"), folder, make_work())
    return folder


def test_every_good_item_once_and_every_bad_one_told(whole: Path, recordings: Path) -> None:
    assert ids(whole) == GOOD
    rejects = read_rejects(whole / "rejects.jsonl")
    assert sorted(bad.line or 0 for bad in rejects) == [2, 5, 9]
    assert {bad.file for bad in rejects} == {str(recordings / "rows.jsonl")}
    reasons = " ".join(bad.reason for bad in rejects)
    assert "not JSON" in reasons and "3.wav" in reasons and "'duration' is 2.00 s" in reasons
    with tarfile.open(whole / "shard-00001.tar") as archive:
        names = archive.getnames()
    kinds = ["json", "tokens.npy", "embedding.npy", "mel.npy", "flac"]
    assert names[:5] == [f"000000.{kind}" for kind in kinds]
    assert len(names) == 3 * 5, "of items 4 to 7 the last is bad"
    row = json.loads((whole / "shard-00000.jsonl").read_text().split("\n")[1])
    assert (row["text"], row["page"], row["num_tokens"]) == ("text 1", 1, 10)


@pytest.mark.parametrize("num_ranks", [2, 5])
def test_any_number_of_processes_writes_the_same_bytes(
    num_ranks: int, whole: Path, recordings: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(recordings / "rows.jsonl")
    for rank in range(num_ranks):
        build_shards(manifest, tmp_path, make_work(), rank=rank, num_ranks=num_ranks)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.slow
def test_killed_within_a_shard_and_restarted_on_other_processes(
    whole: Path, recordings: Path, tmp_path: Path
) -> None:
    program = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\n"
        "from toy_shards import make_work\n"
        "from training.data.manifest import read_manifest\n"
        "from training.data import precompute as build\n"
        "calls, compute = [], build._mel\n"
        "def dying(config, audio):\n"
        "    calls.append(audio)\n"
        "    if len(calls) == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return compute(config, audio)\n"
        "build._mel = dying\n"
        f"rows = read_manifest({str(recordings / 'rows.jsonl')!r})\n"
        f"build.build_shards(rows, Path({str(tmp_path)!r}), make_work())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ids(tmp_path) == ["i0", "i1", "i2"], "the first shard alone was complete"
    assert list(tmp_path.glob(".shard-00001*")), "and the second one begun"
    manifest = read_manifest(recordings / "rows.jsonl")
    for rank in (1, 0):
        build_shards(manifest, tmp_path, make_work(), rank=rank, num_ranks=2)
    assert contents(tmp_path) == contents(whole)


def test_parts_as_an_array_of_jobs_does_them(
    whole: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that the documentation gives to sbatch, run by a shell in its words."""
    page = (ROOT / "docs" / "much-data.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("sbatch"))
    command = shlex.split(line)
    wrapped = command[command.index("--wrap") + 1]
    assert "--array=0-31" in command and wrapped.endswith("$SLURM_ARRAY_TASK_ID/32")
    manifest = recordings / "rows.jsonl"
    build_shards(read_manifest(manifest), tmp_path / "one", make_work(**SOUND))
    words = ["--audio-rate", str(RATE), "--items-per-shard", "4", "--max-rejects", "0.5"]
    for number in (31, 0, 2, 1, 30):  # three shards: most parts have none
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        shell = ["sh", "-c", f"echo {wrapped.partition('--part ')[2]}"]
        part = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.strip()
        result = run_verb(precompute, manifest, tmp_path / "parts", *words, "--part", part)
        assert result.exit_code == 0, result.output
        assert (tmp_path / "parts" / "rejects.jsonl").exists() == (number in (1, 30))
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")


def test_a_finished_folder_is_left_alone(whole: Path, recordings: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.glob("shard-*")}
    rejects = build_shards(read_manifest(recordings / "rows.jsonl"), whole, make_work())
    assert {path: path.stat().st_mtime_ns for path in whole.glob("shard-*")} == before
    assert (rejects.num_seen, rejects.num_bad) == (13, 3)


def test_other_settings_are_an_error(whole: Path, recordings: Path) -> None:
    manifest = read_manifest(recordings / "rows.jsonl")
    with pytest.raises(ShardError, match="items_per_shard: 4 -> 5"):
        build_shards(manifest, whole, make_work(items_per_shard=5))
    with pytest.raises(ValueError, match="nothing to precompute: give"):
        make_work(tokenizer=None, speaker_encoder=None, mel=None, audio_rate=0)


def test_too_many_bad_items_stop_it(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyRejects, match=r"3 of 13 rows"):
        build_shards(
            read_manifest(recordings / "rows.jsonl"), tmp_path, make_work(max_reject_share=0.2)
        )


def test_the_share_is_one_of_all_rows_on_any_process(recordings: Path, tmp_path: Path) -> None:
    """Bad lines of the manifest are told by the first process, whose own share they exceed."""
    lines = (recordings / "rows.jsonl").read_text().splitlines()
    lines = [line.replace('"audio": "', f'"audio": "{recordings}/') for line in lines]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*lines, *["{"] * 4]) + "\n")
    work = make_work(max_reject_share=0.45, speaker_encoder=None, mel=None)
    for rank in range(3):  # the first one: 5 bad lines beside 4 items, one of which is bad
        rejects = build_shards(read_manifest(path), tmp_path / "out", work, rank=rank, num_ranks=3)
        assert (rejects.num_bad, rejects.num_seen) == [(6, 9), (1, 4), (0, 4)][rank]
    assert len(read_rejects(tmp_path / "out" / "rejects.jsonl")) == 7


def test_ranks_come_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks_of_launch() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert ranks_of_launch() == (3, 8)
