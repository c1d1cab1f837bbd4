"""Prompt states: made once, bounded, never changed by those who use them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.models.lm.decoding import KeyValues
from tokenlm.modules.streaming import allocated_bytes
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis import voice as voice_module
from tokenlm.synthesis.voice import PromptCache


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def test_states_are_kept_by_voice_steps_and_guidance(synthesizer: Synthesizer) -> None:
    cache = PromptCache(synthesizer.components)
    ann, bob = synthesizer.voice("ann"), synthesizer.voice("bob")
    context = synthesizer.components.flow.config.default_context
    keys = [(ann, 2, 0.7), (ann, 3, 0.7), (ann, 2, 0.0), (bob, 2, 0.7)]
    for voice, num_steps, guidance in keys:
        cache.flow_state(voice, context, num_steps, guidance)
    assert len(cache) == 4 and cache.num_bytes > 0
    for voice, num_steps, guidance in keys:
        cache.flow_state(replace(voice, name="other"), context, num_steps, guidance)
    assert len(cache) == 4
    cache.prefix(ann, "one_shot")
    cache.prefix(ann, "interleaved")
    cache.prefix(bob, "one_shot")
    # Without its words a voice gives the LM nothing to go on from, whoever it is.
    for voice in (ann, bob):
        cache.prefix(replace(voice, prompt_text=""), "one_shot")
    assert len(cache) == 8
    cache.clear()
    assert len(cache) == cache.num_bytes == 0


def test_it_is_bounded_and_forgets_what_was_used_longest_ago(synthesizer: Synthesizer) -> None:
    ann, context = synthesizer.voice("ann"), synthesizer.components.flow.config.default_context
    cache = PromptCache(synthesizer.components, max_entries=2)
    for num_steps in (1, 2, 1, 3):
        cache.flow_state(ann, context, num_steps, 0.0)
    assert [key[3] for key in cache._entries] == [1, 3]
    others = [replace(ann, speaker_embedding=ann.speaker_embedding + n) for n in range(4)]
    sizes = [
        # What two states share, the tokens of the prompt, is counted once.
        allocated_bytes([cache.flow_state(other, context, 3, 0.0) for other in others[:count]])
        for count in (1, 2)
    ]
    small = PromptCache(synthesizer.components, max_bytes=sizes[1] + 10)
    for number, other in enumerate(others):
        small.flow_state(other, context, 3, 0.0)
        assert small.num_bytes == sizes[min(number, 1)]


def test_the_newest_is_always_kept(synthesizer: Synthesizer) -> None:
    """Of LM and flow each, however large it is; the limit may be set later."""
    ann, bob = synthesizer.voice("ann"), synthesizer.voice("bob")
    context = synthesizer.components.flow.config.default_context
    cache = PromptCache(synthesizer.components)
    cache.max_bytes = 1
    for _ in range(2):
        for voice in (ann, bob):
            cache.prefix(voice, "one_shot")
            cache.flow_state(voice, context, 2, 0.7)
            digests = {key[0]: key[1] for key in cache._entries}
            assert digests == {"lm": voice.digest, "flow": voice.digest} and len(cache) == 2


def test_memory_is_what_is_allocated() -> None:
    """A view counts with all that it looks into, and what several look into counts once."""
    whole = torch.zeros(1000)
    part, other = whole[:10].view(1, 1, 10, 1), whole[500:520].view(1, 1, 20, 1)
    own = torch.zeros(1, 1, 5, 1)
    states = [KeyValues(keys=[part], values=[other]), KeyValues(keys=[part], values=[own])]
    assert allocated_bytes(states) == 4000 + 20
    assert allocated_bytes([states[0], states[0].shared()]) == 4000


def at_once(count: int, ask: Callable[[], Any]) -> list[Any]:
    """What `count` threads get, or the errors that they get."""

    def caught() -> Any:
        try:
            return ask()
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result(60) for future in [pool.submit(caught) for _ in range(count)]]


@pytest.mark.parametrize("num_failures", [0, 1])
def test_what_several_want_at_once_is_made_once(
    synthesizer: Synthesizer, num_failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is that of who made it, and is not kept."""
    ann, calls, original = synthesizer.voice("ann"), [], voice_module.prefill
    cache = PromptCache(synthesizer.components)
    all_ask = threading.Event()

    def slow(*arguments: Any) -> Any:
        calls.append(None)
        all_ask.wait(0.3)  # the others come meanwhile
        if len(calls) <= num_failures:
            raise RuntimeError("no luck")
        return original(*arguments)

    monkeypatch.setattr(voice_module, "prefill", slow)
    found = at_once(4, lambda: cache.prefix(ann, "one_shot"))
    failed = [value for value in found if isinstance(value, RuntimeError)]
    others = [value for value in found if not isinstance(value, RuntimeError)]
    assert len(failed) == num_failures and len({id(value) for value in others}) == 1
    assert len(calls) == 1 + num_failures and len(cache) == 1
    assert cache.prefix(ann, "one_shot") is others[0] and cache._pending == {}


def test_a_session_holds_what_it_speaks_with(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the cache forgets meanwhile: a prompt is read once for all segments."""
    prompts, flow, calls = synthesizer.prompts, synthesizer.components.flow, []
    text = "The quick brown fox jumps. Is it so, one two three? Well; yes, it is one!"
    expected = list(synthesizer.stream(text, seed=2))
    original, read = flow.start, voice_module.prefill

    def start(**options: Any) -> Any:
        calls.append("flow")
        return original(**options)

    def counted(*arguments: Any) -> Any:
        calls.append("lm")
        return read(*arguments)

    monkeypatch.setattr(flow, "start", start)
    monkeypatch.setattr(voice_module, "prefill", counted)
    prompts.clear()
    stream, found = synthesizer.stream(text, seed=2), []
    for chunk in stream:
        prompts.clear()
        found.append(chunk)
    assert len(stream.speech_tokens) > 1 and sorted(calls) == ["flow", "lm"]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_is_given_out_is_a_copy(synthesizer: Synthesizer) -> None:
    cache = PromptCache(synthesizer.components)
    ann, context = synthesizer.voice("ann"), synthesizer.components.flow.config.default_context
    flow = synthesizer.components.flow
    mels = []
    for _ in range(2):
        state = cache.flow_state(ann, context, 2, 0.7)
        mels.append(flow.step(torch.zeros(1, 9, dtype=torch.long), state, seed=1))
    assert torch.equal(mels[0], mels[1]) and mels[0].shape[1] == 12


def test_a_synthesizer_uses_it(synthesizer: Synthesizer) -> None:
    synthesizer.prompts.clear()
    first = torch.cat(list(synthesizer.stream("so.")))
    count = len(synthesizer.prompts)
    assert count == 2
    assert torch.equal(torch.cat(list(synthesizer.stream("so."))), first)
    assert len(synthesizer.prompts) == count
