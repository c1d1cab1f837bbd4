"""What is evaluated: held-out sentences, each to be said in the voice of a prompt.

The choice is a function of the manifest alone. Every voice gives one prompt; the sentences are
dealt to the voices in turn; a sentence is asked for once, never that of a prompt, and always one
that its voice's engine has read itself, so that both can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.data.manifest import ManifestError, Utterance, by_speaker, read_manifest
from training.evaluation.error_rate import spoken_words


@dataclass(frozen=True, kw_only=True)
class Item:
    """A sentence to be said."""

    index: int
    """Place in the test set, from 0; the seed of its sampling follows from it."""
    original: Utterance
    """The engine's own reading of the sentence, in the same voice."""
    prompt: Utterance
    """The recording whose voice is to be cloned; another sentence."""


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """The items of one manifest."""

    __test__ = False  # Not a test class, whatever its name says to pytest.

    name: str
    """Such as `heldout` or `unheard`."""
    items: list[Item]
    """In order; the first n of them are a fair smaller test set."""
    prompts: dict[str, Utterance]
    """The prompt of each voice."""
    recordings: list[Utterance]
    """All rows of the manifest."""


def read_test_set(
    name: str, path: Path, *, num_items: int, num_voices: int, prompt_seconds: float
) -> TestSet:
    """Choose the items of a manifest.

    Args:
        name: of the test set.
        path: the manifest.
        num_items: sentences; fewer where the manifest has no more.
        num_voices: voices, the first of the manifest by name.
        prompt_seconds: length that prompts come close to.

    Raises:
        ManifestError: the manifest cannot be read, has a bad row, or has too little in it.
    """
    recordings = read_manifest(path, strict=True).utterances
    return choose_items(
        name,
        recordings,
        num_items=num_items,
        num_voices=num_voices,
        prompt_seconds=prompt_seconds,
    )


def choose_items(
    name: str,
    recordings: list[Utterance],
    *,
    num_items: int,
    num_voices: int,
    prompt_seconds: float,
) -> TestSet:
    """Choose the items among recordings; see `read_test_set`."""
    groups = {
        speaker: sorted((recordings[index] for index in indices), key=lambda row: row.id)
        for speaker, indices in list(by_speaker(recordings).items())[:num_voices]
    }
    if not groups:
        raise ManifestError(f"the manifest of the test set {name!r} has no rows.")
    prompts: dict[str, Utterance] = {}
    used: set[str] = set()
    for speaker, rows in groups.items():
        free = [row for row in rows if spoken_words(row.text) not in used] or rows
        prompts[speaker] = min(free, key=lambda row: abs(row.duration - prompt_seconds))
        used.add(spoken_words(prompts[speaker].text))
    queues = {speaker: iter(rows) for speaker, rows in groups.items()}
    items: list[Item] = []
    while queues and len(items) < num_items:
        for speaker in list(queues):
            row = next((row for row in queues[speaker] if spoken_words(row.text) not in used), None)
            if row is None:
                del queues[speaker]
            elif len(items) < num_items:
                used.add(spoken_words(row.text))
                items.append(Item(index=len(items), original=row, prompt=prompts[speaker]))
    if not items:
        raise ManifestError(
            f"the test set {name!r} needs voices with at least two sentences each: one is the "
            "prompt, the others are asked for."
        )
    return TestSet(name=name, items=items, prompts=prompts, recordings=recordings)
