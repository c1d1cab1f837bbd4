"""Padding against hand-made tensors."""

from __future__ import annotations

import torch

from training.data.collate import pad_mels, pad_tokens, pad_waveforms


def test_pad_waveforms() -> None:
    padded, lengths = pad_waveforms([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0])])
    assert padded.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert lengths.tolist() == [3, 1]


def test_pad_to_a_multiple() -> None:
    padded, lengths = pad_waveforms([torch.ones(5), torch.ones(4)], multiple=4)
    assert padded.shape == (2, 8) and lengths.tolist() == [5, 4]
    assert pad_waveforms([torch.ones(8)], multiple=4)[0].shape == (1, 8)


def test_pad_mels_with_a_value() -> None:
    padded, lengths = pad_mels([torch.zeros(2, 3), torch.zeros(1, 3)], value=-9.0)
    assert padded.shape == (2, 2, 3)
    assert padded[1, 1].tolist() == [-9.0] * 3 and padded[1, 0].tolist() == [0.0] * 3
    assert lengths.tolist() == [2, 1]


def test_pad_tokens() -> None:
    padded, lengths = pad_tokens([(1, 2), torch.tensor([3]), []], value=-1)
    assert padded.tolist() == [[1, 2], [3, -1], [-1, -1]]
    assert padded.dtype == torch.int64 and lengths.tolist() == [2, 1, 0]
