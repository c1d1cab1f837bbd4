"""Cancelling `generate`, and what it says of itself meanwhile."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
import torch

from tokenlm.models.lm.guards import GuardConfig
from tokenlm.synthesis import SpeechCancelled, Synthesizer

TEXT = "Is it so? Yes it is! The quick brown fox. " * 4


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.mark.parametrize("guards", [None, GuardConfig(max_attempts=3)])
def test_progress_grows_from_step_to_step(
    synthesizer: Synthesizer, guards: GuardConfig | None
) -> None:
    shares: list[float] = []
    plain = synthesizer.generate(TEXT, guards=guards)
    told = synthesizer.generate(TEXT, guards=guards, on_progress=shares.append)
    assert torch.equal(plain, told)
    assert shares == sorted(set(shares)) and shares[-1] == 1.0
    # All segments are decoded in one batch, and each says when it has ended.
    assert len([share for share in shares if share < 0.5]) >= 2


@pytest.mark.parametrize("limit", [0.0, 0.3, 0.6])
def test_generate_can_be_cancelled(synthesizer: Synthesizer, limit: float) -> None:
    cancel = threading.Event()
    shares: list[float] = []

    def on_progress(share: float) -> None:
        shares.append(share)
        if share >= limit:
            cancel.set()

    if limit == 0.0:
        cancel.set()
    with pytest.raises(SpeechCancelled, match="cancelled"):
        synthesizer.generate(TEXT, on_progress=on_progress, should_stop=cancel.is_set)
    # Nothing goes on for longer than a step after it.
    assert not shares or shares[-1] < limit + 0.25
    after = synthesizer.generate("Yes.", should_stop=lambda: False)
    assert torch.equal(after, synthesizer.generate("Yes."))


def test_a_cancelled_request_is_freed(synthesizer: Synthesizer) -> None:
    session = synthesizer.open_session(TEXT)
    with pytest.raises(SpeechCancelled):
        session.generate(should_stop=lambda: bool(session.speech_tokens))
    assert session.is_closed and session.num_bytes == 0 and session.num_cache_bytes == 0


def test_what_is_made_is_logged(
    synthesizer: Synthesizer, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="tokenlm"):
        Synthesizer.from_pretrained(tiny_bundle).generate("Yes. No.")
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith(f"loaded {tiny_bundle} on cpu in ") for line in told)
    assert any("segments," in line and "s of speech in" in line for line in told)
