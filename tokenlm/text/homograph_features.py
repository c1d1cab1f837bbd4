"""What of the words around a homograph speaks for one of its parts of speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WORDS_AHEAD = 4
"""So many words after a word may decide what it is."""
WORDS_BEFORE = 4
_CUES_BEFORE = 10
POSITIONED = ":"
"""In a cue, between its distance from the word (+1 is right behind) and what stands there."""
_ENDS = frozenset(".?!;:")
_EDGE = "$"

_GROUPS = {
    "det": "a an the this that these those every each some any no another either neither such all "
    "both half what which whose many much few several most more",
    "poss": "my your his her its our their whose one's someone's everyone's people's",
    "subj": "i you he she it we they who there nobody everybody everyone someone anyone",
    "obj": "me him them us himself herself themselves itself myself yourself ourselves",
    "be": "am is are was were be been being isn't aren't wasn't weren't i'm you're we're they're "
    "he's she's it's that's there's",
    "have": "have has had having haven't hasn't hadn't i've you've we've they've",
    "do": "do does did don't doesn't didn't",
    "modal": "can could may might must shall should will would can't cannot couldn't won't "
    "wouldn't shouldn't mustn't needn't i'll you'll he'll she'll we'll they'll it'll i'd you'd "
    "he'd she'd we'd they'd let's please",
    "to": "to",
    "prep": "of in on at by for from with about into over under after before between through "
    "during without within against among around across behind beyond near toward towards upon off "
    "out up down per via until since as like than",
    "conj": "and or but nor so yet because although though while if unless when where whether that",
    "not": "not never n't hardly",
    "adv": "very too quite rather so always often usually sometimes also just only still already "
    "even ever really almost well soon now then here again seldom rarely",
    "past": "yesterday ago last once earlier previously",
    "num": "one two three four five six seven eight nine ten eleven twelve twenty thirty forty "
    "fifty hundred thousand million first second third fourth fifth",
    "end": _EDGE,
    "comma": ",",
}  # fmt: skip
_GROUP = {word: name for name, words in reversed(_GROUPS.items()) for word in words.split()}
_SUFFIXES = ("ing", "ed", "ly", "tion", "ness", "ment", "ity", "ous", "ful", "ive", "able", "al",
             "er", "est", "ic", "y", "'s", "s'", "s")  # fmt: skip


@dataclass(frozen=True)
class Context:
    """The words around a word, the nearest first; a sentence does not look into the next one."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    is_closed: bool
    """Whether what follows `after` is out of sight."""


def context(parts: Sequence[str], at: int) -> Context:
    """The words and commas around `parts[at]`."""
    before: list[str] = []
    for part in reversed(parts[max(0, at - WORDS_BEFORE) : at]):
        if part in _ENDS:
            break
        before.append(part)
    after: list[str] = []
    num_words = 0
    ahead = parts[at + 1 : at + 1 + 2 * WORDS_AHEAD]
    is_closed = len(ahead) == 2 * WORDS_AHEAD
    for part in ahead:
        if part in _ENDS:
            is_closed = True
            break
        after.append(part)
        num_words += part != ","
        if num_words == WORDS_AHEAD:
            is_closed = True
            break
    return Context(tuple(before), tuple(after), is_closed)


def features(word: str, around: Context) -> Iterator[str]:
    """Names of what is seen around a word; the word itself is one of them."""
    l1, l2, l3, *_ = (*around.before, _EDGE, _EDGE, _EDGE)
    r1, r2, r3, *_ = (*around.after, _EDGE, _EDGE, _EDGE)
    k1, k2, k3, q1, q2, q3 = map(_kind, (l1, l2, l3, r1, r2, r3))
    yield "bias"
    yield f"w {word}"
    yield f"l1 {l1}"
    yield f"l2 {l2}"
    yield f"l3 {l3}"
    yield f"r1 {r1}"
    yield f"r2 {r2}"
    yield f"r3 {r3}"
    yield f"l21 {l2} {l1}"
    yield f"r12 {r1} {r2}"
    yield f"lr {l1} {r1}"
    yield f"k1 {k1}"
    yield f"k2 {k2}"
    yield f"k21 {k2} {k1}"
    yield f"k321 {k3} {k2} {k1}"
    yield f"q1 {q1}"
    yield f"q12 {q1} {q2}"
    yield f"q123 {q1} {q2} {q3}"
    yield f"kq {k1} {q1}"
    yield f"kkq {k2} {k1} {q1}"
    yield f"kqq {k1} {q1} {q2}"
    yield f"s1 {l1[-3:]}"
    yield f"t1 {r1[-3:]}"
    yield f"wk {l1} {q1}"
    yield f"kw {k1} {r1}"


def cue_words(parts: Sequence[str], at: int) -> set[str]:
    """The words nearby, and those that stand in a certain place: `-2:was`."""
    around = context(parts, at)
    near = {*parts[max(0, at - _CUES_BEFORE) : at], *around.after}
    placed = {f"-{n}{POSITIONED}{word}" for n, word in enumerate(around.before[:3], 1)}
    return near | placed | {f"+{n}{POSITIONED}{word}" for n, word in enumerate(around.after[:3], 1)}


def _kind(word: str) -> str:
    """The group of a word, else how it ends."""
    group = _GROUP.get(word)
    if group is None:
        group = next((f"-{end}" for end in _SUFFIXES if word.endswith(end) and len(word) > 3), "x")
    return group
