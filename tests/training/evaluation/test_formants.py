from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.evaluation.formants import (
    Curve,
    formant_figures,
    formant_suite,
    score_formants,
    slope_figure,
)
from training.evaluation.sets import RecordingSet, read_recording_set
from training.evaluation.statistics import Figure
from training.evaluation.suite import Request, Row, Speech, System, speak

FACTORS = (0.9, 1.0, 1.1)
SECONDS = 1.0


class Follower:
    """Moves its formants and pitch by powers of what the prompt was moved by."""

    def __init__(self, vowels: Callable[..., torch.Tensor], formant: float, pitch: float) -> None:
        self.vowels, self.formant, self.pitch = vowels, formant, pitch
        self.seeds: list[int] = []

    def speak(self, request: Request) -> Speech:
        self.seeds.append(request.seed)
        # A prompt that was moved up is shorter.
        factor = SECONDS * 16_000 / request.prompt.samples(16_000).shape[0]
        waveform = self.vowels(140.0 * factor**self.pitch, factor**self.formant)
        return Speech(request=request, waveform=waveform, sample_rate=16_000)


def measure(
    recordings: RecordingSet, system: System, folder: Path | None = None
) -> tuple[list[Figure], list[Row]]:
    suite = formant_suite(recordings, FACTORS, 0)
    rows = score_formants(suite, speak(system, suite, folder))
    return formant_figures(suite, rows), rows


@pytest.fixture
def test_set(voices: Path) -> RecordingSet:
    return read_recording_set("heldout", voices, num_items=4, num_voices=2, prompt_seconds=SECONDS)


@pytest.mark.parametrize(
    ("formant", "pitch"), [(1.0, 1.0), (0.5, 1.0), (0.0, 1.0), (1.0, 0.0), (-0.5, 1.0)]
)
def test_the_slope_is_that_of_the_formants(
    test_set: RecordingSet,
    say_vowels: Callable[..., torch.Tensor],
    formant: float,
    pitch: float,
) -> None:
    speaker = Follower(say_vowels, formant, pitch)
    figures, rows = measure(test_set, speaker)
    found = {figure.key: figure for figure in figures}
    slope = found["heldout/formants/slope"]
    assert slope.value == pytest.approx(formant, abs=0.06)
    assert slope.low is not None and slope.high is not None
    assert slope.low <= slope.value <= slope.high
    prompts = found["heldout/formants/slope_of_prompts"]
    assert prompts.value == pytest.approx(1.0, abs=0.05)
    assert prompts.num_items == 2 * 3 and slope.num_items == 4 * 3
    assert [row["factor"] for row in rows] == list(FACTORS) * 4
    assert rows[1]["warp"] == 1.0
    # The same seed for every factor.
    assert speaker.seeds == [seed for seed in speaker.seeds[::3] for _ in FACTORS]
    assert len(set(speaker.seeds)) == 4


def test_silence_is_left_out_and_told(test_set: RecordingSet) -> None:
    class Mute:
        def speak(self, request: Request) -> Speech:
            return Speech(request=request, waveform=torch.zeros(8000), sample_rate=16_000)

    figures, rows = measure(test_set, Mute())
    assert math.isnan(figures[0].value) and "12 of 12" in figures[0].note
    assert all(row["warp"] is None for row in rows)
    assert figures[1].value == pytest.approx(1.0, abs=0.05)


def test_the_speech_is_kept_where_it_is_asked_for(
    test_set: RecordingSet, say_vowels: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    measure(test_set, Follower(say_vowels, 1.0, 1.0), tmp_path / "audio")
    kept = sorted((tmp_path / "audio/heldout/formants").iterdir())
    assert [folder.name for folder in kept] == ["x0.9", "x1", "x1.1"]
    assert [path.name for path in sorted(kept[0].iterdir())] == [f"00{n}.wav" for n in range(4)]


def test_each_curve_has_a_level_of_its_own_and_a_voice_counts_once() -> None:
    def curve(speaker: str, slope: float, level: float) -> Curve:
        warps = {x: math.exp(level + slope * math.log(x)) for x in (0.9, 1.0, 1.1)}
        return Curve(speaker=speaker, warps=warps)

    figure = slope_figure(
        "formants",
        "slope",
        "heldout",
        [curve("a", 1.0, 0.3), curve("a", 0.6, -0.2), curve("b", 0.2, 0.1)],
        0,
        "",
    )
    assert figure.value == pytest.approx(0.6)
    # Drawn by voice: twice the one, once each, or twice the other.
    assert figure.low == pytest.approx(0.2) and figure.high == pytest.approx(0.8)
    alone = slope_figure("formants", "slope", "heldout", [curve("a", 1.0, 0.0)], 0, "")
    assert alone.value == pytest.approx(1.0) and alone.low is None
