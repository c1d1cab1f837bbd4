"""The cascade on made posteriors and sounds: decisions, their reasons, the end of speech."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokenlm.models.directedness import (
    AcousticDirectedness,
    AcousticDirectednessConfig,
    TextDirectedness,
    TextDirectednessConfig,
)
from tokenlm.models.phrase_detector import PhraseDetector, PhraseDetectorConfig
from tokenlm.text.tokenizers import PhonemeTokenizer
from tokenlm.trigger.cascade import (
    Combination,
    Decision,
    SpeechEnd,
    Thresholds,
    Trigger,
    TriggerConfig,
    describe_sound,
    listen,
)
from tokenlm.trigger.checker import Checker, Scored

TOKENIZER = Path(__file__).parents[2] / "checkpoints" / "mini-en" / "text_tokenizer"
PHONES = ("hh", "ey", "t", "ow", "k", "ax", "n")
RATE = 16_000


class Tones(nn.Module):
    """In place of a detector: the tone of 100 Hz times n stands for the n-th phone."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PhraseDetectorConfig(
            phrases=("hey token", "token"), phones=(PHONES, PHONES[2:]), delay_frames=0
        )
        self._net = PhraseDetector(PhraseDetectorConfig(delay_frames=0))

    def init_state(self, batch_size: int) -> list[Tensor]:
        return [torch.zeros(batch_size, 0)]

    def forward(self, waveform: Tensor, state: list[Tensor]) -> Tensor:
        joined = torch.cat([state[0], waveform], dim=1)
        count = joined.shape[1] // 160
        state[0] = joined[:, count * 160 :]
        frames = joined[:, : count * 160].view(1, count, 160)
        power = torch.fft.rfft(frames, dim=-1).abs()[..., 1:9]
        tone = power.argmax(dim=-1) + 1  # 100 Hz times this
        loud = frames.abs().amax(dim=-1) > 0.01
        logits = torch.full((1, count, self.config.num_states), -6.0)
        for number in range(7):
            for part in range(3):
                logits[..., 3 * number + part][loud & (tone == number + 1)] = 6.0
        logits[..., self.config.silence][~loud] = 6.0
        logits[..., self.config.background][loud & (tone > 7)] = 6.0
        return logits.log_softmax(-1)


class Ears(Checker):
    """In place of a checker: hears a phrase where its tones are there."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.heard: list[int] = []

    def score_all(self, waveform: Tensor, phrases: object) -> list[Scored]:  # type: ignore[override]
        self.heard.append(len(waveform))
        return [
            Scored(log_probability=self.scores[phrase], start_seconds=0.5, end_seconds=1.0)
            for phrase in phrases  # type: ignore[attr-defined]
        ]


def tones(*numbers: int, seconds: float = 0.08) -> Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return torch.cat([0.3 * torch.sin(2 * math.pi * 100 * n * time) for n in numbers])


def trigger(scores: dict[str, float]) -> Trigger:
    config = TriggerConfig(
        phrases=("hey token", "token"),
        max_speech_seconds=4.0,
        thresholds={name: Thresholds(detector=2.0) for name in ("hey token", "token")},
    )
    return Trigger(Tones(), Ears(scores), config)  # type: ignore[arg-type]


SILENCE = torch.zeros(RATE)
HEY_TOKEN = torch.cat([SILENCE, tones(*range(1, 8)), SILENCE, SILENCE])


def test_the_longer_phrase_is_decided_once() -> None:
    heard = listen(trigger({"hey token": -0.5, "token": -0.1}), HEY_TOKEN)
    decisions = [event for event in heard.events if isinstance(event, Decision)]
    assert [decision.phrase for decision in decisions] == ["hey token"]
    assert decisions[0].is_accepted and heard.reason == 'heard "hey token"'
    assert decisions[0].scores["logit"] == pytest.approx(2.5)
    # The checker heard half a second before the phrase, which begins at 1 s.
    assert decisions[0].start_seconds == pytest.approx(1.0, abs=0.02)


def test_the_shorter_phrase_alone() -> None:
    sound = torch.cat([SILENCE, tones(*range(3, 8)), SILENCE, SILENCE])
    heard = listen(trigger({"hey token": -9.0, "token": -0.1}), sound)
    assert [decision.phrase for decision in heard.accepted] == ["token"]


def test_the_checker_refuses() -> None:
    heard = listen(trigger({"hey token": -9.0, "token": -9.0}), HEY_TOKEN)
    assert not heard.accepted
    assert "was proposed, but the checker did not hear it (-6.00, 0.00" in heard.reason


def test_nothing_is_proposed() -> None:
    made = trigger({"hey token": 0.0, "token": 0.0})
    heard = listen(made, torch.cat([SILENCE, tones(8, 8, 8, 8, 8, 8, 8), SILENCE]))
    assert heard.events == () and "the detector did not hear" in heard.reason
    assert made.checker.heard == []  # type: ignore[attr-defined]


def test_pieces_change_nothing() -> None:
    sound = torch.cat([HEY_TOKEN, tones(8, 8, 8), HEY_TOKEN])
    scores = {"hey token": -0.5, "token": -0.1}
    whole = listen(trigger(scores), sound)
    for size in (1601, 7777):
        assert listen(trigger(scores), sound, pieces=sound.split(size)).events == whole.events
    assert len(whole.accepted) == 2


def test_speech_ends_where_it_stays_quiet() -> None:
    spoken = tones(8, seconds=1.0)
    # A pause of half a second does not end it.
    sound = torch.cat([SILENCE, tones(*range(1, 8)), spoken, SILENCE[:8000], spoken, SILENCE])
    heard = listen(trigger({"hey token": -0.5, "token": -0.1}), sound)
    ends = [event for event in heard.events if isinstance(event, SpeechEnd)]
    assert [end.reason for end in ends] == ["it stayed quiet"]
    assert ends[0].seconds == pytest.approx(1.0 + 0.56 + 2.5, abs=0.15)
    cut = torch.cat([SILENCE, tones(*range(1, 8)), tones(8, seconds=4.8)])
    heard = listen(trigger({"hey token": -0.5, "token": -0.1}), cut)
    ends = [event for event in heard.events if isinstance(event, SpeechEnd)]
    assert [end.reason for end in ends] == ["the longest time was up"]


def test_a_second_phrase_ends_the_speech_behind_the_first() -> None:
    phrase = tones(*range(1, 8))
    sound = torch.cat([SILENCE, phrase, tones(8, seconds=1.0), phrase, SILENCE, SILENCE])
    heard = listen(trigger({"hey token": -0.5, "token": -0.1}), sound)
    assert [type(event) for event in heard.events] == [Decision, SpeechEnd] * 2
    ends = [event for event in heard.events if isinstance(event, SpeechEnd)]
    assert [end.reason for end in ends] == ["another phrase was accepted", "it stayed quiet"]
    assert ends[0].seconds == heard.accepted[1].start_seconds
    assert ends[0].seconds == pytest.approx(1.0 + 0.56 + 1.0, abs=0.05)


BAD = {
    "nothing": torch.zeros(0),
    "silence": torch.zeros(RATE),
    "one second": 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0)),
    "music": sum(tones(n, seconds=0.8) for n in (2, 3, 5)),
    "clipped": (20 * tones(8, seconds=1.0)).clamp(-1, 1),
    "not a number": torch.full((RATE,), torch.nan),
    "too loud": torch.full((RATE,), 1e9),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_reason(name: str) -> None:
    torch.manual_seed(0)
    tokenizer = PhonemeTokenizer.from_folder(str(TOKENIZER))
    config = PhraseDetectorConfig(phrases=("token",), phones=(PHONES[2:],), dim=8, num_layers=1)
    made = Trigger(
        PhraseDetector(config),
        Checker.untrained(tokenizer, dim=8, num_layers=1, num_heads=2),
        TriggerConfig(phrases=("token",), thresholds={"token": Thresholds(detector=-9.0)}),
    )
    sound = BAD[name]
    assert isinstance(sound, Tensor)
    heard = listen(made, sound)
    assert heard.reason


def test_what_is_unusual_is_said() -> None:
    noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert describe_sound(noise) == ()
    assert "clipped" in describe_sound((20 * noise).clamp(-1, 1))[0]
    assert "4.5 kHz" in describe_sound(tones(8, seconds=1.0))[0]
    assert describe_sound(torch.zeros(RATE)) == ("the recording is silent",)


def test_a_detector_of_other_phrases_is_refused() -> None:
    config = TriggerConfig(phrases=("computer",), thresholds={"computer": Thresholds()})
    with pytest.raises(ValueError, match="the detector knows hey token, token"):
        Trigger(Tones(), Ears({}), config)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are none of the phrase 'computer'"):
        TriggerConfig(phrases=("computer",))


def test_scores_are_weighed() -> None:
    limits = Combination(weights={"checker": 1.0, "branch": 0.5}, bias=-1.0)
    assert limits.logit({"detector": 9.0, "checker": -0.5, "branch": -2.0}) == -2.5
    assert limits.logit({"checker": -0.5}) == -1.5


def test_what_is_said_behind_the_phrase_is_told_apart() -> None:
    torch.manual_seed(0)
    sizes = {"dim": 16, "num_layers": 1, "num_heads": 2}
    made = trigger({"hey token": -0.5, "token": -0.1})
    made.acoustic = AcousticDirectedness(AcousticDirectednessConfig(**sizes)).eval()
    made.text = TextDirectedness(TextDirectednessConfig(**sizes)).eval()
    heard_text = []

    def transcribe(waveform: Tensor) -> str:
        heard_text.append(len(waveform))
        return "hey token stop"

    made.transcribe = transcribe
    sound = torch.cat([SILENCE, tones(*range(1, 8)), tones(8, seconds=1.0), SILENCE])
    ends = [event for event in listen(made, sound).events if isinstance(event, SpeechEnd)]
    assert set(ends[0].scores) == {"acoustic", "text", "logit"}
    assert ends[0].scores["logit"] == pytest.approx(
        ends[0].scores["acoustic"] + ends[0].scores["text"]
    )
    assert ends[0].is_directed == (ends[0].scores["logit"] >= 0)
    # It heard the phrase of 0.56 s, and the second that followed.
    assert heard_text[0] == pytest.approx(1.56 * RATE, abs=0.2 * RATE)
