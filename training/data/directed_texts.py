"""Texts that use a phrase: to call a device, overheard, or as no call at all.

They come of templates. What a classifier learns of them are these templates; figures on them say
nothing of how persons speak. Real texts are given as a file (`read_texts`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from tokenlm.models.directedness import DIRECTED, NON_VOCATIVE, OVERHEARD, USES
from training.data.phrases import COMMANDS, HELDOUT_COMMANDS

TEMPLATES: dict[str, tuple[str, ...]] = {
    DIRECTED: (
        "{phrase}, {command}",
        "{phrase}. {command}",
        "{phrase}, could you {request}?",
        "{phrase}, please {request}.",
        "um, {phrase}, {command}",
        "{phrase}",
    ),
    OVERHEARD: (
        "and then he shouted {phrase} at the television",
        "so you just say {phrase} and it answers",
        "in the advert she says {phrase}, {command}",
        "we told the children not to yell {phrase} all day",
        "my sister keeps asking it, {phrase}, {command} over and over",
        "did you hear him say {phrase} in the film?",
    ),
    NON_VOCATIVE: (
        "a {noun} of our thanks for the {thing}",
        "each {noun} stands for one {thing}",
        "he put the {noun} into the slot of the {thing}",
        "by the same {noun} the {thing} was late",
        "the word {phrase} is painted on the {thing}",
        "they named the {thing} {phrase}",
    ),
}
HELDOUT_TEMPLATES: dict[str, tuple[str, ...]] = {
    DIRECTED: ("ok {phrase}, {command}", "{phrase}, would you {request}?"),
    OVERHEARD: (
        "they say {phrase} in every scene",
        "she called out {phrase}, {command} to tease us",
    ),
    NON_VOCATIVE: ("not one {noun} was left in the {thing}", "the {thing} is called {phrase}"),
}
"""Of validation alone."""
_REQUESTS = ("turn it down", "stop that", "open the door", "find my keys", "call home")
_THINGS = ("machine", "boat", "letter", "game", "meeting", "train", "shop", "story")


def draw_use(
    rng: random.Random, phrases: Sequence[str], *, is_heldout: bool = False
) -> tuple[str, str]:
    """Draws a text and its use, one of `USES`.

    Args:
        rng: draws.
        phrases: of a trigger.
        is_heldout: from the templates and commands of validation.
    """
    use = rng.choice(USES)
    templates = HELDOUT_TEMPLATES if is_heldout else TEMPLATES
    phrase = rng.choice(phrases)
    commands = HELDOUT_COMMANDS if is_heldout else COMMANDS
    text = rng.choice(templates[use]).format(
        phrase=phrase,
        noun=phrase.split()[-1],
        command=rng.choice(commands),
        request=rng.choice(_REQUESTS),
        thing=rng.choice(_THINGS),
    )
    return text, use


def read_texts(path: Path) -> list[tuple[str, str]]:
    """Texts and their uses of a file (JSONL with `text` and `use`).

    Raises:
        ValueError: there is no such file, or a line is not of this form; it names the line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of texts")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, use = str(row["text"]), row["use"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: a line has `text` and `use`: {error}") from error
        if use not in USES:
            raise ValueError(f"{path}:{number}: use is one of {', '.join(USES)}, not {use!r}")
        found.append((text, use))
    if not found:
        raise ValueError(f"{path} has no texts")
    return found
