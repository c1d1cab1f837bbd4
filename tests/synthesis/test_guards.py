"""Guards on whole segments: reading back, retries, best of several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenlm.checkpoint.bundle import BundleError
from tokenlm.models.lm import GuardConfig
from tokenlm.models.lm.generate import SpeechRequest
from tokenlm.modules.noise import mix
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.guards import ATTEMPT, attempt, speak_checked
from tokenlm.synthesis.offline import write_segments
from tokenlm.synthesis.read_back import Reading
from tokenlm.synthesis.script import Script
from tokenlm.text.errors import WordErrors

REQUESTS = [SpeechRequest(text_tokens=[1], seed=7, segment=n) for n in range(2)]
TEXTS = ["abcd", "efgh"]


class Stage:
    """An LM and a reader that follow a script: errors of each attempt at each segment, or errors
    and surprise, or both and the number of lost words."""

    def __init__(self, errors: Sequence[Sequence[float | tuple[float, ...] | None]]) -> None:
        self.errors = errors
        self.rounds: list[int] = []
        self.checked: list[str] = []
        self.seeds = {mix(7, ATTEMPT, n) if n else 7: n for n in range(8)}

    def speak(self, wanted: Sequence[SpeechRequest]) -> list[list[int]]:
        self.rounds.append(len(wanted))
        return [[request.segment, self.seeds[request.seed]] for request in wanted]

    def check(self, texts: Sequence[str], rows: list[list[int]]) -> list[Reading | None]:
        self.checked += texts
        found: list[Reading | None] = []
        for segment, number in rows:
            error = self.errors[segment][number]
            if error is None:
                found.append(None)
            else:
                error, surprise, lost = (
                    (*error, 0)[:3] if isinstance(error, tuple) else (error, 1.0, 0)
                )
                words = WordErrors(missing=int(lost))
                found.append(Reading(error=error, surprise=surprise, words=words))
        return found


def run(
    errors: Sequence[Sequence[float | tuple[float, ...] | None]], **guards: float
) -> tuple[list, Stage]:
    stage = Stage(errors)
    config = GuardConfig(**{"max_read_error": 0.25, **guards})  # type: ignore[arg-type]
    return speak_checked(REQUESTS, TEXTS, stage.speak, stage.check, config), stage


def test_only_what_is_not_accepted_is_tried_again() -> None:
    # The second segment is accepted at its third attempt.
    found, stage = run([[0.0], [1.0, 0.5, 0.25, 0.0]], max_attempts=4)
    assert [part.tokens for part in found] == [[0, 0], [1, 2]]
    assert [(part.num_attempts, part.reading.error) for part in found] == [(1, 0.0), (3, 0.25)]
    assert stage.rounds == [2, 1, 1]
    assert stage.checked == ["abcd", "efgh", "efgh", "efgh"]


def test_attempts_are_bounded_and_the_best_is_kept() -> None:
    found, stage = run([[0.0], [1.0, 0.75, 1.5]], max_attempts=3)
    assert found[1].tokens == [1, 1] and found[1].reading.error == 0.75
    assert found[1].num_attempts == 3 and stage.rounds == [2, 1, 1]


def test_best_of_several_at_once() -> None:
    found, stage = run([[0.25, 0.0, 1.0], [1.0, 0.25, 0.0]], num_candidates=3)
    assert [part.tokens for part in found] == [[0, 1], [1, 2]]
    assert stage.rounds == [6]
    # The first of equals; then one more attempt for what is still wrong.
    found, stage = run([[0.5, 0.5, 0.0], [0.0, 0.0]], num_candidates=2, max_attempts=3)
    assert [part.tokens for part in found] == [[0, 2], [1, 0]]
    assert stage.rounds == [4, 1]


def test_of_equal_errors_the_clearest_is_taken() -> None:
    errors = [[(0.0, 0.5), (0.0, 0.2), (0.1, 0.1)], [(0.2, 0.3), (0.1, 0.9), (0.1, 0.8)]]
    found, _ = run(errors, num_candidates=3)
    assert [part.tokens for part in found] == [[0, 1], [1, 2]]


def test_every_word_is_asked_for_before_anything_else() -> None:
    """A lost word of ten is a small error of the whole."""
    errors = [[(0.1, 1.0, 1), (0.3, 1.0, 0)], [(0.05, 1.0, 2), (0.1, 1.0, 1), (0.2, 1.0, 1)]]
    found, stage = run(errors, max_attempts=3, max_read_error=0.4)
    assert [part.tokens for part in found] == [[0, 1], [1, 1]]
    assert [part.num_attempts for part in found] == [2, 3] and stage.rounds == [2, 2, 1]


def test_a_text_that_cannot_be_checked_is_spoken_once_more_by_nobody() -> None:
    found, stage = run([[None, None], [0.5, 0.0]], max_attempts=3, max_read_error=0.0)
    assert [part.reading for part in found] == [None, Reading(error=0.0, surprise=1.0)]
    assert [part.tokens for part in found] == [[0, 0], [1, 1]] and stage.rounds == [2, 1]


def test_attempts_have_seeds_of_their_own() -> None:
    request = REQUESTS[1]
    assert attempt(request, 0) is request
    seeds = {attempt(request, number).seed for number in range(5)}
    assert len(seeds) == 5
    assert attempt(request, 3) == attempt(request, 3) == replace(request, seed=mix(7, ATTEMPT, 3))


def copy_with(bundle: Path, folder: Path, guards: str) -> Path:
    shutil.copytree(bundle, folder)
    path = folder / "bundle.yaml"
    text = path.read_text()
    path.write_text(text.replace("generation:\n", f"generation:\n  guards: {guards}\n"))
    return folder


def script_of(synthesizer: Synthesizer, text: str) -> Script:
    encode = synthesizer.components.text_tokenizer.encode
    script = Script(encode, max_length=200, layout="one_shot")
    script.read(text)
    return script


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
    best, first = (
        write_segments(
            synthesizer.components,
            synthesizer.prompts,
            script_of(synthesizer, text),
            synthesizer.voice("ann"),
            3,
            synthesizer.components.generation.sampling,
        )
        for synthesizer in (checked, plain)
    )
    chosen, plainly = checked.components.read_back([text, text], [*best, *first])
    assert chosen is not None and plainly is not None
    assert (chosen.words.total, chosen.error) <= (plainly.words.total, plainly.error)


def test_a_bundle_without_recogniser_cannot_check(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = copy_with(tiny_bundle, tmp_path / "deaf", "{max_attempts: 2}")
    manifest = folder / "bundle.yaml"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(row for row in lines if "token_recognizer" not in row))
    with pytest.raises(BundleError, match="no component 'token_recognizer'"):
        Synthesizer.from_pretrained(folder).generate("is it so?", voice="ann")
