"""Prompt states: made once, bounded, never changed by those who use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.prompt_cache import PromptCache


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
    assert [key[3] for key in cache._entries] == [1, 3]  # type: ignore[index]
    size = cache.flow_state(ann, context, 1, 0.0).num_bytes
    small = PromptCache(synthesizer.components, max_bytes=2 * size + 10)
    for guidance in (0.0, 0.5, 0.6):
        small.flow_state(ann, context, 1, guidance)
        assert small.num_bytes <= 2 * size + 10


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
