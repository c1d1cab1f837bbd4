"""The embedded bundle, streamed."""

from __future__ import annotations

import pytest
import torch

from tokenlm.synthesis import Synthesizer


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer.from_pretrained("mini-en")


def test_streamed_equals_generate(synthesizer: Synthesizer) -> None:
    whole = synthesizer.generate("Good morning!", seed=1)
    stream = synthesizer.stream("Good morning!", seed=1)
    torch.testing.assert_close(torch.cat(list(stream)), whole, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
def test_how_the_text_is_cut_does_not_matter(synthesizer: Synthesizer, layout: str) -> None:
    text = "On May 5, 2024 we paid $3.50 for bread. It was good; was it not?"
    options = {"seed": 2, "layout": layout, "speed": 1.1}
    whole = synthesizer.generate(text, **options)  # type: ignore[arg-type]
    for size in (1, 9):
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        stream = synthesizer.stream(pieces, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(torch.cat(list(stream)), whole, atol=1e-4, rtol=0)
