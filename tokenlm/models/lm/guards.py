"""Guards against speech that does not say its text: their settings, and the causal ones.

The causal ones look at the tokens so far and forbid some of the next, so they work in streams, too.
The others (`tokenlm.synthesis.guards`) look at whole segments and try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_TOKENS = 2000
"""Most tokens of one segment where length bounds are off; 80 seconds at 25 a second."""


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Guards of the LM. Repetition-aware sampling is part of `SamplingConfig`."""

    length_bounds: bool = True
    """Whether the length of the text bounds that of the speech; see `speech_bounds`."""
    loop_tokens: int = 40
    """Tokens that may repeat the tokens before them with some period; 0 allows any loop."""
    loop_max_period: int = 50
    """Longest period of a loop, in tokens."""
    loop_mismatch_cost: int = 4
    """Matching tokens that one other token within a loop cancels."""
    max_loops: int = 2
    """Loops that are broken; at the next one the segment ends."""
    silent_tokens: tuple[int, ...] = ()
    """Codes of silence, from `python -m training.evaluation.tuning silence`; without any there is
    no cap."""
    max_silent_tokens: int = 25
    """Silent tokens in a row; after them something must be said, or the end. 0 has no cap."""
    guidance_scale: float = 0.0
    """Guidance of the LM by its text; see `guide`. Doubles the work."""
    max_read_error: float = 0.4
    """Share of the phones (of the characters, where the token recogniser reads no phones) that may
    be read back otherwise."""
    max_attempts: int = 1
    """Attempts at a segment until one is accepted, which lost, doubled and put in no word and has
    few enough errors, else the best of them; 1 checks nothing."""
    num_candidates: int = 1
    """Attempts made at once, of which the best is taken; 1 checks nothing."""

    def __post_init__(self) -> None:
        for name in ("loop_tokens", "loop_mismatch_cost", "max_loops", "max_silent_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("loop_max_period", "max_attempts", "num_candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.guidance_scale < 0 or self.max_read_error < 0:
            raise ValueError("guidance_scale and max_read_error must not be negative")
        if any(token < 0 for token in self.silent_tokens):
            raise ValueError("silent_tokens are codes, 0 and up")

    @property
    def needs_recognizer(self) -> bool:
        """Whether speech is read back before it is accepted."""
        return self.max_attempts > 1 or self.num_candidates > 1


NO_GUARDS = GuardConfig(length_bounds=False, loop_tokens=0, max_silent_tokens=0)
"""Plain sampling, to compare with."""


class LoopDetector:
    """Finds tokens that repeat themselves with any period, one token at a time.

    For every period a counter holds how many tokens in a row were those of one period before;
    another token costs some of them, so that a loop with a slip in it is still one.
    """

    def __init__(self, min_tokens: int, max_period: int, mismatch_cost: int = 4) -> None:
        """Start before the first token.

        Args:
            min_tokens: matches from which on there is a loop.
            max_period: longest period in tokens.
            mismatch_cost: matches that another token cancels.
        """
        self._min_tokens = min_tokens
        self._max_period = max_period
        self._cost = mismatch_cost
        self._tokens: list[int] = []
        self._counts = [0] * (max_period + 1)

    def push(self, token: int) -> None:
        """Take in the next token."""
        count = len(self._tokens)
        for period in range(1, min(self._max_period, count) + 1):
            if self._tokens[count - period] == token:
                self._counts[period] += 1
            elif self._counts[period]:
                self._counts[period] = max(self._counts[period] - self._cost, 0)
        self._tokens.append(token)

    @property
    def period(self) -> int | None:
        """Shortest period of a loop that the tokens are in now; None where they are in none."""
        for period in range(1, self._max_period + 1):
            # A period has to come round once at least: half a word said twice is no loop.
            if self._counts[period] >= max(self._min_tokens, period):
                return period
        return None

    @property
    def next_token(self) -> int | None:
        """The token that would continue the loop."""
        period = self.period
        return None if period is None else self._tokens[-period]

    def forget(self) -> None:
        """Start counting anew, after a loop was broken."""
        self._counts = [0] * (self._max_period + 1)


class TokenMonitor:
    """The causal guards of one segment.

    Before each draw `forbidden` says what must not be drawn; then `push` takes in what was drawn.
    Once `is_lost`, the segment is better ended.
    """

    def __init__(self, config: GuardConfig) -> None:
        """Start before the first token of a segment."""
        self._config = config
        self._silent = frozenset(config.silent_tokens) if config.max_silent_tokens else frozenset()
        self._num_silent = 0
        self._num_loops = 0
        self._detector = None
        if config.loop_tokens:
            self._detector = LoopDetector(
                config.loop_tokens, config.loop_max_period, config.loop_mismatch_cost
            )

    def push(self, token: int) -> None:
        """Take in the next token of the speech."""
        self._num_silent = self._num_silent + 1 if token in self._silent else 0
        if self._detector is not None:
            if self._detector.period is not None:
                self._num_loops += 1
                self._detector.forget()
            self._detector.push(token)

    @property
    def forbidden(self) -> Sequence[int]:
        """Codes that must not come next."""
        codes: list[int] = []
        if self._silent and self._num_silent >= self._config.max_silent_tokens:
            codes += sorted(self._silent)
        if self._detector is not None:
            looping = self._detector.next_token
            if looping is not None:
                codes.append(looping)
        return codes

    @property
    def is_lost(self) -> bool:
        """Whether loops came back after they had been broken."""
        in_loop = self._detector is not None and self._detector.period is not None
        return in_loop and self._num_loops >= self._config.max_loops
