"""Consent sentences with words drawn for one occasion, each to be said once and soon.

A recording of yesterday has other words, and one that is made beforehand cannot know them.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from inference.consent.evidence import ConsentError

NUM_WORDS = 3
"""Drawn words of a sentence. Of 128 words there are two million sentences."""
LIFETIME_SECONDS = 300.0
"""Time to record the sentence and to send it."""
MAX_CHALLENGES = 1000
"""Open challenges that are kept; the oldest are dropped, so that asking fills no memory."""
MAX_NAME = 200
"""Characters of a person's name."""

WORDS = tuple(
    """
    afternoon airport almond animal apple april autumn balcony banana basket bicycle blanket
    border bottle breakfast bridge broccoli butter button camera candle canyon captain carpet
    castle cathedral chicken chimney chocolate cinnamon coffee collar compass copper cotton
    counter cousin curtain december desert diamond doctor dolphin dragon eagle elbow elephant
    engine evening factory family feather february finger flower forest fountain furniture
    galaxy garden gentle giraffe glacier guitar hammer harbour holiday honey hospital island
    jacket january journey jungle kangaroo kitchen ladder lantern lemon library lizard machine
    magnet market medicine meadow melody mirror monday morning mountain museum mushroom napkin
    needle november number ocean october orange oxygen paper parrot passenger pencil pepper
    piano picture pillow planet pocket potato powder prison pumpkin rabbit railway river rocket
    saturday seven shadow silver spider strawberry summer sunday sugar
    """.split()
)[:128]
"""Words that are long enough to be told apart, and that everybody reads the same."""


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A sentence that somebody is asked to say."""

    id: str
    """Random, used once."""
    who: str
    """The person who is to say it."""
    words: tuple[str, ...]
    """Drawn for this occasion."""
    issued_at: float
    """Seconds since 1970."""

    @property
    def sentence(self) -> str:
        """What is to be said."""
        first, *rest = self.words
        return f"{self.statement} {', '.join([first.capitalize(), *rest])}."

    @property
    def statement(self) -> str:
        """What is agreed to, without the drawn words."""
        return f"I, {self.who}, let tokenlm copy my voice."

    @property
    def expires_at(self) -> float:
        """Seconds since 1970."""
        return self.issued_at + LIFETIME_SECONDS


class Challenges:
    """The challenges that are open.

    They are in memory: after a restart, or with another server, a sentence is drawn anew.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Keeps none yet; `now` gives seconds since 1970."""
        self._now = now
        self._open: OrderedDict[str, Challenge] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self, who: str) -> Challenge:
        """Draws a sentence.

        Raises:
            ConsentError: the name is empty, too long, or more than a line.
        """
        who = check_who(who)
        words = tuple(secrets.SystemRandom().sample(WORDS, NUM_WORDS))
        challenge = Challenge(
            id=secrets.token_hex(16), who=who, words=words, issued_at=round(self._now(), 3)
        )
        with self._lock:
            self._open[challenge.id] = challenge
            while len(self._open) > MAX_CHALLENGES:
                self._open.popitem(last=False)
        return challenge

    def take(self, challenge_id: str) -> Challenge:
        """Closes a challenge and returns it: whether it is met or not, it is never open again.

        Raises:
            ConsentError: there is none, it was used, or it is too old.
        """
        with self._lock:
            challenge = self._open.pop(challenge_id, None)
        if challenge is None:
            raise ConsentError(
                "the sentence of consent is not known here: it was used already, or drawn by "
                "another server; ask for a new one."
            )
        if self._now() > challenge.expires_at:
            raise ConsentError(
                f"the sentence of consent is older than {LIFETIME_SECONDS / 60:g} minutes; ask "
                "for a new one."
            )
        return challenge


def check_who(who: str) -> str:
    """A name as it stands in a sentence.

    Raises:
        ConsentError: it is empty, too long, or more than a line.
    """
    name = " ".join(who.split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ConsentError(f"whose voice it is, is a name of 1 to {MAX_NAME} characters.")
    return name
