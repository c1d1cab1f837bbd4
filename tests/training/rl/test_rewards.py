"""Rewards by hand, and what must not be able to cheat them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.guards import ReadBack
from training.rl.rewards import (
    FLOOR,
    Answer,
    DurationReward,
    FailureCount,
    RewardConfig,
    RewardError,
    RewardSet,
    SimilarityReward,
    Sound,
    TokenAsrReward,
    TokenLikelihoodReward,
    WaveformAsrReward,
    combine,
    word_error,
    written_error,
)

BUNDLE = Path(__file__).parents[3] / "checkpoints" / "mini-en"


def answer(tokens: list[int], text: str = "abcd", **more: bool) -> Answer:
    return Answer(text=text, num_text_tokens=4, tokens=tuple(tokens), **more)


def test_duration_by_hand() -> None:
    # 6 speech tokens for any text and 2 for each of its tokens; half and twice that are said.
    lengths = [(n, (6 + 2 * n) * twice_or_half // 2) for n in (2, 5, 9) for twice_or_half in (1, 4)]
    prior = DurationReward(6.0, 2.0, math.log(2))
    # 14 tokens are expected, 56 are two deviations above, 112 three.
    found = prior([answer([1] * count) for count in (14, 56, 112)])
    assert found == pytest.approx([1.0, 1.0, math.exp(-0.5)])
    # 8 are expected without a start, 1 is three deviations below.
    assert DurationReward(0.0, 2.0, math.log(2))([answer([1])]) == pytest.approx([math.exp(-0.5)])
    assert prior([answer([]), answer([1] * 14, has_ended=False)]) == [0.0, 0.0]
    assert prior([Answer(text="", num_text_tokens=0, tokens=(1,))]) == [None]
    fitted = DurationReward.fit([*lengths, (0, 5), (5, 0)])
    # The line is scaled to be right in the logarithm, so the middle of half and twice is found.
    assert (fitted.start, fitted.rate) == pytest.approx((6.0, 2.0))
    assert fitted.deviation == pytest.approx(math.log(2))


def test_a_word_alone_takes_longer_than_its_share_of_a_sentence() -> None:
    rng = np.random.default_rng(0)
    text = rng.integers(2, 60, 500)
    speech = np.round((8 + 1.6 * text) * np.exp(rng.normal(0, 0.1, 500))).astype(int)
    prior = DurationReward.fit(list(zip(text.tolist(), speech.tolist(), strict=True)))
    word = lambda count: Answer(text="no", num_text_tokens=2, tokens=(1,) * count)  # noqa: E731
    at_pace, hurried = prior([word(11), word(6)])
    assert at_pace == 1.0
    assert hurried is not None and hurried < 0.3


def test_durations_without_a_line_are_a_ratio() -> None:
    # Texts of one length, and texts whose longer ones are said faster than the shorter ones.
    for lengths in ([(4, 8), (4, 32)], [(2, 2), (4, 16)]):
        prior = DurationReward.fit(lengths)
        assert prior.start == 0.0
        assert math.log(prior.rate) == pytest.approx(np.mean([math.log(b / a) for a, b in lengths]))
    with pytest.raises(ValueError, match="no utterance"):
        DurationReward.fit([(0, 5), (5, 0)])


def test_words_of_the_sound_by_hand() -> None:
    heard = {1: "one two", 2: "one two one two", 3: ""}
    render = lambda tokens: torch.full((4,), float(tokens[0]) / 10)  # noqa: E731
    reward = WaveformAsrReward(
        render, lambda pcm: heard[round(np.frombuffer(pcm, "<i2")[0] / 3276.7)]
    )
    answers = [answer([n], "One, two.") for n in (1, 2, 3)] + [answer([], "One, two.")]
    assert reward(answers) == [1.0, 0.0, 0.0, 0.0]


def test_texts_as_they_are_written_by_hand() -> None:
    assert written_error("今天是2号。", "今天 是2 号") == 0.0  # spaces that the text has not
    assert written_error("你好吗？", "你吗呢") == pytest.approx(2 / 3)
    assert written_error("So so.", "soso") == pytest.approx(1 / 5)
    assert written_error("……", "a") is None
    render = lambda tokens: torch.zeros(4)  # noqa: E731
    by_character = WaveformAsrReward(render, lambda pcm: "你吗呢", written_error)
    assert by_character([answer([1], "你好吗？")]) == [pytest.approx(1 / 3)]
    # Words of a text without any are not known, and no zero.
    by_word = WaveformAsrReward(render, lambda pcm: "你吗呢", word_error)
    assert by_word([answer([1], "你好吗？")]) == [None]


def test_a_failure_is_none_and_not_a_zero() -> None:
    def render(tokens: object) -> torch.Tensor:
        raise ValueError("no sound today")

    assert WaveformAsrReward(render, lambda pcm: "")([answer([1])]) == [None]
    target = torch.tensor([1.0, 0.0])
    assert SimilarityReward(render, lambda w: target, target)([answer([1])]) == [None]


def test_similarity_by_hand() -> None:
    reward = SimilarityReward(
        lambda tokens: torch.tensor([float(tokens[0]), float(tokens[1])]),
        lambda waveform: waveform,
        torch.tensor([1.0, 0.0]),
        floor=0.5,
    )
    # Cosines of 1, 0.6 and 0, of which 0.5 is worth nothing.
    assert reward([answer([1, 0]), answer([3, 4]), answer([0, 1])]) == pytest.approx(
        [1.0, 0.2, 0.0]
    )


def test_nothing_is_traded_away() -> None:
    weights = {"words": 1.0, "voice": 1.0, "off": 0.0}
    assert combine({"words": 0.25, "voice": 1.0, "off": None}, weights) == pytest.approx(0.5)
    # A perfect reading in the wrong voice is worth less than a fair one in the right voice.
    assert combine({"words": 1.0, "voice": 0.0}, {"words": 1.0, "voice": 1.0}) == pytest.approx(
        math.sqrt(FLOOR)
    )
    assert combine({"words": 0.5, "voice": 0.5}, {"words": 1.0, "voice": 1.0}) == pytest.approx(0.5)
    assert combine({"words": 0.81, "voice": 1.0}, {"words": 1.0, "voice": 3.0}) == pytest.approx(
        0.81**0.25
    )
    assert combine({"words": None, "voice": 1.0}, {"words": 1.0, "voice": 1.0}) is None
    assert combine({"words": math.nan}, {"words": 1.0}) is None


def test_a_text_in_another_script_is_not_rewarded() -> None:
    """A recogniser that knows nothing of a text has nothing to say about it, least of all a 1."""
    torch.manual_seed(0)
    sizes = {"levels": (3, 3), "dim": 8, "num_heads": 2, "num_layers": 1}
    english = TokenRecognizer(TokenRecognizerConfig(**sizes)).eval()  # type: ignore[arg-type]
    chinese = TokenRecognizer(TokenRecognizerConfig(**sizes, alphabet="你好"))  # type: ignore[arg-type]
    answers = [answer([1, 5], "你好。"), answer([], "你好。")]
    for reward in (TokenAsrReward, TokenLikelihoodReward):
        assert reward(ReadBack(english))(answers) == [None, None]
        assert reward(ReadBack(chinese.eval()))(answers)[1] == 0.0


def test_too_many_failures_stop_the_run() -> None:
    count = FailureCount(0.1, min_answers=10)
    count.add([None, None, 1.0])  # too few to say
    count.add([1.0] * 17)  # 2 of 20: as many as allowed
    with pytest.raises(RewardError, match="3 of 21 rewards failed, more than the share of 0.1"):
        count.add([None])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_asr": -1.0}, "must not be negative"),
        ({"token_likelihood": -1.0}, "must not be negative"),
        ({"token_asr": 0.0, "duration": 0.0}, "one must be above 0"),
        ({"similarity": 1.0}, "need a bundle"),
        ({"waveform_asr": 1.0, "bundle": "x"}, "needs a recognizer"),
        ({"recognizer": "pocketsphinx"}, "is a judge of tokenlm evaluate"),
        ({"max_failed_share": 2.0}, "max_failed_share"),
    ],
)
def test_impossible_configs(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardConfig(**change)


def test_a_reward_that_is_missing_its_model_is_told() -> None:
    with pytest.raises(ValueError, match="the reward token_asr reads tokens"):
        RewardSet(RewardConfig(), None, [(1, 2)])
    config = RewardConfig(token_asr=0.0, token_likelihood=1.0)
    with pytest.raises(ValueError, match="the reward token_likelihood reads tokens"):
        RewardSet(config, None, [(1, 2)])


class Attacks:
    """Answers to what the prompts of the embedded voices say, honest ones and cheats."""

    def __init__(self) -> None:
        self.synthesizer = Synthesizer.from_pretrained(BUNDLE)
        parts = self.synthesizer.components
        voices = [self.synthesizer.voice(name) for name in self.synthesizer.voices]
        self.voice, other = voices[0], voices[1]
        tokens, leaked = self.voice.prompt_tokens.tolist(), other.prompt_tokens.tolist()
        self.text = self.voice.prompt_text
        self.length = len(parts.text_tokenizer.encode(self.text))
        silence = parts.speech_tokenizer.encode(torch.zeros(1, 16_000 * len(tokens) // 25))[0][0]
        self.answers = {
            "honest": self.answer(tokens),
            "silence": self.answer(silence.tolist()),
            "empty": self.answer([]),
            "repeated": self.answer(tokens * 3),
            "leaked": self.answer(leaked + tokens),
            "another text": self.answer(leaked),
            "cut off": self.answer(tokens[: len(tokens) // 3]),
        }
        self.rewards = {
            "token_asr": TokenAsrReward(parts.read_back),
            "token_likelihood": TokenLikelihoodReward(parts.read_back),
            "letters": TokenAsrReward(ReadBack(parts.token_recognizer)),
            # The pace of the voice itself, give or take a fifth.
            "duration": DurationReward(0.0, len(tokens) / self.length, 0.2),
        }

    def answer(self, tokens: list[int]) -> Answer:
        return Answer(text=self.text, num_text_tokens=self.length, tokens=tuple(tokens))

    def values(self, name: str) -> dict[str, float]:
        found = self.rewards[name](list(self.answers.values()))
        return dict(zip(self.answers, found, strict=True))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def attacks() -> Attacks:
    return Attacks()


@pytest.mark.parametrize("reward", ["token_asr", "token_likelihood", "letters"])
@pytest.mark.parametrize(
    "cheat", ["silence", "empty", "repeated", "leaked", "another text", "cut off"]
)
def test_what_is_said_cannot_be_cheated(attacks: Attacks, cheat: str, reward: str) -> None:
    found = attacks.values(reward)
    assert found["honest"] > 0.5
    assert found[cheat] < 0.6 * found["honest"]


@pytest.mark.parametrize("cheat", ["empty", "repeated", "leaked", "cut off"])
def test_length_cannot_be_cheated(attacks: Attacks, cheat: str) -> None:
    found = attacks.values("duration")
    assert found["honest"] > 0.99 and found[cheat] < 0.6


def test_together_every_cheat_is_worse_than_either_reward_says(attacks: Attacks) -> None:
    weights = {"token_asr": 1.0, "duration": 0.5}
    named = {name: attacks.values(name) for name in weights}
    found = {
        cheat: combine({name: values[cheat] for name, values in named.items()}, weights)
        for cheat in attacks.answers
    }
    honest = found.pop("honest")
    assert honest is not None
    for cheat, value in found.items():
        assert value is not None and value < 0.7 * honest, cheat


def test_another_voice_is_not_this_one(attacks: Attacks) -> None:
    sound = Sound(str(BUNDLE), attacks.voice.name)
    short = answer(attacks.voice.prompt_tokens.tolist()[:50])
    own = SimilarityReward(sound.render, sound.embed, sound.target)([short])[0]
    names = [name for name in attacks.synthesizer.voices if name != attacks.voice.name]
    target = Sound(str(BUNDLE), names[0])
    # The same tokens in the voice of somebody else, beside the voice that was asked for.
    other = SimilarityReward(target.render, sound.embed, sound.target)([short])[0]
    assert own is not None and other is not None
    assert own > other + 0.1
