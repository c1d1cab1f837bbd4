"""Samples of the speech LM: joins, layouts, dropped text, checks of the corpus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.models.lm import SpeechLMConfig
from tokenlm.models.lm.layout import TEXT, interleaved, one_shot
from tokenlm.text.tokenizer import TextTokenizer
from training.data.manifest import Utterance
from training.data.split import DataConfig
from training.run import main
from training.stages.speech_lm import (
    SpeechLMStageConfig,
    TokenPair,
    TokenPairs,
    check_lengths,
)

MODEL = SpeechLMConfig(codebook_size=9, block_text_tokens=2, block_speech_tokens=3)
CONFIG = SpeechLMStageConfig(
    stage="speech_lm",
    data=DataConfig(train=Path("x")),
    text_tokenizer=Path("x"),
    model=MODEL,
    interleaved_share=0.0,
    text_dropout=0.0,
    join_share=0.0,
)


class Letters:
    """A stand-in for a text tokenizer: letters are numbered from 1."""

    vocab_size = 30

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 96 for letter in text if letter.isalpha()]


def pairs(join: bool = False, **changes: Any) -> TokenPairs:
    """Two speakers with three utterances each, of 4 letters and 10 speech tokens."""
    rows = [
        Utterance(
            id=str(index),
            audio=Path("x"),
            text=4 * "abcdef"[index],
            speaker=f"s{index % 2}",
            duration=0.4,
            speech_tokens=(index,) * 10,
        )
        for index in range(6)
    ]
    tokenizer: Any = Letters()
    assert isinstance(tokenizer, object) and not isinstance(tokenizer, TextTokenizer)
    return TokenPairs(rows, tokenizer, replace(CONFIG, **changes), join=join)


def draw(data: TokenPairs, index: int, seed: int = 0) -> Any:
    return data.draw(index, torch.Generator().manual_seed(seed))


def test_plain_samples() -> None:
    data = pairs()
    expected = one_shot([2] * 4, [1] * 10, 9)
    assert data[1] == draw(data, 1) == expected
    assert data.durations == [14 / 25] * 6


def test_joins_are_of_one_speaker_and_end_with_the_utterance() -> None:
    data = pairs(join=True, join_share=1.0)
    assert len(data) == 6
    for index in range(6):
        group = data.joined[index]
        assert group[-1] == index
        assert len(set(group)) == len(group)
        assert {member % 2 for member in group} == {index % 2}
        layout = draw(data, index)
        text = [member + 1 for member in group for _ in range(4)]
        speech = [member for member in group for _ in range(10)]
        assert layout == one_shot(text, speech, 9)
        assert data.durations[index] == len(group) * 14 / 25
        assert data[index] == one_shot([index + 1] * 4, [index] * 10, 9)
    assert any(len(group) > 1 for group in data.joined)
    assert data.joined == pairs(join=True, join_share=1.0).joined
    other = pairs(join=True, join_share=1.0, seed=1)
    assert other.joined != data.joined


def test_joins_are_bounded() -> None:
    # 10 tokens are 0.4 s: two of them fit in 0.9 s.
    data = pairs(join=True, join_share=1.0, max_joined_seconds=0.9)
    assert {len(group) for group in data.joined} <= {1, 2}
    assert pairs(join=True, join_share=0.0).joined == [(index,) for index in range(6)]


def test_interleaved_where_the_speech_is_long_enough() -> None:
    data = pairs(interleaved_share=1.0)
    assert draw(data, 0) == interleaved([1] * 4, [0] * 10, 9, block_text=2, block_speech=3)
    longer = replace(MODEL, block_speech_tokens=5)
    assert draw(pairs(interleaved_share=1.0, model=longer), 0) == one_shot([1] * 4, [0] * 10, 9)


def test_dropped_text() -> None:
    layout = draw(pairs(text_dropout=1.0), 0)
    assert TEXT not in layout.kinds and layout == one_shot([], [0] * 10, 9)
    kinds = [TEXT in draw(pairs(text_dropout=0.3), 0, seed).kinds for seed in range(200)]
    assert 0.6 < sum(kinds) / 200 < 0.8


def test_lengths_are_checked_against_the_corpus() -> None:
    corpus = [TokenPair((1,) * 4, (1,) * count, "s", "") for count in range(8, 25)]
    good = replace(MODEL, min_speech_per_text=1.0, max_speech_per_text=8.0)
    check_lengths(corpus, good)
    # From 2 to 6 tokens of speech for each of text, 4 in the middle.
    with pytest.raises(ValueError, match="min_speech_per_text 3.0 is too high; .* median 4.00"):
        check_lengths(corpus, replace(good, min_speech_per_text=3.0))
    with pytest.raises(ValueError, match="max_speech_per_text 5.0 is too low"):
        check_lengths(corpus, replace(good, max_speech_per_text=5.0))
    with pytest.raises(ValueError, match="blocks of 2:10 are longer than the speech of half"):
        check_lengths(corpus, replace(good, block_speech_tokens=10))


def test_mistakes_are_sentences(
    stage_config: Callable[..., Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(**changes: Any) -> str:
        assert main(["--config", str(stage_config("speech_lm", **changes))]) == 1
        return capsys.readouterr().err

    plain = {"train": f"{corpus}/train.jsonl"}
    assert "'train0' has no speech tokens; write them with: python -m" in told(data=plain)
    rows = (corpus / "valid_tokens.jsonl").read_text()
    mixed = corpus / "mixed.jsonl"
    mixed.write_text(rows.replace('"tokenizer": "', '"tokenizer": "other'))
    both = {"train": f"{corpus}/train_tokens.jsonl", "valid": str(mixed)}
    assert "mix tokens of 2 tokenizers: " in told(data=both)
    small = {"backbone": {"vocab_size": 8}, "codebook_size": 9}
    assert "pieces, but the backbone's vocab_size is 8" in told(model=small)
    assert "but the codebook has 5" in told(model={"codebook_size": 5})


@pytest.mark.parametrize("name", ["interleaved_share", "text_dropout", "join_share"])
def test_shares_are_shares(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be in"):
        replace(CONFIG, **{name: 1.5})
