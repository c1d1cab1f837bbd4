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
from tokenlm.synthesis.guards import (
    ATTEMPT,
    attempt,
    char_error,
    edit_distance,
    read_tokens,
    speak_checked,
)
from tokenlm.synthesis.offline import write_segments
from tokenlm.synthesis.script import Script
from tokenlm.text.alphabet import ENGLISH_ALPHABET

REQUESTS = [SpeechRequest(text_tokens=[1], seed=7, segment=n) for n in range(2)]
TEXTS = ["abcd", "efgh"]


class Stage:
    """An LM and a reader that follow a script: what is heard of each attempt at each segment."""

    def __init__(self, heard: list[list[str]]) -> None:
        self.heard = heard
        self.rounds: list[int] = []
        self.seeds = {mix(7, ATTEMPT, n) if n else 7: n for n in range(8)}

    def speak(self, wanted: Sequence[SpeechRequest]) -> list[list[int]]:
        self.rounds.append(len(wanted))
        return [[request.segment, self.seeds[request.seed]] for request in wanted]

    def read(self, rows: list[list[int]]) -> list[str]:
        return [self.heard[segment][number] for segment, number in rows]


def run(heard: list[list[str]], **guards: float) -> tuple[list, Stage]:
    stage = Stage(heard)
    config = GuardConfig(**{"max_char_error": 0.25, **guards})  # type: ignore[arg-type]
    texts, alphabet = TEXTS, ENGLISH_ALPHABET
    return speak_checked(REQUESTS, texts, stage.speak, stage.read, config, alphabet), stage


def test_distance_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3 and edit_distance("abc", "abc") == 0
    assert edit_distance([1, 2, 3], [2, 3, 4]) == 2


def test_char_error_by_hand() -> None:
    assert char_error("The cat.", "the cat", ENGLISH_ALPHABET) == 0.0
    assert char_error("abcd", "abxd", ENGLISH_ALPHABET) == 0.25
    assert char_error("abcd", "", ENGLISH_ALPHABET) == 1.0  # an early stop
    assert char_error("abcd", "abcdabcd", ENGLISH_ALPHABET) == 1.0  # a repeat
    assert char_error("one-two", "one two", ENGLISH_ALPHABET) == 0.0
    assert char_error("...", "x", ENGLISH_ALPHABET) is None  # nothing to be checked
    assert char_error("你好，吗？", "你吗", "你吗好") == pytest.approx(1 / 3)
    assert char_error("你好", "hello", ENGLISH_ALPHABET) is None


def test_only_what_is_not_accepted_is_tried_again() -> None:
    # The second segment is one of four characters off at its third attempt: accepted.
    found, stage = run([["abcd"], ["", "ef", "efgx", "efgh"]], max_attempts=4)
    assert [part.tokens for part in found] == [[0, 0], [1, 2]]
    assert [(part.num_attempts, part.char_error) for part in found] == [(1, 0.0), (3, 0.25)]
    assert stage.rounds == [2, 1, 1]


def test_attempts_are_bounded_and_the_best_is_kept() -> None:
    found, stage = run([["abcd"], ["xx", "ex", "xxxxxx"]], max_attempts=3)
    assert found[1].tokens == [1, 1] and found[1].char_error == 0.75
    assert found[1].num_attempts == 3 and stage.rounds == [2, 1, 1]


def test_best_of_several_at_once() -> None:
    found, stage = run([["abc", "abcd", ""], ["", "efg", "efgh"]], num_candidates=3)
    assert [part.tokens for part in found] == [[0, 1], [1, 2]]
    assert stage.rounds == [6]
    # The first of equals; then one more attempt for what is still wrong.
    found, stage = run([["ab", "cd", "abcd"], ["efgh", "efgh"]], num_candidates=2, max_attempts=3)
    assert [part.tokens for part in found] == [[0, 2], [1, 0]]
    assert stage.rounds == [4, 1]


def test_a_text_that_cannot_be_checked_is_spoken_once_more_by_nobody() -> None:
    stage = Stage([["xx", "yy"], ["efgh", "efgh"]])
    guards = GuardConfig(max_attempts=3, max_char_error=0.0)
    texts = ["你好", "efgh"]
    found = speak_checked(REQUESTS, texts, stage.speak, stage.read, guards, ENGLISH_ALPHABET)
    assert [part.char_error for part in found] == [None, 0.0]
    assert [part.tokens for part in found] == [[0, 0], [1, 0]] and stage.rounds == [2]


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
    reader = checked.components.token_recognizer
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
    alphabet = reader.config.alphabet
    errors = [char_error(text, heard, alphabet) for heard in read_tokens(reader, [*best, *first])]
    assert errors[0] is not None and errors[1] is not None and errors[0] <= errors[1]


def test_a_bundle_without_recogniser_cannot_check(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = copy_with(tiny_bundle, tmp_path / "deaf", "{max_attempts: 2}")
    manifest = folder / "bundle.yaml"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(row for row in lines if "token_recognizer" not in row))
    with pytest.raises(BundleError, match="no component 'token_recognizer'"):
        Synthesizer.from_pretrained(folder).generate("is it so?", voice="ann")


def test_rows_of_different_length_are_read_as_alone(tiny_bundle: Path) -> None:
    recognizer = Synthesizer.from_pretrained(tiny_bundle).components.token_recognizer
    rows = [[1, 5, 9, 3, 3, 8, 20, 21, 2], [], [4, 4, 17]]
    together = read_tokens(recognizer, rows)
    assert together[1] == ""
    assert together == [read_tokens(recognizer, [row])[0] for row in rows]
    assert read_tokens(recognizer, [[]]) == [""]
