"""What is compared: pieces of weights, losses, weights, shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.distributed.launch import CheckError, Run
from training.data.manifest import read_manifest
from training.data.shards import INFO, ShardInfo
from training.loop.checkpoints import latest_checkpoint

TOLERANCE = 1e-4
# accelerate knows FSDP on accelerators only: on a CPU its state stays MULTI_CPU, and the sharding
# is that of the loop, which the shares prove.
CPU_TYPES = {"ddp": "MULTI_CPU", "fsdp2": "MULTI_CPU"}
GPU_TYPES = {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}


def require_spread(run: Run, strategy: str, num_ranks: int) -> None:
    """Check that the ranks have met, and that what should be in pieces is.

    Raises:
        CheckError: If not.
    """
    found = run.found
    types = GPU_TYPES if torch.cuda.is_available() else CPU_TYPES
    expected = types.get(strategy, "DEEPSPEED")
    if (found["distributed_type"], found["num_ranks"]) != (expected, num_ranks):
        raise CheckError(
            f"accelerate says {found['distributed_type']} with {found['num_ranks']} ranks, "
            f"expected {expected} with {num_ranks}"
        )
    if found["strategy"] != strategy:
        raise CheckError(f"the loop took the strategy {found['strategy']}")
    # Blocks are cut along their first axis, so pieces are equal only nearly.
    piece = (0.8 / num_ranks, 1.3 / num_ranks)
    whole = (0.999, 1.001)
    weights = piece if strategy in ("fsdp2", "zero3") else whole
    optimizer = whole if strategy == "ddp" else piece
    for what, (low, high) in (("weights", weights), ("optimizer", optimizer)):
        share = found["shares"][what]
        if not low <= share <= high:
            raise CheckError(
                f"a rank keeps {share:.3f} of the {what}, expected {low:.2f}–{high:.2f}"
            )


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Largest relative difference of two loss curves.

    Raises:
        CheckError: If they are not of the same length.
    """
    if len(one) != len(other) or not one:
        raise CheckError(f"{len(one)} and {len(other)} steps")
    return max(abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in zip(one, other, strict=True))


def require_equal(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest relative difference of two loss curves.

    Raises:
        CheckError: If it is over the tolerance.
    """
    difference = largest_difference(one, other)
    if difference > TOLERANCE:
        raise CheckError(f"losses differ by {difference:.1e} from one process")
    return difference


def position(run: Path) -> dict[str, int]:
    """Epoch and number of the micro-batch at which the newest checkpoint of a run stopped.

    Raises:
        CheckError: If there is no checkpoint.
    """
    found = latest_checkpoint(run)
    if found is None:
        raise CheckError(f"{run.name} has no checkpoint")
    return json.loads((found / "state.json").read_text(encoding="utf-8"))["position"]


def same_weights(one: Path, other: Path) -> bool:
    """Whether the newest checkpoints of two runs hold the same weights, to the last bit.

    Raises:
        CheckError: If there is nothing to compare.
    """
    found = [latest_checkpoint(run) for run in (one, other)]
    if found[0] is None or found[1] is None:
        raise CheckError(f"{one.name} or {other.name} has no checkpoint")
    first_names, names = (
        sorted(p.name for p in path.glob("*.safetensors")) for path in found if path
    )
    if not names or names != first_names:
        raise CheckError(f"checkpoints hold {first_names} and {names}")
    for name in names:
        first, second = (load_file(path / name) for path in found if path is not None)
        if first.keys() != second.keys():
            return False
        if any(not torch.equal(value, second[key]) for key, value in first.items()):
            return False
    return True


def require_begun(shards: Path) -> int:
    """Return how many shards are complete where a process was killed within another one.

    Raises:
        CheckError: If nothing or everything was done, or nothing was within a shard.
    """
    done, partial = [*shards.glob("shard-?????.jsonl")], [*shards.glob(".shard-*.partial")]
    info = ShardInfo.from_json((shards / INFO).read_text(encoding="utf-8"), str(shards / INFO))
    if not done or len(done) == info.num_shards or not partial:
        raise CheckError(
            f"{len(done)} of {info.num_shards} shards are complete and {len(partial)} begun: the "
            "kill proves nothing"
        )
    return len(done)


def require_same_shards(one: Path, other: Path, manifest: Path) -> int:
    """Check that two folders of shards are the same to the bit, and hold every row once.

    Returns:
        Number of shards.

    Raises:
        CheckError: If not; names what differs.
    """
    first, second = ({path.name: path.read_bytes() for path in f.iterdir()} for f in (one, other))
    changed = sorted(
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
    )
    if changed:
        raise CheckError(f"other files than those of one process: {', '.join(changed)}")
    rows = sorted(other.glob("shard-?????.jsonl"))
    texts = [path.read_text(encoding="utf-8").splitlines() for path in rows]
    found = [json.loads(line)["id"] for lines in texts for line in lines]
    expected = [row.id for row in read_manifest(manifest, strict=True).utterances]
    if found != expected:
        raise CheckError(f"{len(found)} items in shards, {len(expected)} rows in {manifest}")
    return len(rows)
