"""Speech as it is made: streams of waveform chunks.

Shapes: S samples.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType

from torch import Tensor

from tokenlm.models.lm.decoding import decode_step
from tokenlm.synthesis.session import Session


class SynthesisStream(Iterator[Tensor]):
    """Chunks of a waveform, float32 (S,) on the CPU, made when they are asked for.

    The stream owns all that its request needs. It is freed when the speech ends, when the stream is
    closed or left by an error, or when nobody has it any more.
    """

    def __init__(self, session: Session, sample_rate: int, pieces: Iterable[str] = ()) -> None:
        """Takes a session, and the pieces of its text that have not come in yet."""
        self.sample_rate = sample_rate
        self._session = session
        self._chunks = _chunks(session, iter(pieces))

    @property
    def seed(self) -> int:
        """Seed of its draws, also one that was drawn."""
        return self._session.settings.seed

    @property
    def speech_tokens(self) -> list[list[int]]:
        """Speech tokens of each segment so far."""
        return [list(tokens) for tokens in self._session.speech_tokens]

    @property
    def pauses(self) -> list[float]:
        """Seconds of silence before each segment; with the tokens enough to render it again."""
        return list(self._session.pauses)

    @property
    def num_text_tokens(self) -> int:
        """Text tokens so far."""
        return self._session.script.num_text_tokens

    @property
    def num_state_bytes(self) -> int:
        """Memory of the session, the cache of the LM left out; it does not grow."""
        return self._session.num_bytes

    @property
    def num_cache_bytes(self) -> int:
        """Memory of the LM's cache, which grows with the segment."""
        return self._session.num_cache_bytes

    def close(self) -> None:
        """Ends the stream and frees everything. May be called again."""
        self._chunks.close()
        self._session.close()

    def __iter__(self) -> SynthesisStream:
        return self

    def __next__(self) -> Tensor:
        try:
            return next(self._chunks)
        except BaseException:  # the end among them
            self.close()
            raise

    def __enter__(self) -> SynthesisStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None and not sys.is_finalizing():  # then torch is gone, too
            session.close()


def advance(session: Session) -> Tensor | None:
    """Moves a session on by the smallest step; what is to be heard of it, if anything.

    Sound comes first: what can be rendered is not kept waiting for more tokens.
    """
    if session.can_render:
        chunk = session.render()
        return chunk if chunk.shape[0] else None
    decoding = session.decoding
    assert decoding is not None
    decode_step(decoding.model, [decoding])
    session.settle()
    return None


def _chunks(session: Session, pieces: Iterator[str]) -> Generator[Tensor, None, None]:
    """The chunks; not a method, so that a stream that is dropped is freed at once."""
    while not session.is_done:
        if session.can_step() or session.can_render:
            chunk = advance(session)
            if chunk is not None:
                yield chunk
        else:
            piece = next(pieces, None)
            if piece is None:
                session.script.finish()
            else:
                session.script.feed(piece)
