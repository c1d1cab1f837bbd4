"""Was it meant for us? Speech that is directed at a device, told from other speech by its sound.

A streaming attention encoder: the sound is cut into chunks of S frames, and a frame sees its own
chunk and the one before, blocks of 2S that overlap by S. What it gives is pooled by attention over
all that was heard so far, so that there is an answer at any time. The mask of training is that of
the stream.

Shapes: B batch, S samples, T frames of the encoder (one for 40 ms), D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tokenlm.audio.fbank import FbankConfig, KaldiFbank
from tokenlm.modules.attention import Transformer, TransformerState
from tokenlm.modules.conformer import valid_mask
from tokenlm.modules.streaming import Context, State

_STACK = 4
"""Frames of 10 ms in one of the encoder."""
_MEAN_ENERGY, _ENERGY_SPREAD = -7.0, 4.0


def directedness_fbank() -> FbankConfig:
    """Energies that the net sees."""
    return FbankConfig(num_mels=40, fmin=60.0, fmax=7600.0)


@dataclass(frozen=True, kw_only=True)
class AcousticDirectednessConfig:
    """Sizes of an `AcousticDirectedness`."""

    fbank: FbankConfig = field(default_factory=directedness_fbank)
    dim: int = 96
    num_layers: int = 4
    num_heads: int = 4
    expansion: float = 2.0
    dropout: float = 0.1
    shift_frames: int = 32
    """S: frames of a chunk, half of a block."""

    def __post_init__(self) -> None:
        if self.shift_frames < 1:
            raise ValueError(f"shift_frames must be at least 1, got {self.shift_frames}")

    @property
    def context(self) -> Context:
        """What a frame sees: blocks of 2S with an overlap of S."""
        return Context(chunk_frames=self.shift_frames, left_frames=self.shift_frames)


@dataclass
class DirectednessState(State):
    """What a stream remembers."""

    samples: Tensor
    """(B, any) that later frames see."""
    frames: Tensor
    """(B, any, num_mels) that wait for a whole chunk."""
    encoder: TransformerState
    largest: Tensor
    """(B,) largest attention score so far."""
    weight: Tensor
    """(B,) sum of the exponentials of the scores, less the largest."""
    pooled: Tensor
    """(B, D) sum of what was heard, so weighted."""


class AcousticDirectedness(nn.Module):
    """Waveform at 16 kHz to the logit that it is directed at the device."""

    def __init__(self, config: AcousticDirectednessConfig) -> None:
        super().__init__()
        self.config = config
        self.fbank = KaldiFbank(config.fbank)
        self.embed = nn.Linear(_STACK * config.fbank.num_mels, config.dim)
        self.encoder = Transformer(
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            expansion=config.expansion,
            dropout=config.dropout,
        )
        self.attention = nn.Linear(config.dim, 1)
        self.head = nn.Linear(config.dim, 1)

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames of the encoder of waveforms with these numbers of samples."""
        return self.fbank.num_frames(num_samples) // _STACK

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B,) of whole recordings.

        Args:
            waveform: (B, S).
            lengths: (B,) valid samples, each of 65 ms or more.
        """
        energies = self.fbank(waveform, lengths)
        hidden = self._embedded(energies[:, : energies.shape[1] // _STACK * _STACK])
        mask = valid_mask(self.num_frames(lengths), hidden.shape[1])
        hidden = self.encoder(hidden, self.config.context, mask=mask)
        scores = self.attention(hidden)[..., 0].masked_fill(~mask, -torch.inf)
        pooled = (scores.softmax(dim=1)[..., None] * hidden).sum(dim=1)
        return self.head(pooled)[:, 0]

    def init_state(self, batch_size: int) -> DirectednessState:
        """State before the first sample."""
        weight = self.embed.weight
        return DirectednessState(
            samples=weight.new_zeros(batch_size, 0),
            frames=weight.new_zeros(batch_size, 0, self.config.fbank.num_mels),
            encoder=self.encoder.init_state(batch_size),
            largest=weight.new_full((batch_size,), -torch.inf),
            weight=weight.new_zeros(batch_size),
            pooled=weight.new_zeros(batch_size, self.config.dim),
        )

    def push(self, waveform: Tensor, state: DirectednessState, *, flush: bool = False) -> None:
        """Takes the next samples (B, S); with `flush` the last chunk may be short."""
        joined = torch.cat([state.samples, waveform], dim=1)
        energies = self.fbank(joined)
        state.samples = joined[:, energies.shape[1] * self.config.fbank.hop_length :]
        frames = torch.cat([state.frames, energies], dim=1)
        size = _STACK if flush else _STACK * self.config.shift_frames
        whole = frames.shape[1] // size * size
        state.frames = frames[:, whole:]
        for piece in frames[:, :whole].split(_STACK * self.config.shift_frames, dim=1):
            if piece.shape[1]:
                hidden = self._embedded(piece)
                self._pool(self.encoder(hidden, self.config.context, state.encoder), state)

    def logit(self, state: DirectednessState) -> Tensor:
        """Logits (B,) of what has been heard; NaN before the first chunk."""
        return self.head(state.pooled / state.weight[:, None])[:, 0]

    def _pool(self, hidden: Tensor, state: DirectednessState) -> None:
        scores = self.attention(hidden)[..., 0]
        largest = torch.maximum(state.largest, scores.amax(dim=1))
        kept = (state.largest - largest).exp()
        weights = (scores - largest[:, None]).exp()
        state.weight = state.weight * kept + weights.sum(dim=1)
        state.pooled = state.pooled * kept[:, None] + (weights[..., None] * hidden).sum(dim=1)
        state.largest = largest

    def _embedded(self, energies: Tensor) -> Tensor:
        scaled = (energies - _MEAN_ENERGY) / _ENERGY_SPREAD
        return self.embed(scaled.unflatten(1, (-1, _STACK)).flatten(2))


DIRECTED, OVERHEARD, NON_VOCATIVE = "directed", "overheard", "non_vocative"
USES = (DIRECTED, OVERHEARD, NON_VOCATIVE)
"""Uses of a phrase: calls the device; said by others to others; no call at all."""
_ALPHABET = " 'abcdefghijklmnopqrstuvwxyz,.?!"


@dataclass(frozen=True, kw_only=True)
class TextDirectednessConfig:
    """Sizes of a `TextDirectedness`."""

    dim: int = 64
    num_layers: int = 3
    num_heads: int = 4
    expansion: float = 2.0
    dropout: float = 0.1
    max_characters: int = 256


class TextDirectedness(nn.Module):
    """What a recogniser wrote to log-probabilities of `USES`."""

    def __init__(self, config: TextDirectednessConfig) -> None:
        super().__init__()
        self.config = config
        self.characters = nn.Embedding(len(_ALPHABET) + 1, config.dim)
        self.encoder = Transformer(
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            expansion=config.expansion,
            dropout=config.dropout,
        )
        self.head = nn.Linear(config.dim, len(USES))

    def encode(self, text: str) -> list[int]:
        """Numbers, 1 and up, of the characters of a text; others are left out."""
        known = "".join(c for c in " ".join(text.lower().split()) if c in _ALPHABET)
        cut = " ".join(known.split())[: self.config.max_characters]
        return [_ALPHABET.index(c) + 1 for c in cut]

    def forward(self, characters: Tensor) -> Tensor:
        """(B, L) numbers, 0 where padded, to log-probabilities (B, len(USES))."""
        mask = characters > 0
        hidden = self.encoder(self.characters(characters), mask=mask) * mask[..., None]
        mean = hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return self.head(mean).log_softmax(dim=-1)

    @torch.inference_mode()
    def classify(self, text: str) -> dict[str, float]:
        """Probabilities of `USES` of a text; equal where it has no letters."""
        numbers = self.encode(text)
        if not numbers:
            return dict.fromkeys(USES, 1 / len(USES))
        return dict(zip(USES, self(torch.tensor([numbers]))[0].exp().tolist(), strict=True))
