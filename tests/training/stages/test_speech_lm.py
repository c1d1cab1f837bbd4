"""Samples of the speech LM: joins, layouts, dropped text, checks of the corpus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokenlm.models.lm import SpeechLMConfig
from tokenlm.models.lm.layout import TEXT, interleaved, one_shot
from tokenlm.models.lm.model import LayoutBatch
from tokenlm.text.tokenizer_config import TextTokenizerConfig
from training.data.manifest import Utterance
from training.data.split import DataConfig
from training.loop.task import StepInfo
from training.run import main
from training.stages.post_training import PolicyStageConfig, PolicyTexts
from training.stages.speech_lm import (
    SpeechLMStageConfig,
    SpeechLMTask,
    TokenPairs,
    check_lengths,
    check_token_rate,
    diagonal_prior,
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


WORDS = ["many", "some", "with", "that", "this", "them"]


class Letters:
    """A stand-in for a text tokenizer: letters are numbered from 1."""

    vocab_size = 30
    config = TextTokenizerConfig(vocab_size=vocab_size, model_type="char")

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 96 for letter in text if letter.isalpha()]


def pairs(join: bool = False, **changes: Any) -> TokenPairs:
    """Two speakers with three utterances each, of 4 letters and 10 speech tokens."""
    rows = [
        Utterance(
            id=str(index),
            audio=Path("x"),
            text=WORDS[index],
            speaker=f"s{index % 2}",
            duration=0.4,
            speech_tokens=(index,) * 10,
        )
        for index in range(6)
    ]
    tokenizer: Any = Letters()
    return TokenPairs(rows, tokenizer, replace(CONFIG, **changes), join=join)


def letters(index: int) -> list[int]:
    return Letters().encode(WORDS[index])


def draw(data: TokenPairs, index: int, seed: int = 0) -> Any:
    return data.draw(index, torch.Generator().manual_seed(seed))


def groups(data: TokenPairs) -> list[tuple[int, ...]]:
    return [data.joined(index) for index in range(len(data))]


def test_plain_samples() -> None:
    data = pairs()
    expected = one_shot(letters(1), [1] * 10, 9)
    assert data[1] == draw(data, 1) == expected
    assert data.durations.tolist() == [14 / 25] * 6


def test_joins_are_of_one_speaker_and_end_with_the_utterance() -> None:
    data = pairs(join=True, join_share=1.0)
    assert len(data) == 6
    for index in range(6):
        group = data.joined(index)
        assert group[-1] == index
        assert len(set(group)) == len(group)
        assert {member % 2 for member in group} == {index % 2}
        layout = draw(data, index)
        text = [letter for member in group for letter in letters(member)]
        speech = [member for member in group for _ in range(10)]
        assert layout == one_shot(text, speech, 9)
        assert data.durations[index] == len(group) * 14 / 25
        assert data[index] == one_shot(letters(index), [index] * 10, 9)
    assert any(len(group) > 1 for group in groups(data))
    assert groups(data) == groups(pairs(join=True, join_share=1.0))
    assert groups(data) != groups(pairs(join=True, join_share=1.0, seed=1))


def test_joins_are_bounded() -> None:
    # 10 tokens are 0.4 s: two of them fit in 0.9 s.
    data = pairs(join=True, join_share=1.0, max_joined_seconds=0.9)
    assert {len(group) for group in groups(data)} <= {1, 2}
    assert groups(pairs(join=True, join_share=0.0)) == [(index,) for index in range(6)]


@pytest.mark.parametrize("rate", [10, 25, 50])
def test_seconds_are_those_of_the_rate_of_the_tokens(rate: int) -> None:
    model = replace(MODEL, token_rate=rate)
    data = pairs(model=model)
    assert data.durations == pytest.approx([14 / rate] * 6)
    assert data.packed_durations == pytest.approx([16 / rate] * 6)
    # Three utterances of ten tokens are 30 / rate seconds; a little less holds two at most.
    for limit, most in ((30 / rate + 0.01, 3), (30 / rate - 0.01, 2)):
        joined = pairs(join=True, join_share=1.0, max_joined_seconds=limit, model=model)
        assert max(len(group) for group in groups(joined)) == most
    policy = PolicyStageConfig(
        stage="policy",
        data=CONFIG.data,
        text_tokenizer=CONFIG.text_tokenizer,
        model=model,
        group=2,
        prompt_share=0.5,
    )
    tokenizer: Any = Letters()
    texts = PolicyTexts(pairs(), policy, tokenizer)
    assert texts.durations == pytest.approx([2 * 1.5 * 14 / rate] * 6)


def test_a_corpus_of_another_rate_is_refused() -> None:
    rows = [
        Utterance(
            id=str(count),
            audio=Path("x"),
            text="a",
            speaker="s",
            duration=2.0,
            speech_tokens=(1,) * count,
        )
        for count in (40, 50, 60)
    ]
    check_token_rate(rows, 25)
    check_token_rate([], 25)
    with pytest.raises(ValueError, match=r"token_rate is 50, but the utterances have 25 speech"):
        check_token_rate(rows, 50)
    with pytest.raises(ValueError, match=r"token_rate is 12, but the utterances have 25 speech"):
        check_token_rate(rows, 12)


def test_interleaved_where_the_speech_is_long_enough() -> None:
    data = pairs(interleaved_share=1.0)
    assert draw(data, 0) == interleaved(letters(0), [0] * 10, 9, block_text=2, block_speech=3)
    longer = replace(MODEL, block_speech_tokens=5)
    assert draw(pairs(interleaved_share=1.0, model=longer), 0) == one_shot(letters(0), [0] * 10, 9)


def test_dropped_text() -> None:
    layout = draw(pairs(text_dropout=1.0), 0)
    assert TEXT not in layout.kinds and layout == one_shot([], [0] * 10, 9)
    kinds = [TEXT in draw(pairs(text_dropout=0.3), 0, seed).kinds for seed in range(200)]
    assert 0.6 < sum(kinds) / 200 < 0.8


def test_diagonal_prior_by_hand() -> None:
    """Two text tokens stand at 0.5 and 1.5; speech and eos at 0.25, 0.75, 1.25 and 1.75."""
    layouts = [one_shot([1, 2], [3, 4, 5], 9), one_shot([1], [], 9)]
    prior = diagonal_prior(LayoutBatch.from_layouts(layouts), 0.5)
    assert prior.shape == (2, 7, 7)
    expected = torch.zeros(7, 7)
    for row, done in zip((3, 4, 5, 6), (0.25, 0.75, 1.25, 1.75), strict=True):
        for column, place in ((1, 0.5), (2, 1.5)):
            expected[row, column] = -2 * (done - place) ** 2
    torch.testing.assert_close(prior[0], expected)
    # One text token of one prediction: the prior is at its best, and nowhere else is any.
    assert not bool(prior[1].any())


def test_diagonal_prior_is_bounded() -> None:
    layout = one_shot(list(range(20)), list(range(9)), 9)
    prior = diagonal_prior(LayoutBatch.from_layouts([layout]), 0.1)
    assert float(prior.min()) == -10.0 and float(prior.max()) == 0.0
    nothing = diagonal_prior(LayoutBatch.from_layouts([one_shot([], [1, 2], 9)]), 1.0)
    assert not bool(nothing.any())


def test_prior_fades_out() -> None:
    task = SpeechLMTask(replace(CONFIG, prior_steps=4))
    batch = task.collate([one_shot([1, 2], [3, 4, 5], 9)])
    whole = diagonal_prior(batch, CONFIG.prior_width)
    for step, strength in ((0, 1.0), (1, 0.75), (3, 0.25)):
        bias = task.prepare(batch, StepInfo(0, step, 0)).tensors["bias"]
        torch.testing.assert_close(bias, strength * whole)
    assert task.prepare(batch, StepInfo(0, 4, 0)).tensors["bias"] is None
    assert SpeechLMTask(CONFIG).prepare(batch, StepInfo(0, 0, 0)).tensors["bias"] is None


def test_lengths_are_checked_against_the_corpus() -> None:
    corpus = np.full(17, 4), np.arange(8, 25)
    good = replace(MODEL, min_speech_per_text=1.0, max_speech_per_text=8.0)
    check_lengths(*corpus, good)
    # From 2 to 6 tokens of speech for each of text, 4 in the middle.
    with pytest.raises(ValueError, match="min_speech_per_text 3.0 is too high; .* median 4.00"):
        check_lengths(*corpus, replace(good, min_speech_per_text=3.0))
    with pytest.raises(ValueError, match="max_speech_per_text 5.0 is too low"):
        check_lengths(*corpus, replace(good, max_speech_per_text=5.0))
    with pytest.raises(ValueError, match="blocks of 2:10 are longer than the speech of half"):
        check_lengths(*corpus, replace(good, block_speech_tokens=10))


def test_mistakes_are_sentences(
    stage_config: Callable[..., Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(run: str, **changes: Any) -> str:
        assert main(["--config", str(stage_config("speech_lm", run, **changes))]) == 1
        return capsys.readouterr().err

    plain = {"train": f"{corpus}/train.jsonl"}
    hint = "write them with: tokenlm data precompute MANIFEST OUTPUT --tokenizer FOLDER\n"
    assert f"'train0' has no speech tokens; {hint}" in told("1", data=plain)
    rows = (corpus / "valid_tokens.jsonl").read_text()
    mixed = corpus / "mixed.jsonl"
    mixed.write_text(rows.replace('"tokenizer": "', '"tokenizer": "other'))
    both = {"train": f"{corpus}/train_tokens.jsonl", "valid": str(mixed)}
    assert "mix tokens of 2 tokenizers: " in told("2", data=both)
    small = {"backbone": {"vocab_size": 8}, "codebook_size": 9}
    assert "pieces, but the backbone's vocab_size is 8" in told("3", model=small)
    assert "but the codebook has 5" in told("4", model={"codebook_size": 5})


@pytest.mark.parametrize("name", ["interleaved_share", "text_dropout", "join_share"])
def test_shares_are_shares(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be in"):
        replace(CONFIG, **{name: 1.5})
