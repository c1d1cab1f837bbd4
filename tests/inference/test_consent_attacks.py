"""Attacks on spoken consent, by the models of mini-en. Its voices stand for persons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inference.consent.challenge import Challenge
from inference.consent.settings import ConsentConfig
from inference.consent.verification import ConsentVerifier, Decision
from tokenlm.synthesis import Synthesizer

pytestmark = pytest.mark.slow

TEXT = "The weather was cold this morning, but the sun is out now. We should be home before dark."
TODAY = Challenge(id="", who="Ann Example", words=("river", "seven", "lemon"), issued_at=0.0)
YESTERDAY = replace(TODAY, words=("guitar", "monday", "pillow"))


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer.from_pretrained("mini-en")


@pytest.fixture(scope="module")
def said(synthesizer: Synthesizer) -> dict[tuple[str, str], Tensor]:
    """What two people say, by person and what it is."""
    voices = {"ann": synthesizer.voices[0], "bob": synthesizer.voices[-1]}
    texts = {"sample": TEXT, "today": TODAY.sentence}
    found = {
        (person, kind): synthesizer.generate(text, voice=voice, seed=1)
        for person, voice in voices.items()
        for kind, text in texts.items()
    }
    for kind, other in (
        ("denial", TODAY.sentence.replace("let", "do not let")),
        ("other name", TODAY.sentence.replace(TODAY.who, "Thomas Miller")),
    ):
        found["ann", kind] = synthesizer.generate(other, voice=voices["ann"], seed=1)
    rest = f"{TODAY.statement} River, seven."
    found["ann", "missing"] = synthesizer.generate(rest, voice=voices["ann"], seed=1)
    return found


@pytest.fixture(scope="module")
def decide(synthesizer: Synthesizer) -> Callable[[Challenge, Tensor, Tensor], Decision]:
    verifier = ConsentVerifier(synthesizer.components, ConsentConfig())
    rate = synthesizer.sample_rate

    def call(challenge: Challenge, sentence: Tensor, sample: Tensor) -> Decision:
        return verifier.verify(challenge, sentence, rate, sample, rate)

    return call


def halves(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first[: first.shape[0] // 2], second[second.shape[0] // 2 :]])


def test_attacks(
    said: dict[tuple[str, str], Tensor],
    decide: Callable[[Challenge, Tensor, Tensor], Decision],
) -> None:
    sample = said["ann", "sample"]
    own = decide(TODAY, said["ann", "today"], sample)
    assert own.accepted, own
    refused = {
        "another person": decide(TODAY, said["bob", "today"], sample),
        "yesterday's sentence": decide(YESTERDAY, said["ann", "today"], sample),
        "a word is missing": decide(TODAY, said["ann", "missing"], sample),
        "a denial": decide(TODAY, said["ann", "denial"], sample),
        "another name": decide(TODAY, said["ann", "other name"], sample),
        "the sample itself": decide(TODAY, sample, sample),
        "spliced": decide(TODAY, halves(said["ann", "today"], said["bob", "today"]), sample),
        "spliced sample": decide(
            TODAY, said["ann", "today"], halves(sample, said["bob", "sample"])
        ),
    }
    for attack, decision in refused.items():
        assert not decision.accepted and decision.reasons, attack
    words = own.scores["words"]
    assert words is not None and words > 0
    for attack in (
        "yesterday's sentence", "a word is missing", "a denial", "another name",
        "the sample itself",
    ):  # fmt: skip
        assert "not heard to say" in refused[attack].reasons[0], attack
    for attack in ("another person", "spliced", "spliced sample"):
        assert any("person" in reason for reason in refused[attack].reasons), attack
