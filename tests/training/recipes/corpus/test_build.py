from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tokenlm.checkpoint import packaged_configs
from tokenlm.config import load_config
from training.recipes.corpus import build as build_module
from training.recipes.corpus.build import build_corpus
from training.recipes.corpus.check import check_corpus
from training.recipes.corpus.command import main
from training.recipes.corpus.config import CorpusConfig
from training.recipes.corpus.engines import EngineError

pytestmark = pytest.mark.usefixtures("fake_flite")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.recipes.corpus.check.NUM_DRAWN", 100)


def toy(**changes: Any) -> CorpusConfig:
    config = load_config(CorpusConfig, packaged_configs() / "data/corpus_toy.yaml")
    base = {"num_train": 12, "num_hard": 2, "num_validation": 2, "shard_size": 4}
    base |= {"refresh_every": 4}
    return dataclasses.replace(config, word_lists=(), documents=None, **(base | changes))


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_corpus_is_whole_and_as_its_rows_say(tmp_path: Path) -> None:
    counts = build_corpus(toy(), tmp_path / "corpus")
    splits = {"train": 12, "train_hard": 2, "validation": 2, "heldout": 2, "heldout_awb": 2}
    assert counts == splits
    for manifest, count in counts.items():
        listed = rows(tmp_path / "corpus" / f"{manifest}.jsonl")
        assert len(listed) == count
        for row in listed:
            assert {"id", "audio", "text", "speaker", "duration", "phones"} <= set(row)
            assert {"person", "formant", "pitch"} <= set(row)
            info = soundfile.info(tmp_path / "corpus" / row["audio"])
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert info.frames % 640 == 0
            assert row["duration"] == pytest.approx(info.frames / 16000, abs=1e-4)
            assert row["phones"][-1][1] == pytest.approx(row["duration"], abs=1e-3)
    figures = check_corpus(tmp_path / "corpus")
    assert figures["texts_of_other_splits_in_train"] == 0
    assert figures["evaluation_texts_in_training"] == 0
    assert figures["heldout"]["evaluation_texts"]["found"] == 2  # they read held-out sentences
    drawn = figures["post_training"]
    assert set(drawn) == {"train, made harder", "train_hard, made harder", "counted texts"}
    assert all(found["texts"] == 100 and found["found"] == 0 for found in drawn.values())
    assert figures["train"]["clipped_files"] == 0
    [pause] = {v[1] < -30 for v in figures["train"]["pause_db_5_50_95"].values()}
    assert pause


@pytest.mark.slow
def test_a_check_finds_texts_of_test_sets_wherever_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    build_corpus(toy(), corpus)
    lines = {
        "train": "He said: leave your shoes by the door. It costs 25 dollars!",
        "train_hard": "YES!!!",
        "validation": "Please, leave your shoes by the front door.",
        "answers": "one two three four five six seven eight nine ten",
        "more": "A text that nobody knows.",
    }
    answers, more = corpus / "post.txt", tmp_path / "more.jsonl"
    answers.write_text(f"# drawn\n{lines['answers']}\n{lines['more']}\n")
    more.write_text(json.dumps({"id": "a", "text": lines["more"]}) + "\n")

    def check(*arguments: str) -> tuple[int, dict[str, Any], str]:
        status = main(["--output", str(corpus), "--check", *arguments])
        said = capsys.readouterr()
        return status, json.loads(said.out), said.err

    status, figures, _ = check("--post-training", str(more))
    assert status == 0 and figures["post_training"][str(more)]["texts"] == 1
    status, figures, told = check("--post-training", str(answers))
    assert status == 1 and "1 evaluation texts in training" in told
    assert figures["post_training"][str(answers)]["first"] == [lines["answers"]]
    (tmp_path / "set.jsonl").write_text(json.dumps({"text": lines["more"]}) + "\n")
    asked = ("--post-training", str(more), f"test_sets=[{tmp_path / 'set.jsonl'}]")
    assert check(*asked)[0] == 1
    for manifest in ("train_hard", "validation", "train"):
        path = corpus / f"{manifest}.jsonl"
        row = json.loads(path.read_text().splitlines()[0])
        before = path.read_text()
        if manifest == "train":  # a part of it alone is none
            path.write_text(before + json.dumps({**row, "text": lines["train"]}) + "\n")
            assert check()[0] == 0
            lines["train"] += " Leave your shoes by the front door please leave your shoes by the"
            lines["train"] += " front door."
        path.write_text(before + json.dumps({**row, "text": lines[manifest]}) + "\n")
        status, figures, told = check()
        assert status == 1 and "evaluation texts in training" in told
        assert figures[manifest]["evaluation_texts"]["first"] == [lines[manifest]]
        path.write_text(before)
    assert check()[0] == 0


def test_interrupted_build_goes_on(
    tmp_path: Path, fake_flite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_corpus(toy(), tmp_path / "whole")
    calls = (fake_flite / "calls").read_text().count("-psdur")
    real = build_module.soundfile.write
    written = []

    def write(path: Path, *args: Any, **kwargs: Any) -> None:
        written.append(path)
        if len(written) == 7:
            raise KeyboardInterrupt
        real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(build_module.soundfile, "write", write)
        with pytest.raises(KeyboardInterrupt):
            build_corpus(toy(), tmp_path / "broken")
    # The two whole shards are kept and can be trained on; the torn one is done again.
    assert len(rows(tmp_path / "broken" / "train.jsonl")) == 4
    (fake_flite / "calls").unlink()
    build_corpus(toy(), tmp_path / "broken")
    assert (fake_flite / "calls").read_text().count("-psdur") == calls - 6
    for manifest in ("train", "train_hard", "validation", "heldout", "heldout_awb"):
        name = f"{manifest}.jsonl"
        whole, broken = tmp_path / "whole" / name, tmp_path / "broken" / name
        assert whole.read_text() == broken.read_text()
    assert len(list((tmp_path / "broken" / "audio").rglob("*.wav"))) == 20
    assert not list((tmp_path / "broken").rglob("*.partial"))


def test_folder_of_another_corpus_is_refused(tmp_path: Path) -> None:
    build_corpus(toy(num_train=4), tmp_path)
    with pytest.raises(ValueError, match="another configuration"):
        build_corpus(toy(num_train=4, seed=5), tmp_path)


@pytest.mark.slow
def test_processes_make_the_same_corpus(tmp_path: Path) -> None:
    build_corpus(toy(num_train=4), tmp_path / "one")
    build_corpus(toy(num_train=4), tmp_path / "two", jobs=2)
    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_too_many_failures_stop_the_build(
    tmp_path: Path, fake_flite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_flite / "flite"
    program.write_text(program.read_text().replace("*crash*", "*"))
    with pytest.raises(EngineError, match="utterances failed, the first: train-000000"):
        build_corpus(toy(), tmp_path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(packaged_configs() / "data/corpus_toy.yaml")
    words = ["--config", config, "--output", str(tmp_path / "corpus")]
    assert main([*words, "num_train=2", "num_validation=1", "word_lists=[]", "documents=null"]) == 0
    assert "train.jsonl: 2 utterances" in capsys.readouterr().out
    assert main(["--check", "--output", str(tmp_path / "corpus")]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["utterances"] == 2
    assert main([*words, "num_trian=2"]) == 1
    assert "num_train" in capsys.readouterr().err


def test_a_corpus_that_was_begun_keeps_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words"
    words.write_text("\n".join(f"{a}{b}ander" for a in "bcdfgl" for b in "aeiou"))
    config = dataclasses.replace(toy(), word_lists=(words,))
    corpus = tmp_path / "corpus"
    build_corpus(config, corpus)
    whole = rows(corpus / "train.jsonl")
    (corpus / "shards" / "train-00002.jsonl").unlink()
    words.write_text("\n".join(f"{a}{b}elter" for a in "bcdfgl" for b in "aeiou"))
    build_corpus(config, corpus)  # what the machine has to read is another since
    assert rows(corpus / "train.jsonl") == whole
    other = tmp_path / "other"
    build_corpus(config, other)
    assert [row["text"] for row in rows(other / "train.jsonl")] != [row["text"] for row in whole]
    with pytest.raises(ValueError, match="holds a corpus of another configuration or text"):
        build_corpus(dataclasses.replace(config, seed=1), corpus)
    build_corpus(config, corpus)  # the refused one left the plan as it was
    assert rows(corpus / "train.jsonl") == whole
