"""Parts a transcript among the clips of its recording, by what a recogniser heard in each.

Letters are aligned, not words: a recogniser that spells gets most letters right, and few words.
The least edit distance under the condition that clips are parted between two words is found by
dynamic programming over the letters heard. Every cell remembers at which letter of the transcript
its clip began, so that memory grows with clips times letters, not with letters times letters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FAR = 1 << 30


def part_transcript(words: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Find the words of each clip.

    Args:
        words: The transcript, each word in the letters that a recogniser writes; may be empty
            strings, which go with the word before.
        heard: What was heard in each clip, in order.

    Returns:
        For each clip the first of its words and the one behind its last. All words are dealt out,
        in order; a clip gets none where none fits.

    Raises:
        ValueError: If there is no clip.
    """
    if not heard:
        raise ValueError("a transcript cannot be parted among no clips")
    letters = np.array([ord(c) for word in words for c in word], dtype=np.int32)
    ends = np.cumsum([0, *(len(word) for word in words)])
    outside = np.ones(len(letters) + 1, dtype=bool)
    outside[ends] = False
    cost = np.full(len(letters) + 1, _FAR, dtype=np.int64)
    cost[0] = 0
    begun = []
    for text in heard:
        cost, origin = _align_clip(cost, letters, text.replace(" ", ""))
        cost[outside] = _FAR  # a clip ends with a word
        begun.append(origin)
    places = [len(letters)]
    for origin in reversed(begun):
        places.append(int(origin[places[-1]]))
    # Words without letters share a place: all of them go with what stands before.
    cuts = [0, *(int(np.searchsorted(ends, place, side="right")) - 1 for place in places[-2::-1])]
    return list(zip(cuts, cuts[1:], strict=False))


def _align_clip(cost: np.ndarray, letters: np.ndarray, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Costs (L + 1,) behind a clip, and where in the transcript the clip began for each."""
    cost, origin = _skip(cost, np.arange(len(cost)))
    for letter in text:
        aside = np.concatenate([[_FAR], cost[:-1] + (letters != ord(letter))])
        before = np.concatenate([[0], origin[:-1]])
        better = aside <= cost + 1
        cost = np.where(better, aside, cost + 1)
        cost, origin = _skip(cost, np.where(better, before, origin))
    return cost, origin


def _skip(cost: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Let letters of the transcript be unheard, at 1 each."""
    place = np.arange(len(cost))
    lowest = np.minimum.accumulate(cost - place)
    # The last place up to here at which the lowest value was met.
    source = np.maximum.accumulate(np.where(cost - place == lowest, place, 0))
    return lowest + place, origin[source]
