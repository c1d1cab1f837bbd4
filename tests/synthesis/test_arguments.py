"""Arguments of the wrong kind: a sentence each, and no error of the depths."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.duration import MAX_DURATION
from tokenlm.text.markup import Style

OPTIONS: dict[str, list[Any]] = {
    "voice": [5, [], b"ann"],
    "seed": ["x", 1.5, True],
    "speed": ["x", None, True, float("nan")],
    "context": [5, None, "half"],
    "sampling": [5, {"temperature": 1}],
    "num_steps": ["3", 2.5, True, 0],
    "guidance_scale": ["1", True, float("nan"), -1],
    "solver": [5, "newton"],
    "layout": [5, None],
    "instruction": [5, None],
    "lexicon": [5, [1], {"a": 5}, {5: "a"}],
    "markup": ["no", None, [], 2],
    "sentence_gap": ["x", True, [], float("nan"), -1],
    "paragraph_gap": ["x", True],
    "word_times": ["yes", None],
    "duration": ["2", True, [], float("nan"), 2 * MAX_DURATION],
}
OF_GENERATE: dict[str, list[Any]] = {"guards": [5, {}], "on_progress": [5], "should_stop": ["x"]}
TEXTS: list[Any] = [5, None, [1], b"abc", [b"a"], {"a": "b"}]


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


@pytest.mark.parametrize("name", [*OPTIONS, *OF_GENERATE])
def test_options(synthesizer: Synthesizer, name: str) -> None:
    for value in (OPTIONS | OF_GENERATE)[name]:
        with pytest.raises(ValueError, match=r"\w \w"):
            synthesizer.generate("yes.", **{name: value})
        if name in OPTIONS:
            with pytest.raises(ValueError, match=r"\w \w"):
                next(synthesizer.stream("yes.", **{name: value}))


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_texts(synthesizer: Synthesizer, text: Any) -> None:
    async def listen() -> None:
        async for _ in synthesizer.astream(text):
            pass

    with pytest.raises(ValueError, match="a text is a string, not"):
        synthesizer.generate(text)
    message = "a text is a string, or pieces of one, not|pieces of a text are strings, not"
    with pytest.raises(ValueError, match=message):
        next(synthesizer.stream(text))
    with pytest.raises(ValueError, match=message):
        asyncio.run(listen())


def test_voices_recordings_and_tokens(synthesizer: Synthesizer) -> None:
    ann, noise = synthesizer.voice("ann"), 0.1 * torch.randn(24_000)
    calls: list[tuple[Any, dict[str, Any], str]] = [
        (synthesizer.voice, {"name": 5}, "a voice is a Voice or a name, not int"),
        (synthesizer.mix_voices, {"parts": 5}, "a mixture is of the type Sequence"),
        (synthesizer.mix_voices, {"parts": [("ann", 1.0)]}, "a voice is a Voice, not str"),
        (synthesizer.mix_voices, {"parts": [(ann, "x")]}, "weight of a voice is a number, not 'x'"),
        (synthesizer.mix_voices, {"parts": [(ann, True)]}, "weight of a voice is a number"),
        (synthesizer.design_voice, {"description": 5}, "description is of the type str, not int"),
        (synthesizer.design_voice, {"attributes": 5}, "attributes is of the type Mapping"),
        (synthesizer.prepare_voice, {"source": 5}, "a recording is of the type str or Path or"),
        (synthesizer.prepare_voice, {"source": noise, "prompt_text": 5}, "prompt_text is of the"),
        (synthesizer.prepare_voice, {"source": noise, "sample_rate": "x"}, "is a number, not 'x'"),
        (synthesizer.convert, {"source": None}, "a recording is of the type"),
        (synthesizer.tokenize, {"source": 5}, "a recording is of the type"),
        (synthesizer.render, {"tokens": 5}, "tokens is of the type Iterable"),
        (synthesizer.render, {"tokens": [5]}, "speech tokens are whole numbers"),
        (synthesizer.render, {"tokens": [[1.5]]}, "speech tokens are whole numbers"),
        (synthesizer.render, {"tokens": ["ab"]}, "speech tokens are whole numbers"),
        (synthesizer.render, {"tokens": [[1]], "pauses": ["x"]}, "pauses are numbers of seconds"),
        (synthesizer.render, {"tokens": [[1]], "pauses": [-1]}, "pauses are numbers of seconds"),
        (synthesizer.render, {"tokens": [[1]], "styles": [5]}, "a style is of the type Style"),
    ]
    for call, arguments, message in calls:
        with pytest.raises(ValueError, match=message):
            call(**arguments)
    row = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    plain = synthesizer.render(row.tolist(), pauses=[0.5], styles=[Style()])
    assert torch.equal(plain, synthesizer.render(row, pauses=(0.5,)))  # type: ignore[arg-type]
