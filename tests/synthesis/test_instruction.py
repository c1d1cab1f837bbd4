"""Instructions: read before every segment in place of the prompt, by bundles that follow them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokenlm.models.lm.layout import SOS
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.voice import prompt_of
from tokenlm.text.normalize import frontend

END = "<|end|>"
TEXT = "is it so? yes, it is so. well; one: two."


@pytest.fixture
def follower(tiny_bundle: Path) -> Synthesizer:
    """The tiny bundle, with instructions that end with `END`, and texts as they are written."""
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    generation = synthesizer.components.generation
    synthesizer.components.generation = replace(
        generation, instruction=f"well, {END}", instruction_end=END
    )
    return synthesizer


def test_an_instruction_stands_in_place_of_the_prompt(follower: Synthesizer) -> None:
    components, voice = follower.components, follower.voice("ann")
    encode = components.text_tokenizer.encode
    assert voice.prompt_text and len(prompt_of(components, voice)[1])
    told = prompt_of(components, voice, "be quick")
    assert told == (encode(f"well, be quick{END}"), [])
    components.generation = replace(components.generation, instruction="")
    assert prompt_of(components, voice, "be quick") == (encode(f"be quick{END}"), [])
    # The cache tells them apart, and from the prompt.
    kinds = [
        follower.prompts.prefix(voice, "one_shot", told).sequence
        for told in ("be quick", "be slow", "")
    ]
    assert len({id(sequence) for sequence in kinds}) == len(follower.prompts) == 3
    assert [sequence.prompt_tokens == [] for sequence in kinds] == [True, True, False]


def test_every_segment_is_spoken_as_instructed(
    follower: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = follower.components.speech_lm
    read: list[list[int]] = []
    original = lm.embed

    def embed(kinds: Tensor, ids: Tensor) -> Tensor:
        read.append(ids.flatten().tolist())
        return original(kinds, ids)

    plain = follower.generate(TEXT, voice="ann", seed=1)
    asked = follower.generate(TEXT, voice="ann", seed=1, instruction=f" be quick{END} ")
    assert asked.shape != plain.shape or not torch.equal(asked, plain)
    follower.prompts.clear()
    monkeypatch.setattr(lm, "embed", embed)
    again = follower.generate(TEXT, voice="ann", seed=1, instruction="be quick")
    torch.testing.assert_close(again, asked)
    streamed = torch.cat(list(follower.stream(TEXT, voice="ann", seed=1, instruction="be quick")))
    torch.testing.assert_close(streamed, asked, rtol=0, atol=1e-4)
    start = [SOS, *follower.components.text_tokenizer.encode(f"well, be quick{END}")]
    assert any(ids[: len(start)] == start for ids in read)


def test_other_bundles_refuse_instructions(tiny_bundle: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(tiny_bundle)
    for speak in (synthesizer.generate, synthesizer.stream):
        with pytest.raises(ValueError, match="cannot follow instructions"):
            speak(TEXT, instruction="be quick")
    assert synthesizer.generate("is it so?", instruction="  ").shape[0] > 0


def test_an_instruction_is_no_part_of_the_text(
    follower: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first segment would follow it, and it might be cut off and read aloud."""
    monkeypatch.setattr("tokenlm.synthesis.synthesizer.frontend", lambda name: frontend("none"))
    text = f"be quick.{END}is it so?"
    with pytest.raises(ValueError, match=r"the text holds .*: give what stands before it apart"):
        follower.generate(text)
    with pytest.raises(ValueError, match=r"as the instruction of the request \(--instruct\)"):
        list(follower.stream(iter(text)))
