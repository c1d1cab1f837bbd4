"""What the models make of a voice's prompt, kept so that a voice pays for it once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from tokenlm.models.flow import CosyVoiceFlowState, FlowState
from tokenlm.models.lm.decoding import Prefix, read_prefix
from tokenlm.models.lm.layout import fits_interleaved
from tokenlm.models.lm.plan import LayoutName, Plan
from tokenlm.modules.context import Context
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.voice import Voice


class PromptCache:
    """Prompt states of the voices that were used last, bounded in number and memory.

    Of the LM the start of a sequence up to the text to be said; of the flow the state after the
    prompt, one for each context, number of solver steps and guidance. What is given out is a copy.
    """

    def __init__(
        self, components: Components, *, max_entries: int = 32, max_bytes: int = 1 << 29
    ) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._components = components
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory that the entries hold."""
        return sum(size for _, size in self._entries.values())

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()

    def flow_state(
        self, voice: Voice, context: Context, num_steps: int, guidance_scale: float
    ) -> FlowState | CosyVoiceFlowState:
        """State of the flow after the prompt of a voice.

        Raises:
            ValueError: the context is the full one, which has no chunks.
        """
        components = self._components

        def start() -> tuple[FlowState | CosyVoiceFlowState, int]:
            device = components.device
            state = components.flow.start(
                prompt_tokens=voice.prompt_tokens[None].to(device),
                prompt_mel=voice.prompt_mel[None].to(device),
                speaker_embedding=voice.speaker_embedding[None].to(device),
                prompt_seed=voice.seed,
                context=context,
                num_steps=num_steps,
                guidance_scale=guidance_scale,
            )
            return state, state.num_bytes

        key = ("flow", voice.digest, context, num_steps, guidance_scale)
        state = self._find(key, start)
        assert isinstance(state, FlowState | CosyVoiceFlowState)
        return state.shared()

    def prefix(self, voice: Voice, layout: LayoutName, instruction: str = "") -> Prefix:
        """What the LM has read before the text; its plan is to be copied."""
        components = self._components

        def read() -> tuple[Prefix, int]:
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
            prefix = read_prefix(components.speech_lm, plan)
            return prefix, prefix.key_values.num_bytes

        goes_on = components.generation.prompt_in_lm and voice.prompt_text and not instruction
        found = self._find(("lm", voice.digest if goes_on else "", layout, instruction), read)
        assert isinstance(found, Prefix)
        return found

    def _find(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        value, size = make()
        with self._lock:
            if size <= self.max_bytes and self.max_entries > 0:
                self._entries[key] = (value, size)
                while len(self._entries) > self.max_entries or self.num_bytes > self.max_bytes:
                    self._entries.popitem(last=False)
        return value


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
