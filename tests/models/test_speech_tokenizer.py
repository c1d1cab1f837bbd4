"""The speech tokenizer: lengths, padding, windows, fingerprint."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenlm.models.speech_tokenizer import (
    SpeechTokenizer,
    SpeechTokenizerConfig,
    analysis_mel,
    codebook_usage,
    normalize_level,
)

CONFIG = SpeechTokenizerConfig(dim=16, num_heads=2, num_layers=2, levels=(3, 3, 3))
TOKEN = 640
"""Samples of a token at 16 kHz."""


def build(config: SpeechTokenizerConfig = CONFIG) -> SpeechTokenizer:
    torch.manual_seed(0)
    return SpeechTokenizer(config).eval()


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_facts_are_derived() -> None:
    assert CONFIG.token_rate == 25 and isinstance(CONFIG.token_rate, int)
    assert CONFIG.samples_per_token == TOKEN
    assert CONFIG.codebook_size == 27
    assert SpeechTokenizerConfig(levels=(3,) * 8).codebook_size == 6561


@pytest.mark.parametrize("samples", [TOKEN, TOKEN + 639, 5 * TOKEN, 5 * TOKEN + 1])
def test_one_token_for_each_whole_640_samples(samples: int) -> None:
    tokens, num_tokens = build().encode(noise(1, samples))
    assert num_tokens.tolist() == [samples // TOKEN]
    assert tokens.shape == (1, samples // TOKEN)
    assert int(tokens.min()) >= 0 and int(tokens.max()) < 27


def test_padded_batch_equals_single() -> None:
    tokenizer = build()
    lengths = torch.tensor([20 * TOKEN + 100, 7 * TOKEN, 12 * TOKEN + 639])
    waveform = noise(3, 22 * TOKEN)
    codes, hidden, num_tokens = tokenizer(waveform, lengths)
    tokens, counts = tokenizer.encode(waveform, lengths)
    assert num_tokens.tolist() == counts.tolist() == [20, 7, 12]
    assert codes.shape == (3, 20, 3) and hidden.shape == (3, 20, 16)
    for item, (length, count) in enumerate(zip(lengths.tolist(), [20, 7, 12], strict=True)):
        alone = waveform[item : item + 1, :length]
        one, before, _ = tokenizer(alone, torch.tensor([length]))
        torch.testing.assert_close(hidden[item, :count], before[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(codes[item, :count], one[0], atol=1e-4, rtol=0)
        assert torch.equal(tokens[item, :count], tokenizer.encode(alone)[0][0])


def test_code_vectors_are_those_of_the_tokens() -> None:
    tokenizer = build()
    waveform = noise(1, 10 * TOKEN)
    codes, _, _ = tokenizer(waveform, torch.tensor([10 * TOKEN]))
    tokens, _ = tokenizer.encode(waveform)
    torch.testing.assert_close(tokenizer.quantizer.decode(tokens), codes)


def test_level_does_not_matter() -> None:
    tokenizer = build()
    waveform = noise(1, 20 * TOKEN)
    quiet, loud = (tokenizer.encode(gain * waveform)[0] for gain in (1.0, 4.0))
    assert torch.equal(quiet, loud)


def test_normalize_level_by_hand() -> None:
    mel = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [9.0, 9.0]]])
    out = normalize_level(mel, torch.tensor([2]))
    # Means 2 and 5; squares 1, 1, 0, 0: the variance is 0.5.
    scale = 1 / math.sqrt(0.5 + 1e-4)
    expected = torch.tensor([[[-scale, 0.0], [scale, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(out, expected)


def test_windows() -> None:
    """100 tokens in windows of 50 that overlap by 10 on each side."""
    config = replace(CONFIG, window_seconds=2.0, overlap_seconds=0.8)
    windowed, whole = build(config), build()
    waveform = noise(1, 131 * TOKEN + 17)
    tokens, num_tokens = windowed.encode(waveform)
    assert tokens.shape == (1, 131) and num_tokens.tolist() == [131]
    # Windows begin at tokens 0, 30, 60 and, of full length to the end, at 81.
    expected = []
    for start, first, last in ((0, 0, 40), (30, 10, 40), (60, 10, 40), (81, 19, 50)):
        part = waveform[:, start * TOKEN : (start + 50) * TOKEN]
        expected.append(whole.encode(part)[0][0, first:last])
    assert torch.equal(tokens[0], torch.cat(expected))


def test_windows_of_a_batch() -> None:
    windowed = build(replace(CONFIG, window_seconds=2.0, overlap_seconds=0.8))
    lengths = torch.tensor([120 * TOKEN, 30 * TOKEN + 5, 50 * TOKEN])
    waveform = noise(3, 120 * TOKEN)
    tokens, num_tokens = windowed.encode(waveform, lengths)
    assert num_tokens.tolist() == [120, 30, 50] and tokens.shape == (3, 120)
    for item, count in enumerate(num_tokens.tolist()):
        alone, _ = windowed.encode(waveform[item : item + 1, : count * TOKEN])
        assert torch.equal(tokens[item, :count], alone[0])


def test_windows_leave_the_interior_nearly_as_it_is() -> None:
    windowed = build(replace(CONFIG, window_seconds=4.0, overlap_seconds=1.6))
    waveform = noise(1, 180 * TOKEN)
    tokens, _ = windowed.encode(waveform)
    whole, _ = build().encode(waveform)
    assert float((tokens == whole).double().mean()) > 0.9


def test_short_recordings_are_encoded_whole() -> None:
    windowed = build(replace(CONFIG, window_seconds=2.0, overlap_seconds=0.8))
    waveform = noise(1, 50 * TOKEN)
    assert torch.equal(windowed.encode(waveform)[0], build().encode(waveform)[0])


def test_too_short_is_an_error() -> None:
    tokenizer = build()
    with pytest.raises(ValueError, match="shorter than one token \\(640 samples\\)"):
        tokenizer.encode(noise(1, 639))
    with pytest.raises(ValueError, match="shorter than one token"):
        tokenizer.encode(noise(2, 2000), torch.tensor([2000, 100]))


def test_fingerprint() -> None:
    tokenizer = build()
    found = tokenizer.fingerprint
    assert len(found) == 16 and found == build().fingerprint
    # What is saved in 16 bits and read again is the same tokenizer.
    again = build()
    again.load_state_dict({k: v.half().float() for k, v in tokenizer.state_dict().items()})
    assert again.fingerprint == found
    with torch.no_grad():
        again.conv1.weight[0, 0, 0] += 0.1
    assert again.fingerprint != found
    assert build(replace(CONFIG, window_seconds=10.0)).fingerprint != found


def test_gradients_reach_everything() -> None:
    tokenizer = build()
    codes, _, _ = tokenizer(noise(2, 6 * TOKEN), torch.tensor([6 * TOKEN, 4 * TOKEN]))
    (codes * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    for name, weight in tokenizer.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
        if "query_key_value.bias" not in name:  # a key's bias shifts all scores alike
            assert bool((weight.grad != 0).any()), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"levels": ()}, "levels must be at least 3"),
        ({"levels": (5, 2)}, "levels must be at least 3"),
        ({"overlap_seconds": 10.0}, "less than half of window_seconds"),
        ({"mel": replace(analysis_mel(), hop_length=210)}, "not a multiple of 4"),
    ],
)
def test_impossible_configs(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SpeechTokenizerConfig(**change)


def test_codebook_usage_by_hand() -> None:
    usage = codebook_usage(torch.tensor([[0, 0, 2, 2]]), 4)
    assert usage["codebook_utilisation"] == 0.5
    assert usage["codebook_perplexity"] == pytest.approx(2.0)
    assert usage["relative_perplexity"] == pytest.approx(0.5)
    assert codebook_usage(torch.arange(8), 8)["relative_perplexity"] == pytest.approx(1.0)
    assert codebook_usage(torch.zeros(5, dtype=torch.long), 8)["codebook_perplexity"] == 1.0
