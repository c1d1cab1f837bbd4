from __future__ import annotations

import dataclasses
import itertools
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tokenlm.checkpoint import packaged_configs
from tokenlm.config import load_config
from training.data.exclusion import evaluation_exclusion, spoken_key
from training.recipes.corpus.config import CorpusConfig, PersonConfig
from training.recipes.corpus.plan import (
    all_speakers,
    plan_corpus,
    read_sentences,
)
from training.recipes.corpus.speakers import make_speaker, training_speakers
from training.rl.texts.grammar import TextGrammar, load_grammar

SENTENCES = Path("configs/eval/heldout_sentences.txt")


def small(**changes: Any) -> CorpusConfig:
    config = load_config(CorpusConfig, packaged_configs() / "data/corpus.yaml")
    return dataclasses.replace(
        config,
        **(
            dict(num_train=300, num_foreign=100, num_hard=0, num_validation=20)
            | dict(num_heldout_per_speaker=3)
            | changes
        ),
    )


def test_heldout_sentences() -> None:
    sentences = read_sentences(SENTENCES)
    assert len(sentences) >= 320
    assert all(4 <= len(sentence.split()) <= 14 for sentence in sentences)
    assert not any(character.isdigit() for sentence in sentences for character in sentence)


def test_repeated_or_absent_sentences_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("# ours\nIt rains.\n\nit rains!\n")
    with pytest.raises(ValueError, match="it rains"):
        read_sentences(path)
    with pytest.raises(ValueError, match="no file"):
        read_sentences(tmp_path / "absent.txt")


def test_splits_share_neither_texts_nor_heldout_speakers() -> None:
    shards = plan_corpus(small(), load_grammar())
    by_split: dict[str, list] = {}
    for shard in shards:
        by_split.setdefault(shard.manifest, []).extend(shard.utterances)
    assert {name: len(rows) for name, rows in by_split.items()} == {
        "train": 300,
        "train_foreign": 100,
        "validation": 20,
        "heldout": 18,
        "heldout_awb": 15,
    }
    texts = {name: {spoken_key(u.text) for u in rows} for name, rows in by_split.items()}
    assert not texts["train"] & (texts["validation"] | texts["heldout"] | texts["heldout_awb"])
    assert not texts["train_foreign"] & (texts["validation"] | texts["heldout"])
    assert len(texts["validation"]) == 20
    heard = {u.speaker.name for u in by_split["train"] + by_split["validation"]}
    assert not heard & {u.speaker.name for u in by_split["heldout"]}
    assert {u.speaker.person for u in by_split["heldout_awb"]} == {"awb"}
    assert "awb" not in {u.speaker.person for u in by_split["train"] + by_split["validation"]}
    assert {u.speaker.person for u in by_split["heldout"]} == {"kal", "rms", "slt"}
    assert all(0.92 <= u.speaker.formant <= 1.03 for u in by_split["heldout"])
    ids = [u.id for rows in by_split.values() for u in rows]
    assert len(set(ids)) == len(ids)
    assert all(0.9 <= 1 / u.stretch <= 1.1 for rows in by_split.values() for u in rows)


def test_plan_is_a_function_of_the_seed() -> None:
    grammar = load_grammar()
    one = [shard.fingerprint() for shard in plan_corpus(small(), grammar)]
    assert one == [shard.fingerprint() for shard in plan_corpus(small(), grammar)]
    other = [shard.fingerprint() for shard in plan_corpus(small(seed=1), grammar)]
    assert not set(one) & set(other)


def test_shares_are_kept_and_the_first_shards_are_a_mix() -> None:
    shards = plan_corpus(dataclasses.replace(small(), num_train=2000), load_grammar())
    assert shards[0].manifest == "train"
    counts = Counter(
        u.speaker.engine for s in shards if s.manifest == "train" for u in s.utterances
    )
    assert 0.76 < counts["flite"] / 2000 < 0.84
    assert 0.09 < counts["espeak-ng"] / 2000 < 0.15
    assert {u.speaker.engine for u in shards[0].utterances} == {"flite", "festival", "espeak-ng"}


def test_corpus_has_many_speakers_none_of_them_near_a_held_out_one() -> None:
    config = load_config(CorpusConfig, packaged_configs() / "data/corpus.yaml")
    assert 1200 <= len(all_speakers(config)) <= 1700
    assert 1900 <= len(all_speakers(dataclasses.replace(config, num_foreign=1))) <= 2100
    for person in config.people:
        for speaker in training_speakers(person):
            for factor in person.heldout_formants:
                assert abs(speaker.formant / factor - 1) > 0.018, speaker
        factors = sorted({*person.formants, *person.heldout_formants})
        assert all(b / a > 1.018 for a, b in itertools.pairwise(factors)), person.name


def test_foreign_people_speak_in_a_manifest_of_their_own() -> None:
    config, grammar = small(), load_grammar()
    shards = plan_corpus(config, grammar)
    of_manifest: dict[str, set[str]] = {}
    for shard in shards:
        for utterance in shard.utterances:
            of_manifest.setdefault(shard.manifest, set()).add(utterance.speaker.person)
    foreign = {person.name for person in config.people if person.foreign}
    assert len(foreign) == 10 and of_manifest.pop("train_foreign") == foreign
    assert of_manifest and not any(people & foreign for people in of_manifest.values())
    lines = [u for shard in shards if shard.manifest == "train_foreign" for u in shard.utterances]
    assert all(set(line.text) <= set(string.ascii_letters + " ,.") for line in lines)
    # They change nothing of what the others say.
    without = plan_corpus(small(num_foreign=0), grammar)
    assert without == [shard for shard in shards if shard.manifest != "train_foreign"]


def test_hard_lines_are_spoken_by_the_people_of_the_training_split() -> None:
    config, grammar = small(num_hard=400), load_grammar()
    shards = plan_corpus(config, grammar)
    lines = [u for shard in shards if shard.manifest == "train_hard" for u in shard.utterances]
    assert len(lines) == 400 and {u.id for u in lines} >= {"hard-000000", "hard-000399"}
    known = {u.speaker.person for shard in shards for u in shard.utterances if "train" in u.id}
    assert {u.speaker.person for u in lines} <= known
    texts = [u.text for u in lines]
    assert 10 < sum(len(text.split()) == 1 for text in texts) < 150
    assert 100 < sum(text[-1] not in ".?!" for text in texts) < 350
    # They change nothing of what the others say.
    without = plan_corpus(small(num_hard=0), grammar)
    assert without == [shard for shard in shards if shard.manifest != "train_hard"]


def test_no_split_has_a_text_of_a_test_set(tmp_path: Path) -> None:
    rules = {
        "utterance": ["yes.", "no.", "perhaps not.", "it is five.", "I know. <short>", "<short>"],
        "short": ["stop!", "please leave your shoes by the front door.", "go away, five people."],
        "proper_utterance": ["<proper>."],
    }
    grammar = TextGrammar(rules, {}, ["word"], ["Paris", "Rome"])
    path = tmp_path / "set.jsonl"
    path.write_text('{"text": "It\'s 5.", "spoken": "it is 5"}\n{"text": "Paris!"}\n')
    config = small(num_hard=300, num_train=300, num_validation=0, test_sets=(path,))
    shards = plan_corpus(config, grammar)
    exclusion = evaluation_exclusion((path,))
    assert exclusion.excludes("Yes.") and exclusion.excludes("no")  # lines of the hard set
    for name in ("train", "train_foreign", "train_hard"):
        texts = {u.text for s in shards if s.manifest == name for u in s.utterances}
        assert len(texts) > 2 and not [text for text in texts if exclusion.excludes(text)], name
    keys = {spoken_key(u.text) for s in shards if s.manifest == "train" for u in s.utterances}
    assert keys == {
        "perhaps not",
        "i know stop",
        "go away five people",
        "i know go away five people",
    }
    with pytest.raises(ValueError, match="no test set at"):
        plan_corpus(dataclasses.replace(config, test_sets=(tmp_path / "absent",)), grammar)


def test_a_grammar_of_nothing_but_test_texts_is_a_mistake() -> None:
    grammar = TextGrammar({"utterance": ["Yes.", "no!"]}, {}, ["word"])
    with pytest.raises(ValueError, match="1000 texts in a row are evaluation texts"):
        plan_corpus(small(num_foreign=0, num_validation=0), grammar)
    # The validation split takes a text each, and none is left for the one after.
    grammar = TextGrammar({"utterance": ["It may be so.", "Or it may not."]}, {}, ["word"])
    with pytest.raises(ValueError, match="or of the validation split"):
        plan_corpus(small(num_validation=3), grammar)


def test_speaker_asks_the_engine_for_what_resampling_undoes() -> None:
    person = PersonConfig(name="slt", engine="flite", voices=("slt",), own_pitch=170, stretch=1.1)
    speaker = make_speaker(person, "slt", 0.8, 120.0)
    assert speaker.name == "slt-f0800-p120"
    assert speaker.engine_pitch == pytest.approx(150.0)
    assert speaker.engine_stretch == pytest.approx(0.88)
    tied = make_speaker(person, "slt", 0.8, None)
    assert (tied.name, tied.pitch, tied.engine_pitch) == ("slt-f0800", 136.0, None)


def test_drawn_speakers_and_timbres_are_more_speakers_of_the_same_voices() -> None:
    person = PersonConfig(
        name="slt",
        engine="flite",
        voices=("slt",),
        share=1.0,
        formants=(0.9, 1.1),
        pitches=(120.0, 200.0),
        drawn=40,
        heldout_formants=(1.0,),
    )
    speakers = training_speakers(person)
    assert len(speakers) == 2 * 2 + 40 and speakers == training_speakers(person)
    for speaker in speakers[4:]:
        assert speaker.pitch is not None
        assert 0.9 <= speaker.formant <= 1.1 and 120 <= speaker.pitch <= 200
        assert abs(speaker.formant - 1) >= 0.02
    both = training_speakers(dataclasses.replace(person, timbres=2))
    assert both[:44] == speakers and len({speaker.name for speaker in both}) == 3 * 44
    one, two = both[44], both[88]
    assert one.name == f"{speakers[0].name}-t1" and one.timbre != two.timbre
    assert dataclasses.replace(one, name=speakers[0].name, timbre=()) == speakers[0]


def test_more_drawn_speakers_than_there_is_room_for_are_a_mistake() -> None:
    person = PersonConfig(
        name="rms", engine="flite", voices=("rms",), share=1.0, formants=(0.99, 1.0), drawn=40
    )
    # Nine factors of three digits lie between these two where no pitch can be asked for.
    with pytest.raises(ValueError, match="no room for 40 drawn"):
        training_speakers(person)
    assert len(training_speakers(dataclasses.replace(person, drawn=9))) == 11


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"drawn": -1}, "0 or more"),
        ({"voices": ()}, "voices is empty"),
        ({"formants": (2.0,)}, "0.7..1.4"),
        ({"pitches": (20.0,)}, "50..500"),
        ({"share": 1.0, "heldout_formants": (1.0,)}, "trained on too"),
        ({"heldout_formants": (1.0,), "heldout_pitches": (90.0, 91.0)}, "one pitch per"),
        ({"foreign": True, "heldout_formants": (1.0,)}, "voice of English"),
        ({"engine": "espeak-ng", "pitches": (90.0,)}, "no pitch in Hz"),
    ],
)
def test_mistaken_person_is_explained(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PersonConfig(**({"name": "slt", "engine": "flite", "voices": ("slt",)} | changes))


def test_foreign_people_alone_are_no_corpus_and_none_are_no_foreign_manifest() -> None:
    person = PersonConfig(name="slt", engine="flite", voices=("slt",), share=1.0)
    with pytest.raises(ValueError, match="needs a foreign person"):
        CorpusConfig(people=(person,), num_foreign=5)
    with pytest.raises(ValueError, match="at least one person"):
        CorpusConfig(people=(dataclasses.replace(person, foreign=True),))


def test_two_speakers_of_one_name_are_a_mistake() -> None:
    person = PersonConfig(name="slt", engine="flite", voices=("slt", "slt"), share=1.0)
    with pytest.raises(ValueError, match="slt-f1000"):
        all_speakers(CorpusConfig(people=(person,)))
