"""The recogniser: characters, CTC paths, padding."""

from __future__ import annotations

import itertools

import pytest
import torch

from tokenlm.models.token_recognizer import (
    TokenRecognizer,
    TokenRecognizerConfig,
    align_ctc,
    greedy_ctc,
)
from tokenlm.text.transcripts import ENGLISH_ALPHABET, decode_characters

CONFIG = TokenRecognizerConfig(
    dim=16, num_heads=2, num_layers=2, num_decoder_layers=1, levels=(3, 3), max_characters=20
)


def build() -> TokenRecognizer:
    torch.manual_seed(0)
    return TokenRecognizer(CONFIG).eval()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([0, 10, 10, 0, 11, 11], "hi"),
        ([10, 0, 10], "hh"),
        ([10, 10, 10], "h"),
        ([0, 0], ""),
        ([], ""),
        ([3, 1, 1, 4, 1], "a b"),
    ],
)
def test_greedy_ctc(path: list[int], text: str) -> None:
    assert decode_characters(greedy_ctc(path), ENGLISH_ALPHABET) == text


def test_padded_batch_equals_single() -> None:
    recognizer = build()
    tokens = torch.randint(9, (3, 15), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([15, 4, 9])
    characters = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 0, 0, 0]])
    mask = torch.arange(15)[None] < lengths[:, None]
    with torch.no_grad():
        hidden, log_probs = recognizer(recognizer.code_vectors(tokens), mask)
        logits = recognizer.decode_logits(hidden, characters, mask)
        assert log_probs.shape == (3, 15, 29) and logits.shape == (3, 5, 29)
        torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(3, 15))
        for item, (length, count) in enumerate(zip(lengths.tolist(), (4, 2, 1), strict=True)):
            codes = recognizer.code_vectors(tokens[item : item + 1, :length])
            alone, own = recognizer(codes)
            torch.testing.assert_close(log_probs[item, :length], own[0], atol=1e-5, rtol=0)
            decoded = recognizer.decode_logits(alone, characters[item : item + 1, :count])
            torch.testing.assert_close(logits[item, : count + 1], decoded[0], atol=1e-5, rtol=0)
    alone = [
        recognizer.transcribe(tokens[i : i + 1, :n])[0] for i, n in enumerate(lengths.tolist())
    ]
    assert recognizer.transcribe(tokens, lengths) == alone


def test_decoder_does_not_see_what_it_predicts() -> None:
    recognizer = build()
    hidden = torch.randn(1, 6, 16)
    first = recognizer.decode_logits(hidden, torch.tensor([[3, 4, 5]]))
    other = recognizer.decode_logits(hidden, torch.tensor([[3, 9, 9]]))
    torch.testing.assert_close(first[:, :2], other[:, :2])
    assert not torch.allclose(first[:, 2], other[:, 2])


def test_code_vectors_have_gradient_to_give() -> None:
    """Generated tokens can be scored through soft code vectors."""
    recognizer = build()
    codes = recognizer.code_vectors(torch.tensor([[0, 4, 8]])).requires_grad_()
    _, log_probs = recognizer(codes)
    log_probs[..., 3].sum().backward()
    assert codes.grad is not None and bool((codes.grad != 0).any())


def test_the_alphabet_is_that_of_the_config() -> None:
    torch.manual_seed(0)
    config = TokenRecognizerConfig(
        dim=8, num_heads=2, num_layers=1, levels=(3, 3), alphabet="你吗好", max_characters=8
    )
    recognizer = TokenRecognizer(config).eval()
    assert recognizer.ctc.out_features == recognizer.character_head.out_features == 4
    with torch.no_grad():  # says output 2 whatever it reads
        recognizer.ctc.weight.zero_()
        recognizer.ctc.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0]))
    assert recognizer.transcribe(torch.tensor([[0, 4, 8]])) == ["吗"]
    assert recognizer.without_decoder().config.alphabet == "你吗好"
    with pytest.raises(ValueError, match="the alphabet has 'a' more than once"):
        TokenRecognizerConfig(alphabet="aba")


def test_levels_must_be_three_or_more() -> None:
    with pytest.raises(ValueError, match="levels must be at least 3"):
        TokenRecognizerConfig(levels=(2, 5))


def test_without_decoder_transcribes_the_same_and_refuses_to_decode() -> None:
    torch.manual_seed(0)
    config = TokenRecognizerConfig(levels=(3, 3), dim=8, num_heads=2, num_layers=1)
    whole = TokenRecognizer(config).eval()
    smaller = whole.without_decoder().eval()
    tokens = torch.randint(9, (2, 12))
    codes = whole.code_vectors(tokens)
    torch.testing.assert_close(smaller(codes)[1], whole(codes)[1])
    assert not any(name.startswith(("decoder", "character")) for name in smaller.state_dict())
    with pytest.raises(ValueError, match="no attention decoder"):
        smaller.decode_logits(codes, tokens)


def test_align_ctc_against_all_paths() -> None:
    """Viterbi finds the best of all paths that write the units."""
    generator = torch.Generator().manual_seed(0)
    for units in ([1, 2], [1, 1], [2], [2, 1, 2]):
        log_probs = torch.randn(6, 3, generator=generator).log_softmax(dim=-1)
        best = max(
            (path for path in itertools.product(range(3), repeat=6) if greedy_ctc(path) == units),
            key=lambda path: sum(float(log_probs[t, c]) for t, c in enumerate(path)),
        )
        spans = align_ctc(log_probs, units)
        assert spans is not None
        found = [0] * 6
        for unit, (first, end) in zip(units, spans, strict=True):
            found[first:end] = [unit] * (end - first)
        assert tuple(found) == best


def test_align_ctc_of_what_is_not_complete() -> None:
    """The path ends behind the units that are there."""
    path = [0, 1, 1, 0, 2, 0]
    log_probs = torch.full((6, 4), -5.0)
    log_probs[torch.arange(6), path] = -0.1
    assert align_ctc(log_probs, [1, 2, 3, 3], is_complete=False) == [(1, 3), (4, 5)]
    complete = align_ctc(log_probs, [1, 2, 3, 1, 3])
    assert complete is not None and len(complete) == 5 and complete[0][0] <= 1
    assert align_ctc(log_probs, [1, 1, 1, 1]) is None  # a blank between each: seven places
    assert align_ctc(log_probs[:0], [1]) is None
    assert align_ctc(log_probs[:0], [1], is_complete=False) == []
    assert align_ctc(log_probs, []) == []
