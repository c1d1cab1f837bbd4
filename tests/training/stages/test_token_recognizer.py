"""Stage token_recognizer: what it checks, what it prepares, and that it learns to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlm.checkpoint import read_component, read_state, save_component
from tokenlm.checkpoint.registry import load_model
from tokenlm.models.token_recognizer import TokenRecognizer
from tokenlm.synthesis.guards import ReadBack
from tokenlm.text.pronunciation import Pronouncer
from tokenlm.text.tokenizers import PhonemeTokenizer
from tokenlm.text.transcripts import ENGLISH_ALPHABET
from training.data.token_noise import HIDDEN
from training.loop.task import Prepared, StepInfo
from training.run import load_task, main
from training.stages.token_recognizer import TokenRecognizerTask

StageConfig = Callable[..., Path]


def built(path: Path, *overrides: str) -> TokenRecognizerTask:
    _, task = load_task(path, overrides)
    assert isinstance(task, TokenRecognizerTask)
    torch.manual_seed(0)
    task.build()
    return task


def rewritten(corpus: Path, folder: Path, texts: list[str] | None = None, **keys: Any) -> Path:
    """The training manifest with other texts, dealt in turn, or other keys."""
    rows = [json.loads(line) for line in (corpus / "train_tokens.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["audio"] = str(corpus / row["audio"])
        row.update(keys, text=texts[number % len(texts)] if texts else row["text"])
    path = folder / "rewritten.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_model_is_that_of_the_tokenizer(stage_config: StageConfig, corpus: Path) -> None:
    task = built(stage_config("token_recognizer"))
    assert task.model_config.levels == (3, 3)
    assert task.model_config.alphabet == ENGLISH_ALPHABET
    tokenizer = read_component(corpus / "speech_tokenizer")
    assert list(task.model_config.levels) == tokenizer.config["levels"]


def test_batches_and_counts(stage_config: StageConfig) -> None:
    task = built(stage_config("token_recognizer"))
    data = task.dataset("train")
    assert data is not None and len(data) == 8
    batch = task.collate([data[0], data[1]])
    # "one two." and "is it so?" of 0.8 and 0.9 s.
    assert batch["num_characters"].tolist() == [7, 8]
    assert batch["num_tokens"].tolist() == [20, 22]
    prepared = task.prepare(batch, StepInfo(0, 0, 0))
    assert prepared.counts == {"recognizer/ctc": 15.0, "recognizer/attention": 17.0}
    plain = built(stage_config("token_recognizer"), "model.num_decoder_layers=0")
    prepared = plain.prepare(batch, StepInfo(0, 0, 0))
    assert prepared.counts.keys() == plain._losses(prepared).keys() == {"recognizer/ctc"}


def test_noise_is_drawn_in_training_alone(stage_config: StageConfig) -> None:
    noise = {"hidden_share": 0.5}
    task = built(stage_config("token_recognizer", noise=noise))
    data = task.dataset("train")
    assert data is not None
    clean = [int(token) for token in data[0].tokens]
    assert HIDDEN not in clean and [int(token) for token in data[0].tokens] == clean
    drawn = data.draw(0, torch.Generator().manual_seed(0))
    assert HIDDEN in drawn.tokens and drawn.characters == data[0].characters
    again = data.draw(0, torch.Generator().manual_seed(0))
    assert list(map(int, again.tokens)) == list(map(int, drawn.tokens))


def test_what_is_hidden_is_not_read(stage_config: StageConfig) -> None:
    """The loss of hidden tokens is that of zeros, whatever code number 0 has for digits."""
    task = built(stage_config("token_recognizer"))
    recognizer = task.modules["token_recognizer"].eval()
    assert isinstance(recognizer, TokenRecognizer)
    data = task.dataset("train")
    assert data is not None
    batch = task.collate([data[0]])
    batch["tokens"][:, 5:9] = HIDDEN
    found = task._losses(Prepared(tensors=batch, counts={}))["recognizer/ctc"]
    codes = recognizer.code_vectors(batch["tokens"].clamp(min=0))
    assert bool(codes[0, 5].any())
    codes[:, 5:9] = 0.0
    _, log_probs = recognizer(codes)
    lengths = batch["num_tokens"], batch["num_characters"]
    expected = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), batch["characters"], *lengths, reduction="sum"
    )
    torch.testing.assert_close(found, expected)


def test_another_script(stage_config: StageConfig, corpus: Path, tmp_path: Path) -> None:
    chinese = str(rewritten(corpus, tmp_path, ["今天是2号。", "你好吗？"]))
    # A tokenizer of texts that stay as they are written.
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.yaml").write_text(
        "format_version: 1\nkind: transformers\nvocab_size: 9\nnormalizer: none\n"
    )
    data = {"train": chinese, "valid": chinese}
    path = stage_config("token_recognizer", data=data, text_tokenizer=f"{tmp_path}/text")
    with pytest.raises(ValueError, match=r"data.train: 8 of 8 texts have no character of the alph"):
        built(path)
    assert main(["--config", str(path), "collect_alphabet=true"]) == 0
    exported = load_model(tmp_path / "run" / "export" / "token_recognizer", TokenRecognizer)
    assert exported.config.alphabet == "2今你号吗天好是"
    # What is validated with is not in what was trained with.
    english = f"data.valid={corpus}/valid_tokens.jsonl"
    with pytest.raises(ValueError, match="data.valid: 4 of 4 texts have no character"):
        built(path, english, "collect_alphabet=true")
    empty = str(rewritten(corpus, tmp_path, ["…！"]))
    with pytest.raises(ValueError, match="neither letters nor digits"):
        built(path, f"data.train={empty}", "collect_alphabet=true")


def test_some_texts_without_characters_are_left_out(
    stage_config: StageConfig, corpus: Path, tmp_path: Path
) -> None:
    manifest = str(rewritten(corpus, tmp_path, ["one.", "two.", "!?", "ten."]))
    data = {"train": manifest, "max_reject_share": 0.25}
    found = built(stage_config("token_recognizer", data=data)).dataset("train")
    assert found is not None and len(found) == len(found.durations) == 6
    with pytest.raises(ValueError, match="2 of 8 texts"):
        built(stage_config("token_recognizer", data={**data, "max_reject_share": 0.2}))


def test_tokens_and_tokenizer_must_belong_together(
    stage_config: StageConfig, corpus: Path, tmp_path: Path
) -> None:
    other = str(rewritten(corpus, tmp_path, tokenizer="another"))
    data = {"train": other, "valid": other}
    with pytest.raises(ValueError, match=r"have tokens of another; write them .* --tokenizer .+"):
        built(stage_config("token_recognizer", data=data))
    with pytest.raises(ValueError, match="a TokenRecognizer, but a SpeechTokenizer or a FSMN"):
        built(stage_config("token_recognizer", speech_tokenizer=f"{corpus}/token_recognizer"))
    with pytest.raises(
        ValueError, match="a text has 8 characters, more than model.max_characters 7"
    ):
        built(stage_config("token_recognizer"), "model.max_characters=7")


def test_the_export_is_bound_and_can_be_trained_on(
    stage_config: StageConfig, corpus: Path, tmp_path: Path
) -> None:
    path = stage_config("token_recognizer", export_decoder=False)
    assert main(["--config", str(path)]) == 0
    exported = tmp_path / "run" / "export" / "token_recognizer"
    rows = [json.loads(row) for row in (corpus / "train_tokens.jsonl").read_text().splitlines()]
    facts = read_component(exported)
    assert facts.extra == {"tokenizer": rows[0]["tokenizer"]}
    assert facts.config["num_decoder_layers"] == 0
    onward = ["run=" + str(tmp_path / "onward"), f"initial.token_recognizer={exported}"]
    onward += [f"model={exported}/config.yaml"]
    assert main(["--config", str(path), *onward]) == 0
    # Other characters would be taken for those of the component.
    with pytest.raises(ValueError, match="writes the characters .* without collect_alphabet"):
        built(path, *onward, "collect_alphabet=true")
    built(path, *onward, "collect_alphabet=true", "initial_partial=true")
    save_component(
        tmp_path / "stranger",
        kind=facts.kind,
        config=facts.config,
        state_dict=read_state(facts.state_path),
        extra={"tokenizer": "another"},
    )
    with pytest.raises(ValueError, match="the tokenizer another"):
        built(path, f"initial.token_recognizer={tmp_path}/stranger")
    # Nor does another stage read its tokens with it.
    _, task = load_task(stage_config("speech_lm", token_recognizer=f"{tmp_path}/stranger"))
    with pytest.raises(ValueError, match="reads 9 codes of the tokenizer another, but the data"):
        task.build()


def test_a_run_does_not_go_on_with_other_characters_or_phones(
    stage_config: StageConfig, phonemes: Path
) -> None:
    task = built(stage_config("token_recognizer"))
    task.load_state(task.state())
    task.load_state({"alphabet": ENGLISH_ALPHABET})  # of a version that knew no phones
    with pytest.raises(ValueError, match="the run began with the characters 'abc'"):
        task.load_state({"alphabet": "abc"})
    task = built(stage_config("token_recognizer", text_tokenizer=str(phonemes)))
    task.load_state(task.state())
    with pytest.raises(ValueError, match="text_tokenizer: the run began with other phones"):
        task.load_state({"alphabet": ENGLISH_ALPHABET, "phones": ["aa"]})


@pytest.fixture
def phonemes(tmp_path: Path) -> Path:
    """A tokenizer whose phones are letters: `cab` is said as it is spelt."""
    torch.manual_seed(0)
    phones = tuple("abcdefghijklmnopqrstuvwxyz") + ("a1", "e1")
    words = ("cab", "bad", "add", "fad", "bee", "ace", "fee", "dab")
    said = {word: tuple(c + "1" * (c in "ae") for c in word) for word in words}
    tokenizer = PhonemeTokenizer(phones, said, Pronouncer(len(phones), dim=8))
    tokenizer.save(tmp_path / "phonemes")
    return tmp_path / "phonemes"


def test_phones_are_those_of_the_text_tokenizer(stage_config: StageConfig, phonemes: Path) -> None:
    path = stage_config("token_recognizer", text_tokenizer=str(phonemes))
    task = built(path)
    assert task.model_config.phones == tuple("abcdefghijklmnopqrstuvwxyz")
    task.modules["token_recognizer"].eval()
    data = task.dataset("train")
    assert data is not None
    batch = task.collate([data[0], data[1]])
    tokenizer = PhonemeTokenizer.from_folder(phonemes)
    texts = ("one two.", "is it so?")
    said = [tokenizer.pronounce(text) for text in texts]
    assert batch["num_phones"].tolist() == [len(row) for row in said]
    assert batch["phones"][1, : len(said[1])].tolist() == [ord(p) - 96 for p in said[1]]
    prepared = task.prepare(batch, StepInfo(0, 0, 0))
    losses = task._losses(prepared)
    assert losses.keys() == prepared.counts.keys()
    assert prepared.counts["recognizer/phone_ctc"] == sum(map(len, said))
    recognizer = task.modules["token_recognizer"]
    assert isinstance(recognizer, TokenRecognizer)
    hidden, _ = recognizer(recognizer.code_vectors(batch["tokens"]))
    assert torch.isfinite(losses["recognizer/phone_ctc"]) and hidden.shape[1] == 22
    # Each by itself: what is padded changes nothing.
    alone = [
        task._losses(task.prepare(task.collate([data[n]]), StepInfo(0, 0, 0)))[
            "recognizer/phone_ctc"
        ]
        for n in (0, 1)
    ]
    torch.testing.assert_close(losses["recognizer/phone_ctc"], alone[0] + alone[1])
    without = built(path, "read_phones=false")
    assert without.model_config.phones == ()
    assert "phones" not in without.collate([data[0]])


def test_phones_can_be_added_to_a_recogniser(
    stage_config: StageConfig,
    phonemes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As to that of the stage speech_tokenizer, which reads characters alone."""
    assert main(["--config", str(stage_config("token_recognizer", export_decoder=False))]) == 0
    letters = tmp_path / "run" / "export" / "token_recognizer"
    path = stage_config("token_recognizer", "onward", text_tokenizer=str(phonemes))
    start = [f"initial.token_recognizer={letters}", f"model={letters}/config.yaml"]
    assert main(["--config", str(path), *start, "run=" + str(tmp_path / "strict")]) == 1
    assert "missing: phone_ctc.weight, phone_ctc.bias" in capsys.readouterr().err
    assert main(["--config", str(path), *start, "initial_partial=true"]) == 0
    exported = load_model(tmp_path / "onward" / "export" / "token_recognizer", TokenRecognizer)
    assert exported.config.phones == tuple("abcdefghijklmnopqrstuvwxyz")
    assert exported.phone_ctc.out_features == 2 * 27


@pytest.mark.slow
def test_learns_to_read(
    stage_config: StageConfig, corpus: Path, tmp_path: Path, phonemes: Path
) -> None:
    """Tokens that spell their text, with one between characters, are read without error."""
    words = ["cab", "bad", "add", "fad", "bee", "ace", "fee", "dab"]
    rows = [json.loads(line) for line in (corpus / "train_tokens.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        text = f"{words[number]} {words[number * 3 % 8]}"
        row["audio"], row["text"] = str(corpus / row["audio"]), text
        spelt = [[8, 7] if c == " " else [ord(c) - 97, 6] for c in text]
        row["speech_tokens"] = [token for part in spelt for token in part]
    manifest = tmp_path / "spelt.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = stage_config(
        "token_recognizer",
        data={"train": str(manifest), "valid": str(manifest)},
        text_tokenizer=str(phonemes),
        model={"dim": 32, "num_heads": 2, "num_layers": 1},
        noise={"shifted_share": 0.0, "replaced_share": 0.02, "hidden_share": 0.02},
        optim={"max_steps": 150, "warmup_steps": 10, "lr": 1e-2, "ema_decay": 0.9},
        batch={"max_seconds_per_batch": 60.0, "max_items": 8},
        log={"log_every": 50, "evaluate_every": 150, "save_every": 0},
    )
    assert main(["--config", str(path)]) == 0
    metrics = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").open()]
    measured = next(row for row in metrics if row["kind"] == "valid")
    assert measured["char_error_rate"] < 0.05 and measured["ctc"] < 0.3
    assert measured["phone_error_rate"] < 0.05
    reader = load_model(tmp_path / "run" / "export" / "token_recognizer", TokenRecognizer)
    (read,) = ReadBack(reader, PhonemeTokenizer.from_folder(phonemes))(
        ["cab cab"], [rows[0]["speech_tokens"]]
    )
    assert read is not None and read.error_rate == 0.0 and read.ctc_loss < 0.3
    assert reader.transcribe(torch.tensor([rows[0]["speech_tokens"]])) == ["cab cab"]
