"""What the models make of a voice's prompt, kept so that a voice pays for it once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tokenlm.models.flow import FlowState
from tokenlm.models.lm.decoding import Prefix, read_prefix
from tokenlm.models.lm.layout import fits_interleaved
from tokenlm.models.lm.plan import LayoutName, Plan
from tokenlm.modules.context import Context
from tokenlm.modules.streaming import State, allocated_bytes
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.voice import Voice

ValueT = TypeVar("ValueT", FlowState, Prefix)
Key = tuple[Any, ...]
"""What an entry depends on; its first part is the kind, "lm" or "flow"."""

MAX_BYTES = 1 << 30
"""Memory of a cache unless it is told otherwise."""


class PromptCache:
    """Prompt states of the voices that were used last, bounded in number and memory.

    Of the LM the start of a sequence up to the text to be said; of the flow the state after the
    prompt, one for each context, number of solver steps and guidance. What is given out is a copy.
    May be used by any number of threads; what several want at once is made once.
    """

    def __init__(
        self, components: Components, *, max_entries: int = 32, max_bytes: int = MAX_BYTES
    ) -> None:
        """Takes the models, and the bounds.

        Args:
            components: the models.
            max_entries: most entries.
            max_bytes: most memory of all entries together, as it is allocated. May be set at any
                time. The newest entry of each kind stays whatever its size is: without it a prompt
                would be read anew by every request.
        """
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._components = components
        self._entries: OrderedDict[Key, FlowState | Prefix] = OrderedDict()
        self._in_work: dict[Key, Future[Any]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory that is allocated for the entries."""
        return allocated_bytes([_state(value) for value in [*self._entries.values()]])

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()

    def flow_state(
        self, voice: Voice, context: Context, num_steps: int, guidance_scale: float
    ) -> FlowState:
        """State of the flow after the prompt of a voice.

        Raises:
            ValueError: the context is the full one, which has no chunks.
        """
        components = self._components

        def start() -> FlowState:
            device = components.device
            return components.flow.start(
                prompt_tokens=voice.prompt_tokens[None].to(device),
                prompt_mel=voice.prompt_mel[None].to(device),
                speaker_embedding=voice.speaker_embedding[None].to(device),
                prompt_seed=voice.seed,
                context=context,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
            )

        key = ("flow", voice.digest, context, num_steps, guidance_scale)
        return self._find(key, start).shared()

    def prefix(self, voice: Voice, layout: LayoutName, instruction: str = "") -> Prefix:
        """What the LM has read before the text; its plan is to be copied."""
        components = self._components

        def read() -> Prefix:
            config = components.speech_lm.config
            blocks = (config.block_text_tokens, config.block_speech_tokens)
            text, tokens = prompt_of(components, voice, instruction)
            if layout == "interleaved" and not fits_interleaved(len(text), len(tokens), *blocks):
                # Spoken so fast that its speech would end before its text.
                text, tokens = [], []
            plan = Plan(
                layout,
                block_text=blocks[0],
                block_speech=blocks[1],
                prompt_text=text,
                prompt_tokens=tokens,
                as_reference=config.decoded_as_reference,
            )
            return read_prefix(components.speech_lm, plan)

        goes_on = components.generation.prompt_in_lm and voice.prompt_text and not instruction
        return self._find(("lm", voice.digest if goes_on else "", layout, instruction), read)

    def _find(self, key: Key, make: Callable[[], ValueT]) -> ValueT:
        """The entry, made if need be; whoever asks for it meanwhile waits."""
        while True:
            with self._lock:
                if key in self._entries:
                    self._entries.move_to_end(key)
                    # Any: the key says which kind it is.
                    known: Any = self._entries[key]
                    return known
                waited_for = self._in_work.get(key)
                if waited_for is None:
                    own: Future[Any] = Future()
                    self._in_work[key] = own
                    break
            # Where it fails it fails for whoever made it; the next one tries itself.
            if waited_for.exception() is None:
                return waited_for.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._in_work[key]
            own.set_exception(error)
            raise
        with self._lock:
            del self._in_work[key]
            self._entries[key] = value
            self._shrink()
        own.set_result(value)
        return value

    def _shrink(self) -> None:
        """Drops what was used longest ago, but the newest of each kind; with the lock held."""
        newest = {key[0]: key for key in self._entries}
        for key in [*self._entries]:
            if len(self._entries) <= self.max_entries and self.num_bytes <= self.max_bytes:
                return
            if key not in newest.values():
                del self._entries[key]


def _state(value: FlowState | Prefix) -> State:
    return value.key_values if isinstance(value, Prefix) else value


def prompt_of(
    components: Components, voice: Voice, instruction: str = ""
) -> tuple[list[int], list[int]]:
    """Text tokens and speech tokens of a prompt, as far as the LM goes on from them.

    The instruction of a request stands in place of the prompt, whose way of speaking would have the
    LM go on likewise; behind that of the bundle, as CosyVoice 3 was trained.
    """
    encode, generation = components.text_tokenizer.encode, components.generation
    if instruction:
        before = generation.instruction.removesuffix(generation.instruction_end)
        return encode(f"{before} {instruction}".strip() + generation.instruction_end), []
    first = encode(generation.instruction) if generation.instruction else []
    # A prompt whose text is not known tells the LM nothing that it could go on from.
    if not (voice.prompt_text and generation.prompt_in_lm):
        return first, []
    return [*first, *encode(voice.prompt_text)], voice.prompt_tokens.tolist()
