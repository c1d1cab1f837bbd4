"""Vocoder of CosyVoice 2 and 3: a neural source-filter network with an inverse-STFT head.

Shapes: B batch, T mel frames, M mel bins, D channels, S samples. After HiFTNet (Li et al., 2023).
Inside, time is the last axis. The network of CosyVoice 2 looks both ways; a stream waits for what
it looks ahead, and carries what it looks back, so that its chunks are those of the whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.audio.mel import MelConfig
from tokenlm.models.vocoder.snake import SnakeBlock, SnakeState
from tokenlm.models.vocoder.source import HarmonicSource, PitchPredictor, SourceState
from tokenlm.modules.stft import CausalInverseSTFT, OverlapState
from tokenlm.modules.streaming import State, kept
from tokenlm.modules.streaming_conv import (
    AlignState,
    ConvTransposeState,
    SpectrumState,
    StreamingConv1d,
    StreamingConvState,
    StreamingConvTranspose1d,
    StreamingSTFT,
    align,
    empty_alignment,
)

_MAX_MAGNITUDE = 100.0
OVERLAP_FRAMES = 8
WHOLE_FRAMES = 50
"""A longer mel is rendered in pieces of so many frames also as a whole, so that memory stays flat:
for each frame the last stage computes 120 vectors, in two dozen layers."""


@dataclass(frozen=True, kw_only=True)
class HiFTConfig:
    """Sizes of a `HiFT`; the defaults are those of CosyVoice 2."""

    mel: MelConfig = field(default_factory=MelConfig)
    is_causal: bool = False
    """Whether it looks back alone but for its first layers, as in CosyVoice 3."""
    dim: int = 512
    pitch_dim: int = 512
    num_harmonics: int = 9
    """Sines of the source, the fundamental among them."""
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    n_fft: int = 16
    hop_length: int = 4
    block_kernels: tuple[int, ...] = (3, 7, 11)
    source_kernels: tuple[int, ...] = (7, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    sine_level: float = 0.1
    """Amplitude of a harmonic of the source."""
    noise_level: float = 0.003
    """Amplitude of the noise of the source where voiced."""
    voiced_hz: float = 10.0
    """A frame is voiced where its pitch is above this."""
    slope: float = 0.1
    """Of the rectifier before each upsampling, below zero."""
    limit: float = 0.99
    """Greatest amplitude of the waveform."""
    streaming: Literal["exact", "reference"] = "exact"
    """How streams join their chunks: exactly, or by the cross-fade of the reference."""

    def __post_init__(self) -> None:
        samples = self.hop_length
        for rate in self.upsample_rates:
            samples *= rate
        if samples != self.mel.hop_length:
            raise ValueError(
                f"upsample_rates and hop_length make {samples} samples of a frame, the mel has "
                f"{self.mel.hop_length}"
            )
        count = len(self.upsample_rates)
        if len(self.upsample_kernels) != count or len(self.source_kernels) != count:
            raise ValueError("upsample_kernels and source_kernels need one number for each rate")

    @property
    def lookahead_ms(self) -> float:
        """Future that a stream waits for."""
        return 1000.0 * self.lookahead_samples / self.mel.sample_rate

    @property
    def lookahead_samples(self) -> int:
        """The same in samples: that of the longest way from the mel to a sample."""
        hop, half = self.mel.hop_length, self.n_fft // 2
        if self.is_causal:
            return 4 * hop + 2 * half
        pitch_way = 5 * hop + hop // 2 + half
        mel_way, size = 3 * hop, hop
        for rate, kernel, source in zip(
            self.upsample_rates, self.upsample_kernels, self.source_kernels, strict=True
        ):
            size //= rate
            mel_way += (kernel - rate) // 2 * size
            reach = sum(self.dilations) + len(self.dilations)
            joined = pitch_way + size + (source - 1) // 2 * reach * size
            mel_way = max(mel_way, joined) + (max(self.block_kernels) - 1) // 2 * reach * size
        return mel_way + 3 * self.hop_length + half


@dataclass
class StageState(State):
    """What one upsampling stage remembers."""

    upsample: ConvTransposeState | StreamingConvState
    source: StreamingConvState
    source_block: SnakeState
    joined: AlignState
    blocks: list[SnakeState]
    summed: AlignState
    held: Tensor
    """(B, D, any) frames before the first reflected one is known."""


@dataclass
class HiFTState(State):
    """What a stream remembers between chunks of mel."""

    pitch: list[StreamingConvState]
    oscillators: SourceState
    spectrum: SpectrumState
    embed: StreamingConvState
    stages: list[StageState]
    post: StreamingConvState
    overlap: OverlapState
    skip: int
    """Samples at the start that are cut off."""


@dataclass
class CrossFadeState(State):
    """What a cross-faded stream remembers between chunks.

    The reference joins the chunks of its vocoder so: each is rendered with the last frames of the
    one before, as if the sound began there; what depends on the future is wrong at its end and is
    held back. The exact stream has no such seams; this one is for comparison.
    """

    mel: Tensor
    """(B, at most 8, M), the last frames."""
    excitation: Tensor
    """(B, S) of those frames."""
    held: Tensor
    """(B, S), sound that is not given yet."""


class _Stage(nn.Module):
    """Upsampling, the source at the new rate, and the mean of three residual blocks."""

    def __init__(self, config: HiFTConfig, index: int) -> None:
        super().__init__()
        rate, kernel = config.upsample_rates[index], config.upsample_kernels[index]
        in_dim, dim = config.dim >> index, config.dim >> (index + 1)
        self.slope = config.slope
        self.rate, self.is_last = rate, index == len(config.upsample_rates) - 1
        self.upsample: StreamingConvTranspose1d | StreamingConv1d
        if config.is_causal:
            self.upsample = StreamingConv1d.causal(in_dim, dim, kernel)
        else:
            self.upsample = StreamingConvTranspose1d(in_dim, dim, kernel, rate)
        stride = 1
        for later in config.upsample_rates[index + 1 :]:
            stride *= later
        left = stride - 1 if config.is_causal else stride // 2
        self.source = StreamingConv1d(
            config.n_fft + 2,
            dim,
            1 if stride == 1 else 2 * stride,
            left=left,
            right=0 if config.is_causal else stride // 2,
            stride=stride,
        )
        causal = config.is_causal
        self.source_block = SnakeBlock(
            dim, config.source_kernels[index], config.dilations, is_causal=causal
        )
        blocks = [
            SnakeBlock(dim, size, config.dilations, is_causal=causal)
            for size in config.block_kernels
        ]
        self.blocks = cast("Sequence[SnakeBlock]", nn.ModuleList(blocks))

    def init_state(self, batch_size: int) -> StageState:
        like = self.source.conv.weight
        dim = self.source.conv.out_channels
        return StageState(
            upsample=self.upsample.init_state(batch_size),
            source=self.source.init_state(batch_size),
            source_block=self.source_block.init_state(batch_size),
            joined=empty_alignment(like, batch_size, [dim, dim]),
            blocks=[block.init_state(batch_size) for block in self.blocks],
            summed=empty_alignment(like, batch_size, [dim] * len(self.blocks)),
            held=like.new_zeros(batch_size, dim, 0),
        )

    def forward(self, x: Tensor, source: Tensor, state: StageState, *, flush: bool) -> Tensor:
        x = functional.leaky_relu(x, self.slope)
        if isinstance(self.upsample, StreamingConv1d):
            x = x.repeat_interleave(self.rate, dim=2)
        x = self.upsample(x, state.upsample, flush=flush)
        if self.is_last:
            x = self._reflected(x, state)
        source = self.source(source, state.source, flush=flush)
        source = self.source_block(source, state.source_block, flush=flush)
        x, source = align([x, source], state.joined)
        x = x + source
        parts = [
            block(x, past, flush=flush)
            for block, past in zip(self.blocks, state.blocks, strict=True)
        ]
        first, *others = align(parts, state.summed)
        return sum(others, first) / len(parts)

    def _reflected(self, x: Tensor, state: StageState) -> Tensor:
        """Puts the second frame of the sequence before the first; `held` is full once it has."""
        if state.held.shape[2] >= 2:
            return x
        state.held = torch.cat([state.held, x], dim=2)
        if state.held.shape[2] < 2:
            return x[:, :, :0]
        whole = state.held
        state.held = kept(whole[:, :, :2])
        return torch.cat([whole[:, :, 1:2], whole], dim=2)


class HiFT(nn.Module):
    """Mel (B, T, M) to waveform (B, T * hop_length)."""

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.config = config
        num_mels, causal = config.mel.num_mels, config.is_causal
        self.pitch = PitchPredictor(
            num_mels, config.pitch_dim, 3 if causal else None, is_double=causal
        )
        self.source = HarmonicSource(
            sample_rate=config.mel.sample_rate,
            hop_length=config.mel.hop_length,
            num_harmonics=config.num_harmonics,
            interpolation="nearest" if causal else "linear",
            noise="uniform" if causal else "gaussian",
            sine_level=config.sine_level,
            noise_level=config.noise_level,
            voiced_hz=config.voiced_hz,
        )
        self.spectrum = StreamingSTFT(config.n_fft, config.hop_length)
        if causal:
            self.embed = StreamingConv1d(num_mels, config.dim, 5, left=0, right=4)
        else:
            self.embed = StreamingConv1d.centred(num_mels, config.dim, 7)
        stages = [_Stage(config, index) for index in range(len(config.upsample_rates))]
        self.stages = cast("Sequence[_Stage]", nn.ModuleList(stages))
        last = config.dim >> len(stages)
        build = StreamingConv1d.causal if causal else StreamingConv1d.centred
        self.post = build(last, config.n_fft + 2, 7)
        self.inverse = CausalInverseSTFT(config.n_fft, config.hop_length)

    def init_state(self, batch_size: int) -> HiFTState | CrossFadeState:
        """State before the first mel frame, of the kind of stream that the config names."""
        if self.config.streaming == "reference":
            return init_cross_fade(self, batch_size)
        return self.init_exact(batch_size)

    def init_exact(self, batch_size: int) -> HiFTState:
        """State of a stream that equals the whole."""
        return HiFTState(
            pitch=self.pitch.init_state(batch_size),
            oscillators=self.source.init_state(batch_size),
            spectrum=self.spectrum.init_state(batch_size),
            embed=self.embed.init_state(batch_size),
            stages=[stage.init_state(batch_size) for stage in self.stages],
            post=self.post.init_state(batch_size),
            overlap=self.inverse.init_state(batch_size),
            skip=self.config.n_fft // 2,
        )

    def forward(self, mel: Tensor, state: HiFTState | CrossFadeState | None = None) -> Tensor:
        """Waveform of `mel`.

        Args:
            mel: (B, T, M) natural log mel, whole, or with `state` the next piece.
            state: advanced in place; what is not known yet waits in it.

        Returns:
            (B, T * hop_length), with a state shorter or longer by what waits.
        """
        if state is None:
            state = self.init_exact(mel.shape[0])
            *pieces, last = mel.split(WHOLE_FRAMES, dim=1)
            waveforms = [self._render(piece, state, flush=False) for piece in pieces]
            return torch.cat([*waveforms, self._render(last, state, flush=True)], dim=1)
        if isinstance(state, CrossFadeState):
            return cross_fade_step(self, mel, state)
        return self._render(mel, state, flush=False)

    def geometry(self, state: HiFTState | CrossFadeState) -> Hashable:
        """What has to be equal for states to be stacked: the same state, as sizes differ inside."""
        return id(state)

    def flush(self, state: HiFTState | CrossFadeState) -> Tensor:
        """Waveform of what waits at the end of a stream."""
        if isinstance(state, CrossFadeState):
            return state.held
        batch = state.embed.past.shape[0]
        mel = self.embed.conv.weight.new_zeros(batch, 0, self.config.mel.num_mels)
        return self._render(mel, state, flush=True)

    def excite(self, mel: Tensor, state: HiFTState, *, flush: bool) -> Tensor:
        """Excitation (B, S) of the next piece of mel (B, T, M)."""
        pitch = self.pitch(mel.transpose(1, 2), state.pitch, flush=flush)
        return self.source(pitch, state.oscillators, flush=flush)

    def decode(
        self, mel: Tensor, excitation: Tensor, state: HiFTState | None = None, *, flush: bool = True
    ) -> Tensor:
        """Waveform (B, S) of mel (B, T, M) and excitation (B, S), whole or the next piece."""
        state = self.init_exact(mel.shape[0]) if state is None else state
        source = self.spectrum(excitation, state.spectrum, flush=flush)
        x = self.embed(mel.transpose(1, 2), state.embed, flush=flush)
        for stage, past in zip(self.stages, state.stages, strict=True):
            x = stage(x, source, past, flush=flush)
        x = self.post(functional.leaky_relu(x, 0.01), state.post, flush=flush)
        return self._inverse(x.transpose(1, 2).float(), state, flush=flush)

    def _render(self, mel: Tensor, state: HiFTState, *, flush: bool) -> Tensor:
        excitation = self.excite(mel, state, flush=flush)
        if flush and not excitation.shape[1] and not state.spectrum.has_started:
            return excitation.float()  # of no mel at all
        return self.decode(mel, excitation, state, flush=flush)

    def _inverse(self, x: Tensor, state: HiFTState, *, flush: bool) -> Tensor:
        """Spectral frames (B, R, n_fft + 2) to samples; half a frame is cut off at each end."""
        bins, hop = self.config.n_fft // 2 + 1, self.config.hop_length
        samples = x.new_zeros(x.shape[0], 0)
        if x.shape[1]:
            magnitude = x[..., :bins].exp().clamp(max=_MAX_MAGNITUDE)
            phase = x[..., bins:].sin()
            spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
            samples = self.inverse(spectrum, state.overlap)
        if flush:
            size = self.config.n_fft // 2 - hop
            tail = state.overlap.tail[:, :size] / state.overlap.envelope[:, :size].clamp(min=1e-3)
            samples = torch.cat([samples, tail], dim=1)
        skip = min(state.skip, samples.shape[1])
        state.skip -= skip
        return samples[:, skip:].clamp(-self.config.limit, self.config.limit)


def fade_window(num_samples: int) -> Tensor:
    """Rising and falling half (2 * num_samples,) of a cross-fade: a symmetric Hamming window."""
    return torch.hamming_window(2 * num_samples, periodic=False, dtype=torch.float64)


def cross_fade(new: Tensor, old: Tensor) -> Tensor:
    """`new` (B, S) whose start comes in as `old` (B, at most S) goes out."""
    size = old.shape[1]
    window = fade_window(size).to(new.device)
    head = new[:, :size] * window[:size] + old * window[size:]
    return torch.cat([head.to(new.dtype), new[:, size:]], dim=1)


def init_cross_fade(vocoder: HiFT, batch_size: int) -> CrossFadeState:
    """State before the first chunk."""
    weight = vocoder.embed.conv.weight
    empty = weight.new_zeros(batch_size, 0)
    mel = weight.new_zeros(batch_size, 0, vocoder.config.mel.num_mels)
    return CrossFadeState(mel=mel, excitation=empty, held=empty)


def cross_fade_step(
    vocoder: HiFT, mel: Tensor, state: CrossFadeState, *, is_last: bool = False
) -> Tensor:
    """Waveform (B, S) of the next frames (B, T, M), all but what is held for the next chunk.

    Args:
        vocoder: what renders.
        mel: the first of a stream has more frames than overlap.
        state: advanced in place.
        is_last: nothing is held back.

    Raises:
        ValueError: the first frames are too few to hold some back.
    """
    overlap = OVERLAP_FRAMES * vocoder.config.mel.hop_length
    joined = torch.cat([state.mel, mel], dim=1)
    if mel.shape[1] == 0:
        return state.held
    if joined.shape[1] <= OVERLAP_FRAMES and not is_last:
        raise ValueError(
            f"a cross-faded stream starts with more than {OVERLAP_FRAMES} frames, got "
            f"{joined.shape[1]}"
        )
    excitation = vocoder.excite(joined, vocoder.init_exact(joined.shape[0]), flush=True)
    size = state.excitation.shape[1]
    excitation = torch.cat([state.excitation, excitation[:, size:]], dim=1)
    waveform = vocoder.decode(joined, excitation)
    if state.held.shape[1]:
        waveform = cross_fade(waveform, state.held)
    if is_last:
        return waveform
    state.mel = joined[:, -OVERLAP_FRAMES:]
    state.excitation = excitation[:, -overlap:]
    state.held = waveform[:, -overlap:]
    return waveform[:, :-overlap]
