"""Changing the sample rate.

Shapes: B batch, S samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample with the high-quality setting of soxr, on the CPU and without gradient.

    Args:
        waveform: (S,) or (B, S).
        from_rate: its sample rate, in hertz.
        to_rate: the wanted sample rate, in hertz.

    Returns:
        (S',) or (B, S') float32 on the device of the input, S' about S * to_rate / from_rate.

    Raises:
        ValueError: if a rate is not positive, or for another number of dimensions.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate}")
    if waveform.ndim not in (1, 2):
        raise ValueError(
            "a waveform is (samples,) or (batch, samples), but the shape is "
            f"{tuple(waveform.shape)}"
        )
    if from_rate == to_rate or waveform.numel() == 0:
        return waveform.detach().float()
    import numpy as np
    import soxr
    import torch

    # soxr takes (samples, channels): the items of the batch are its channels.
    samples = waveform.detach().float().cpu().numpy()
    resampled = soxr.resample(samples.T, from_rate, to_rate, quality="HQ")
    return torch.from_numpy(np.ascontiguousarray(resampled.T)).to(waveform.device)


class StreamResampler:
    """Resamples a waveform that arrives in pieces, with the filter of `resample`."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Take both rates in hertz.

        Raises:
            ValueError: if a rate is not positive.
        """
        import soxr

        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate}")
        self._stream: soxr.ResampleStream | None = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def push(self, waveform: Tensor, *, final: bool = False) -> Tensor:
        """The samples (S',) that the next samples (S,) decide; with `final` all that are left."""
        if self._stream is None:
            return waveform.detach().float()
        import torch

        samples = waveform.detach().float().cpu().numpy()
        # A copy: the resampler may reuse its memory.
        return torch.from_numpy(self._stream.resample_chunk(samples, last=final).copy())
