"""Phrase detector: a stream of sound to states of phrases, and the decoder that scores their paths.

A small causal net gives posteriors of states at every 10 ms: three for each phone of a phrase,
silence and background (23 for a phrase of seven phones). A phrase is a chain of its states; dynamic
programming finds the path through it that is most likely beside background and silence. The mean of
the log-ratio over the path is the score, which has a gradient (Shrivastava et al., 2021).

Shapes: B batch, S samples, T frames, K states of a chain, N states of the net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.audio.fbank import FbankConfig, KaldiFbank
from tokenlm.modules.conv import ConvNeXtBlock, ConvState
from tokenlm.modules.streaming import State

STATES_PER_PHONE = 3
FRAMES_PER_STEP = 2
"""Frames that the net takes, and whose states it gives, at once."""
MAX_RATIO = 8.0
"""Largest log-ratio of a state to background and silence that one frame adds, either way."""
_MEAN_ENERGY, _ENERGY_SPREAD = -7.0, 4.0
"""About the mean and spread of log energies of speech at -22 dBFS."""


def detector_fbank() -> FbankConfig:
    """Energies that the detector sees."""
    return FbankConfig(num_mels=40, fmin=60.0, fmax=7600.0)


@dataclass(frozen=True, kw_only=True)
class PhraseDetectorConfig:
    """Sizes of a `PhraseDetector`."""

    fbank: FbankConfig = field(default_factory=detector_fbank)
    phrases: tuple[str, ...] = ()
    """Phrases that it detects."""
    phones: tuple[tuple[str, ...], ...] = ()
    """Phones of each phrase."""
    dim: int = 64
    num_layers: int = 5
    kernel_size: int = 7
    expansion: float = 2.0
    delay_frames: int = 8
    """Frames that the states lag behind the sound, which the net uses to look ahead."""
    palette_bits: int = 0
    """Bits of an index into the palette of a matrix of weights; 0 keeps the weights as they are."""

    def __post_init__(self) -> None:
        if len(self.phrases) != len(self.phones) or not all(self.phones):
            raise ValueError("phones has the phones of each phrase, at least one")
        if self.delay_frames < 0:
            raise ValueError(f"delay_frames must not be negative, got {self.delay_frames}")
        if self.palette_bits not in (0, 2, 4, 8):
            raise ValueError(f"palette_bits must be 0, 2, 4 or 8, got {self.palette_bits}")

    @property
    def chains(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the states of each phrase; see `phrase_chains`."""
        return phrase_chains(self.phones)

    @property
    def silence(self) -> int:
        """Number of the state of silence."""
        return 1 + max((max(chain) for chain in self.chains), default=-1)

    @property
    def background(self) -> int:
        """Number of the state of all other sound."""
        return self.silence + 1

    @property
    def num_states(self) -> int:
        """N, of all of them."""
        return self.silence + 2


def phrase_chains(phones: Sequence[Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """Numbers of the states of phrases; a phrase within a longer one has states of that one.

    Otherwise a frame of "token" in "hey token" would belong to two states.

    Args:
        phones: of each phrase.

    Returns:
        Three numbers for each phone of each phrase, from 0.
    """
    order = sorted(range(len(phones)), key=lambda n: -len(phones[n]))
    chains: dict[int, tuple[int, ...]] = {}
    count = 0
    for number in order:
        wanted = list(phones[number])
        for other in chains:
            whole, size = list(phones[other]), len(wanted)
            places = [at for at in range(len(whole) - size + 1) if whole[at : at + size] == wanted]
            if places:
                first = places[-1] * STATES_PER_PHONE
                chains[number] = chains[other][first : first + size * STATES_PER_PHONE]
                break
        else:
            size = len(wanted) * STATES_PER_PHONE
            chains[number] = tuple(range(count, count + size))
            count += size
    return tuple(chains[number] for number in range(len(phones)))


@dataclass
class DetectorState(State):
    """What a stream remembers."""

    samples: Tensor
    """(B, any) that later frames see."""
    frames: Tensor
    """(B, any, num_mels) that wait for a whole step."""
    blocks: list[ConvState]


class PhraseDetector(nn.Module):
    """Waveform at 16 kHz to log posteriors of states."""

    def __init__(self, config: PhraseDetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.fbank = KaldiFbank(config.fbank)
        self.embed = nn.Linear(FRAMES_PER_STEP * config.fbank.num_mels, config.dim)
        blocks = [
            ConvNeXtBlock(config.dim, config.kernel_size, config.expansion, layer_scale=0.5)
            for _ in range(config.num_layers)
        ]
        self.blocks = cast("Sequence[ConvNeXtBlock]", nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, FRAMES_PER_STEP * config.num_states)

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return 1 / self.config.fbank.frame_rate

    def init_state(self, batch_size: int) -> DetectorState:
        """State before the first sample."""
        weight = self.embed.weight
        return DetectorState(
            samples=weight.new_zeros(batch_size, 0),
            frames=weight.new_zeros(batch_size, 0, self.config.fbank.num_mels),
            blocks=[block.init_state(batch_size) for block in self.blocks],
        )

    def forward(self, waveform: Tensor, state: DetectorState | None = None) -> Tensor:
        """Log posteriors (B, T, N).

        Args:
            waveform: (B, S) whole recordings, or with `state` the next piece.
            state: advanced in place.

        Returns:
            Frames in pairs; what is short of a pair is left over, and waits in the state. Frame t
            is about the sound of frame t - delay_frames.
        """
        config = self.config
        if state is not None:
            waveform = torch.cat([state.samples, waveform], dim=1)
        energies = self.fbank(waveform)
        if state is not None:
            state.samples = waveform[:, energies.shape[1] * config.fbank.hop_length :]
            energies = torch.cat([state.frames, energies], dim=1)
        num_steps = energies.shape[1] // FRAMES_PER_STEP
        if state is not None:
            state.frames = energies[:, num_steps * FRAMES_PER_STEP :]
        if num_steps == 0:
            return waveform.new_zeros(waveform.shape[0], 0, config.num_states)
        x = (energies[:, : num_steps * FRAMES_PER_STEP] - _MEAN_ENERGY) / _ENERGY_SPREAD
        x = self.embed(x.unflatten(1, (num_steps, FRAMES_PER_STEP)).flatten(2))
        for index, block in enumerate(self.blocks):
            x = block(x, None if state is None else state.blocks[index])
        logits = self.head(self.norm(x)).unflatten(2, (FRAMES_PER_STEP, -1)).flatten(1, 2)
        return logits.log_softmax(dim=-1)


def chain_ratios(log_posteriors: Tensor, chain: Sequence[int], num_states: int) -> Tensor:
    """Log-ratios (B, T, K) of the states of a chain to background and silence, which are last."""
    others = log_posteriors[..., num_states - 2 :].logsumexp(dim=-1, keepdim=True)
    ratios = log_posteriors[..., list(chain)] - others
    return ratios.clamp(-MAX_RATIO, MAX_RATIO)


def path_scores(ratios: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Score of the best path through a chain in each recording, with a gradient.

    A path begins at any frame in the first state, stays or goes on by one state at each frame, and
    ends in the last. Among the paths of the highest sum that end at each frame the one of the
    highest mean counts. The path is found without gradient; its mean has that of the ratios on it,
    which is the gradient of the maximum.

    Args:
        ratios: (B, T, K).
        lengths: (B,) valid frames; None where all are.

    Returns:
        (B,); `-MAX_RATIO` where there are too few frames for any path.
    """
    batch, num_frames, num_states = ratios.shape
    values = ratios.detach().double().cpu().numpy()
    ends = np.full(batch, num_frames) if lengths is None else lengths.cpu().numpy()
    sums = np.full((batch, num_states), -np.inf)
    starts = np.zeros((batch, num_states), dtype=np.int64)
    moved = np.zeros((num_frames, batch, num_states), dtype=bool)
    best, best_end = np.full(batch, -np.inf), np.full(batch, -1)
    for frame in range(num_frames):
        sums, starts, moved[frame] = _advance(sums, starts, values[:, frame], frame)
        mean = sums[:, -1] / (frame + 1 - starts[:, -1])
        better = (mean > best) & (frame < ends)
        best[better], best_end[better] = mean[better], frame
    picked = torch.zeros(batch, num_frames, num_states, dtype=torch.bool)
    for row in range(batch):
        state, frame = num_states - 1, int(best_end[row])
        while frame >= 0:
            picked[row, frame, state] = True
            if moved[frame, row, state]:
                if state == 0:
                    break
                state -= 1
            frame -= 1
    picked = picked.to(ratios.device)
    count = picked.sum(dim=(1, 2))
    mean = (ratios * picked).sum(dim=(1, 2)) / count.clamp(min=1)
    return torch.where(count > 0, mean, mean.new_tensor(-MAX_RATIO))


def _advance(
    sums: np.ndarray, starts: np.ndarray, ratios: np.ndarray, frame: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One frame of the dynamic program.

    Args:
        sums: (..., K) of the best path that is in each state.
        starts: (..., K) frame in which it began.
        ratios: (..., K) of the frame.
        frame: its number.

    Returns:
        Sums, starts, and whether the path came from the state before (or began).
    """
    arriving, arrived = np.empty_like(sums), np.empty_like(starts)
    arriving[..., 0], arriving[..., 1:] = 0.0, sums[..., :-1]
    arrived[..., 0], arrived[..., 1:] = frame, starts[..., :-1]
    moved = arriving >= sums
    return np.where(moved, arriving, sums) + ratios, np.where(moved, arrived, starts), moved


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A phrase that may have been said."""

    phrase: str
    score: float
    """Mean log-ratio of the best path, of at most `MAX_RATIO`."""
    start_seconds: float
    """In the stream."""
    end_seconds: float


class PhraseDecoder:
    """Finds phrases in a stream of log posteriors: one dynamic program for each, frame by frame.

    A detection is given once its score has not grown for `settle_frames`; the next one of the
    phrase begins behind it.
    """

    def __init__(
        self,
        config: PhraseDetectorConfig,
        thresholds: Sequence[float],
        *,
        settle_frames: int = 20,
        max_seconds: float = 2.5,
    ) -> None:
        """Takes the phrases' thresholds.

        Args:
            config: of the net.
            thresholds: score of each phrase from which it is detected.
            settle_frames: how long a score must not have grown.
            max_seconds: a path that lasts longer is none.
        """
        self.config, self.thresholds = config, list(thresholds)
        self.settle_frames = settle_frames
        self._max_frames = round(max_seconds * config.fbank.frame_rate)
        self._frame = 0
        chains = config.chains
        self._sums = [np.full(len(chain), -np.inf) for chain in chains]
        self._starts = [np.zeros(len(chain), dtype=np.int64) for chain in chains]
        self._peaks: list[tuple[float, int, int] | None] = [None] * len(chains)
        self._free = [0] * len(chains)
        self.best = [-np.inf] * len(chains)
        """Highest score of each phrase so far."""

    def push(self, log_posteriors: Tensor) -> list[Detection]:
        """Takes the next frames (T, N); gives the detections that have settled."""
        found: list[Detection] = []
        last = self.config.num_states
        ratios = [
            chain_ratios(log_posteriors[None], chain, last)[0].double().numpy()
            for chain in self.config.chains
        ]
        for row in range(log_posteriors.shape[0]):
            for number in range(len(ratios)):
                detection = self._step(number, ratios[number][row])
                if detection is not None:
                    found.append(detection)
            self._frame += 1
        return found

    def finish(self) -> list[Detection]:
        """The detections that have not settled when the stream ends."""
        found = [self._settled(number) for number in range(len(self._peaks))]
        return [detection for detection in found if detection is not None]

    def _step(self, number: int, ratios: np.ndarray) -> Detection | None:
        frame = self._frame
        sums, starts, _ = _advance(self._sums[number], self._starts[number], ratios, frame)
        self._sums[number], self._starts[number] = sums, starts
        start = int(starts[-1])
        length = frame + 1 - start
        score = float(sums[-1]) / length
        peak = self._peaks[number]
        if start >= self._free[number] and length <= self._max_frames:
            self.best[number] = max(self.best[number], score)
            if score >= self.thresholds[number] and (peak is None or score >= peak[0] - 1e-9):
                self._peaks[number] = (score, start, frame)
                return None
        if peak is not None and frame - peak[2] >= self.settle_frames:
            return self._settled(number)
        return None

    def _settled(self, number: int) -> Detection | None:
        peak = self._peaks[number]
        if peak is None:
            return None
        score, start, end = peak
        self._peaks[number], self._free[number] = None, end + 1
        seconds, delay = 1 / self.config.fbank.frame_rate, self.config.delay_frames
        return Detection(
            phrase=self.config.phrases[number],
            score=score,
            start_seconds=max(start - delay, 0) * seconds,
            end_seconds=max(end + 1 - delay, 0) * seconds,
        )


def state_labels(
    num_frames: int,
    spans: Sequence[tuple[float, float]],
    is_silent: Tensor,
    chain: Sequence[int],
    config: PhraseDetectorConfig,
) -> Tensor:
    """States (T,) of the frames of a recording, as the net is to give them: late by the delay.

    Args:
        num_frames: T.
        spans: start and end of each phone of the phrase in seconds; empty where it is not said.
        is_silent: (T,) True where nothing is heard.
        chain: numbers of the phrase's states.
        config: of the net.
    """
    labels = torch.where(is_silent[:num_frames], config.silence, config.background)
    rate = config.fbank.frame_rate
    for number, (start, end) in enumerate(spans):
        first, last = start * rate, end * rate
        for part in range(STATES_PER_PHONE):
            low = first + (last - first) * part / STATES_PER_PHONE
            high = first + (last - first) * (part + 1) / STATES_PER_PHONE
            labels[round(low) : round(high)] = chain[number * STATES_PER_PHONE + part]
    delay = config.delay_frames
    early = labels.new_full((delay,), config.silence)
    return functional.pad(labels, (0, 0)) if delay == 0 else torch.cat([early, labels])[:num_frames]
