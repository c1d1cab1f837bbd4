"""Prompts: recordings whose voice is to be cloned, as they are, joined, cut, moved or damaged.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.audio.io import load_audio, read_recording
from tokenlm.audio.level import trim_silence
from tokenlm.audio.resample import resample
from tokenlm.modules.exact import mix
from training.data.augment import (
    add_noise,
    band_limit,
    change_gain,
    impulse_response,
    make_noise,
    reverberate,
)
from training.data.manifest import ManifestError, Utterance

JOIN_SECONDS = 0.25
"""Pause between recordings that are joined."""
CLEAN = "clean"
"""The condition of a prompt that is left as it is."""
SNR_DB = 10.0
"""Of the white noise, over the whole band of the recording."""
REVERBERATION_SECONDS = 0.5
"""Until the reverberation has fallen by 60 dB."""
DIRECT_DB = 3.0
"""Level of the direct sound over the reverberation: a speaker across a living room."""
TELEPHONE_HZ = (300.0, 3400.0)
LEVEL_DB = -30.0
_PCM16 = 32768.0
_PIECE_SECONDS = 0.02
"""Half of a piece of speech whose rate is changed: a period of a low voice, twice."""
_REACH_SECONDS = 0.008
"""Around its place in which a piece is looked for."""

Damage = Callable[[Tensor, int, torch.Generator], Tensor]
"""Samples (S,), their rate and a source of draws to samples (S,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A recording whose voice is to be cloned: samples, a file, or a prepared voice of a bundle.

    Voices and embeddings are cached by the object, so one prompt is made once.
    """

    name: str
    text: str | None
    """What is said; None where it is not known."""
    waveform: Tensor | None = None
    """(S,); None reads `path`."""
    sample_rate: int = 0
    """Of `waveform`, in hertz."""
    path: Path | None = None
    voice: str | None = None
    """Voice of the bundle that speaks; `waveform` is then what judges compare the speech with."""

    def samples(self, sample_rate: int) -> Tensor:
        """The recording (S,) at a sample rate.

        Raises:
            AudioError: the file cannot be read.
        """
        if self.waveform is not None:
            return resample(self.waveform, self.sample_rate, sample_rate)
        assert self.path is not None, "a prompt has samples or a file"
        return load_audio(self.path, sample_rate)


def read_prompt(recording: Utterance) -> Prompt:
    """Read a recording at its own rate, at which it is then damaged or resampled.

    Raises:
        AudioError: it cannot be read.
    """
    waveform, rate = read_recording(recording.audio)
    return Prompt(
        name=recording.id,
        waveform=waveform,
        sample_rate=rate,
        text=recording.text,
    )


def transpose(prompt: Prompt, factor: float) -> Prompt:
    """Multiply the frequencies of a prompt, formants and pitch alike, by playing it faster."""
    assert prompt.waveform is not None
    waveform = resample(prompt.waveform, round(factor * prompt.sample_rate), prompt.sample_rate)
    return replace(prompt, name=f"{prompt.name} x{factor:g}", waveform=waveform)


def stretch(prompt: Prompt, factor: float) -> Prompt:
    """Multiply the speaking rate of a prompt at the same pitch; see `change_rate`."""
    assert prompt.waveform is not None
    waveform = change_rate(prompt.waveform, prompt.sample_rate, factor)
    return replace(prompt, name=f"{prompt.name} rate {factor:g}", waveform=waveform)


def change_rate(waveform: Tensor, sample_rate: int, factor: float) -> Tensor:
    """Say a recording (S,) faster or slower at the same pitch, by overlapping pieces of it.

    Each piece is taken where it goes on most like the one before (WSOLA; Verhelst and Roelands,
    1993).
    """
    if factor == 1.0:
        return waveform
    hop, reach = round(_PIECE_SECONDS * sample_rate), round(_REACH_SECONDS * sample_rate)
    window = torch.hann_window(2 * hop)
    # Silence before and behind, for the pieces and what is searched around them.
    padded = torch.nn.functional.pad(waveform, (hop + reach, 4 * hop + 2 * reach))
    num_pieces = max(int(waveform.shape[0] / (hop * factor)) + 2, 1)
    result = torch.zeros((num_pieces + 1) * hop)
    place = reach
    for number in range(num_pieces):
        if number:
            start = min(round(number * hop * factor), padded.shape[0] - 2 * hop - 2 * reach)
            wanted = padded[place + hop : place + 3 * hop]
            around = padded[start : start + 2 * hop + 2 * reach]
            likeness = torch.nn.functional.conv1d(around[None, None], wanted[None, None])[0, 0]
            place = start + int(likeness.argmax())
        result[number * hop : (number + 2) * hop] += window * padded[place : place + 2 * hop]
    return result[hop : hop + round(waveform.shape[0] / factor)]


def join(waveforms: Sequence[Tensor], sample_rate: int) -> Tensor:
    """Put recordings (S,) one after another with a pause of `JOIN_SECONDS` between."""
    gap = torch.zeros(int(JOIN_SECONDS * sample_rate))
    pieces = [piece for waveform in waveforms for piece in (waveform, gap)]
    return torch.cat(pieces[:-1])


def join_up_to(recordings: Sequence[Utterance], seconds: float, sample_rate: int) -> Prompt:
    """Join recordings, silence at their ends cut off, into a prompt of exactly a length.

    Args:
        recordings: in the order in which they are taken; no more than are needed.
        seconds: of the prompt. It ends where they end, in a word or not, so it has no text.
        sample_rate: of the prompt, in hertz.

    Raises:
        AudioError: one cannot be read.
        ManifestError: all of them are not as long.
    """
    size = round(seconds * sample_rate)
    pieces: list[Tensor] = []
    for recording in recordings:
        pieces.append(trim_silence(load_audio(recording.audio, sample_rate), sample_rate))
        waveform = join(pieces, sample_rate)
        if waveform.shape[0] >= size:
            return Prompt(
                name=f"{recordings[0].id} {seconds:g}s",
                waveform=waveform[:size],
                sample_rate=sample_rate,
                text=None,
            )
    raise ManifestError(
        f"a prompt of {seconds:g} s is asked for, but the recordings of "
        f"{recordings[0].speaker!r} hold less: give a voice more of them, or shorter "
        "prompt_length_seconds."
    )


def _noise(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    return add_noise(waveform, make_noise("white", len(waveform), sample_rate, draws), SNR_DB)


def _reverberation(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    response = impulse_response(sample_rate, REVERBERATION_SECONDS, draws)
    return reverberate(waveform, response, DIRECT_DB)


def _telephone(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    return band_limit(waveform, sample_rate, *TELEPHONE_HZ)


def _quiet(waveform: Tensor, sample_rate: int, draws: torch.Generator) -> Tensor:
    return change_gain(waveform, LEVEL_DB)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "noise": (_noise, f"white noise at {SNR_DB:g} dB"),
    "reverberation": (
        _reverberation,
        f"reverberation of {REVERBERATION_SECONDS:g} s, direct sound at {DIRECT_DB:+g} dB",
    ),
    "telephone": (_telephone, f"{TELEPHONE_HZ[0]:g} to {TELEPHONE_HZ[1]:g} Hz"),
    "quiet": (_quiet, f"level {LEVEL_DB:+g} dB, then 16 bits"),
}
"""The damages by their names, and what is done."""


def damage_prompt(prompt: Prompt, name: str, seed: int) -> Prompt:
    """Damage a prompt in one way; the same seed gives the same samples.

    It ends as a file of 16 bits would, so that what is too quiet has lost what a file loses.

    Args:
        prompt: clean.
        name: one of `DAMAGES`.
        seed: of noise and room.
    """
    apply, _ = DAMAGES[name]
    assert prompt.waveform is not None
    draws = torch.Generator().manual_seed(mix(seed) >> 1)
    waveform = apply(prompt.waveform, prompt.sample_rate, draws)
    waveform = torch.round(waveform * _PCM16).clamp(-_PCM16, _PCM16 - 1) / _PCM16
    return replace(prompt, name=f"{prompt.name} {name}", waveform=waveform)
