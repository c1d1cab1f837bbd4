"""Texts in which every word counts and none can be guessed: what speech LMs lose or double.

Counts, months, letters, digits of telephone numbers, answers of one word, lists, phrases that run
alike, and talk without punctuation: a model that has only heard sentences drops an item of a count,
or says a digit twice, because nothing but the text says how many there are. Each kind is a function
`kind(rng) -> str`; nothing but the generator decides, and everything is in words (no digits), as
engines are to say it. What comes out may be a text of a test set: whoever draws for training asks
`training.data.exclusion`, as `draw` does when it is given one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from random import Random

import yaml

from training.data.exclusion import Exclusion
from training.rl.texts.grammar import DATA
from training.rl.texts.inflection import inflect
from training.rl.texts.spoken_numbers import cardinal, ordinal

MAX_DRAWS = 1000
"""Texts that are drawn until one is not excluded."""
MONTHS = (
    "January February March April May June July August September October November December".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "zero one two three four five six seven eight nine".split()
_BEFORE_COUNTS = (
    "{}.",
    "{}!",
    "{}...",
    "ready? {}.",
    "count with me: {}.",
    "{}, and stop.",
    "he counted them, {}.",
    "{}, that makes {last}.",
    "and {}, and so on.",
    "now slowly: {}.",
    "I got to {last}: {}.",
    "{}, here I come!",
    "okay, {}, go!",
)
_BEFORE_DOWN = (
    "{}.",
    "{}, go!",
    "{}, now!",
    "the clock showed {}.",
    "backwards: {}.",
    "{}, and off we went.",
    "only {} left.",
    "here it comes, {}.",
)
_BEFORE_SERIES = (
    "{}.",
    "{}?",
    "it runs {}.",
    "not {}, then.",
    "the choice is {}.",
    "they come in {}.",
    "we said {}.",
    "every year: {}.",
    "in order, {}.",
)
_BEFORE_LETTERS = (
    "{}.",
    "it is spelled {}.",
    "that's {}.",
    "spell it with me: {}.",
    "write {} at the top.",
    "the letters are {}.",
    "my name is {name}, {}.",
    "{name}, that is {}.",
    "underline {}.",
    "sign it with {}.",
)
_BEFORE_DIGITS = (
    "{}.",
    "the number is {}.",
    "call {}.",
    "please dial {} and wait.",
    "my code is {}.",
    "you can text me at {}.",
    "it ends in {}.",
    "the order number is {}, thank you.",
    "write it down: {}.",
    "was it {}?",
    "{}, not {again}.",
    "the line for {name} is {}.",
)
_QUESTIONS = (
    "done", "hungry", "is that you", "are you sure", "who is it", "which one", "how many", "when",
    "where is it", "how old are you", "whose is this", "did it work", "is it raining", "what for",
    "what time", "how far", "does it hurt", "are we late", "tea", "sugar", "black or white",
    "can I come in", "do you dance", "who cooked", "what did you lose", "how was it", "and you",
    "did you call {name}", "is {name} here", "who told {name}", "where did {name} go",
    "is this the {thing}", "who took the {thing}", "do you need a {thing}", "a {thing}",
    "can I see the {thing}", "what did the {person} say", "was the {person} angry",
    "have you met the {person}", "is the {thing} {adjective}", "was it {adjective}",
    "did you find the {thing}", "what is in the {thing}", "is there any {food}", "more {food}",
    "do you like {food}",
)  # fmt: skip
_ANSWERS = (
    "yes", "no", "maybe", "never", "always", "today", "tomorrow", "tonight", "me", "him", "her",
    "them", "nobody", "everyone", "here", "there", "upstairs", "home", "nothing", "everything",
    "please", "thanks", "sure", "right", "left", "hardly", "almost", "once", "twice", "both",
    "neither", "later", "now", "soon", "hot", "cold", "true", "false", "gone", "fine", "mine",
    "yours", "{name}", "{thing}", "{number}", "{month}", "{day}", "{adjective}", "{food}",
    "{colour}", "a {thing}", "the {person}", "at {number}", "in {month}", "with {name}",
)  # fmt: skip
_SAID = ("said {name}", "asked {name}", "he said", "she said", "she asked", "I said", "they said")
_PHRASES = (
    "the {a} {thing} is {adjective}",
    "{name} brought the {thing}",
    "I like the {a} {thing}",
    "the {person} has a {thing}",
    "no {thing} in the {thing2}",
    "a {a} {thing} for the {person}",
    "{name} took the {a} one",
    "some were {a}",
    "the {a} ones go in the {thing}",
    "first the {thing}",
    "less {food}",
    "it was {adjective} in {month}",
    "one {thing} for {name}",
    "he carried the {thing}",
    "turn the {a} {thing} {way}",
    "on {day} we had {food}",
    "the {thing} cost {number}",
    "she wrote to {name}",
)
_CLAUSES = (
    "I told {name} about the {thing}",
    "the {thing} was {adjective}",
    "{name} said it would be {adjective}",
    "we could not find the {thing}",
    "they sold the {thing} to a {person}",
    "it was {day} or maybe {day2}",
    "I don't know",
    "you should ask the {person}",
    "he put the {thing} in the {thing2}",
    "there was no {food} left",
    "she just laughed",
    "it took us {number} days",
    "my {person} knows all about it",
    "I was going to say something",
    "the {person} came back with a {thing}",
    "we had to wait outside",
    "{name} is never on time",
    "it doesn't matter now",
    "somebody took the {thing}",
    "the {a} one is mine",
    "I mean it looked {adjective}",
    "nobody wanted the {food}",
    "you know how he is",
    "then it started to rain",
)
_LINKS = (
    " and ", " and ", " so ", " but ", " because ", " and then ", " ", " ", " well ", " I mean ",
    " anyway ", " or ", " when ", " but then ",
)  # fmt: skip
_SHORT = (
    "{thing}", "{food}", "{name}", "{number}", "{adjective}", "{colour}", "{month}", "{day}",
    "the {thing}", "no {food}", "a {a} {thing}", "{adjective} {food}", "not {adjective}",
    "hello {name}", "{name} again", "thank you {name}", "good morning {name}", "very {adjective}",
    "{number} {things}", "two more {things}", "which {thing}", "my {thing}", "wrong {thing}",
    "too {adjective}", "next {day}", "by {month}", "come on", "wait", "stop it", "of course",
    "I know", "me too", "not me", "what now", "who cares", "go on", "be careful", "any {food}",
    "sorry {name}", "where to", "{colour} or {colour2}", "never again", "so {adjective}",
    "the {person}", "ask the {person}", "call {name}", "open it", "sit here", "look up",
)  # fmt: skip
_ENDS = (".", ".", ".", "!", "?", "", "...")
_START = re.compile(r"^[a-z]|(?<!\.)[.!?] [a-z]")
_TEMPLATE = re.compile(r"\{([a-z0-9]*)\}")


def count_up(rng: Random) -> str:
    """A count from anywhere, by ones or by other steps, or in ordinals."""
    step = rng.choice((1, 1, 1, 1, 1, 2, 3, 5, 10, 100))
    start = rng.choice((1, 1, step, rng.randrange(0, 30), rng.randrange(0, 100)))
    if step >= 10:
        start = step * rng.randint(1, 8)
    numbers = range(start, start + step * rng.randint(3, 14), step)
    spoken = ordinal if step == 1 and start and rng.random() < 0.15 else cardinal
    return _series([spoken(number) for number in numbers], _BEFORE_COUNTS, rng)


def count_down(rng: Random) -> str:
    """A count back, mostly to one or zero."""
    step = rng.choice((1, 1, 1, 1, 2, 5, 10))
    length = rng.randint(3, 12)
    last = step * rng.choice((0, 1, 1, rng.randint(2, 20)))
    numbers = [last + step * place for place in reversed(range(length))]
    return _series([cardinal(number) for number in numbers], _BEFORE_DOWN, rng)


def months(rng: Random) -> str:
    """Months in their order, back, or picked."""
    return _series(_cycle(MONTHS, rng), _BEFORE_SERIES, rng)


def weekdays(rng: Random) -> str:
    """Days of the week in their order, back, or picked."""
    return _series(_cycle(DAYS, rng), _BEFORE_SERIES, rng)


def letters(rng: Random) -> str:
    """Letters of the alphabet, those of a spelled word, or any."""
    kind = rng.random()
    name = rng.choice(_words()["names"])
    if kind < 0.35:
        start = rng.randrange(len(LETTERS) - 3)
        found = list(LETTERS[start : start + rng.randint(3, 12)])
        if rng.random() < 0.2:
            found.reverse()
    elif kind < 0.75:
        found = list((name if rng.random() < 0.5 else rng.choice(_words()["things"])).upper())
        found = [letter for letter in found if letter in LETTERS]
    else:
        found = rng.choices(LETTERS, k=rng.randint(2, 8))
    gap = rng.choice((", ", ", ", ", ", " ", ". "))
    return _put(rng.choice(_BEFORE_LETTERS), gap.join(found), rng, {"name": name})


def digits(rng: Random) -> str:
    """Digits of telephone numbers and codes, alone, in groups, some of them doubled."""
    sizes = rng.choice(
        (
            (3, 4),
            (3, 4),
            (3, 3, 4),
            (3, 4, 4),
            (4,),
            (4, 4),
            (5,),
            (6,),
            (2, 2, 2),
            (3, 3, 3),
            (5, 6),
        )
    )
    zero = rng.choice(("zero", "zero", "oh"))
    groups = [
        [zero if digit == "zero" else digit for digit in rng.choices(DIGITS, k=size)]
        for size in sizes
    ]
    if rng.random() < 0.25:
        groups = [_doubled(group, rng) for group in groups]
    between, inside = rng.choice(((", ", " "), (", ", ", "), (" ", " "), (". ", " "), (" ", ", ")))
    number = between.join(inside.join(group) for group in groups)
    again = " ".join(rng.choices(DIGITS, k=len(groups[-1])))
    return _put(rng.choice(_BEFORE_DIGITS), number, rng, {"again": again})


def quoted_answer(rng: Random) -> str:
    """One to three questions, each answered in a word or two, mostly in quotation marks."""
    turns = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        question = _sentence(_fill(rng.choice(_QUESTIONS), rng)) + "?"
        answer = _sentence(_fill(rng.choice(_ANSWERS), rng))
        end = rng.choice((".", ".", ".", "!", "?"))
        style = rng.random()
        if style < 0.6:
            turns.append(f'"{question}" "{answer}{end}"')
        elif style < 0.75:
            turns.append(f'"{question}" {_fill(rng.choice(_SAID), rng)}. "{answer}{end}"')
        elif style < 0.85:
            turns.append(f'"{question}" "{answer}," {_fill(rng.choice(_SAID), rng)}.')
        elif style < 0.93:
            turns.append(f"{question} {answer}{end}")
        else:
            turns.append(f"{question} {answer}, {_fill(rng.choice(_SAID), rng)}.")
    return " ".join(turns)


def listed(rng: Random) -> str:
    """A list of two to fourteen items of one or two words."""
    kinds = ("things", "foods", "animals", "names", "colours", "cities", "countries", "adjectives")
    words = _words()[rng.choice(kinds)]
    chosen = rng.sample(words, min(rng.choice((2, 3, 4, 5, 6, 7, 8, 10, 12, 14)), len(words)))
    described = rng.random() < 0.2
    items = [f"{rng.choice(_words()['colours'])} {word}" if described else word for word in chosen]
    if rng.random() < 0.5:
        items[-1] = f"{rng.choice(('and', 'and', 'or', 'and also'))} {items[-1]}"
    gap = rng.choice((", ", ", ", ", ", ". ", "; ", " "))
    before = rng.choice(("{}.", "{}.", "{}", "we need {}.", "there were {}.", "I saw {}.", "{}?"))
    return _put(before, gap.join(items), rng)


def parallel(rng: Random) -> str:
    """Two to four phrases that run alike and differ in a word or two."""
    pattern = rng.choice(_PHRASES)
    phrases = [_fill(pattern, rng) for _ in range(rng.choice((2, 3, 3, 3, 4)))]
    if rng.random() < 0.4:
        phrases[-1] = f"{rng.choice(('and', 'but'))} {phrases[-1]}"
    gap = rng.choice((", ", ", ", ", ", "; ", ". "))
    return _sentence(gap.join(phrases)) + rng.choice(_ENDS)


def run_on(rng: Random) -> str:
    """Talk of two to six clauses without any punctuation."""
    text = ""
    for number in range(rng.randint(2, 6)):
        text += (rng.choice(_LINKS) if number else "") + _fill(rng.choice(_CLAUSES), rng)
    return text.lower() if rng.random() < 0.5 else text


def short(rng: Random) -> str:
    """One to three words."""
    text = _fill(rng.choice(_SHORT), rng)
    return (_sentence(text) if rng.random() < 0.8 else text) + rng.choice(_ENDS)


KINDS: dict[str, Callable[[Random], str]] = {
    "count_up": count_up,
    "count_down": count_down,
    "months": months,
    "weekdays": weekdays,
    "letters": letters,
    "digits": digits,
    "quoted_answer": quoted_answer,
    "listed": listed,
    "parallel": parallel,
    "run_on": run_on,
    "short": short,
}
"""Kinds of text, by name."""


def draw(
    rng: Random,
    weights: Mapping[str, float] | None = None,
    exclusion: Exclusion | None = None,
) -> str:
    """Draw a text of one of `KINDS`.

    Args:
        rng: decides; the same state gives the same text.
        weights: how often each kind is taken, beside the others; those without one count 1.
        exclusion: what must not come out, as the texts of test sets
            (`training.data.exclusion.evaluation_exclusion`).

    Returns:
        Words and punctuation, no digits.

    Raises:
        ValueError: there is no kind of that name, or all that is drawn is excluded.
    """
    unknown = sorted((weights or {}).keys() - KINDS.keys())
    if unknown:
        raise ValueError(f"there is no kind of text {unknown[0]!r}; there are {', '.join(KINDS)}")
    own = [(weights or {}).get(name, 1.0) for name in KINDS]
    for _ in range(MAX_DRAWS):
        text = KINDS[rng.choices(list(KINDS), own)[0]](rng)
        if exclusion is None or not exclusion.excludes(text):
            return text
    raise ValueError(f"{MAX_DRAWS} counted texts in a row are excluded, such as {text!r}")


def _cycle(names: Sequence[str], rng: Random) -> list[str]:
    start, length = rng.randrange(len(names)), rng.randint(2, len(names))
    if rng.random() < 0.2:
        return rng.sample(list(names), length)
    step = -1 if rng.random() < 0.2 else 1
    return [names[(start + step * place) % len(names)] for place in range(length)]


def _series(items: list[str], before: Sequence[str], rng: Random) -> str:
    last = items[-1]
    if rng.random() < 0.15:
        items = [*items[:-1], f"{rng.choice(('and', 'and', 'or'))} {items[-1]}"]
    gap = rng.choice((", ", ", ", ", ", ", ", ". ", " ", "... ", "; "))
    return _put(rng.choice(before), gap.join(items), rng, {"last": last})


def _doubled(group: list[str], rng: Random) -> list[str]:
    place = rng.randrange(len(group))
    return [*group[:place], f"double {group[place]}", *group[place + 1 :]]


def _put(pattern: str, text: str, rng: Random, more: Mapping[str, str] | None = None) -> str:
    return _sentence(_fill(pattern, rng, {"": text, **(more or {})}))


def _fill(pattern: str, rng: Random, given: Mapping[str, str] | None = None) -> str:
    """A pattern with words in its slots: {name}, {thing}, … and what is given."""
    known = _words()
    slots = {
        "name": "names", "thing": "things", "thing2": "things", "person": "people",
        "food": "foods", "adjective": "adjectives", "a": "adjectives", "colour": "colours",
        "colour2": "colours",
    }  # fmt: skip

    def word(match: re.Match[str]) -> str:
        slot = match[1]
        if given is not None and slot in given:
            return given[slot]
        if slot in slots:
            return rng.choice(known[slots[slot]])
        if slot == "things":
            return inflect(rng.choice(known["things_as_listed"]), "plural").replace("-", " ")
        if slot == "number":
            return cardinal(rng.choice((rng.randrange(2, 13), rng.randrange(2, 100))))
        if slot == "month":
            return rng.choice(MONTHS)
        if slot in ("day", "day2"):
            return rng.choice(DAYS)
        assert slot == "way"
        return rng.choice(("left", "right", "up", "down", "over", "around"))

    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", _TEMPLATE.sub(word, pattern))


def _sentence(text: str) -> str:
    """With a capital at the start of each sentence; what goes on after three dots is one still."""
    return _START.sub(lambda match: match[0].upper(), text)


@lru_cache(maxsize=1)
def _words() -> dict[str, list[str]]:
    """Words of words.yaml by class, in their base form; `things_as_listed` for inflection."""
    data = yaml.safe_load((DATA / "words.yaml").read_text(encoding="utf-8"))
    listed = {name: text.split() for name, text in data.items()}
    words = {
        name: [entry.split("/")[0].replace("-", " ") for entry in entries]
        for name, entries in listed.items()
    }
    return {**words, "things_as_listed": listed["things"]}
