"""Speech tokenizer: the first half of a speech recogniser, ending in a finite scalar quantizer.

Shapes: B batch, S samples, T mel frames (100 a second), N tokens (25 a second), D channels,
C digits of a code. The design follows CosyVoice 2 (Du et al., 2024, section 2.2): supervised
semantic tokens, trained by recognising text through the quantizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.audio.mel import MelConfig, MelSpectrogram
from tokenlm.models.fingerprint import fingerprint
from tokenlm.modules.attention import Transformer
from tokenlm.modules.exact import to_float64
from tokenlm.modules.quantizer import FiniteScalarQuantizer

FRAMES_PER_TOKEN = 4
"""Mel frames of one token: two convolutions of stride 2."""


def analysis_mel() -> MelConfig:
    """The 16 kHz log-mel, 100 frames a second, that recognition and speaker models listen to."""
    return MelConfig(
        sample_rate=16_000, n_fft=512, win_length=400, hop_length=160, num_mels=80, fmax=8000.0
    )


@dataclass(frozen=True, kw_only=True)
class SpeechTokenizerConfig:
    """Sizes of a `SpeechTokenizer`."""

    mel: MelConfig = field(default_factory=analysis_mel)
    dim: int = 192
    num_heads: int = 4
    num_layers: int = 3
    expansion: float = 4.0
    dropout: float = 0.0
    levels: tuple[int, ...] = (5, 5, 5, 5)
    """Levels of each digit of the quantizer; their product is the codebook size."""
    window_seconds: float = 20.0
    """Longer recordings are encoded in windows of this length."""
    overlap_seconds: float = 2.0
    """Overlap of neighbouring windows, of which each gives up half."""

    def __post_init__(self) -> None:
        if self.mel.frame_rate % FRAMES_PER_TOKEN:
            raise ValueError(f"mel frame rate {self.mel.frame_rate} is not a multiple of 4")
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels must be at least 3 each, got {self.levels}")
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
    def codebook_size(self) -> int:
        """Number of codes."""
        size = 1
        for level in self.levels:
            size *= level
        return size


def normalize_level(mel: Tensor, lengths: Tensor) -> Tensor:
    """Removes the mean over time of each bin of a log-mel and scales by the common deviation.

    Recording level and the colour of a microphone are constant offsets of a log-mel; without them
    a recogniser learns several times faster.

    Args:
        mel: (B, T, num_mels) natural log.
        lengths: (B,) valid frames.

    Returns:
        (B, T, num_mels), zero where invalid.
    """
    frames = torch.arange(mel.shape[1], device=mel.device)
    mask = (frames[None] < lengths[:, None])[..., None]
    count = lengths.clamp(min=1)[:, None, None].to(mel.dtype)
    mean = (mel * mask).sum(dim=1, keepdim=True) / count
    centred = (mel - mean) * mask
    variance = centred.square().sum(dim=(1, 2), keepdim=True) / (count * mel.shape[2])
    return centred / (variance + 1e-4).sqrt()


class SpeechTokenizer(nn.Module):
    """Waveform at 16 kHz to speech tokens, 25 a second."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(config.mel)
        self.conv1 = nn.Conv1d(config.mel.num_mels, config.dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(config.dim, config.dim, 3, stride=2, padding=1)
        self.encoder = Transformer(
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            expansion=config.expansion,
            dropout=config.dropout,
        )
        self.quantizer = FiniteScalarQuantizer(config.dim, config.levels)

    @property
    def fingerprint(self) -> str:
        """Hash of the configuration and weights; whatever is made of tokens carries it."""
        return fingerprint(self.config, self.state_dict())

    def forward(
        self,
        waveform: Tensor,
        lengths: Tensor,
        blend: float = 1.0,
        spectrum_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Code vectors of whole utterances, for training.

        Args:
            waveform: (B, S) at the sample rate of the mel.
            lengths: (B,) valid samples.
            blend: see `FiniteScalarQuantizer`.
            spectrum_mask: bool (B, T, M), True where the mel spectrogram is not hidden from the
                encoder; None hides nothing.

        Returns:
            Code vectors (B, N, C), what the quantizer saw (B, N, D), and the number of valid
            tokens (B,), one for each whole `samples_per_token` samples.
        """
        hidden, num_tokens = self._encode(waveform, lengths, spectrum_mask)
        return self.quantizer(hidden, blend), hidden, num_tokens

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
        samples = self.config.samples_per_token
        if lengths is None:
            lengths = torch.full((waveform.shape[0],), waveform.shape[1], device=waveform.device)
        if int(lengths.min()) < samples:
            raise ValueError(f"a waveform is shorter than one token ({samples} samples)")
        window = self._window_tokens * samples
        if waveform.shape[1] <= window:
            hidden, num_tokens = self._encode(waveform, lengths)
            return self.quantizer.encode(hidden), num_tokens
        return self._encode_windows(waveform, lengths)

    @property
    def _window_tokens(self) -> int:
        return int(self.config.window_seconds * self.config.token_rate)

    def _encode(
        self, waveform: Tensor, lengths: Tensor, spectrum_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        num_tokens = lengths // self.config.samples_per_token
        total = int(num_tokens.max())
        frames = num_tokens * FRAMES_PER_TOKEN
        mel = self.mel(waveform, lengths)[:, : total * FRAMES_PER_TOKEN]
        hidden = normalize_level(mel, frames)
        if spectrum_mask is not None:
            hidden = hidden * spectrum_mask
        hidden = functional.gelu(self.conv1(hidden.transpose(1, 2)))
        halves = torch.arange(hidden.shape[2], device=waveform.device)
        # Padded frames are zero before each convolution, as they are for an utterance alone.
        hidden = hidden * (halves[None] < (frames // 2)[:, None])[:, None]
        hidden = functional.gelu(self.conv2(hidden)).transpose(1, 2)
        mask = torch.arange(total, device=waveform.device)[None] < num_tokens[:, None]
        return self.encoder(hidden, mask=None if bool(mask.all()) else mask), num_tokens

    def _encode_windows(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        samples = self.config.samples_per_token
        window = self._window_tokens
        margin = int(self.config.overlap_seconds * self.config.token_rate) // 2
        num_tokens = lengths // samples
        rows = []
        for item, count in zip(waveform, num_tokens.tolist(), strict=True):
            pieces, position = [], 0
            while position < count:
                # The last window is as long as the others: level is judged over a window.
                start = max(min(position - margin, count - window), 0)
                end = min(start + window, count)
                stop = end if end == count else end - margin
                part = item[None, start * samples : end * samples]
                hidden, _ = self._encode(part, torch.tensor([part.shape[1]], device=part.device))
                pieces.append(self.quantizer.encode(hidden)[0, position - start : stop - start])
                position = stop
            rows.append(torch.cat(pieces))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), num_tokens


def codebook_usage(tokens: Tensor, codebook_size: int) -> dict[str, float]:
    """Share of codes used, and perplexity over codebook size, of tokens of any shape."""
    counts = to_float64(torch.bincount(tokens.flatten(), minlength=codebook_size))
    share = counts / counts.sum().clamp(min=1)
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return {
        "codebook_utilisation": float((counts > 0).double().mean()),
        "codebook_perplexity": float(entropy.exp()),
        "relative_perplexity": float(entropy.exp() / codebook_size),
    }
