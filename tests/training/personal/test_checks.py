"""Checks of takes, on speech of the bundle that is damaged in known ways."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from tokenlm.audio.io import read_pieces, read_recording, save_audio
from tokenlm.audio.noise import reverberation_seconds, speech_levels
from tokenlm.checkpoint.resolve import resolve
from training.data.augment import add_noise, clip, impulse_response, make_noise, reverberate
from training.personal.checks import (
    OUTCOMES,
    Finding,
    Reading,
    TakeChecker,
    TakeReport,
    bundle_checker,
)
from training.personal.config import TakeConfig

TEXT = (resolve("mini-en") / "demo_prompt.txt").read_text(encoding="utf-8").strip()
CHECKER = TakeChecker()
BY_LEVEL = TakeChecker(config=TakeConfig(detector="level"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def speech() -> tuple[Tensor, int]:
    """Speech alone (S,), without silence around it."""
    return read_recording(resolve("mini-en") / "demo_prompt.wav")


@pytest.fixture(scope="module")
def take(speech: tuple[Tensor, int]) -> Tensor:
    """A good take: half a second of a quiet room around the speech."""
    return in_a_room(*speech)


def in_a_room(waveform: Tensor, rate: int) -> Tensor:
    waveform = pad(waveform, (rate // 2, rate // 2))
    return waveform + 1e-4 * torch.randn(waveform.shape, generator=seeded(1))


def found(report: TakeReport, check: str) -> Finding:
    (one,) = (one for one in report.findings if one.check == check)
    return one


def test_a_good_take_is_fine(take: Tensor, speech: tuple[Tensor, int]) -> None:
    report = CHECKER.check(take, speech[1], TEXT, usual_rate=speech[1])
    assert report.outcome == "fine" and report.problems == [], str(report)
    assert {one.check for one in report.findings} >= {
        "level", "noise", "clipping", "bandwidth", "echo", "ends", "rate", "background",
    }  # fmt: skip
    assert str(report) == "fine" and all(one.hint == "" for one in report.findings)


@pytest.mark.parametrize("kind", ["white", "pink", "hum"])
def test_the_signal_to_noise_ratio_is_estimated(speech: tuple[Tensor, int], kind: str) -> None:
    waveform, rate = speech
    silence = rate // 2
    for snr in (20.0, 15.0, 10.0, 5.0, 0.0):
        noise = make_noise(kind, waveform.shape[0] + 2 * silence, rate, seeded(3))
        scale = (waveform.square().mean() / noise.square().mean()).sqrt() * 10 ** (-snr / 20)
        levels = speech_levels(pad(waveform, (silence, silence)) + scale * noise, rate)
        assert levels.snr_db == pytest.approx(snr, abs=2.5), (kind, snr)


def test_noise_decides_between_fine_enhance_and_again(
    take: Tensor, speech: tuple[Tensor, int]
) -> None:
    outcomes = {}
    for snr in (35.0, 12.0, -6.0):
        noisy = add_noise(take, make_noise("pink", len(take), speech[1], seeded(3)), snr)
        # Quieter as a whole: noise in full scale is no clipping.
        outcomes[snr] = found(BY_LEVEL.check(0.3 * noisy, speech[1], ""), "noise")
    assert [one.outcome for one in outcomes.values()] == ["fine", "enhance", "again"]
    assert "dB louder than the noise" in outcomes[12.0].reason
    assert "closer to the microphone" in outcomes[12.0].hint


def test_level_and_sound_pressure(take: Tensor, speech: tuple[Tensor, int]) -> None:
    rate = speech[1]
    level = found(BY_LEVEL.check(take, rate, ""), "level").value
    assert level == pytest.approx(speech_levels(take, rate).speech_db)
    quiet = BY_LEVEL.check(take * 0.02, rate, "")
    assert found(quiet, "level").outcome == "enhance"
    assert found(quiet, "level").value == pytest.approx(level - 33.98, abs=0.3)
    calibrated = replace(BY_LEVEL, config=TakeConfig(detector="level", calibration_db=90.0))
    report = calibrated.check(take, rate, "")
    assert f"{level + 90:.0f} dB SPL at the microphone" in found(report, "level").reason
    # The room has 1e-4, -80 dBFS: 10 dB SPL.
    assert found(report, "room").value == pytest.approx(10.0, abs=1.5)
    assert found(report, "room").outcome == "fine"
    loud = replace(BY_LEVEL, config=TakeConfig(detector="level", calibration_db=150.0))
    assert found(loud.check(take, rate, ""), "room").outcome == "again"


def test_clipping(take: Tensor, speech: tuple[Tensor, int]) -> None:
    outcomes = [
        found(BY_LEVEL.check(clip(take, share), speech[1], ""), "clipping").outcome
        for share in (1.0, 0.95, 0.4)
    ]
    assert outcomes == ["fine", "enhance", "again"]


def test_cut_ends(take: Tensor, speech: tuple[Tensor, int]) -> None:
    waveform, rate = take, speech[1]
    loud = int(waveform.abs().argmax())
    starts = found(BY_LEVEL.check(waveform[loud:], rate, ""), "ends")
    assert starts.outcome == "again" and "cut at the start" in starts.reason
    stops = found(BY_LEVEL.check(waveform[:loud], rate, ""), "ends")
    assert stops.outcome == "again" and "cut at the end" in stops.reason
    assert "half a second" in stops.hint
    noisy = add_noise(waveform, make_noise("white", len(waveform), rate, seeded(1)), 8.0)
    assert found(BY_LEVEL.check(noisy, rate, ""), "ends").outcome == "fine", "noise is no word"


def test_echo(take: Tensor, speech: tuple[Tensor, int]) -> None:
    rate = speech[1]
    long = pad(take, (0, rate // 2))
    seconds = [reverberation_seconds(long, rate)]
    for true in (0.5, 0.8, 1.2):
        response = impulse_response(rate, true, seeded(2))
        seconds.append(reverberation_seconds(reverberate(long, response, 0.0), rate))
    dry, small, middle, large = (value or 0.0 for value in seconds)
    assert dry < 0.3 and small == pytest.approx(0.45, abs=0.08)
    assert small < middle < large < 1.2, "short of the truth, as the documentation says"
    assert middle > TakeConfig().fine_echo_seconds > small
    echoing = reverberate(long, impulse_response(rate, 1.2, seeded(2)), 0.0)
    assert found(BY_LEVEL.check(echoing, rate, ""), "echo").outcome == "enhance"
    assert reverberation_seconds(torch.zeros(100), rate) is None
    noisy = add_noise(take, make_noise("white", len(take), rate, seeded(1)), 8.0)
    assert "echo" not in [one.check for one in BY_LEVEL.check(noisy, rate, "").findings]


def test_a_muffled_take(take: Tensor, speech: tuple[Tensor, int]) -> None:
    from tokenlm.audio.resample import resample

    rate = speech[1]
    telephone = resample(resample(take, rate, 8000), 8000, rate)
    one = found(BY_LEVEL.check(telephone, rate, ""), "bandwidth")
    assert one.outcome == "enhance" and "wireless headset" in one.hint


def test_takes_without_speech(speech: tuple[Tensor, int]) -> None:
    rate = speech[1]
    for waveform in (
        torch.zeros(2 * rate),
        1e-5 * torch.randn(2 * rate, generator=seeded(0)),
        0.1 * torch.randn(2 * rate, generator=seeded(0)),
    ):
        report = CHECKER.check(waveform, rate, TEXT)
        assert [one.check for one in report.findings] == ["speech"]
        assert report.outcome == "again" and "microphone" in report.problems[0].hint
    assert "only 0.10 s long" in str(CHECKER.check(torch.zeros(rate // 10), rate, TEXT))
    assert "more than 60 s" in str(CHECKER.check(torch.zeros(61 * rate), rate, TEXT))


def test_another_rate_than_usual(take: Tensor, speech: tuple[Tensor, int]) -> None:
    one = found(BY_LEVEL.check(take, speech[1], "", usual_rate=48_000), "rate")
    assert one.outcome == "again" and "the other takes at 48000 Hz" in one.reason


def test_another_voice_around_the_sentence(take: Tensor, speech: tuple[Tensor, int]) -> None:
    """A radio in the room, 15 dB below the speaker; noise as loud is none."""
    waveform, rate = speech
    radio = waveform.flip(0).roll(rate // 3).repeat(3)  # backwards: other words, still a voice
    radio = radio[: len(take)]
    one = found(CHECKER.check(add_noise(take, radio, 15.0), rate, ""), "background")
    assert one.outcome == "again" and "somebody is heard" in one.reason
    noise = make_noise("pink", len(take), rate, seeded(4))
    assert found(CHECKER.check(add_noise(take, noise, 15.0), rate, ""), "background").value == 0.0


def test_words_by_a_recogniser(take: Tensor, speech: tuple[Tensor, int]) -> None:
    told = replace(BY_LEVEL, recognise=lambda waveform: "It was late, and we went home.")
    fine = found(told.check(take, speech[1], "It was late and we went home!"), "words")
    assert (fine.outcome, fine.value) == ("fine", 0.0)
    wrong = told.check(take, speech[1], "It was early and they stayed there.")
    assert found(wrong, "words").outcome == "again" and "heard: 'It was late" in str(wrong)
    assert wrong.heard == "It was late, and we went home."


def test_words_by_reading_back(take: Tensor, speech: tuple[Tensor, int]) -> None:
    def outcome(error: float, missing: int) -> str:
        reading = Reading(error_rate=error, num_words=10, missing=missing, heard="x")
        checker = replace(BY_LEVEL, read=lambda *_: reading)
        return found(checker.check(take, speech[1], TEXT), "words").outcome

    assert outcome(0.1, 0) == "fine"
    assert outcome(0.55, 2) == "fine", "a voice that is hard to read: nothing is sure"
    assert outcome(0.7, 0) == "again"
    assert outcome(0.35, 3) == "again", "the other words are read well, so these are missing"
    unknown = replace(BY_LEVEL, read=lambda *_: None)
    names = [one.check for one in unknown.check(take, speech[1], "…").findings]
    assert "words" not in names


def test_another_person(take: Tensor, speech: tuple[Tensor, int]) -> None:
    checker = replace(BY_LEVEL, embed=lambda waveform: torch.tensor([1.0, 0.0]), encoder="e")
    report = checker.check(take, speech[1], "", [(1.0, 0.1), (1.0, -0.1), (0.9, 0.0)])
    assert found(report, "person").value == pytest.approx(1.0) and report.embedding == (1.0, 0.0)
    other = checker.check(take, speech[1], "", [(0.0, 1.0)] * 3)
    assert found(other, "person").outcome == "again" and "one person" in str(other)
    few = checker.check(take, speech[1], "", [(0.0, 1.0)] * 2)
    assert "person" not in [one.check for one in few.findings], "two takes are nobody yet"


def test_the_worst_finding_decides() -> None:
    def one(check: str, outcome: str) -> Finding:
        return Finding(check=check, outcome=outcome, value=None, reason=f"r {check}", hint="h")  # type: ignore[arg-type]

    report = TakeReport(findings=(one("a", "enhance"), one("b", "again"), one("c", "fine")))
    assert report.outcome == "again" and [p.check for p in report.problems] == ["b", "a"]
    assert str(report) == f"{OUTCOMES['again']}\n  b: r b; h\n  a: r a; h"
    json.dumps(asdict(report))


def test_thresholds_that_contradict_one_another() -> None:
    for wrong in (
        {"fine_snr_db": 1.0},
        {"usable_clipped_share": 0.0},
        {"fine_level_dbfs": -70.0},
        {"min_seconds": 0.0},
        {"min_speaker_similarity": 2.0},
        {"num_known_takes": 0},
    ):
        with pytest.raises(ValueError, match="|".join(wrong)):
            TakeConfig(**wrong)


def test_a_recording_in_pieces_is_the_recording(tmp_path: Path, speech: tuple[Tensor, int]) -> None:
    waveform, rate = speech
    save_audio(tmp_path / "a.wav", waveform, rate)
    whole, _ = read_recording(tmp_path / "a.wav")
    pieces = list(read_pieces(tmp_path / "a.wav", 0.7))
    assert {one for _, one in pieces} == {rate}
    assert all(len(piece) == round(0.7 * rate) for piece, _ in pieces[:-1])
    assert torch.equal(torch.cat([piece for piece, _ in pieces]), whole)


@pytest.mark.slow
def test_persons_and_words_by_the_bundle() -> None:
    """Two voices of the bundle, and sentences that were not read or not finished."""
    from tokenlm.synthesis import Synthesizer

    synthesizer = Synthesizer.from_pretrained("mini-en")
    rate = synthesizer.sample_rate
    texts = ["The bus was late again, so I went on foot.", "Could you please pass me the butter?"]
    takes = {
        (voice, text): in_a_room(synthesizer.generate(text, voice=voice, seed=0), rate)
        for voice in ("slt", "kal")
        for text in texts
    }
    checker = bundle_checker("mini-en")
    own = checker.check(takes["slt", texts[0]], rate, texts[0]).embedding
    report = checker.check(takes["slt", texts[1]], rate, texts[1], [own] * 3)
    assert report.outcome == "fine", str(report)
    assert (found(report, "person").value or 0) > 0.85
    for snr in (10.0,):
        noise = make_noise("pink", len(takes["slt", texts[1]]), rate, seeded(3))
        noisy = add_noise(takes["slt", texts[1]], noise, snr)
        report = checker.check(noisy, rate, texts[1], [own] * 3)
        assert report.outcome == "enhance", "noise alone makes no other person, and no other words"
    other = checker.check(takes["kal", texts[1]], rate, texts[1], [own] * 3)
    assert [problem.check for problem in other.problems] == ["person"]
    wrong = checker.check(takes["slt", texts[1]], rate, texts[0], [own] * 3)
    assert [problem.check for problem in wrong.problems] == ["words"]
    half = takes["slt", texts[0]][: int(0.55 * len(takes["slt", texts[0]]))]
    unfinished = checker.check(pad(half, (0, rate // 4)), rate, texts[0], [own] * 3)
    assert found(unfinished, "words").outcome == "again"
    assert "words are not heard" in found(unfinished, "words").reason
