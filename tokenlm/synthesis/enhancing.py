"""Speech enhancement: recordings with less noise, fewer other voices and less room.

An `Enhancer` measures a recording first. Clean speech is left as it is. Other speech goes through
the voice isolator and, by the method "recovery", on through the mel enhancer and the vocoder of the
bundle. Everything streams, so that a recording of any length takes the same memory.

Shapes: S samples.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from tokenlm.arguments import check_kind
from tokenlm.audio.io import AudioError, read_pieces, read_recording, save_pieces
from tokenlm.audio.mel import MelSpectrogram, MelStream
from tokenlm.audio.noise import (
    CLEAN_ECHO_SECONDS,
    CLEAN_SNR_DB,
    USABLE_ROOM_SPL_DB,
    USABLE_SNR_DB,
    reverberation_seconds,
    speech_levels,
)
from tokenlm.audio.resample import StreamResampler
from tokenlm.checkpoint.bundle import read_manifest
from tokenlm.checkpoint.registry import load_model
from tokenlm.checkpoint.resolve import resolve
from tokenlm.models.enhancer import MelEnhancer, VoiceIsolator
from tokenlm.models.vocoder import HiFT, Vocoder
from tokenlm.synthesis.components import Components, require_enhancer

logger = logging.getLogger(__name__)

Method = Literal["isolation", "recovery"]
"""Isolation masks what is no voice; recovery writes the mel anew and makes its sound by the vocoder
of the bundle."""
METHODS: tuple[Method, ...] = get_args(Method)

_PIECE_SECONDS = 20.0
"""Length of the pieces that a file is read and measured in."""
_MIN_MEASURED_SECONDS = 0.5


class EnhanceError(ValueError):
    """A recording that cannot be enhanced, or an enhancer that is not there."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How good a recording of speech is: of a long one the worst of its pieces."""

    snr_db: float
    """Speech over noise; minus infinity where no speech stands out."""
    noise_db: float
    """Level of the noise in dBFS."""
    echo_seconds: float | None
    """Estimated reverberation time; None where that cannot be said."""

    @property
    def is_clean(self) -> bool:
        """Whether the recording is to be left as it is."""
        is_dry = self.echo_seconds is None or self.echo_seconds <= CLEAN_ECHO_SECONDS
        return self.snr_db >= CLEAN_SNR_DB and is_dry

    def problems(self, calibration_db: float | None = None) -> list[str]:
        """Why the recording is too bad to be enhanced, in sentences; empty where it is not.

        Args:
            calibration_db: sound pressure level in dB SPL of 0 dBFS on the microphone; None where
                it is not known, and sound pressure is not judged.
        """
        found = []
        if math.isinf(self.snr_db):
            found.append("no speech stands out of the noise.")
        elif self.snr_db < USABLE_SNR_DB:
            found.append(
                f"the speech is only {self.snr_db:.0f} dB louder than the noise, less than "
                f"{USABLE_SNR_DB:.0f} dB: words may get lost. If you can, record it again, closer "
                "to the microphone."
            )
        if calibration_db is not None and self.noise_db + calibration_db > USABLE_ROOM_SPL_DB:
            found.append(
                f"the noise of the room is {self.noise_db + calibration_db:.0f} dB SPL, more than "
                f"{USABLE_ROOM_SPL_DB:.0f}: if you can, record it again in a quieter one."
            )
        return found

    def __str__(self) -> str:
        if math.isinf(self.snr_db):
            return "no speech stands out of the noise"
        told = f"speech {self.snr_db:.0f} dB over the noise"
        return told if self.echo_seconds is None else f"{told}, echo {self.echo_seconds:.1f} s"


def measure_condition(pieces: Iterable[tuple[Tensor, int]]) -> Condition:
    """Measure a recording.

    Args:
        pieces: waveforms (S,), one after the other, and their sample rate in hertz.

    Raises:
        EnhanceError: there is less than half a second of sound.
    """
    levels, echoes = [], []
    longest = 0.0
    for waveform, rate in pieces:
        longest = max(longest, waveform.shape[0] / rate)
        if waveform.shape[0] >= _MIN_MEASURED_SECONDS * rate:
            levels.append(speech_levels(waveform, rate))
            echo = reverberation_seconds(waveform, rate)
            echoes += [] if echo is None else [echo]
    if not levels:
        raise EnhanceError(
            f"{longest:.2f} s of sound say nothing of their noise; at least "
            f"{_MIN_MEASURED_SECONDS:g} s are needed."
        )
    speech = [level for level in levels if math.isfinite(level.speech_db)] or levels
    worst = min(speech, key=lambda level: level.snr_db)
    return Condition(
        snr_db=worst.snr_db,
        noise_db=worst.noise_db,
        echo_seconds=statistics.median(echoes) if echoes else None,
    )


@dataclass(frozen=True, kw_only=True)
class Enhanced:
    """What became of a recording."""

    waveform: Tensor
    """(S,) as many samples as the recording has, at its rate."""
    condition: Condition
    """Of the recording."""
    method: Method | None
    """How it was enhanced; None where it was clean and was left as it is."""


class Enhancer:
    """Makes noisy recordings of speech clean."""

    def __init__(
        self,
        isolator: VoiceIsolator,
        mel_enhancer: MelEnhancer | None = None,
        vocoder: Vocoder | HiFT | None = None,
    ) -> None:
        """Takes the models.

        Args:
            isolator: the voice isolator.
            mel_enhancer: what recovery needs; None offers isolation alone.
            vocoder: of the mel that it makes.

        Raises:
            EnhanceError: mel enhancer and vocoder disagree about the mel.
        """
        self.isolator = isolator
        self.mel_enhancer = mel_enhancer
        self.vocoder = vocoder
        self._spectrogram: MelSpectrogram | None = None
        if mel_enhancer is not None:
            if vocoder is None or vocoder.config.mel != mel_enhancer.config.mel:
                raise EnhanceError("recovery needs a vocoder of the mel that the net enhances.")
            if mel_enhancer.config.mel.sample_rate != isolator.config.sample_rate:
                raise EnhanceError(
                    f"the voice isolator has {isolator.config.sample_rate} Hz, the mel enhancer "
                    f"{mel_enhancer.config.mel.sample_rate}: they must be equal."
                )
            self._spectrogram = MelSpectrogram(mel_enhancer.config.mel).to(self.device)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "mini-en",
        *,
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> Self:
        """Loads the enhancer of a bundle, and nothing else of it.

        Args:
            name: a bundled name, a local folder (never touches the network), or a hub id.
            device: where the models run.
            revision: branch, tag or commit of a hub id.

        Raises:
            ValueError: there is no such bundle, or it has no enhancer.
        """
        folder = resolve(name, revision=revision)
        kinds = read_manifest(folder).components
        return cls.load({part: folder / part for part in kinds}, device=device, where=str(folder))

    @classmethod
    def load(
        cls,
        folders: Mapping[str, Path],
        *,
        device: str | torch.device = "cpu",
        where: str = "the given components",
    ) -> Self:
        """Loads an enhancer from component folders.

        Args:
            folders: by name: voice_isolator, and for recovery mel_enhancer and vocoder.
            device: where the models run.
            where: what errors call it.

        Raises:
            ValueError: the voice isolator is missing, or a component does not load.
        """
        require_enhancer(folders, where)
        mel_enhancer = vocoder = None
        if "mel_enhancer" in folders and "vocoder" in folders:
            mel_enhancer = load_model(folders["mel_enhancer"], MelEnhancer, device=device)
            vocoder = load_model(folders["vocoder"], Vocoder, HiFT, device=device)
        isolator = load_model(folders["voice_isolator"], VoiceIsolator, device=device)
        return cls(isolator, mel_enhancer, vocoder)

    @classmethod
    def of(cls, components: Components) -> Self:
        """The enhancer of a bundle that is loaded.

        Raises:
            BundleError: it has none.
        """
        vocoder = components.vocoder if components.mel_enhancer is not None else None
        return cls(components.voice_isolator, components.mel_enhancer, vocoder)

    @property
    def device(self) -> torch.device:
        """Where the models run."""
        return next(self.isolator.parameters()).device

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that there are; the first is the default."""
        return METHODS if self.mel_enhancer is not None else METHODS[:1]

    def check_method(self, method: str | None) -> Method:
        """The method of that name, or the default.

        Raises:
            EnhanceError: there is none of that name, or this enhancer lacks what it needs.
        """
        if method is None:
            return self.methods[0]
        for known in self.methods:
            if method == known:
                return known
        if method in METHODS:
            raise EnhanceError(
                "this enhancer cannot recover: that needs a mel enhancer, which the stage "
                "mel_enhancer trains (docs/enhance.md)."
            )
        raise EnhanceError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")

    def enhance(
        self,
        source: str | Path | Tensor,
        *,
        sample_rate: int | None = None,
        method: str | None = None,
        always: bool = False,
    ) -> Enhanced:
        """Enhances a recording that fits into memory.

        Args:
            source: an audio file, or samples (S,).
            sample_rate: of samples, in hertz.
            method: "isolation" or "recovery"; None is the first that there is.
            always: whether clean recordings are enhanced, too.

        Raises:
            AudioError: the file cannot be read.
            EnhanceError: samples of another shape, not finite or without their rate, or too few; a
                method that is not there.
        """
        check_kind("a recording", source, str, Path, Tensor)
        chosen = self.check_method(method)
        if isinstance(source, Tensor):
            if sample_rate is None or source.ndim != 1 or not source.isfinite().all():
                raise EnhanceError(
                    "samples need their sample_rate, the shape (samples,) and finite numbers."
                )
            waveform, rate = source.float().cpu(), sample_rate
        else:
            waveform, rate = read_recording(source)
        size = max(round(_PIECE_SECONDS * rate), 1)
        pieces = waveform.split(size)
        condition = measure_condition((piece, rate) for piece in pieces)
        if condition.is_clean and not always:
            return Enhanced(waveform=waveform, condition=condition, method=None)
        enhanced = torch.cat([*self.stream(pieces, rate, method=chosen)])
        return Enhanced(waveform=enhanced, condition=condition, method=chosen)

    def enhance_file(
        self,
        source: str | Path,
        output: str | Path,
        *,
        method: str | None = None,
        always: bool = False,
        on_progress: Callable[[float], None] | None = None,
    ) -> tuple[Condition, Method | None]:
        """Enhances a recording of any length; twice read, piece by piece, and never held.

        Args:
            source: audio file of any format that can be read.
            output: file to write: one channel at the rate of the recording.
            method: see `enhance`.
            always: whether a clean recording is enhanced, too; else it is written as it is.
            on_progress: called with the seconds that are done.

        Returns:
            Its condition, and the method; None where it was left as it is.

        Raises:
            AudioError: a file cannot be read or written.
            EnhanceError: there is too little sound, or no such method.
        """
        chosen: Method | None = self.check_method(method)
        if Path(output).exists() and Path(output).samefile(source):
            raise EnhanceError(f"{output} is the recording itself: name another output.")
        condition = measure_condition(read_pieces(source, _PIECE_SECONDS))
        if condition.is_clean and not always:
            chosen = None
        rates: list[int] = []

        def pieces() -> Iterator[Tensor]:
            seconds = 0.0
            for piece, rate in read_pieces(source, _PIECE_SECONDS):
                rates.append(rate)
                yield piece
                seconds += piece.shape[0] / rate
                if on_progress is not None:
                    on_progress(seconds)

        read = pieces()
        first = next(read, None)
        if first is None:
            raise AudioError(f"{source} holds no samples.")
        joined = _after(first, read)
        sound = joined if chosen is None else self.stream(joined, rates[0], method=chosen)
        comment = None if chosen is None else f"enhanced by tokenlm ({chosen})"
        save_pieces(output, sound, rates[0], comment=comment)
        return condition, chosen

    @torch.inference_mode()
    def stream(
        self, pieces: Iterable[Tensor], sample_rate: int, *, method: str | None = None
    ) -> Iterator[Tensor]:
        """Enhances a waveform that arrives in pieces, whatever its condition.

        Args:
            pieces: (S,) each, of any sizes; the sound is the same for all of them.
            sample_rate: in hertz.
            method: see `enhance`.

        Yields:
            (S',) at the same rate, as soon as it is known; in all as many samples as came in.
        """
        chosen = self.check_method(method)
        rate = self.isolator.config.sample_rate
        down, up = StreamResampler(sample_rate, rate), StreamResampler(rate, sample_rate)
        chain = _Recovery(self) if chosen == "recovery" else _Isolation(self.isolator)
        num_in = num_out = 0
        waiting: Tensor | None = None
        for piece in pieces:
            num_in += piece.shape[0]
            if waiting is not None:
                out = up.push(chain.push(down.push(waiting)))[: num_in - num_out]
                num_out += out.shape[0]
                if out.shape[0]:
                    yield out
            waiting = piece
        if waiting is None:
            return
        out = up.push(chain.push(down.push(waiting, final=True), final=True), final=True)
        missing = num_in - num_out
        yield torch.nn.functional.pad(out[:missing], (0, max(missing - out.shape[0], 0)))


class _Isolation:
    """A stream through the voice isolator."""

    def __init__(self, isolator: VoiceIsolator) -> None:
        self._isolator = isolator
        self._state = isolator.init_state(1)

    def push(self, waveform: Tensor, *, final: bool = False) -> Tensor:
        """(S,) to (S',) on the CPU; with `final` all that is left."""
        given = waveform[None].to(self._isolator.head.weight.device)
        out = [self._isolator(given, self._state)]
        if final:
            out.append(self._isolator.flush(self._state))
        return torch.cat(out, dim=1)[0].cpu()


class _Recovery:
    """A stream through voice isolator, mel enhancer and vocoder."""

    def __init__(self, enhancer: Enhancer) -> None:
        assert enhancer.mel_enhancer is not None and enhancer.vocoder is not None
        assert enhancer._spectrogram is not None
        self._isolation = _Isolation(enhancer.isolator)
        self._hop = enhancer.mel_enhancer.config.mel.hop_length
        self._mel = MelStream(enhancer._spectrogram)
        self._net = enhancer.mel_enhancer
        self._state = enhancer.mel_enhancer.init_state(1)
        # Any: each kind of vocoder has a state of its own.
        self._vocoder: Any = enhancer.vocoder
        self._vocoder_state: Any = enhancer.vocoder.init_state(1)
        self._device = enhancer.device
        self._num_samples = 0

    def push(self, waveform: Tensor, *, final: bool = False) -> Tensor:
        """(S,) to (S',) on the CPU; with `final` all that is left."""
        isolated = self._isolation.push(waveform, final=final)
        self._num_samples += isolated.shape[0]
        if final:  # whole frames
            isolated = torch.nn.functional.pad(isolated, (0, -self._num_samples % self._hop))
        mel = self._mel.push(isolated[None].to(self._device), final=final)
        parts = [self._net(mel, self._state)]
        if final:
            parts.append(self._net.flush(self._state))
        out = [self._vocoder(torch.cat(parts, dim=1), self._vocoder_state)]
        if final:
            out.append(self._vocoder.flush(self._vocoder_state))
        return torch.cat(out, dim=1)[0].cpu()


def _after(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest
