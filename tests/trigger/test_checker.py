"""CTC scores of phrases, by hand and of nets that were never trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tokenlm.checkpoint.component import save_component
from tokenlm.models.phrase_checker import PhraseChecker, spot_ctc
from tokenlm.text.tokenizers import PhonemeTokenizer
from tokenlm.trigger.checker import LOWEST_SCORE, Checker

TOKENIZER = Path(__file__).parents[2] / "checkpoints" / "mini-en" / "text_tokenizer"


@pytest.fixture(scope="module")
def checker() -> Checker:
    torch.manual_seed(0)
    tokenizer = PhonemeTokenizer.from_folder(str(TOKENIZER))
    return Checker.untrained(tokenizer, dim=16, num_layers=1, num_heads=2)


def path(*units: int) -> np.ndarray:
    """Log-probabilities of a path that says these units, each with 0.7, the three others 0.1."""
    probabilities = np.full((len(units), 4), 0.1)
    probabilities[np.arange(len(units)), list(units)] = 0.7
    return np.log(probabilities)


def test_spotting_by_hand() -> None:
    log_probs = path(3, 1, 0, 2, 2, 3)
    assert spot_ctc(log_probs, [1, 2]) == (0.0, [(1, 2), (3, 5)]) or spot_ctc(
        log_probs, [1, 2]
    ) == (0.0, [(1, 2), (3, 4)])
    # 3 again in place of one of the units costs log(0.7 / 0.1) once.
    lost = float(np.log(7.0))
    assert spot_ctc(log_probs, [2, 1])[0] == pytest.approx(-lost)
    # Twice the same unit needs a blank between: 1, blank, and 1 where 2 is said.
    assert spot_ctc(log_probs, [1, 1])[0] == pytest.approx(-lost)
    assert spot_ctc(path(1, 1), [1, 1]) == (-np.inf, [])
    assert spot_ctc(path(1, 2), [1, 2]) == (0.0, [(0, 1), (1, 2)])


def test_scores_of_words_and_phones_agree(checker: Checker) -> None:
    waveform = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(1))
    words, phones = checker.score_all(waveform, ["hey token", "hh ey t ow k ax n".split()])
    assert words == phones
    assert LOWEST_SCORE < words.log_probability <= 0
    assert 0 <= words.start_seconds < words.end_seconds <= 1.0
    assert len(words.spans) == 7
    assert words == checker.score(waveform, "Hey token")


@pytest.mark.parametrize("samples", [torch.zeros(0), torch.zeros(16_000), torch.ones(300)])
def test_nothing_said(checker: Checker, samples: torch.Tensor) -> None:
    assert checker.score(samples, "token").log_probability == LOWEST_SCORE


def test_nothing_said_has_the_scores_of_any_recording(checker: Checker) -> None:
    long = "hey token hey token"
    config = replace(checker.model.config, phrases=(long,))
    branched = Checker(PhraseChecker(config), checker.tokenizer)
    noise = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(1))
    assert branched.score(noise, long).branch_log_probability is not None
    # The last is long enough to be read, but too short for the phrase.
    for samples in (torch.zeros(0), torch.zeros(16_000), noise[:1_700]):
        known, other = branched.score_all(samples, [long, "token"])
        assert known.log_probability == known.branch_log_probability == LOWEST_SCORE
        assert other.branch_log_probability is None


def test_broken_samples_score(checker: Checker) -> None:
    samples = torch.full((16_000,), 5.0)
    samples[7] = torch.nan
    assert checker.score(samples, "token").log_probability <= 0


def test_mistakes_are_sentences(checker: Checker) -> None:
    with pytest.raises(ValueError, match="nothing to say"):
        checker.score(torch.zeros(1000), "?")
    with pytest.raises(ValueError, match="does not know the phone 'qq'"):
        checker.score(torch.zeros(1000), ["qq"])
    with pytest.raises(ValueError, match=r"a recording is \(S,\)"):
        checker.score(torch.zeros(1, 1000), "token")


def test_loads(checker: Checker, tmp_path: Path) -> None:
    config, state = checker.model.config, checker.model.state_dict()
    save_component(tmp_path / "c", kind="phrase_checker", config=config, state_dict=state)
    waveform = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(1))
    loaded = Checker.load(tmp_path / "c", TOKENIZER)
    assert loaded.score(waveform, "token") == checker.score(waveform, "token")
