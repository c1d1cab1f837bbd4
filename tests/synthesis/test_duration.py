"""Speech of a given duration: whole and streamed, and the choice of attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from inference.engine import StreamEngine
from tokenlm.models.lm.decoding import SamplingConfig
from tokenlm.synthesis import Speech, Synthesizer
from tokenlm.synthesis.duration import MAX_DURATION
from tokenlm.synthesis.guards import NUM_DURATION_ATTEMPTS, ReadBackScore, decode_nearest
from tokenlm.text.transcripts import WordErrors

TEXT = "Is it so? Yes, the quick brown fox jumps over it."


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.mark.parametrize("share", [0.8, 1.0, 1.25])
def test_the_speech_lasts_as_long(synthesizer: Synthesizer, share: float) -> None:
    natural = synthesizer.generate(TEXT, seed=2).shape[0] / 24_000
    duration = round(share * natural, 2)
    whole = synthesizer.generate(TEXT, seed=2, duration=duration, word_times=True)
    assert abs(whole.shape[0] / 24_000 - duration) <= max(0.05, 0.02 * duration)
    stream = synthesizer.stream(TEXT, seed=2, duration=duration, word_times=True)
    streamed = torch.cat(list(stream))
    torch.testing.assert_close(streamed, whole.as_subclass(torch.Tensor), atol=1e-4, rtol=0)
    assert isinstance(whole, Speech) and stream.words == list(whole.words)
    assert [word.text for word in stream.words] == TEXT.split()
    assert whole.words[-1].end_seconds <= duration + 0.05


def test_the_sound_before_the_end_is_sound(synthesizer: Synthesizer) -> None:
    """The length is met by the tempo, not by silence at the end."""
    natural = synthesizer.generate("the quick brown fox", seed=1)
    longer = synthesizer.generate("the quick brown fox", seed=1, duration=3.0)
    shorter = synthesizer.generate("the quick brown fox", seed=1, duration=0.8)
    assert shorter.shape[0] < natural.shape[0] and longer.shape[0] == 72_000
    assert float(longer[-7200:-2400].abs().max()) > 1e-3


def test_the_engine_takes_a_duration(synthesizer: Synthesizer) -> None:
    """Beside a stream that has none."""

    async def listen() -> list[torch.Tensor]:
        engine = StreamEngine(synthesizer)
        try:
            stream = await engine.open(TEXT, seed=2, duration=3.0)
            other = await engine.open("Yes.", seed=2)
            return [torch.cat([chunk async for chunk in each]) for each in (stream, other)]
        finally:
            await engine.close()

    fitted, plain = asyncio.run(listen())
    whole = synthesizer.generate(TEXT, seed=2, duration=3.0)
    torch.testing.assert_close(fitted, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(plain, synthesizer.generate("Yes.", seed=2), atol=1e-4, rtol=0)


def test_durations_that_cannot_be(synthesizer: Synthesizer) -> None:
    with pytest.raises(ValueError, match=r"takes about .* cannot be spoken in 0.01 s, only in"):
        synthesizer.generate(TEXT, duration=0.01)
    with pytest.raises(ValueError, match="cannot be spoken in 1000 s"):
        next(synthesizer.stream(TEXT, duration=1000))
    for wrong in (0, -1.0, float("nan"), "2", True):
        with pytest.raises(ValueError, match="a duration is a number of seconds above 0"):
            synthesizer.generate(TEXT, duration=wrong)  # type: ignore[arg-type]
    for wrong in (float("inf"), 1.01 * MAX_DURATION):
        with pytest.raises(ValueError, match="a duration is at most 86400 seconds"):
            synthesizer.generate(TEXT, duration=wrong)
    with pytest.raises(ValueError, match="either a duration or a speed"):
        synthesizer.generate(TEXT, duration=2.0, speed=1.1)
    with pytest.raises(ValueError, match="a duration is for a whole text"):
        synthesizer.stream(iter(["Yes."]), duration=2.0)


def test_without_a_duration_nothing_changes(synthesizer: Synthesizer) -> None:
    sampling = SamplingConfig(temperature=0.5)
    plain = synthesizer.generate(TEXT, seed=5, sampling=sampling)
    assert torch.equal(plain, synthesizer.generate(TEXT, seed=5, sampling=sampling, duration=None))


def test_the_nearest_attempt_with_no_more_errors_is_taken() -> None:
    lengths = {0: [10, 14, 16, 18], 1: [10, 12, 14, 16]}
    errors = {0: [1, 0, 2, 1], 1: [0, 0, 0, 0]}

    def decode(tries: Sequence[tuple[int, int]]) -> list[list[int]]:
        assert len(tries) == 2 * NUM_DURATION_ATTEMPTS
        return [[n] * lengths[index][n] for index, n in tries]

    def check(texts: Sequence[str], rows: list[list[int]]) -> list[ReadBackScore | None]:
        assert list(texts) == ["a"] * NUM_DURATION_ATTEMPTS + ["b"] * NUM_DURATION_ATTEMPTS
        return [
            ReadBackScore(
                error_rate=0.0,
                ctc_loss=0.0,
                words=WordErrors(missing=errors["ab".index(text)][row[0]]),
            )
            for text, row in zip(texts, rows, strict=True)
        ]

    # 16 would be nearest, but has two errors where the first attempt has one.
    assert [len(row) for row in decode_nearest(["a", "b"], [16.0, 0.0], decode, check)] == [14, 10]
    unread = decode_nearest(["a", "b"], [16.0, 13.0], decode, None)
    assert [len(row) for row in unread] == [16, 12]
