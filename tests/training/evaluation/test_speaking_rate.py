from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.evaluation.conditions import speaking_rate_figures, speaking_rate_suite
from training.evaluation.prompts import Prompt, change_rate
from training.evaluation.sets import RecordingSet, read_recording_set
from training.evaluation.suite import Speech, score, speak

RATE = 16_000


@pytest.fixture
def recordings(voices: Path) -> RecordingSet:
    return read_recording_set("heldout", voices, num_items=4, num_voices=2, prompt_seconds=1.2)


def pitch(waveform: torch.Tensor) -> float:
    """The lag at which a recording is most like itself, from 80 to 300 Hz."""
    samples = waveform.numpy() - waveform.numpy().mean()
    power = np.abs(np.fft.rfft(samples, n=2 * len(samples))) ** 2
    likeness = np.fft.irfft(power)
    lags = np.arange(RATE // 300, RATE // 80)
    return RATE / float(lags[likeness[lags].argmax()])


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_rate_changes_and_pitch_stays(
    factor: float, say_vowels: Callable[..., torch.Tensor]
) -> None:
    waveform = say_vowels(140.0)
    changed = change_rate(waveform, RATE, factor)
    assert len(changed) == round(len(waveform) / factor)
    assert pitch(changed) == pytest.approx(pitch(waveform), rel=0.04)
    assert changed.std() == pytest.approx(waveform.std().item(), rel=0.15)
    if factor == 1.0:
        assert torch.equal(changed, waveform)


@pytest.mark.parametrize("length", [0, 1, 300])
def test_what_is_short_is_no_mistake(length: int) -> None:
    assert len(change_rate(torch.zeros(length), RATE, 1.25)) == round(length / 1.25)


@pytest.mark.parametrize("follows", [0.0, 0.5, 1.0])
def test_the_slope_is_how_far_speech_follows_its_prompt(
    recordings: RecordingSet, follows: float, parrot
) -> None:
    class Follower(parrot):
        def speak(self, request) -> Speech:
            self.said.append(request)
            factor = float(request.columns["condition"])
            seconds = 0.1 * len(request.text) / math.pow(factor, follows)
            tone = torch.sin(torch.arange(int(seconds * RATE)) / 8)
            return Speech(request=request, waveform=tone, sample_rate=RATE)

    speaker = Follower()
    suite = speaking_rate_suite(recordings, (0.8, 1.0, 1.25), 0)
    assert len(suite.requests) == 3 * len(recordings.items)
    # One seed and one voice to be like, whatever the prompt.
    first = suite.requests[0]
    same = [one for one in suite.requests if one.id == first.id]
    assert len({one.seed for one in same}) == 1 and len({id(one.target) for one in same}) == 1
    lengths = [one.prompt.samples(RATE).shape[0] for one in same]
    assert lengths[0] > lengths[1] > lengths[2]
    rows = [one.row for one in score(suite, speak(speaker, suite), speaker.judges())]
    found = {figure.name: figure for figure in speaking_rate_figures(rows)}
    assert found["slope"].value == pytest.approx(follows, abs=0.02)
    assert found["word_error_rate"].value == 0.0
    silent = [{**row, "speaking_rate": 5.0} for row in rows]
    assert speaking_rate_figures(silent)[0].value == pytest.approx(0.0, abs=1e-9)


def test_a_prompt_keeps_its_words(recordings: RecordingSet) -> None:
    suite = speaking_rate_suite(recordings, (0.8, 1.25), 0)
    prompts: list[Prompt] = [request.prompt for request in suite.requests]
    assert all(prompt.text for prompt in prompts)
    assert len({prompt.name for prompt in prompts}) == 4
    assert replace(prompts[0], name="x").sample_rate == RATE
