"""`tokenlm data precompute` whose last process is killed in the middle of its second shard.

accelerate launch … -m tests.distributed.dying_precompute MANIFEST FOLDER …
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from tokenlm.cli import main as run_cli
from training.config import ranks_of_launch
from training.data.shards import ShardWriter


def die_in_second_shard() -> None:
    """Let this process be killed when it has put one item into the second shard that it begins."""
    writers: list[ShardWriter] = []
    add = ShardWriter.add

    def dying(writer: ShardWriter, row: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
        if writer not in writers:
            writers.append(writer)
        add(writer, row, members)
        if len(writers) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    ShardWriter.add = dying  # type: ignore[method-assign]


def main() -> None:
    """Plant the fault and run the verb."""
    rank, num_ranks = ranks_of_launch()
    if rank == num_ranks - 1:
        die_in_second_shard()
    sys.argv[1:1] = ["data", "precompute"]
    run_cli()


if __name__ == "__main__":
    main()
