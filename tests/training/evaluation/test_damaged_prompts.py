from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tokenlm.audio.level import rms_dbfs
from training.evaluation.conditions import damaged_prompt_figures, damaged_prompt_suite
from training.evaluation.prompts import DAMAGES, Prompt, damage_prompt
from training.evaluation.sets import read_recording_set
from training.evaluation.suite import score, speak


@pytest.fixture
def prompt(say_vowels: Callable[..., torch.Tensor]) -> Prompt:
    return Prompt(name="me", waveform=say_vowels(140.0), sample_rate=16_000, text="Ah.")


def band_db(waveform: torch.Tensor, low: float, high: float) -> float:
    power = torch.fft.rfft(waveform).abs().square()
    hertz = torch.arange(len(power)) * 16_000 / len(waveform)
    return 10 * math.log10(float(power[(hertz >= low) & (hertz < high)].sum()) + 1e-12)


def test_each_damage_does_what_it_says(prompt: Prompt) -> None:
    clean = prompt.waveform
    noisy = damage_prompt(prompt, "noise", 1).waveform
    assert rms_dbfs(clean) - rms_dbfs(noisy - clean) == pytest.approx(10.0, abs=0.3)
    quiet = damage_prompt(prompt, "quiet", 1).waveform
    assert rms_dbfs(quiet) - rms_dbfs(clean) == pytest.approx(-30.0, abs=0.05)
    # It has the steps of a file of 16 bits.
    assert torch.equal(quiet * 32768, (quiet * 32768).round()) and len(quiet.unique()) < 1500
    telephone = damage_prompt(prompt, "telephone", 1).waveform
    assert band_db(telephone, 500, 3000) == pytest.approx(band_db(clean, 500, 3000), abs=0.1)
    assert band_db(telephone, 4500, 8000) < band_db(clean, 4500, 8000) - 15
    assert band_db(telephone, 0, 240) < band_db(clean, 0, 240) - 15
    wet = damage_prompt(prompt, "reverberation", 1).waveform
    assert rms_dbfs(wet) == pytest.approx(rms_dbfs(clean), abs=0.1)
    change = wet - clean * (clean @ wet) / (clean @ clean)
    assert -12 < rms_dbfs(change) - rms_dbfs(clean) < 0


@pytest.mark.parametrize("name", list(DAMAGES))
def test_the_same_seed_gives_the_same_damage(prompt: Prompt, name: str) -> None:
    first, again, other = (damage_prompt(prompt, name, seed) for seed in (5, 5, 6))
    assert torch.equal(first.waveform, again.waveform)
    assert torch.equal(first.waveform, other.waveform) == (name in ("telephone", "quiet"))
    assert len(first.waveform) == len(prompt.waveform) and first.text == "Ah."
    assert first.name == f"me {name}"


@pytest.mark.slow
def test_every_damage_is_compared_with_the_clean_prompt(voices: Path, parrot) -> None:
    test_set = read_recording_set("heldout", voices, num_items=4, num_voices=2, prompt_seconds=1.0)
    lost = {"noise": 3, "telephone": 1}
    speaker = parrot(lambda prompt: lost.get(prompt.name.split(" ")[-1], 1))
    suite = damaged_prompt_suite(test_set, 0)
    judged: list[int] = []
    scores = score(suite, speak(speaker, suite), speaker.judges(), lambda: judged.append(1))
    rows = [one.row for one in scores]
    found = {figure.name: figure for figure in damaged_prompt_figures(rows)}
    assert len(judged) == len(rows) == 5 * 4
    assert found["noise_word_errors_over_clean"].value == 3.0
    assert found["telephone_word_errors_over_clean"].value == 1.0
    assert "white noise at 10 dB; the same sentences" in found["noise_word_errors_over_clean"].note
    assert "clean_word_errors_over_clean" not in found
    assert found["clean_word_error_rate"].note.startswith("4 of ")
    # The similarity is that to the clean prompt, whatever the speech was made of.
    assert found["clean_speaker_similarity"].value == pytest.approx(1.0, abs=1e-4)
    assert found["quiet_speaker_similarity"].value == pytest.approx(1.0, abs=1e-3)
    assert found["noise_speaker_similarity"].value < 0.9999
    said = [(request.text, request.seed) for request in speaker.said]
    assert all(said[start : start + 4] == said[:4] for start in range(0, 20, 4))
    sounds = [request.prompt.waveform for request in speaker.said]
    assert not torch.equal(sounds[0], sounds[4])
