from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from training.recipes.corpus.config import CorpusConfig, PersonConfig
from training.recipes.corpus.engines import EngineError, Request
from training.recipes.corpus.kokoro import (
    DURATIONS,
    PAUSE,
    Kokoro,
    Phonemizer,
    align,
    blend_parts,
    language_of,
)
from training.recipes.corpus.spacing import candidate_voices, space
from training.recipes.corpus.speakers import training_speakers

SIGNS = " ,.?həlˈoʊwɜɹdðɛ"


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A graph of the same inputs and outputs: two frames an id, and 600 equal samples a frame."""
    nodes = [
        helper.make_node("Mul", ["tokens", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "two"], ["frames"]),
        helper.make_node("Squeeze", ["frames", "axis"], [DURATIONS]),
        helper.make_node("ReduceMean", ["style"], ["mean"], keepdims=0),
        helper.make_node("ReduceSum", [DURATIONS], ["total"], keepdims=1),
        helper.make_node("Mul", ["total", "hop"], ["samples"]),
        helper.make_node("Expand", ["mean", "samples"], ["audio"]),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
        helper.make_tensor("hop", TensorProto.INT64, [1], [600]),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "L"]),
            helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
            helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["S"])],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "model.onnx"))
    vocabulary = {sign: number + 1 for number, sign in enumerate(SIGNS)}
    (tmp_path / "vocab.json").write_text(json.dumps({"vocab": vocabulary}), encoding="utf-8")
    (tmp_path / "voices").mkdir()
    for name, value in (("af_one", 0.25), ("bm_two", 0.75)):
        np.full((510, 1, 256), value, np.float32).tofile(tmp_path / "voices" / f"{name}.bin")
    return tmp_path


def test_blends_share_their_weight() -> None:
    assert blend_parts("af_one") == [("af_one", 1.0)]
    assert blend_parts("af_one:1+bm_two:3") == [("af_one", 0.25), ("bm_two", 0.75)]
    assert language_of("af_one:1+bm_two:3") == "en-gb"
    assert language_of("af_one:0.5+bm_two:0.5") == "en-us"
    for wrong in ("af_one:x+bm_two", "af_one:-1+bm_two:2"):
        with pytest.raises(EngineError):
            blend_parts(wrong)


def test_marks_of_stress_and_length_are_no_phones_of_their_own() -> None:
    frames = np.array([8, 1, 2, 3, 1, 1, 9, 2])  # ends, ˈ, h, ɜ, ː, ' ', '.'
    phones = align("ˈhɜː .", frames)
    assert [name for name, _ in phones] == [PAUSE, "h", "ɜ", PAUSE]
    assert [end for _, end in phones] == pytest.approx(
        [0.2, 0.275, (8 + 1 + 2 + 3 + 1 + 1) * 0.025, frames.sum() * 0.025]
    )
    with pytest.raises(EngineError, match="durations"):
        align("hɜ", np.array([1, 2, 3]))


def test_kokoro_speaks_a_blend_with_phones_that_last_as_long_as_the_sound(teacher: Path) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    kokoro = Kokoro(teacher)
    assert kokoro.voices() == ["af_one", "bm_two"]
    speech = kokoro.speak(Request(text="Hello.", voice="af_one:0.5+bm_two:0.5"))
    assert speech.waveform == pytest.approx(0.5)
    assert speech.phones[-1][1] == pytest.approx(len(speech.waveform) / speech.sample_rate)
    assert [name for name, _ in speech.phones if name != PAUSE] == ["h", "ə", "l", "o", "ʊ"]
    with pytest.raises(EngineError, match="nothing to say"):
        kokoro.speak(Request(text="...", voice="af_one"))
    assert isinstance(kokoro.attempt(Request(text="", voice="af_one")), EngineError)
    with pytest.raises(EngineError, match="af_one, bm_two"):
        kokoro.speak(Request(text="Hello.", voice="af_three"))


def test_punctuation_stays_where_it_stood() -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    phones = Phonemizer()("Well, is it? Yes!", "en-us")
    assert [sign for sign in phones if sign in ",?!"] == [",", "?", "!"]
    assert phones.index("?") < phones.index("!")
    assert " ," not in phones and ",ɪ" not in phones


def test_letters_in_a_row_are_said_one_by_one() -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    assert Phonemizer()("Press C A B now.", "en-us").split()[1:4] == ["sˈiː", "ˈeɪ", "bˈiː"]
    assert Phonemizer()("A book.", "en-us").split()[0] == "ɐ"


def test_a_folder_without_the_model_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="fetch_teacher"):
        Kokoro(tmp_path)


def test_candidates_leave_out_the_held_out_voices() -> None:
    names = ["af_sky", "am_liam", "bf_lily", "bm_fable", "af_a", "af_b", "am_c", "am_d", "am_e"]
    voices = candidate_voices(names, 4, seed=0)
    assert len(voices) == 5 + 4 == len(set(voices))
    assert not any(name in voice for voice in voices for name in names[:4])


def test_spacing_takes_the_farthest_and_the_sexes_in_turn() -> None:
    angles = np.radians([0.0, 1.0, 2.0, 90.0, 91.0, 180.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    groups = [True, True, False, False, True, True]
    taken = space(embeddings, groups, [0], 4)
    assert taken == [0, 5, 3, 4] or taken[:2] == [0, 3]
    assert 1 not in taken
    assert len(set(space(embeddings, groups, [0], 99))) == 6


def test_speakers_are_listed_with_their_formants() -> None:
    listed = ("af_one@1.0", "af_one:0.5+bm_two:0.5@0.97")
    person = PersonConfig(name="kokoro", engine="kokoro", speakers=listed, share=1.0)
    speakers = training_speakers(person)
    assert [(s.voice, s.formant) for s in speakers] == [
        ("af_one", 1.0), ("af_one:0.5+bm_two:0.5", 0.97),
    ]  # fmt: skip
    assert [s.engine_stretch for s in speakers] == [1.0, 0.97]
    person = PersonConfig(name="kokoro", engine="kokoro", speakers=("af_one",), share=1.0)
    with pytest.raises(ValueError, match="af_heart@1.03"):
        training_speakers(person)


def test_a_corpus_of_the_teacher_needs_its_folder() -> None:
    person = PersonConfig(name="kokoro", engine="kokoro", voices=("af_one",), share=1.0)
    with pytest.raises(ValueError, match="fetch_teacher"):
        CorpusConfig(people=(person,))
