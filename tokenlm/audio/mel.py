"""Log-mel spectrograms: the one that is rendered to sound, and the one that is listened to.

`MelTempo` reads a mel at another pace: faster or slower speech at the same pitch.

Shapes: B batch, S samples, T frames, F bins of the transform (n_fft // 2 + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlm.arguments import is_number
from tokenlm.audio.filterbank import mel_filterbank
from tokenlm.audio.frames import FrontEnd, blank_frames, check_waveform, reflect_pad, spectrum

# Inside the root of the magnitude: keeps the gradient finite in digital silence.
_MAGNITUDE_FLOOR = 1e-9
_LOG_FLOOR = 1e-5
_WHISPER_LOG_FLOOR = 1e-10
_WHISPER_RANGE = 8.0


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Facts of the mel spectrogram between the flow and the vocoder."""

    sample_rate: int = 24000
    """Of the waveform, in hertz."""
    n_fft: int = 1920
    """Length of the Fourier transform, in samples."""
    win_length: int = 1920
    """Length of the Hann window, in samples; at most `n_fft`."""
    hop_length: int = 480
    """Samples from one frame to the next."""
    num_mels: int = 80
    """Number of mel bands."""
    fmin: float = 0.0
    """Lower edge of the first band, in hertz."""
    fmax: float | None = 8000.0
    """Upper edge of the last band, in hertz; None for half the sample rate."""

    def __post_init__(self) -> None:
        check_frame_sizes(self.sample_rate, self.n_fft, self.hop_length, self.num_mels)
        if not 0 < self.win_length <= self.n_fft:
            raise ValueError(
                f"win_length must be between 1 and n_fft ({self.n_fft}), got {self.win_length}"
            )
        highest = self.sample_rate / 2 if self.fmax is None else self.fmax
        if not 0 <= self.fmin < highest <= self.sample_rate / 2:
            raise ValueError(
                f"fmin ({self.fmin:g}) and fmax ({highest:g}) must rise between 0 and half the "
                f"sample rate ({self.sample_rate / 2:g} Hz)"
            )

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length


@dataclass(frozen=True, kw_only=True)
class WhisperMelConfig:
    """Facts of the mel spectrogram that the speech tokenizer listens to."""

    sample_rate: int = 16000
    """Of the waveform, in hertz."""
    n_fft: int = 400
    """Length of the Fourier transform and of the Hann window, in samples."""
    hop_length: int = 160
    """Samples from one frame to the next."""
    num_mels: int = 128
    """Number of mel bands, from 0 to half the sample rate."""

    def __post_init__(self) -> None:
        check_frame_sizes(self.sample_rate, self.n_fft, self.hop_length, self.num_mels)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length


class MelSpectrogram(FrontEnd):
    """Waveform to natural-log mel magnitudes, S // hop_length frames.

    The ends are mirrored by (n_fft - hop_length) / 2 samples, so that frame t stands in the middle
    of the samples t * hop_length .. (t + 1) * hop_length.
    """

    def __init__(self, config: MelConfig) -> None:
        filters = mel_filterbank(
            config.sample_rate, config.n_fft, config.num_mels, config.fmin, config.fmax
        )
        super().__init__(torch.hann_window(config.win_length, dtype=torch.float32), filters)
        self.config = config

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames of waveforms with these numbers of samples."""
        return num_samples // self.config.hop_length

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the mel spectrogram, in float32 whatever the surrounding precision.

        Args:
            waveform: (B, S) in -1 .. 1.
            lengths: (B,) valid samples of each item; each item then gives the frames it would give
                alone, followed by zeros.

        Returns:
            (B, T, num_mels), T = S // hop_length.

        Raises:
            ValueError: if the waveform is not two-dimensional.
        """
        config, waveform = self.config, check_waveform(waveform)
        num_frames = waveform.shape[1] // config.hop_length
        if num_frames == 0:
            return waveform.new_zeros(waveform.shape[0], 0, config.num_mels)
        with torch.autocast(waveform.device.type, enabled=False):
            left = max(config.n_fft - config.hop_length, 0) // 2
            right = max(config.n_fft - config.hop_length, 0) - left
            padded = reflect_pad(waveform, left, right, lengths)
            bins = spectrum(padded, self.window, config.n_fft, config.hop_length)[:, :num_frames]
            power = bins.real.square() + bins.imag.square()
            magnitude = torch.sqrt(power + _MAGNITUDE_FLOOR)
            mel = (magnitude @ self.filters).clamp(min=_LOG_FLOOR).log()
        return blank_frames(mel, None if lengths is None else self.num_frames(lengths))


class MelStream:
    """Mel of a waveform that arrives in pieces, equal to that of the whole."""

    def __init__(self, spectrogram: MelSpectrogram) -> None:
        """Take the front-end."""
        self._spectrogram = spectrogram
        config = spectrogram.config
        self._hop = config.hop_length
        # Frames next to a cut see samples beyond it.
        self._edge = math.ceil(max(config.n_fft - config.hop_length, 0) / 2 / config.hop_length)
        self._samples: Tensor | None = None
        self._has_started = False

    def push(self, waveform: Tensor, *, final: bool = False) -> Tensor:
        """The frames (B, T, num_mels) that the next samples (B, S) complete; with `final` all."""
        if self._samples is not None:
            waveform = torch.cat([self._samples, waveform], dim=1)
        hop, edge = self._hop, self._edge
        left = edge if self._has_started else 0
        right = 0 if final else edge + 1  # one more: mirrored ends need samples to mirror
        count = waveform.shape[1] // hop - left - right
        if count <= 0 or (left + count < edge and not final):
            self._samples = waveform
            return waveform.new_zeros(waveform.shape[0], 0, self._spectrogram.config.num_mels)
        mel = self._spectrogram(waveform)[:, left : left + count]
        self._samples = waveform[:, max(left + count - edge, 0) * hop :]
        self._has_started = True
        return mel


class WhisperMel(FrontEnd):
    """Waveform to the log-mel of Whisper (Radford et al. 2022), S // hop_length frames.

    Power, base-10 logarithm, at most 8 below the maximum of the item, scaled to about -1 .. 1.
    """

    def __init__(self, config: WhisperMelConfig) -> None:
        filters = mel_filterbank(config.sample_rate, config.n_fft, config.num_mels)
        super().__init__(torch.hann_window(config.n_fft, dtype=torch.float32), filters)
        self.config = config

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames of waveforms with these numbers of samples."""
        return num_samples // self.config.hop_length

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the log-mel, in float32 whatever the surrounding precision.

        Args:
            waveform: (B, S) in -1 .. 1.
            lengths: (B,) valid samples of each item; each item then gives the frames it would give
                alone, followed by zeros.

        Returns:
            (B, T, num_mels), T = S // hop_length.

        Raises:
            ValueError: if the waveform is not two-dimensional.
        """
        config, waveform = self.config, check_waveform(waveform)
        own_frames = None if lengths is None else self.num_frames(lengths)
        num_frames = waveform.shape[1] // config.hop_length
        if num_frames == 0:
            return waveform.new_zeros(waveform.shape[0], 0, config.num_mels)
        with torch.autocast(waveform.device.type, enabled=False):
            padded = reflect_pad(waveform, config.n_fft // 2, config.n_fft // 2, lengths)
            bins = spectrum(padded, self.window, config.n_fft, config.hop_length)[:, :num_frames]
            power = blank_frames(bins.real.square() + bins.imag.square(), own_frames)
            mel = (power @ self.filters).clamp(min=_WHISPER_LOG_FLOOR).log10()
            mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - _WHISPER_RANGE)
            return blank_frames((mel + 4.0) / 4.0, own_frames)


def check_frame_sizes(sample_rate: int, n_fft: int, hop_length: int, num_mels: int) -> None:
    """Raise ValueError unless all of them are positive and the frames leave no gap."""
    sizes = {
        "sample_rate": sample_rate,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "num_mels": num_mels,
    }
    for name, size in sizes.items():
        if size <= 0:
            raise ValueError(f"{name} must be positive, got {size}")
    if hop_length > n_fft:
        raise ValueError(f"hop_length ({hop_length}) is longer than the frame (n_fft {n_fft})")


# --- Tempo ---

MIN_SPEED, MAX_SPEED = 0.25, 4.0


def check_speed(speed: float) -> float:
    """Checks that a speed is in range, and gives it.

    Raises:
        ValueError: it is not.
    """
    if not (is_number(speed) and MIN_SPEED <= speed <= MAX_SPEED):
        raise ValueError(f"speed must be from {MIN_SPEED:g} to {MAX_SPEED:g}, got {speed}")
    return float(speed)


class MelTempo:
    """Resamples the frames of a mel in time by linear interpolation, in pieces of any size.

    Frame n of the result stands at n * speed of the input, whatever the pieces: nothing waits but
    the one frame that the next one is interpolated from. At a speed of 1 nothing is changed.
    """

    def __init__(self, speed: float) -> None:
        """Takes how many times faster the speech is to be, see `check_speed`."""
        self.speed = check_speed(speed)
        self._num_in = 0
        self._num_out = 0
        self._last: Tensor | None = None

    def push(self, mel: Tensor, *, final: bool = False) -> Tensor:
        """The frames (B, T', D) that the next frames (B, T, D) decide; with `final` all of them."""
        if self.speed == 1.0:
            return mel
        first = self._num_in
        if self._last is not None:
            mel, first = torch.cat([self._last, mel], dim=1), first - 1
        if mel.shape[1] == 0:
            return mel
        last = first + mel.shape[1] - 1
        # A frame at the very end needs no other one behind it.
        stop = math.floor(last / self.speed) + 1 if final else math.ceil(last / self.speed)
        numbers = torch.arange(self._num_out, max(stop, self._num_out), dtype=torch.float64)
        places = (numbers * self.speed).clamp(first, last)
        left = places.floor().long()
        share = (places - left).to(mel)[None, :, None]
        left = (left - first).to(mel.device)
        right = (left + 1).clamp(max=mel.shape[1] - 1)
        self._num_out += numbers.shape[0]
        self._num_in = last + 1
        self._last = mel[:, -1:].clone()
        if numbers.shape[0] == 0:
            return mel[:, :0]
        return torch.lerp(mel[:, left], mel[:, right], share)
