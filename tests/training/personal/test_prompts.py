"""Sentences to read: easy, unknown to every evaluation, and covering."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from verb_runner import run_verb

from tokenlm.checkpoint.resolve import resolve
from tokenlm.text.tokenizers import SentencePieceTokenizer, load_text_tokenizer
from training.data.exclusion import evaluation_exclusion, evaluation_files, read_texts
from training.personal import commands
from training.personal.prompts import (
    BLOCK,
    KINDS,
    CoverageMeter,
    Sounds,
    candidates,
    choose_prompts,
    coverage_plot,
    difficulty,
    kind_of,
    own_sentences,
    read_prompts,
    sentences_of,
    sounds_of,
    write_prompts,
)

# Each letter is a sound, so that coverage can be counted by hand.
LETTERS: Sounds = lambda text: [c for c in text.lower() if c.isalpha()]  # noqa: E731


@pytest.fixture(scope="module")
def sounds() -> Sounds:
    return cache(sounds_of(load_text_tokenizer(resolve("mini-en") / "text_tokenizer")))


def test_own_sentences_are_many_easy_and_unknown_to_evaluations() -> None:
    sentences = own_sentences()
    assert len(sentences) == len(set(sentences)) >= 400
    assert [(text, why) for text in sentences if (why := difficulty(text))] == []
    exclusion = evaluation_exclusion()
    assert [text for text in sentences if exclusion.excludes(text)] == []
    kinds = Counter(map(kind_of, sentences))
    assert min(kinds[kind] for kind in KINDS) >= 45, "150 prompts need some of each kind"


def test_evaluation_texts_are_no_candidates() -> None:
    texts = [text for path in evaluation_files() for text in read_texts(path)]
    easy = [text for text in texts if difficulty(text) is None]
    assert easy, "otherwise nothing is left out here"
    assert candidates([*easy, "My cousin keeps a goat."]) == ["My cousin keeps a goat."]


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ("The train leaves at 5 today.", "figure"),
        ("It costs ten dollars & more.", "figure"),
        ("We went home", "end like a sentence"),
        ("Come here.", "2 words"),
        ("one " * 17 + "two.", "18 words"),
        ("We visited Paris last spring.", "'Paris' is a name"),
        ("I met her in August.", "'August' is a name"),
        ("They used telecommunications.", "'used' is read in several ways"),
        ("He studies counterproductive habits.", "is long"),
        ("Please read the long book.", "'read' is read in several ways"),
        ("She works for the BBC now.", "is a name"),
        ("Plan b is not bad.", "'b' is no word"),
    ],
)
def test_what_is_not_easy_to_read(sentence: str, why: str) -> None:
    assert why in (difficulty(sentence) or "")


def test_what_is_easy_to_read() -> None:
    for text in ("I've seen it on Monday.", "Don't go, it's late!", "Is that well-known here?"):
        assert difficulty(text) is None


def test_kinds() -> None:
    assert kind_of("Is it red, green or blue?") == "question"
    assert kind_of("How nice!") == "exclamation"
    assert kind_of("We need bread, butter and milk.") == "statement", "one comma is no list"
    assert kind_of("We need bread, butter, cheese and milk.") == "list"
    assert kind_of("When it rains, as it often will, we stay.") == "statement"


def test_the_first_sentence_is_the_one_that_adds_most_for_its_effort() -> None:
    pool = ["We see bees.", "We see these.", "The big fox jumps over my dog."]
    assert choose_prompts(pool, LETTERS, 1)[0].text == pool[2]
    # Then "bees" brings b-e, which is new, and the others are known for the most part.
    meter = CoverageMeter(pool, LETTERS)
    assert meter.of([]).phones == 0.0
    whole = meter.of(pool)
    assert (whole.phones, whole.diphones) == pytest.approx((1.0, 1.0)) and whole.missing == ()


def test_coverage_by_hand() -> None:
    meter = CoverageMeter(["Aa bb.", "Aa cc."], LETTERS)
    found = meter.after(["Aa bb."])[0]
    # Phones: a a b b a a c c; read are a (4 of 8) and b (2 of 8).
    assert found.phones == pytest.approx(6 / 8)
    # Diphones #a aa ab bb b# and #a aa ac cc c#: #a and aa count twice.
    assert found.diphones == pytest.approx(7 / 10)
    assert set(found.missing) == {"a-c", "c-c", "c-#"}
    assert found.kinds == {"statement": 1, "question": 0, "list": 0, "exclamation": 0}
    assert "75.0% of the phones, 70.0% of the diphones" in str(found)


def test_blocks_hold_every_kind_and_only_their_order_is_drawn(sounds: Sounds) -> None:
    first = choose_prompts(own_sentences(), sounds, 45, seed=1)
    other = choose_prompts(own_sentences(), sounds, 45, seed=2)
    assert [prompt.id for prompt in first] == [f"p{n:04d}" for n in range(1, 46)]
    assert first == choose_prompts(own_sentences(), sounds, 45, seed=1)
    for block in range(3):
        texts = [{p.text for p in prompts if p.block == block} for prompts in (first, other)]
        assert texts[0] == texts[1] and len(texts[0]) == (BLOCK if block < 2 else 5)
    assert [p.text for p in first[:BLOCK]] != [p.text for p in other[:BLOCK]]
    kinds = Counter(prompt.kind for prompt in first[:BLOCK])
    assert kinds == {"statement": 10, "question": 5, "list": 3, "exclamation": 2}
    assert len({prompt.text for prompt in first}) == 45


def test_greedy_covers_more_than_the_first_sentences_of_the_file(sounds: Sounds) -> None:
    meter = CoverageMeter(own_sentences(), sounds)
    chosen = meter.after([p.text for p in choose_prompts(own_sentences(), sounds, 40)])
    taken = meter.of(own_sentences()[:40])
    assert chosen[-1].diphones > taken.diphones + 0.04
    assert chosen[19].phones > 0.99
    shares = [row.diphones for row in chosen]
    assert shares == sorted(shares)


def test_a_tokenizer_without_phones_gives_letters(tiny_bundle: Path) -> None:
    tokenizer = load_text_tokenizer(tiny_bundle / "text_tokenizer")
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert sounds_of(tokenizer)("It is 2!") == list("itistwo")


def test_sentences_of_prose_and_rows(tmp_path: Path) -> None:
    prose = tmp_path / "book.txt"
    prose.write_text("It was late. The dog\nbarked twice! Who\nwas there?\n")
    assert sentences_of([prose]) == ["It was late.", "The dog barked twice!", "Who was there?"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "It was late. I slept."}\n')
    assert sentences_of([rows]) == ["It was late.", "I slept."]
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        sentences_of([tmp_path / "x.txt"])
    with pytest.raises(ValueError, match="no sentence of these texts"):
        choose_prompts(["Call 555 now."], LETTERS)
    with pytest.raises(ValueError, match="at least 1"):
        choose_prompts(own_sentences(), LETTERS, 0)


def test_prompts_are_read_as_they_were_written(tmp_path: Path) -> None:
    chosen = choose_prompts(own_sentences(), LETTERS, 3)
    write_prompts(tmp_path / "p.jsonl", chosen)
    assert read_prompts(tmp_path / "p.jsonl") == chosen
    (tmp_path / "p.txt").write_text("# mine\nIt is  late.\n\nIs it?\n")
    assert [(p.id, p.text, p.kind) for p in read_prompts(tmp_path / "p.txt")] == [
        ("p0001", "It is late.", "statement"),
        ("p0002", "Is it?", "question"),
    ]
    for content, why in (
        ("{}\n", "line 1: no JSON object"),
        ('{"text": "a b", "id": "x"}\n{"text": "c d", "id": "x"}\n', "'x' stands twice"),
        ('{"text": "a b", "id": "../x"}\n', "no name of a file"),
        ("", "holds no prompt"),
    ):
        (tmp_path / "bad.jsonl").write_text(content)
        with pytest.raises(ValueError, match=why):
            read_prompts(tmp_path / "bad.jsonl")


@pytest.mark.slow
def test_the_verb_writes_prompts_and_a_plot(tmp_path: Path) -> None:
    result = run_verb(commands.prompts, "-n", 25, "--seed", 3, "-o", tmp_path / "p.jsonl")
    assert result.exit_code == 0, result.output
    assert len(read_prompts(tmp_path / "p.jsonl")) == 25
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "20 sentences: " in result.stdout and "25 sentences: " in result.stdout
    few = tmp_path / "few.txt"
    few.write_text("The cat is asleep. The dog is not! Where is he?")
    result = run_verb(commands.prompts, "--texts", few, "-o", tmp_path / "q.jsonl")
    assert "only 3 sentences" in result.stdout
    result = run_verb(commands.prompts, "--texts", tmp_path / "no.txt", "-o", tmp_path / "q.jsonl")
    assert result.exit_code == 2 and "there is no text at" in result.stderr


def test_the_plot_has_a_curve_for_each_share_and_kind() -> None:
    meter = CoverageMeter(own_sentences(), LETTERS)
    shares, kinds = coverage_plot(meter.after(own_sentences()[:30])).axes
    assert [line.get_label() for line in shares.lines] == ["phones", "diphones"]
    assert [line.get_label() for line in kinds.lines] == [f"{kind}s" for kind in KINDS]
    assert len(shares.lines[0].get_xdata()) == 30
