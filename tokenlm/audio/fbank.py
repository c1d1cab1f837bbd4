"""Filter-bank energies as Kaldi computes them, the input of speaker encoders.

Shapes: B batch, S samples, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlm.audio.filterbank import mel_filterbank
from tokenlm.audio.frames import FrontEnd, blank_frames, check_waveform

_LOG_FLOOR = torch.finfo(torch.float32).eps
_POVEY_POWER = 0.85


@dataclass(frozen=True, kw_only=True)
class FbankConfig:
    """Facts of the filter-bank energies."""

    sample_rate: int = 16000
    """Of the waveform, in hertz."""
    win_length: int = 400
    """Samples of a frame; the transform is the next power of two."""
    hop_length: int = 160
    """Samples from one frame to the next."""
    num_mels: int = 80
    """Number of mel bands."""
    fmin: float = 20.0
    """Lower edge of the first band, in hertz."""
    fmax: float | None = None
    """Upper edge of the last band, in hertz; None for half the sample rate."""
    preemphasis: float = 0.97
    """How much of the sample before is taken off each sample."""
    subtract_mean: bool = False
    """Whether the mean of each band over the utterance is taken off."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "win_length", "hop_length", "num_mels"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.preemphasis < 1:
            raise ValueError(f"preemphasis must be in 0 .. 1, got {self.preemphasis}")
        highest = self.sample_rate / 2 if self.fmax is None else self.fmax
        if not 0 <= self.fmin < highest <= self.sample_rate / 2:
            raise ValueError(
                f"fmin ({self.fmin:g}) and fmax ({highest:g}) must rise between 0 and half the "
                f"sample rate ({self.sample_rate / 2:g} Hz)"
            )

    @property
    def n_fft(self) -> int:
        """Length of the Fourier transform, in samples."""
        return 1 << (self.win_length - 1).bit_length()

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length


class KaldiFbank(FrontEnd):
    """Waveform to natural-log mel energies of Kaldi's recipe (no dither, whole frames only).

    Each frame loses its mean, is pre-emphasised and weighted with Povey's window (a Hann window to
    the power 0.85). The waveform stays in -1 .. 1.
    """

    def __init__(self, config: FbankConfig) -> None:
        hann = torch.hann_window(config.win_length, periodic=False, dtype=torch.float64)
        filters = mel_filterbank(
            config.sample_rate,
            config.n_fft,
            config.num_mels,
            config.fmin,
            config.fmax,
            scale="htk",
            unit_area=False,
            linear_in="mel",
        )
        super().__init__(hann.pow(_POVEY_POWER), filters)
        self.config = config

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames of waveforms with these numbers of samples; none below one whole frame."""
        spare = num_samples - self.config.win_length + self.config.hop_length
        return spare.clamp(min=0) // self.config.hop_length

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the energies, in float32 whatever the surrounding precision.

        Args:
            waveform: (B, S) in -1 .. 1.
            lengths: (B,) valid samples of each item; frames after an item's own are zero.

        Returns:
            (B, T, num_mels), T = 1 + (S - win_length) // hop_length, or 0 where S is too short.

        Raises:
            ValueError: if the waveform is not two-dimensional.
        """
        config, waveform = self.config, check_waveform(waveform)
        if waveform.shape[1] < config.win_length:
            return waveform.new_zeros(waveform.shape[0], 0, config.num_mels)
        own_frames = None if lengths is None else self.num_frames(lengths)
        with torch.autocast(waveform.device.type, enabled=False):
            frames = waveform.unfold(1, config.win_length, config.hop_length)
            frames = frames - frames.mean(-1, keepdim=True)
            # The first sample of a frame has none before it and stands for it itself.
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = (frames - config.preemphasis * before) * self.window
            bins = torch.fft.rfft(frames, n=config.n_fft, dim=-1)
            power = bins.real.square() + bins.imag.square()
            energies = (power @ self.filters).clamp(min=_LOG_FLOOR).log()
            energies = blank_frames(energies, own_frames)
            if config.subtract_mean:
                counts = energies.shape[1] if own_frames is None else own_frames.clamp(min=1)
                total = energies.sum(1, keepdim=True)
                mean = total / (counts if isinstance(counts, int) else counts[:, None, None])
                energies = blank_frames(energies - mean, own_frames)
            return energies
