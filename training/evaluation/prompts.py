"""Prompts that are made of recordings: resampled, joined, cut.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokenlm.audio.io import load_audio, read_recording
from tokenlm.audio.level import trim_silence
from tokenlm.audio.resample import resample
from training.data.manifest import ManifestError, Utterance

JOIN_SECONDS = 0.25
"""Pause between recordings that are joined."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A recording whose voice is to be cloned, as samples."""

    name: str
    """Unlike that of any other prompt of an evaluation: voices are kept under it."""
    waveform: Tensor
    """(S,)"""
    sample_rate: int
    """In hertz."""
    text: str | None
    """What is said; None where it is not known."""


def read_prompt(recording: Utterance) -> Prompt:
    """Read a recording at its own rate, as noise and bands are added to it where it was made.

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
    waveform = resample(prompt.waveform, round(factor * prompt.sample_rate), prompt.sample_rate)
    return replace(prompt, name=f"{prompt.name} x{factor:g}", waveform=waveform)


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
