"""Noise on speech tokens."""

from __future__ import annotations

import pytest
import torch

from training.data.token_noise import (
    HIDDEN,
    TokenNoiseConfig,
    draw_spans,
    shift_digits,
    spoil_tokens,
)

LEVELS = (3, 5, 3)
NONE = {"shifted_share": 0.0, "replaced_share": 0.0, "hidden_share": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(tokens: torch.Tensor) -> torch.Tensor:
    return torch.stack([tokens % 3, tokens // 3 % 5, tokens // 15], dim=-1)


def test_one_digit_moves_by_one_level() -> None:
    tokens = torch.arange(45).repeat(200)
    found = shift_digits(tokens, LEVELS, generator())
    assert int(found.min()) >= 0 and int(found.max()) < 45
    steps = (digits(found) - digits(tokens)).abs()
    assert torch.equal(steps.sum(dim=-1), torch.ones_like(tokens))
    # Each digit as often as the others, inner levels in both directions.
    torch.testing.assert_close(
        steps.float().mean(dim=0), torch.full((3,), 1 / 3), atol=0.02, rtol=0
    )
    inner = digits(tokens)[:, 1] == 2
    moved = (digits(found) - digits(tokens))[inner, 1]
    assert 0.4 < float((moved[moved != 0] > 0).float().mean()) < 0.6


def test_shares() -> None:
    tokens = torch.arange(45).repeat(400)
    count = len(tokens)

    def share(**changes: float) -> float:
        config = TokenNoiseConfig(**{**NONE, **changes})  # type: ignore[arg-type]
        return float((spoil_tokens(tokens, LEVELS, config, generator()) != tokens).sum()) / count

    assert share() == 0.0
    assert share(shifted_share=0.2) == pytest.approx(0.2, abs=0.01)
    # One in 45 is replaced by its own kind.
    assert share(replaced_share=0.3) == pytest.approx(0.3 * 44 / 45, abs=0.01)
    # Spans overlap a little.
    assert 0.08 < share(hidden_share=0.1) <= 0.1


def test_replacements_are_tokens_of_the_same_utterance() -> None:
    config = TokenNoiseConfig(**{**NONE, "replaced_share": 1.0})  # type: ignore[arg-type]
    found = spoil_tokens(torch.tensor([3, 7, 11] * 20), LEVELS, config, generator())
    assert set(found.tolist()) == {3, 7, 11}


def test_spans_are_short_and_their_number_is_right_on_average() -> None:
    config = TokenNoiseConfig(hidden_share=0.1, max_hidden_tokens=4)
    total = 0
    for seed in range(400):
        hidden = draw_spans(12, config, generator(seed))
        total += int(hidden.sum())
        runs = "".join(map(str, hidden.int().tolist())).split("0")
        assert max(map(len, runs)) <= 4  # a single span of 12 tokens at most
    # 1.2 tokens each, less what is cut off at the end.
    assert 0.8 < total / 400 < 1.2


def test_the_same_generator_gives_the_same_noise() -> None:
    tokens = torch.arange(40)
    config = TokenNoiseConfig()
    first = spoil_tokens(tokens, LEVELS, config, generator(3))
    assert torch.equal(first, spoil_tokens(tokens, LEVELS, config, generator(3)))
    assert not torch.equal(first, spoil_tokens(tokens, LEVELS, config, generator(4)))
    assert spoil_tokens(torch.tensor([5]), LEVELS, config, generator()).tolist() in ([5], [HIDDEN])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"shifted_share": 1.5}, "shifted_share"), ({"max_hidden_tokens": 0}, "max_hidden_tokens")],
)
def test_impossible_configs(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenNoiseConfig(**change)  # type: ignore[arg-type]
