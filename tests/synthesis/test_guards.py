"""Guards on whole segments: reading back, retries, best of several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tokenlm.checkpoint.bundle import BundleError
from tokenlm.models.lm import GuardConfig
from tokenlm.modules.exact import mix
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.guards import (
    RETRY_SEED,
    CheckedTokens,
    ReadBackScore,
    attempt_seed,
    decode_checked,
)
from tokenlm.text.transcripts import WordErrors

TEXTS = ["abcd", "efgh"]


class FakeModels:
    """An LM and a recogniser with given errors of each attempt at each segment, or errors and CTC
    loss, or both and the number of lost words."""

    def __init__(self, errors: Sequence[Sequence[float | tuple[float, ...] | None]]) -> None:
        self.errors = errors
        self.rounds: list[int] = []
        self.checked: list[str] = []

    def decode(self, attempts: Sequence[tuple[int, int]]) -> list[list[int]]:
        self.rounds.append(len(attempts))
        return [[segment, number] for segment, number in attempts]

    def check(self, texts: Sequence[str], rows: list[list[int]]) -> list[ReadBackScore | None]:
        self.checked += texts
        scores: list[ReadBackScore | None] = []
        for segment, number in rows:
            error = self.errors[segment][number]
            if error is None:
                scores.append(None)
            else:
                error, loss, lost = (*error, 0)[:3] if isinstance(error, tuple) else (error, 1.0, 0)
                words = WordErrors(missing=int(lost))
                scores.append(ReadBackScore(error_rate=error, ctc_loss=loss, words=words))
        return scores


def run(
    errors: Sequence[Sequence[float | tuple[float, ...] | None]], **guards: float
) -> tuple[list[CheckedTokens], FakeModels]:
    models = FakeModels(errors)
    config = GuardConfig(**{"max_read_error": 0.25, **guards})  # type: ignore[arg-type]
    return decode_checked(TEXTS, models.decode, models.check, config), models


def test_only_what_is_not_accepted_is_tried_again() -> None:
    # The second segment is accepted at its third attempt.
    found, models = run([[0.0], [1.0, 0.5, 0.25, 0.0]], max_attempts=4)
    assert [part.tokens for part in found] == [[0, 0], [1, 2]]
    assert [(part.num_attempts, part.score.error_rate) for part in found] == [(1, 0.0), (3, 0.25)]
    assert models.rounds == [2, 1, 1]
    assert models.checked == ["abcd", "efgh", "efgh", "efgh"]


def test_attempts_are_bounded_and_the_best_is_kept() -> None:
    found, models = run([[0.0], [1.0, 0.75, 1.5]], max_attempts=3)
    assert found[1].tokens == [1, 1] and found[1].score.error_rate == 0.75
    assert found[1].num_attempts == 3 and models.rounds == [2, 1, 1]


def test_best_of_several_at_once() -> None:
    found, models = run([[0.25, 0.0, 1.0], [1.0, 0.25, 0.0]], num_candidates=3)
    assert [part.tokens for part in found] == [[0, 1], [1, 2]]
    assert models.rounds == [6]
    # The first of equals; then one more attempt for what is still wrong.
    found, models = run([[0.5, 0.5, 0.0], [0.0, 0.0]], num_candidates=2, max_attempts=3)
    assert [part.tokens for part in found] == [[0, 2], [1, 0]]
    assert models.rounds == [4, 1]


def test_of_equal_errors_the_clearest_is_taken() -> None:
    errors = [[(0.0, 0.5), (0.0, 0.2), (0.1, 0.1)], [(0.2, 0.3), (0.1, 0.9), (0.1, 0.8)]]
    found, _ = run(errors, num_candidates=3)
    assert [part.tokens for part in found] == [[0, 1], [1, 2]]


def test_every_word_is_asked_for_before_anything_else() -> None:
    """A lost word of ten is a small error of the whole."""
    errors = [[(0.1, 1.0, 1), (0.3, 1.0, 0)], [(0.05, 1.0, 2), (0.1, 1.0, 1), (0.2, 1.0, 1)]]
    found, models = run(errors, max_attempts=3, max_read_error=0.4)
    assert [part.tokens for part in found] == [[0, 1], [1, 1]]
    assert [part.num_attempts for part in found] == [2, 3] and models.rounds == [2, 2, 1]


def test_a_text_that_cannot_be_checked_is_spoken_once_more_by_nobody() -> None:
    found, models = run([[None, None], [0.5, 0.0]], max_attempts=3, max_read_error=0.0)
    assert [part.score for part in found] == [None, ReadBackScore(error_rate=0.0, ctc_loss=1.0)]
    assert [part.tokens for part in found] == [[0, 0], [1, 1]] and models.rounds == [2, 1]


def test_attempts_have_seeds_of_their_own() -> None:
    assert attempt_seed(7, 0) == 7
    assert len({attempt_seed(7, number) for number in range(5)}) == 5
    assert attempt_seed(7, 3) == mix(7, RETRY_SEED, 3)


def copy_with(bundle: Path, folder: Path, guards: str) -> Path:
    shutil.copytree(bundle, folder)
    path = folder / "bundle.yaml"
    text = path.read_text()
    path.write_text(text.replace("generation:\n", f"generation:\n  guards: {guards}\n"))
    return folder


def decoded(synthesizer: Synthesizer, text: str) -> list[list[int]]:
    """Speech tokens that `generate` renders."""
    session = synthesizer.open_session(text, voice="ann", seed=3)
    session.decode_all()
    return session.speech_tokens


def test_a_bundle_says_which_guards_watch(tiny_bundle: Path, tmp_path: Path) -> None:
    plain = Synthesizer.from_pretrained(tiny_bundle)
    assert plain.components.generation.guards == GuardConfig()
    checked = Synthesizer.from_pretrained(
        copy_with(tiny_bundle, tmp_path / "checked", "{num_candidates: 3}")
    )
    assert checked.components.generation.guards.num_candidates == 3
    text = "the quick brown fox."
    spoken = checked.generate(text, voice="ann", seed=3)
    assert torch.equal(spoken, checked.generate(text, voice="ann", seed=3))
    # The best of three, by what the recogniser reads; the first of them is the plain one.
    best, first = decoded(checked, text), decoded(plain, text)
    chosen, plainly = checked.components.read_back([text, text], [*best, *first])
    assert chosen is not None and plainly is not None
    assert (chosen.words.total, chosen.error_rate) <= (plainly.words.total, plainly.error_rate)


def test_a_bundle_without_recogniser_cannot_check(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = copy_with(tiny_bundle, tmp_path / "deaf", "{max_attempts: 2}")
    manifest = folder / "bundle.yaml"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(row for row in lines if "token_recognizer" not in row))
    with pytest.raises(BundleError, match="no component 'token_recognizer'"):
        Synthesizer.from_pretrained(folder).generate("is it so?", voice="ann")
