"""Guards that look at whole segments: read back what was said, and try again, or take the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tokenlm.models.lm.decoding import SpeechRequest
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.modules.noise import mix
from tokenlm.synthesis.read_back import Reading

ATTEMPT = 0x5EED
"""Sets the seeds of further attempts apart from those of anything else."""

Speak = Callable[[Sequence[SpeechRequest]], list[list[int]]]
"""Speech tokens of requests, in order."""
Check = Callable[[Sequence[str], list[list[int]]], list[Reading | None]]
"""How well speech tokens say texts, in order, as `ReadBack` tells."""


@dataclass(frozen=True, kw_only=True)
class SpokenSegment:
    """What the LM made of one text segment."""

    tokens: list[int]
    num_attempts: int = 1
    reading: Reading | None = None
    """Of the tokens; None where nothing could be checked."""


def attempt(request: SpeechRequest, number: int) -> SpeechRequest:
    """The same request with the seed of attempt `number`; that of attempt 0 is its own."""
    return request if number == 0 else replace(request, seed=mix(request.seed, ATTEMPT, number))


def speak_checked(
    requests: Sequence[SpeechRequest],
    texts: Sequence[str],
    speak: Speak,
    check: Check,
    guards: GuardConfig,
) -> list[SpokenSegment]:
    """Speak requests, read them back, and try again where they are not what was asked for.

    Args:
        requests: what is to be said.
        texts: the same in words, for the check.
        speak: the LM.
        check: reads what it said.
        guards: how many attempts there are, and what is accepted.

    Returns:
        The best attempt at each request: the one with the fewest words lost, doubled or put in, of
        these the one with the fewest errors, then the clearest. Attempts are made one after
        another, the first `num_candidates` of them at once, until every word is there and the
        errors are few enough. Of a text that cannot be checked, such as one in another
        script than the recogniser's, the first attempt is taken.
    """
    best: list[SpokenSegment | None] = [None] * len(requests)
    open_ones = list(range(len(requests)))
    most = max(guards.max_attempts, guards.num_candidates)
    done = 0
    while open_ones and done < most:
        count = guards.num_candidates if done == 0 else 1
        jobs = [(index, done + number) for index in open_ones for number in range(count)]
        spoken = speak([attempt(requests[index], number) for index, number in jobs])
        readings = check([texts[index] for index, _ in jobs], spoken)
        for (index, _), tokens, reading in zip(jobs, spoken, readings, strict=True):
            before = best[index]
            if before is None or _is_better(reading, before.reading):
                best[index] = SpokenSegment(tokens=tokens, reading=reading)
        done += count
        for index in open_ones:
            chosen = best[index]
            assert chosen is not None
            best[index] = replace(chosen, num_attempts=done)
        open_ones = [
            index
            for index in open_ones
            if (reading := best[index].reading) is not None  # type: ignore[union-attr]
            and (reading.words.total or reading.error > guards.max_read_error)
        ]
    return [segment for segment in best if segment is not None]


def _is_better(reading: Reading | None, before: Reading | None) -> bool:
    if reading is None or before is None:
        return False
    return _badness(reading) < _badness(before)


def _badness(reading: Reading) -> tuple[float, ...]:
    return reading.words.total, reading.error, reading.surprise
