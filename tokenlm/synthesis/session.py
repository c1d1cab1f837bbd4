"""One request that is being spoken: everything that belongs to it, and to nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlm.audio.joining import SegmentJoiner
from tokenlm.models.flow import FlowState
from tokenlm.models.lm.cache import CacheRow, KeyValueCache
from tokenlm.models.lm.decoding import Decoding, Prefix
from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.modules.noise import mix
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.prompt_cache import PromptCache
from tokenlm.synthesis.rendering import RenderSettings, SegmentRenderer, render_together
from tokenlm.synthesis.script import Script
from tokenlm.synthesis.voice import Voice


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """What a request may choose."""

    voice: Voice
    seed: int
    sampling: SamplingConfig
    render: RenderSettings
    instruction: str = ""


class Session:
    """A request from its text to its sound.

    It moves when it is told to: `decode_step` writes the next token of `decoding`, `settle` takes
    notice of it, `render` gives the sound of the next chunk. The order in which sessions are moved
    changes nothing of what they say.
    """

    def __init__(
        self,
        components: Components,
        prompts: PromptCache,
        script: Script,
        settings: SessionSettings,
        cache: KeyValueCache,
        *,
        forced_tokens: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Takes the models, and what is the request's own.

        Args:
            components: the models.
            prompts: prompt states of voices.
            script: the text, which may still be coming in.
            settings: of the request.
            cache: where keys and values of its LM are kept; may be shared with other sessions.
            forced_tokens: speech tokens of each segment, to be said in place of those drawn.

        Raises:
            ValueError: a context without chunks, which cannot be streamed.
        """
        if settings.render.context.is_full:
            raise ValueError("the full context cannot be streamed; use generate")
        self.script, self.settings = script, settings
        self.decoding: Decoding | None = None
        self.speech_tokens: list[list[int]] = []
        """Of each segment so far."""
        self.pauses: list[float] = []
        """Seconds of silence before each segment, at a speed of 1."""
        self.is_closed = False
        self._components, self._prompts, self._cache = components, prompts, cache
        self._forced = forced_tokens
        self._row: CacheRow | None = None
        self._prefix: Prefix | None = None
        self._flow: FlowState | None = None
        self._joiner = SegmentJoiner(components.manifest.sample_rate)
        self._renderers: list[SegmentRenderer] = []
        """Of the segment that is heard next, and of those after it that have been begun."""
        self._num_heard = 0
        """Segments that have been heard whole."""

    def prepare(self) -> None:
        """Has the models read the prompt, which may take long.

        May be called in any thread before the session is moved; else its first segment does it.
        What has been read is the session's own until it is closed.
        """
        settings, render = self.settings, self.settings.render
        if self._prefix is None:
            self._prefix = self._prompts.prefix(
                settings.voice, self.script.layout, settings.instruction
            )
        if self._flow is None:
            self._flow = self._prompts.flow_state(
                settings.voice, render.context, render.num_steps, render.guidance_scale
            )

    @property
    def is_done(self) -> bool:
        """Whether all has been said."""
        begun = len(self.speech_tokens)
        written = self.script.is_finished and begun == len(self.script.segments)
        return self.is_closed or (written and self.decoding is None and not self._renderers)

    def can_step(self) -> bool:
        """Whether the LM can write a token; begins the next segment where that is due."""
        if self.is_closed:
            return False
        if self.decoding is None and len(self.speech_tokens) < len(self.script.segments):
            self._begin_segment()
        if self.decoding is None:
            return False
        self._add_text(self.decoding)
        return self.decoding.can_step

    @property
    def is_settled(self) -> bool:
        """Whether notice has been taken of all that the LM has written."""
        decoding = self.decoding
        if decoding is None:
            return True
        return not decoding.is_done and len(decoding.tokens) == len(self.speech_tokens[-1])

    @property
    def can_render(self) -> bool:
        """Whether there is sound to be made."""
        return bool(self._renderers) and (self.renderer.ready_tokens > 0 or self._is_written)

    @property
    def renderer(self) -> SegmentRenderer:
        """Of the segment that is heard next."""
        return self._renderers[0]

    @property
    def num_bytes(self) -> int:
        """Memory of the states of flow and vocoder; that of the LM grows with what is said."""
        return sum(renderer.num_bytes for renderer in self._renderers)

    @property
    def num_cache_bytes(self) -> int:
        """Memory of the keys and values of the LM."""
        row = self._row
        return 0 if row is None else row.cache.num_bytes // len(row.cache.rows)

    def settle(self) -> None:
        """Takes notice of the token that the LM has written."""
        decoding = self.decoding
        if decoding is None:
            return
        tokens = self.speech_tokens[-1]
        new = decoding.tokens[len(tokens) :]
        self._renderers[-1].add(new)
        tokens += new
        if decoding.is_done:
            self.decoding = None
            if self.script.is_finished and len(self.speech_tokens) == len(self.script.segments):
                self._release()

    def render(self) -> Tensor:
        """What is to be heard (S,) of the next chunk; none, where it is quiet before a segment."""
        return render_sessions(self._components, [self])[0]

    def join(self, waveform: Tensor, is_last: bool) -> Tensor:
        """What is to be heard (S',) of the sound (S,) of a chunk, `is_last` that of its segment."""
        pieces = []
        if not self.renderer.has_sounded:
            self.renderer.has_sounded = True
            speed = self.settings.render.speed
            pieces.append(self._joiner.pause(self.pauses[self._num_heard] / speed))
        pieces.append(self._joiner.push(waveform, final=is_last))
        if is_last:
            self.skip_segment()
        return torch.cat(pieces)

    @property
    def has_silent_segment(self) -> bool:
        """Whether the segment that is heard next has ended without any token."""
        return self._is_written and not self.speech_tokens[self._num_heard]

    def skip_segment(self) -> None:
        """Goes on to the segment behind the one that is heard next."""
        self._renderers.pop(0)
        self._num_heard += 1

    def close(self) -> None:
        """Frees everything. May be called at any time, and again."""
        self.is_closed = True
        decoding, self.decoding = self.decoding, None
        self._renderers = []
        self._prefix = self._flow = None
        if decoding is not None:
            decoding.end()
        self._release()

    @property
    def _is_written(self) -> bool:
        """Whether all tokens of the segment that is heard next are there."""
        return len(self._renderers) > 1 or self.decoding is None

    def _release(self) -> None:
        if self._row is not None:
            self._row.release()
            self._row = None

    def _begin_segment(self) -> None:
        number = len(self.speech_tokens)
        settings = self.settings
        self.prepare()
        prefix, flow = self._prefix, self._flow
        assert prefix is not None and flow is not None
        renderer = SegmentRenderer(
            self._components,
            flow.shared(),
            voice=settings.voice,
            seed=mix(settings.seed, number),
            speed=settings.render.speed,
        )
        if self._row is None:
            self._row = self._cache.add()
        forced = None
        if self._forced is not None:
            forced = self._forced[number] if number < len(self._forced) else ()
        self.decoding = Decoding(
            self._components.speech_lm,
            self._cache,
            prefix.plan.copy(),
            sampling=settings.sampling,
            seed=settings.seed,
            segment=number,
            forced=forced,
            key_values=prefix.key_values,
            row=self._row,
            guards=self._components.generation.guards,
        )
        self._renderers.append(renderer)
        self.speech_tokens.append([])
        self.pauses.append(self.script.segments[number - 1].pause_seconds if number else 0.0)
        if self.decoding.is_done:
            self.settle()

    def _add_text(self, decoding: Decoding) -> None:
        segment, plan = self.script.segments[len(self.speech_tokens) - 1], decoding.plan
        is_complete = segment.is_complete  # read before the tokens, which another thread may add
        new = segment.tokens[plan.num_text :]
        if new:
            plan.add_text(new)
        if is_complete:
            plan.end_text()

    def _saved(self) -> Callable[[], None]:
        """Remembers what rendering changes; what it gives puts that back."""
        renderers, num_heard = [*self._renderers], self._num_heard
        joiner = copy.copy(self._joiner)
        undo = [renderer.saved() for renderer in renderers]

        def restore() -> None:
            self._renderers, self._num_heard, self._joiner = renderers, num_heard, joiner
            for step in undo:
                step()

        return restore


def render_sessions(components: Components, sessions: Sequence[Session]) -> list[Tensor]:
    """What is to be heard (S,) of the next chunk of each session, all rendered together.

    Where it fails for several, they are as they were before: each can be rendered alone.
    """
    if len(sessions) == 1:
        return _render_sessions(components, sessions)
    saved = [session._saved() for session in sessions]
    try:
        return _render_sessions(components, sessions)
    except BaseException:
        for restore in saved:
            restore()
        raise


def _render_sessions(components: Components, sessions: Sequence[Session]) -> list[Tensor]:
    heard = [torch.zeros(0, dtype=torch.float32)] * len(sessions)
    sounding = []
    for index, session in enumerate(sessions):
        if session.has_silent_segment:
            session.skip_segment()
        else:
            sounding.append(index)
    last = [sessions[index].renderer.ready_tokens == 0 for index in sounding]
    sounds = render_together(components, [sessions[index].renderer for index in sounding])
    for index, waveform, is_last in zip(sounding, sounds, last, strict=True):
        heard[index] = sessions[index].join(waveform, is_last)
    return heard
