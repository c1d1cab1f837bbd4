"""The measurement of sessions in one batch: what it prints, and that both ways are timed."""

from __future__ import annotations

import re

import pytest
from script_module import load_script

from tokenlm.models.flow import FlowDecoder

BATCHING = load_script("benchmark_batching")

TINY = [
    "dim=16", "num_heads=2", "head_dim=8", "encoder_dim=16", "encoder_hidden_dim=16",
    "encoder_layers=1", "encoder_up_layers=1", "encoder_heads=2", "blocks_per_level=1",
    "num_mid_levels=1", "chunk_tokens=4", "codebook_size=27", "speaker_dim=8",
]  # fmt: skip


def test_gain_is_the_median_of_ratios() -> None:
    assert BATCHING.Gain(alone=[4.0, 6.0, 8.0], batched=[2.0, 2.0, 8.0]).ratio == 2.0


@pytest.mark.slow
def test_all_sessions_run_in_one_batch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    original = FlowDecoder._advance

    def counted(flow: FlowDecoder, fed: list, *rest: object) -> list:
        mels = original(flow, fed, *rest)  # type: ignore[arg-type]
        assert all(mel.shape[1] == 8 for mel in mels) or len(fed) == 1
        sizes.append(len(fed))
        return mels

    monkeypatch.setattr(FlowDecoder, "_advance", counted)
    arguments = ["--sessions", "3", "--chunks", "2", "--runs", "1", *TINY]
    assert BATCHING.main(arguments) == 0
    told = capsys.readouterr().out
    assert sizes.count(3) == 2 * 2, "two chunks, one run and one to warm up"
    assert sizes.count(1) == 1 + 3 + 2 * 2 * 3
    assert re.search(r"gain: \d+\.\d\d", told) and "3 sessions in one batch" in told


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert BATCHING.main(["--sessions", "0", *TINY]) == 2
    assert BATCHING.main(["dims=3"]) == 2
    assert "at least 1" in capsys.readouterr().err
