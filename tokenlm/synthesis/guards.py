"""Guards that look at whole segments: read back what was said, and try again, or take the best.

Speech tokens are read by the ASR half of their own tokenizer: no vocoder is needed, and a judge of
`tokenlm evaluate` has no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from tokenlm.models.lm.generate import SpeechRequest
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.token_recognizer import TokenRecognizer
from tokenlm.modules.noise import mix
from tokenlm.text.alphabet import known_characters

ATTEMPT = 0x5EED
"""Sets the seeds of further attempts apart from those of anything else."""

Speak = Callable[[Sequence[SpeechRequest]], list[list[int]]]
"""Speech tokens of requests, in order."""
Read = Callable[[list[list[int]]], list[str]]
"""What is heard in speech tokens, in order."""


@dataclass(frozen=True, kw_only=True)
class SpokenSegment:
    """What the LM made of one text segment."""

    tokens: list[int]
    num_attempts: int = 1
    char_error: float | None = None
    """Of the tokens, read back; None where nothing could be checked."""


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Fewest insertions, deletions and substitutions between two sequences (Levenshtein, 1966)."""
    above = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            current.append(
                min(above[column] + 1, current[-1] + 1, above[column - 1] + (left != right))
            )
        above = current
    return above[-1]


def char_error(text: str, heard: str, alphabet: str) -> float | None:
    """Errors per character of a text, both in the characters that the recogniser knows.

    Deletions are what was skipped or left out at the end, insertions what was repeated, babbled or
    leaked from the prompt. None where the text has no known character: it cannot be checked.
    """
    reference = known_characters(text, alphabet)
    found = known_characters(heard, alphabet)
    return edit_distance(reference, found) / len(reference) if reference else None


def attempt(request: SpeechRequest, number: int) -> SpeechRequest:
    """The same request with the seed of attempt `number`; that of attempt 0 is its own."""
    return request if number == 0 else replace(request, seed=mix(request.seed, ATTEMPT, number))


def speak_checked(
    requests: Sequence[SpeechRequest],
    texts: Sequence[str],
    speak: Speak,
    read: Read,
    guards: GuardConfig,
    alphabet: str,
) -> list[SpokenSegment]:
    """Speak requests, read them back, and try again where they are not what was asked for.

    Args:
        requests: what is to be said.
        texts: the same in words, for the check.
        speak: the LM.
        read: the token recogniser.
        guards: how many attempts there are, and what is accepted.
        alphabet: that of the recogniser.

    Returns:
        The best attempt at each request. Attempts are made one after another, the first
        `num_candidates` of them at once. Of a text in another script than the recogniser's the
        first attempt is taken.
    """
    best: list[SpokenSegment | None] = [None] * len(requests)
    open_ones = list(range(len(requests)))
    most = max(guards.max_attempts, guards.num_candidates)
    done = 0
    while open_ones and done < most:
        count = guards.num_candidates if done == 0 else 1
        jobs = [(index, done + number) for index in open_ones for number in range(count)]
        spoken = speak([attempt(requests[index], number) for index, number in jobs])
        heard = read(spoken)
        for (index, _), tokens, words in zip(jobs, spoken, heard, strict=True):
            error = char_error(texts[index], words, alphabet)
            before = best[index]
            if before is None or (error is not None and error < (before.char_error or 0.0)):
                best[index] = SpokenSegment(tokens=tokens, char_error=error)
        done += count
        for index in open_ones:
            chosen = best[index]
            assert chosen is not None
            best[index] = replace(chosen, num_attempts=done)
        open_ones = [
            index
            for index in open_ones
            if (best[index].char_error or 0.0) > guards.max_char_error  # type: ignore[union-attr]
        ]
    return [segment for segment in best if segment is not None]


@torch.inference_mode()
def read_tokens(recognizer: TokenRecognizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """What the token recogniser reads in rows of speech tokens; nothing in an empty one."""
    filled = [index for index, row in enumerate(rows) if row]
    heard = [""] * len(rows)
    if not filled:
        return heard
    device = recognizer.ctc.weight.device
    lengths = torch.tensor([len(rows[index]) for index in filled], device=device)
    padded = torch.zeros(len(filled), int(lengths.max()), dtype=torch.long, device=device)
    for place, index in enumerate(filled):
        padded[place, : len(rows[index])] = torch.tensor(list(rows[index]), device=device)
    for index, text in zip(filled, recognizer.transcribe(padded, lengths), strict=True):
        heard[index] = text
    return heard
