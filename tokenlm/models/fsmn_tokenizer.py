"""Speech tokenizer of CosyVoice 2: attention with a memory of its neighbourhood, then FSQ.

Shapes: B batch, S samples, T mel frames (100 a second), N tokens (25 a second), D channels,
C digits of a code. The encoder is that of a recogniser; the memory (FSMN, Zhang et al., 2015) is a
depthwise convolution over the values of the attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.audio.mel import WhisperMel, WhisperMelConfig
from tokenlm.models.fingerprint import fingerprint
from tokenlm.modules.attention import rotary_table, rotate

FRAMES_PER_TOKEN = 4
"""Mel frames of one token: two convolutions of stride 2."""
NUM_LEVELS = 3
"""Levels of a digit."""

# Just below 1, as float32 has it, so that tanh never reaches a level that is none.
_BOUND = 0.9990000128746033


@dataclass(frozen=True, kw_only=True)
class FSMNTokenizerConfig:
    """Sizes of an `FSMNTokenizer`; the defaults are those of CosyVoice 2."""

    mel: WhisperMelConfig = field(default_factory=WhisperMelConfig)
    dim: int = 1280
    num_heads: int = 20
    num_layers: int = 6
    expansion: int = 4
    kernel_size: int = 31
    """Of the memory."""
    num_digits: int = 8
    rope_theta: float = 10_000.0
    """Base of the wavelengths of the rotary positions."""
    window_seconds: float = 30.0
    """Longer recordings are encoded in windows of this length."""
    overlap_seconds: float = 4.0
    """Overlap of neighbouring windows, of which each gives up half."""

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"dim {self.dim} does not split into {self.num_heads} even heads")
        if not 0 <= self.overlap_seconds < self.window_seconds / 2:
            raise ValueError("overlap_seconds must be less than half of window_seconds")

    @property
    def token_rate(self) -> int:
        """Tokens per second."""
        return round(self.mel.frame_rate / FRAMES_PER_TOKEN)

    @property
    def samples_per_token(self) -> int:
        """Samples of one token."""
        return self.mel.hop_length * FRAMES_PER_TOKEN

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of each digit."""
        return (NUM_LEVELS,) * self.num_digits

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return NUM_LEVELS**self.num_digits


def pack_digits(digits: Tensor) -> Tensor:
    """Numbers (…) of codes whose digits (…, C) are -1, 0 or 1, the least significant first."""
    weights = NUM_LEVELS ** torch.arange(digits.shape[-1], device=digits.device)
    return ((digits.round().long() + 1) * weights).sum(dim=-1)


def tokens_of_frames(num_frames: Tensor) -> Tensor:
    """Tokens of these numbers of mel frames: two convolutions of stride 2 with a zero around."""
    halved = (num_frames + 1) // 2
    return (halved + 1) // 2


def encode_in_windows(
    encode: Callable[[Tensor], Tensor],
    waveform: Tensor,
    *,
    samples_per_token: int,
    window_tokens: int,
    margin_tokens: int,
) -> Tensor:
    """Tokens (N,) of a recording (S,) of any length, from windows that overlap.

    Args:
        encode: gives tokens (N,) of at most `window_tokens` tokens of samples.
        waveform: the recording.
        samples_per_token: samples of one token.
        window_tokens: size of a window.
        margin_tokens: dropped from each window where the next one overlaps.
    """
    window = window_tokens * samples_per_token
    if waveform.shape[0] <= window:
        return encode(waveform)
    count = waveform.shape[0] // samples_per_token
    pieces, position = [], 0
    while position < count:
        # The last window is as long as the others.
        start = max(min(position - margin_tokens, count - window_tokens), 0)
        end = min(start + window_tokens, count)
        stop = end if end == count else end - margin_tokens
        part = encode(waveform[start * samples_per_token : end * samples_per_token])
        pieces.append(part[position - start : stop - start])
        position = stop
    return torch.cat(pieces)


class _Attention(nn.Module):
    def __init__(self, config: FSMNTokenizerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        size = config.kernel_size
        self.memory = nn.Conv1d(dim, dim, size, padding=size // 2, groups=dim, bias=False)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)
        kept = value * mask[..., None]
        remembered = (self.memory(kept.transpose(1, 2)).transpose(1, 2) + kept) * mask[..., None]
        query, key, value = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        attended = functional.scaled_dot_product_attention(
            rotate(query, table), rotate(key, table), value, attn_mask=mask[:, None, None]
        )
        return self.out(attended.transpose(1, 2).flatten(2)) + remembered


class _Block(nn.Module):
    def __init__(self, config: FSMNTokenizerConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.dim * config.expansion
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attention = _Attention(config)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), table, mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class FSMNTokenizer(nn.Module):
    """Waveform at 16 kHz to speech tokens, 25 a second."""

    def __init__(self, config: FSMNTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = WhisperMel(config.mel)
        dim = config.dim
        self.conv1 = nn.Conv1d(config.mel.num_mels, dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        blocks = [_Block(config) for _ in range(config.num_layers)]
        self.blocks = cast("Sequence[_Block]", nn.ModuleList(blocks))
        self.project = nn.Linear(dim, config.num_digits)

    @property
    def fingerprint(self) -> str:
        """Hash of the configuration and weights; whatever is made of tokens carries it."""
        return fingerprint(self.config, self.state_dict())

    def forward(self, mel: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states of mels.

        Args:
            mel: (B, T, num_mels).
            num_frames: (B,) valid frames.

        Returns:
            (B, N, D) and the number of valid tokens (B,).
        """
        x = mel.transpose(1, 2)
        for conv in (self.conv1, self.conv2):
            frames = torch.arange(x.shape[2], device=x.device)
            x = functional.gelu(conv(x * (frames < num_frames[:, None])[:, None]))
            num_frames = (num_frames + 1) // 2
        x = x.transpose(1, 2)
        positions = torch.arange(x.shape[1], device=x.device)
        mask = positions < num_frames[:, None]
        head_dim = self.config.dim // self.config.num_heads
        table = rotary_table(positions, head_dim, self.config.rope_theta)
        for block in self.blocks:
            x = block(x, table, mask)
        return x, num_frames

    def digits(self, hidden: Tensor) -> Tensor:
        """What is rounded to the digits (B, N, C) of a code: numbers in -1 … 1."""
        return self.project(hidden).tanh() * _BOUND

    def tokens_of_mel(self, mel: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N) of mels (B, T, num_mels), and the number of valid ones (B,)."""
        hidden, num_tokens = self(mel, num_frames)
        return pack_digits(self.digits(hidden)), num_tokens

    @torch.inference_mode()
    def encode(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Speech tokens of recordings of any length.

        Args:
            waveform: (B, S) at the sample rate of the mel.
            lengths: (B,) valid samples; all of them when left out.

        Returns:
            Tokens (B, N) and the number of valid ones (B,).

        Raises:
            ValueError: a waveform is shorter than one token.
        """
        return encode_recordings(self._encode_one, self.config, waveform, lengths)

    def _encode_one(self, waveform: Tensor) -> Tensor:
        mel = self.mel(waveform[None])
        frames = torch.tensor([mel.shape[1]], device=mel.device)
        return self.tokens_of_mel(mel, frames)[0][0]


class WindowSizes(Protocol):
    """What `encode_recordings` asks of a config."""

    @property
    def samples_per_token(self) -> int:
        """Samples of one token."""
        ...

    @property
    def token_rate(self) -> int:
        """Tokens per second."""
        ...

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        ...

    @property
    def overlap_seconds(self) -> float:
        """Overlap of neighbouring windows."""
        ...


def encode_recordings(
    encode: Callable[[Tensor], Tensor],
    config: WindowSizes,
    waveform: Tensor,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Tokens (B, N) of recordings (B, S), and the number of valid ones (B,), one by one.

    Args:
        encode: gives tokens (N,) of samples (S,) no longer than a window.
        config: sizes of the windows.
        waveform: at the sample rate of the mel.
        lengths: (B,) valid samples; all of them when left out.

    Raises:
        ValueError: a waveform is shorter than one token.
    """
    samples = config.samples_per_token
    sizes = [waveform.shape[1]] * waveform.shape[0] if lengths is None else lengths.tolist()
    if min(sizes) < samples:
        raise ValueError(f"a waveform is shorter than one token ({samples} samples)")
    rows = [
        encode_in_windows(
            encode,
            item[:size],
            samples_per_token=samples,
            window_tokens=int(config.window_seconds * config.token_rate),
            margin_tokens=int(config.overlap_seconds * config.token_rate) // 2,
        )
        for item, size in zip(waveform, sizes, strict=True)
    ]
    counts = torch.tensor([row.shape[0] for row in rows], device=waveform.device)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), counts
