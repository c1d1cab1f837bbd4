"""What is spoken to train and test a trigger: the phrase, what follows it, and what sounds close.

Texts that sound close come of phones: words of a lexicon a few edits away ("seriously", "cereal"),
and spellings of edited phones that are no words at all.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from rapidfuzz.distance import Levenshtein

from tokenlm.text.tokenizers import PhonemeTokenizer

COMMANDS = (
    "what's the weather like?",
    "set a timer for ten minutes.",
    "turn off the kitchen lights.",
    "play some music.",
    "read me the news.",
    "call my sister.",
    "how far is it to the station?",
    "remind me to buy milk.",
    "stop.",
    "louder, please.",
    "what time is it in Tokyo?",
    "add eggs to my list.",
    "tell me a story.",
    "open the window blinds.",
    "who wrote this song?",
    "start the washing machine.",
    "take a note.",
    "translate good morning.",
    "skip this one.",
    "where is my phone?",
    "lock the front door.",
    "make it warmer.",
    "when does the bus leave?",
    "cancel the meeting.",
)
"""What is asked behind a phrase in training."""
HELDOUT_COMMANDS = (
    "how long does an egg take?",
    "wake me at seven.",
    "dim the lamp.",
    "what's on my calendar?",
    "send a message to Ben.",
    "is it going to rain?",
    "pause the film.",
    "spell the word rhythm.",
)
"""What is asked behind a phrase in tests."""
KINDS = {"phrase": 0.35, "phrase_command": 0.25, "close": 0.25, "close_command": 0.15}
"""Kinds of texts and their shares."""

_VOWELS = set("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())
_NEAR = (
    {"p", "t", "k", "b", "d", "g"},
    {"f", "th", "s", "sh", "hh", "v", "z", "zh", "dh"},
    {"m", "n", "ng"},
    {"l", "r", "w", "y"},
    {"ch", "jh", "sh", "zh"},
    _VOWELS,
)
"""Classes of phones; an edit puts another of the same class in place of one."""
_SPELLINGS = {
    "aa": "ah", "ae": "a", "ah": "u", "ao": "aw", "aw": "ow", "ax": "e", "ay": "igh", "b": "b",
    "ch": "ch", "d": "d", "dh": "th", "eh": "e", "er": "er", "ey": "ay", "f": "f", "g": "g",
    "hh": "h", "ih": "i", "iy": "ee", "jh": "j", "k": "k", "l": "l", "m": "m", "n": "n",
    "ng": "ng", "ow": "oh", "oy": "oy", "p": "p", "r": "r", "s": "s", "sh": "sh", "t": "t",
    "th": "th", "uh": "oo", "uw": "oo", "v": "v", "w": "w", "y": "y", "z": "z", "zh": "zh",
}  # fmt: skip
"""How a phone may be spelt, for words that do not exist."""


def contains(phones: Sequence[object], phrase: Sequence[object]) -> bool:
    """Whether the phones of a phrase occur in a row."""
    size = len(phrase)
    return any(list(phones[at : at + size]) == list(phrase) for at in range(len(phones) - size + 1))


def normal_phrase(phrase: str) -> str:
    """A phrase as it is spelt in texts and shown: lower case, one space between words.

    Raises:
        ValueError: it has no letters.
    """
    words = " ".join(phrase.lower().split())
    if not any(letter.isalpha() for letter in words):
        raise ValueError(f"the phrase {phrase!r} has no letters")
    return words


def close_phrases(
    phrase: str,
    tokenizer: PhonemeTokenizer,
    words: Iterable[str] = (),
    *,
    count: int = 40,
    seed: int = 0,
) -> list[str]:
    """Texts that sound close to a phrase and are not it.

    Half of them have words of a lexicon in place of words of the phrase, those of fewest edits of
    phones first; the others spell the phrase with one or two phones replaced, left out or put in.

    Args:
        phrase: words.
        tokenizer: knows how words are pronounced.
        words: a lexicon beside that of the tokenizer.
        count: most texts.
        seed: of the edits.
    """
    rng = random.Random(f"{phrase}:{seed}")
    said = tokenizer.pronounce(phrase)
    parts = phrase.split()
    by_word = {part: tokenizer.pronounce(part) for part in parts}
    known = {w: _plain(p) for w, p in tokenizer.lexicon.items() if w.isalpha() and len(w) > 2}
    for word in words:
        if word.isalpha() and len(word) > 2 and word not in known:
            known[word] = tokenizer.pronounce(word)
    near: list[tuple[float, str]] = []
    for place, part in enumerate(parts):
        for word, phones in known.items():
            distance = Levenshtein.distance(phones, by_word[part])
            if 0 < distance <= max(1, len(by_word[part]) // 2):
                text = " ".join([*parts[:place], word, *parts[place + 1 :]])
                near.append((distance / len(by_word[part]) + 0.1 * rng.random(), text))
    found = [text for _, text in sorted(near)][: count // 2]
    tries = 0
    while len(found) < count and tries < 50 * count:
        tries += 1
        edited = [list(by_word[part]) for part in parts]
        for _ in range(rng.choice((1, 1, 2))):
            _edit(rng.choice(edited), rng)
        text = " ".join("".join(_SPELLINGS[phone] for phone in word) for word in edited if word)
        if text and text not in found:
            found.append(text)
    return [text for text in found if not contains(tokenizer.pronounce(text), said)]


def _edit(phones: list[str], rng: random.Random) -> None:
    place = rng.randrange(len(phones)) if phones else 0
    kind = rng.choice(("replace", "replace", "drop", "insert"))
    if kind == "drop" and len(phones) > 2:
        del phones[place]
    elif kind == "insert" or not phones:
        phones.insert(place, rng.choice(sorted(_SPELLINGS)))
    else:
        near = sorted(set().union(*(c for c in _NEAR if phones[place] in c)) - {phones[place]})
        phones[place] = rng.choice(near or sorted(_SPELLINGS))


def _plain(phones: Sequence[str]) -> list[str]:
    return [phone.rstrip("012") for phone in phones]


def draw_text(
    rng: random.Random,
    phrases: Sequence[str],
    close: Mapping[str, Sequence[str]],
    commands: Sequence[str] = COMMANDS,
) -> str:
    """Draws a text of one of `KINDS`.

    Args:
        rng: draws.
        phrases: the first is drawn as often as all others.
        close: close texts of each phrase.
        commands: what may follow.
    """
    phrase = phrases[0] if len(phrases) == 1 or rng.random() < 0.5 else rng.choice(phrases[1:])
    kind = rng.choices([*KINDS], [*KINDS.values()])[0]
    if kind.startswith("close") and close[phrase]:
        phrase = rng.choice(close[phrase])
    spoken = phrase[0].upper() + phrase[1:]
    if kind.endswith("command"):
        return f"{spoken}, {rng.choice(commands)}"
    return spoken + rng.choice((".", "!", "?", "."))
