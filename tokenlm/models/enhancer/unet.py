"""Mel enhancement: a U-Net over frequency that takes a mel of bad speech to one of clean speech.

Time keeps its rate, so that the net streams: convolutions look back, and a recurrent layer at the
bottom remembers (after Tan and Wang, 2018, "A convolutional recurrent neural network for real-time
speech enhancement", here for mels). A mel has no phase, so what noise has covered can be written
anew, and a vocoder makes the sound.

Shapes: B batch, T mel frames, M mel bins, C channels, D channels at the bottom, H bins at a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.audio.mel import MelConfig
from tokenlm.modules.streaming import State

_PAST = 2
"""Frames before its own that a convolution sees."""


@dataclass(frozen=True, kw_only=True)
class MelEnhancerConfig:
    """Sizes of a `MelEnhancer`."""

    mel: MelConfig = field(default_factory=MelConfig)
    """Of the mel spectrogram, that of the vocoder."""
    channels: tuple[int, ...] = (24, 48, 72, 96)
    """Of each level, from all mel bins to few; each level has half the bins of the one before."""
    dim: int = 192
    """Of the recurrent layer at the bottom."""
    lookahead_frames: int = 2
    """Mel frames of the future that a frame is made from."""
    mel_mean: float = -5.0
    """Of log-mels, about; takes them to around 0."""
    mel_std: float = 2.5
    """Of log-mels, about."""

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, self.dim) < 1:
            raise ValueError("channels must name at least one level; channels and dim are positive")
        if self.mel.num_mels < 2 ** (len(self.channels) - 1):
            raise ValueError(
                f"{self.mel.num_mels} mel bins cannot be halved {len(self.channels) - 1} times"
            )
        if self.lookahead_frames < 0:
            raise ValueError("lookahead_frames must not be negative")

    @property
    def lookahead_ms(self) -> float:
        """Future that the net waits for."""
        return 1000.0 * self.lookahead_frames / self.mel.frame_rate


@dataclass
class MelEnhancerState(State):
    """What a stream remembers between chunks of mel."""

    pasts: list[Tensor]
    """(B, C, 2, H) inputs that each convolution saw last."""
    memory: Tensor
    """(B, 1, D) of the recurrent layer."""
    waiting: Tensor
    """(B, at most lookahead_frames, M) frames that are not enhanced yet."""
    num_early: int
    """Frames still to come that lie before the first."""


class _Conv(nn.Module):
    """Norm over channels, activation, and a convolution that looks back in time."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.conv = nn.Conv2d(
            in_channels, out_channels, (_PAST + 1, 3), stride=(1, stride), padding=(0, 1)
        )

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T, H) to (B, C', T, H / stride), and the next `past`."""
        x = functional.silu(self.norm(x.movedim(1, -1))).movedim(-1, 1)
        joined = torch.cat([past.to(x.dtype), x], dim=2)
        return self.conv(joined), joined[:, :, -_PAST:]


class MelEnhancer(nn.Module):
    """Mel (B, T, M) of noisy speech to that of clean speech (B, T, M), both natural log."""

    def __init__(self, config: MelEnhancerConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.first = nn.Conv2d(1, widths[0], (1, 3), padding=(0, 1))
        convs, sizes = [], []
        bins = config.mel.num_mels
        for narrow, wide in zip(widths, widths[1:], strict=False):
            convs.append(_Conv(narrow, wide, stride=2))
            sizes.append((narrow, bins))
            bins = (bins + 1) // 2
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1], strict=True):
            convs.append(_Conv(wide + narrow, narrow))
        for (narrow, size), wide in zip(sizes[::-1], widths[:0:-1], strict=True):
            sizes.append((wide + narrow, size))
        self.convs = cast("Sequence[_Conv]", nn.ModuleList(convs))
        self._sizes = sizes
        bottom = widths[-1] * bins
        self.squeeze = nn.Linear(bottom, config.dim)
        self.recurrent = nn.GRU(config.dim, config.dim, batch_first=True)
        self.spread = nn.Linear(config.dim, bottom)
        self.last = nn.Conv2d(widths[0], 1, (1, 3), padding=(0, 1))
        # An untrained net leaves the mel as it is.
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def init_state(self, batch_size: int) -> MelEnhancerState:
        """State before the first frame."""
        config, weight = self.config, self.squeeze.weight
        return MelEnhancerState(
            pasts=[
                weight.new_zeros(batch_size, channels, _PAST, bins)
                for channels, bins in self._sizes
            ],
            memory=weight.new_zeros(batch_size, 1, config.dim),
            waiting=weight.new_zeros(batch_size, 0, config.mel.num_mels),
            num_early=config.lookahead_frames,
        )

    def forward(self, mel: Tensor, state: MelEnhancerState | None = None) -> Tensor:
        """The clean mel of `mel`.

        Args:
            mel: (B, T, M) natural log mel, whole, or with `state` the next piece.
            state: advanced in place; the last `lookahead_frames` frames wait in it.

        Returns:
            (B, T, M), with a state shorter or longer by what waits.
        """
        if state is not None:
            return self._enhance(mel, state)
        state = self.init_state(mel.shape[0])
        return torch.cat([self._enhance(mel, state), self.flush(state)], dim=1)

    def flush(self, state: MelEnhancerState) -> Tensor:
        """The frames that wait at the end of a stream, with frames of average level behind."""
        count, waiting = state.waiting.shape[1], state.waiting
        padding = torch.full_like(waiting[:, :1].expand(-1, count, -1), self.config.mel_mean)
        if count == 0:
            return waiting
        # Early frames of a stream shorter than the look-ahead still have to pass.
        early = padding.new_full(
            (padding.shape[0], state.num_early, padding.shape[2]), self.config.mel_mean
        )
        out = self._enhance(torch.cat([padding, early], dim=1), state)[:, :count]
        state.waiting = waiting[:, :0]
        return out

    def _enhance(self, mel: Tensor, state: MelEnhancerState) -> Tensor:
        if mel.shape[1] == 0:
            return mel
        config = self.config
        x = self.first(((mel - config.mel_mean) / config.mel_std)[:, None])
        half = len(self.convs) // 2
        skips = []
        for index in range(half):
            skips.append(x)
            x, state.pasts[index] = self.convs[index](x, state.pasts[index])
        x = x + self._remember(x, state)
        for index in range(half, len(self.convs)):
            skip = skips.pop()
            x = x.repeat_interleave(2, dim=3)[..., : skip.shape[3]]
            joined = torch.cat([x, skip], dim=1)
            x, state.pasts[index] = self.convs[index](joined, state.pasts[index])
        change = self.last(functional.silu(x))[:, 0].float()
        early = min(state.num_early, change.shape[1])
        state.num_early -= early
        change = change[:, early:]
        joined = torch.cat([state.waiting.to(mel.dtype), mel], dim=1)
        state.waiting = joined[:, change.shape[1] :]
        return joined[:, : change.shape[1]] + config.mel_std * change

    def _remember(self, x: Tensor, state: MelEnhancerState) -> Tensor:
        batch, channels, frames, bins = x.shape
        hidden = self.squeeze(x.movedim(2, 1).reshape(batch, frames, channels * bins))
        memory = state.memory.transpose(0, 1).contiguous().to(hidden.dtype)
        hidden, memory = self.recurrent(hidden, memory)
        state.memory = memory.transpose(0, 1)
        return self.spread(hidden).view(batch, frames, channels, bins).movedim(1, 2)
