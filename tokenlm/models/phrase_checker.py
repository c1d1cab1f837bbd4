"""Phrase checker: a recording to phones by CTC, and to whether given phrases are in it.

A conformer encoder with a CTC layer over phones, so that any phrase can be tried without training;
phrases that it was trained on have a branch of two units each, learned together with CTC on little
data. An attention decoder helps the training and is no part of what is exported.

Shapes: B batch, S samples, T frames of the encoder (25 per second), U phone places (2 T), P phones,
R phrases, L phones of a text, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.audio.fbank import FbankConfig, KaldiFbank
from tokenlm.modules.conformer import Conformer, valid_mask

PLACES_PER_FRAME = 2
"""Outputs of the CTC layer at each frame; quick speech has more phones than frames."""
_SUBSAMPLING = 4
_LEVEL_SPREAD = 3.0
"""Spread of log energies; divides them."""


def checker_fbank() -> FbankConfig:
    """Energies that the checker sees."""
    return FbankConfig(num_mels=40, fmin=60.0, fmax=7600.0)


@dataclass(frozen=True, kw_only=True)
class PhraseCheckerConfig:
    """Sizes of a `PhraseChecker`."""

    fbank: FbankConfig = field(default_factory=checker_fbank)
    phones: tuple[str, ...] = ()
    """Phones in the order of the outputs of the CTC layer, after its blank."""
    phrases: tuple[str, ...] = ()
    """Phrases that have a discriminative branch."""
    dim: int = 96
    num_layers: int = 4
    num_heads: int = 4
    expansion: float = 2.0
    kernel_size: int = 11
    dropout: float = 0.1
    num_decoder_layers: int = 0
    """Layers of the attention decoder; only training has any."""
    max_phones: int = 512
    """Longest text that the attention decoder writes."""

    def __post_init__(self) -> None:
        for name in ("phones", "phrases"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} has one of them twice")


class PhraseChecker(nn.Module):
    """Waveform at 16 kHz to log-probabilities of phones and of phrases."""

    def __init__(self, config: PhraseCheckerConfig) -> None:
        super().__init__()
        self.config = config
        self.fbank = KaldiFbank(config.fbank)
        self.embed = nn.Sequential(
            nn.Conv1d(config.fbank.num_mels, config.dim, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(config.dim, config.dim, 5, stride=2, padding=2),
        )
        self.encoder = Conformer(
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            expansion=config.expansion,
            kernel_size=config.kernel_size,
            dropout=config.dropout,
        )
        self.ctc = nn.Linear(config.dim, PLACES_PER_FRAME * (len(config.phones) + 1))
        if config.phrases:
            self.branch = nn.Linear(config.dim, 2 * len(config.phrases))
        if config.num_decoder_layers:
            vocabulary = len(config.phones) + 1
            self.phone_embedding = nn.Embedding(vocabulary, config.dim)
            self.position_embedding = nn.Embedding(config.max_phones + 1, config.dim)
            self.decoder = nn.TransformerDecoder(
                nn.TransformerDecoderLayer(
                    config.dim,
                    config.num_heads,
                    int(config.dim * config.expansion),
                    config.dropout,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                ),
                config.num_decoder_layers,
                norm=nn.LayerNorm(config.dim),
            )
            self.phone_head = nn.Linear(config.dim, vocabulary)

    @property
    def place_seconds(self) -> float:
        """Seconds from one place of the CTC layer to the next."""
        return _SUBSAMPLING / PLACES_PER_FRAME / self.config.fbank.frame_rate

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames of the encoder of waveforms with these numbers of samples."""
        return -(-self.fbank.num_frames(num_samples) // _SUBSAMPLING)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states.

        Args:
            waveform: (B, S) at 16 kHz; at least one of them has a whole frame of 25 ms.
            lengths: (B,) valid samples.

        Returns:
            (B, T, D), and the mask (B, T), True where valid.
        """
        energies = self.fbank(waveform, lengths)
        frames = self.fbank.num_frames(lengths)
        mask = valid_mask(frames, energies.shape[1])[..., None].to(energies.dtype)
        # The mean over the recording takes level and channel away.
        mean = (energies * mask).sum(1, keepdim=True) / frames.clamp(min=1)[:, None, None]
        features = (energies - mean) * mask / _LEVEL_SPREAD
        hidden = self.embed(features.transpose(1, 2)).transpose(1, 2)
        valid = valid_mask(self.num_frames(lengths), hidden.shape[1])
        return self.encoder(hidden * valid[..., None], valid), valid

    def phone_log_probs(self, hidden: Tensor) -> Tensor:
        """CTC log-probabilities (B, U, P + 1) of hidden states (B, T, D), blank first."""
        logits = self.ctc(hidden).unflatten(2, (PLACES_PER_FRAME, -1)).flatten(1, 2)
        return logits.log_softmax(dim=-1)

    def phrase_log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (B, T, R, 2) of the two units of each phrase at each frame.

        The first unit says that the phrase is there, the second that it is not. A recording has
        the phrase where the first is large at one frame (the maximum over time counts), and lacks
        it where the second is large at all of them (their sum counts); see `branch_loss`.

        Raises:
            ValueError: the checker was built without phrases.
        """
        if not self.config.phrases:
            raise ValueError("this phrase checker was trained on no phrases")
        return self.branch(hidden).unflatten(2, (-1, 2)).log_softmax(dim=-1)

    def decode_logits(self, hidden: Tensor, phones: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, L + 1, P + 1) of the attention decoder, teacher-forced.

        Args:
            hidden: (B, T, D) of `forward`.
            phones: (B, L) indices, 0 where padded and at the end.
            mask: (B, T) True where `hidden` is valid.
        """
        shifted = functional.pad(phones, (1, 0))
        positions = torch.arange(shifted.shape[1], device=phones.device)
        x = self.phone_embedding(shifted) + self.position_embedding(positions)
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        decoded = self.decoder(
            x, hidden, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=~mask
        )
        return self.phone_head(decoded)

    def without_decoder(self) -> PhraseChecker:
        """A copy without the attention decoder."""
        smaller = PhraseChecker(replace(self.config, num_decoder_layers=0))
        kept = smaller.state_dict().keys()
        smaller.load_state_dict({k: v for k, v in self.state_dict().items() if k in kept})
        return smaller


def spot_ctc(log_probs: np.ndarray, units: Sequence[int]) -> tuple[float, list[tuple[int, int]]]:
    """How likely units are said anywhere on a CTC path, and where (Viterbi).

    What lies before and behind them is free: it is read as whatever is most likely there.

    Args:
        log_probs: (U, P + 1) of each place, blank first.
        units: indices, 1 and up, at least one.

    Returns:
        The log-probability of the best path that has the units in a row, less that of the best path
        at all (0 where that has them already); and for each unit the first place that shows it and
        the one behind the last. Minus infinity and no places where there are too few.
    """
    num_places, num_units = log_probs.shape[0], len(units)
    # States: what is before, then the units with blanks between them, then what is behind.
    labels = np.zeros(2 * num_units - 1, dtype=np.int64)
    labels[::2] = units
    free = log_probs.max(axis=1)
    gains = np.zeros((num_places, len(labels) + 2))
    gains[:, 1:-1] = log_probs[:, labels] - free[:, None]
    may_skip = np.zeros(len(labels) + 2, dtype=bool)
    may_skip[3:-1:2] = labels[2::2] != labels[:-2:2]
    best = np.full(len(labels) + 2, -np.inf)
    best[0] = 0.0
    best[1] = gains[0, 1] if num_places else -np.inf
    steps = np.zeros((num_places, len(best)), dtype=np.int8)
    arrivals = np.full((3, len(best)), -np.inf)
    for place in range(1, num_places):
        arrivals[0] = best
        arrivals[1, 1:] = best[:-1]
        arrivals[2, 2:] = np.where(may_skip[2:], best[:-2], -np.inf)
        steps[place] = arrivals.argmax(axis=0)
        best = arrivals.max(axis=0) + gains[place]
    state = len(best) - 1 if best[-1] >= best[-2] else len(best) - 2
    score = float(best[state])
    if score == -np.inf:
        return score, []
    spans = [(0, 0)] * num_units
    for place in range(num_places - 1, -1, -1):
        if state % 2 and state < len(best) - 1:
            unit = state // 2
            spans[unit] = place, spans[unit][1] or place + 1
        state -= int(steps[place, state])
    return score, spans
