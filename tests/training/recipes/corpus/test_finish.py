from __future__ import annotations

import numpy as np
import pytest

from training.recipes.corpus.config import CorpusConfig, PersonConfig
from training.recipes.corpus.engines import EngineError, Speech
from training.recipes.corpus.finish import finish, highpass, shift_phones, speech_bounds

CONFIG = CorpusConfig(people=(PersonConfig(name="slt", engine="flite", voices=("slt",), share=1),))
PHONES = [("pau", 0.5), ("ah", 1.5), ("pau", 2.0)]


def speech(frequency: float = 200.0, offset: float = 0.0) -> Speech:
    """Two seconds with a tone between 0.5 and 1.5 s."""
    time = np.arange(32000) / 16000
    wave = 0.2 * np.sin(2 * np.pi * frequency * time) * ((time >= 0.5) & (time < 1.5)) + offset
    return Speech(waveform=wave.astype(np.float32), sample_rate=16000, phones=PHONES)


def peak_frequency(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform, 65536))
    return float(spectrum.argmax() * 16000 / 65536)


def test_trimmed_levelled_and_in_whole_blocks() -> None:
    waveform, phones = finish(speech(offset=0.05), 1.0, CONFIG)
    # 80 ms + 1 s + 80 ms, up to the next whole 40 ms; the filter may smear a frame or two.
    assert len(waveform) % 640 == 0
    assert 1.16 <= len(waveform) / 16000 <= 1.28
    assert 20 * np.log10(np.sqrt(np.mean(waveform**2))) == pytest.approx(-22, abs=0.05)
    assert abs(waveform.mean()) < 1e-3
    assert [name for name, _ in phones] == ["pau", "ah", "pau"]
    assert phones[0][1] == pytest.approx(0.08, abs=0.03)
    assert phones[1][1] - phones[0][1] == pytest.approx(1.0, abs=1e-3)
    assert phones[-1][1] == pytest.approx(len(waveform) / 16000, abs=1e-4)


def test_timbre_changes_the_long_term_spectrum_and_nothing_else() -> None:
    time = np.arange(32000) / 16000
    wave = 0.1 * (np.sin(2 * np.pi * 200 * time) + np.sin(2 * np.pi * 6000 * time))
    wave *= (time >= 0.5) & (time < 1.5)
    sound = Speech(waveform=wave.astype(np.float32), sample_rate=16000, phones=PHONES)
    plain, phones = finish(sound, 1.0, CONFIG)
    dull, dull_phones = finish(sound, 1.0, CONFIG, (0.0, 0.0, 0.0, 0.0, 0.0, -20.0))
    assert len(dull) == len(plain) and dull_phones == phones

    def ratio_db(waveform: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
        bins = len(waveform) / 16000
        high, low = (spectrum[round(f * bins) - 9 : round(f * bins) + 9].max() for f in (6e3, 200))
        return 20 * np.log10(high / low)

    assert ratio_db(plain) == pytest.approx(0, abs=0.3)
    assert -20 < ratio_db(dull) < -12


@pytest.mark.parametrize("factor", [0.88, 1.12])
def test_factor_moves_frequencies_up_and_ends_together(factor: float) -> None:
    waveform, phones = finish(speech(), factor, CONFIG)
    assert peak_frequency(waveform) == pytest.approx(200 * factor, rel=0.01)
    assert phones[1][1] - phones[0][1] == pytest.approx(1.0 / factor, abs=1e-3)
    # The tone lies where its phone says.
    inside = waveform[round(phones[0][1] * 16000) + 320 : round(phones[1][1] * 16000) - 320]
    before = waveform[: round(phones[0][1] * 16000) - 320]
    assert np.mean(inside**2) > 1000 * np.mean(before**2)


def test_silence_is_an_error() -> None:
    with pytest.raises(EngineError, match="silence"):
        finish(Speech(waveform=np.zeros(16000, np.float32), sample_rate=16000), 1.0, CONFIG)


def test_speech_bounds() -> None:
    waveform = np.zeros(1600)
    waveform[480:800] = 0.5
    assert speech_bounds(waveform, 16000) == (480, 800)
    assert speech_bounds(np.zeros(1600), 16000) == (0, 0)


def test_shift_phones_drops_what_was_cut_away() -> None:
    phones = [("pau", 0.2), ("x", 0.5), ("pau", 2.0)]
    assert shift_phones(phones, 2.0, 0.15, 0.5) == [("x", 0.1), ("pau", 0.5)]
    assert shift_phones([], 1.0, 0.0, 1.0) == []


def test_highpass_halves_the_corner_and_removes_an_offset() -> None:
    time = np.arange(16000) / 16000
    for frequency, gain in ((50, 0.5), (200, 256 / 257), (25, 1 / 17)):
        wave = np.sin(2 * np.pi * frequency * time) + 0.3
        middle = highpass(wave, 16000, 50.0)[4000:12000]
        assert np.abs(middle).max() == pytest.approx(gain, abs=0.01)
        assert abs(middle.mean()) < 1e-3
