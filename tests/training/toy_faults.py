"""A tokenizer that fails when it is asked to, in whatever process and on whatever node it runs."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from toy_shards import make_work

from tokenlm.models.speech_tokenizer import SpeechTokenizer
from training.data.precompute import Precompute

FULL_AFTER = 40_000
"""Bytes of a file beyond which writing fails."""


class FaultyTokenizer(SpeechTokenizer):
    """Does what files in a folder ask for.

    working-PID   is written: process PID has begun a shard
    wait          it goes on when this is gone
    full          files cannot grow, of a shard with four good items
    """

    requests: str = ""

    def encode(self, waveform: torch.Tensor, lengths: Any = None, **options: Any) -> Any:
        folder = Path(self.requests)
        (folder / f"working-{os.getpid()}").touch()
        while (folder / "wait").exists():
            time.sleep(0.05)
        is_full = (folder / "full").exists() and waveform.shape[0] == 4
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AFTER if is_full else hard, hard))
        return super().encode(waveform, lengths, **options)


def make_faulty_work(requests: Path) -> Precompute:
    """The work of `make_work`, by a tokenizer with the same weights."""
    work = make_work()
    assert isinstance(work.tokenizer, SpeechTokenizer)
    tokenizer = FaultyTokenizer(work.tokenizer.config)
    tokenizer.load_state_dict(work.tokenizer.state_dict())
    tokenizer.requests = str(requests)
    return make_work(tokenizer=tokenizer.eval().requires_grad_(False))
