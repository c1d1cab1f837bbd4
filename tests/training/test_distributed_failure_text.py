"""What a failing row of `check_distributed` says."""

from training.distributed_check.check import failure_text

REPORT = """W1 torch/distributed/elastic/x.py:1] Sending process 7 closing signal SIGTERM
E1 torch/distributed/elastic/x.py:2] failed (exitcode: 1) local_rank: 1 (pid: 8) of binary: python
Traceback (most recent call last):
  File "launch.py", line 1, in <module>
ChildFailedError
"""


def test_names_the_rank_and_shows_its_own_lines() -> None:
    ranks = "[rank1]: ValueError: cause\n[rank0]: Connection closed by peer\n"
    told = failure_text(1, ranks + REPORT)
    assert told.splitlines()[0] == "ended with 1, rank 1 with 1"
    assert "ValueError: cause" in told
    assert "Connection closed" not in told
    assert "ChildFailedError" not in told


def test_without_a_report_shows_the_end_of_the_output() -> None:
    told = failure_text(2, "\n".join(f"line {n}" for n in range(40)))
    assert told.splitlines()[0] == "ended with 2"
    assert "line 39" in told
    assert "line 27" not in told
