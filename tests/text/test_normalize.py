from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from tokenlm.text.normalize import normalize, normalize_paragraphs

SPOKEN = re.compile(r"(?:[a-z](?:[a-z' ,.?!;:-]*[a-z.?!;:])?)?")
MISPLACED = re.compile(r"  |(?<![a-z])'|'(?![a-z])|(?<![a-z])-|-(?![a-z])| [,.?!;:]|[,.?!;:][^ ]")


def read_pairs(*names: str) -> list[tuple[str, str]]:
    tables = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names]
    pairs = []
    for line in "\n".join(tables).splitlines():
        written, tab, spoken = line.partition("\t")
        if tab and not line.startswith("# "):
            unescaped = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), written)
            pairs.append((unescaped, spoken))
    return pairs


PAIRS = read_pairs("normalize_pairs.tsv", "normalize_kinds.tsv", "layout_pairs.tsv")


def check_form(text: str, spoken: str) -> None:
    assert SPOKEN.fullmatch(spoken), (text, spoken)
    assert not MISPLACED.search(spoken), (text, spoken)


def test_table_is_large() -> None:
    assert len(PAIRS) >= 800
    assert len({written for written, _ in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize(("written", "spoken"), PAIRS, ids=[written for written, _ in PAIRS])
def test_table(written: str, spoken: str) -> None:
    assert normalize(written) == spoken
    assert normalize(spoken) == spoken
    check_form(written, spoken)


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\n", "...", "?!", "😀👍🏽", "你好", "мир", "---", "\x00\x07", "\u200b", "***"],
)
def test_nothing_to_say_is_the_empty_string(text: str) -> None:
    assert normalize(text) == ""
    assert normalize_paragraphs(text) == []


def test_random_unicode_never_fails() -> None:
    choose = random.Random(0)
    tops = (0x80, 0x300, 0x3000, 0x110000)  # the last holds lone surrogates
    for _ in range(250):
        length = choose.randrange(50)
        text = "".join(chr(choose.randrange(choose.choice(tops))) for _ in range(length))
        check_form(text, normalize(text))


def test_random_fragments_never_fail() -> None:
    fragments = (
        "Dr. St. etc. U.S. 10 1,000 3.5 $5 10% 1/2 3-4 VIII FBI NASA DVDs a.m. 5pm 12:30 May 2024 "
        "km 10kg http://a.b/c a@b.co #x @y I'm - -- ... ! ? ( ) \" ' No. 1st 90s x^2 = + v2.0 ° é "
        "192.168.1.1 iPhone C++ and the World War II – — £ ½ ² < > \\ / _ ~ * & ; : , I jR. 5'11\" "
        "No. Fig. sec. Vol. Sat. Fri. Sept. B.C. AD c. ft. in. lbs. of in x 2x 2–3x 30m 20s 1h ago "
        "1.234,56 1'000 12,34,567 234 567 (020) 7946 5551234567 1-800-FLOWERS 72F -5C 3B 10k "
        "people ⅷ Ⅷ ➀ ① ¹ ¾ don`t <5 <a@b.c> >= Elm Ave. Dr. N. Main I-95 Rt. 66 hmm Wi-Fi "
        "2-in-1 4-g-"
    ).split()
    choose = random.Random(1)
    for _ in range(250):
        glue = choose.choice([" ", "", " ", "\n"])
        text = glue.join(choose.choice(fragments) for _ in range(choose.randrange(14)))
        check_form(text, normalize(text))


def test_spoken_words_stay_as_they_are() -> None:
    words = " ".join(spoken for _, spoken in PAIRS).split()
    plain = sorted({word.strip(",.?!;:") for word in words if len(word) > 2})
    choose = random.Random(2)
    for _ in range(60):
        chosen = [choose.choice(plain) for _ in range(12)]
        text = " ".join(word + choose.choice(["", "", "", ",", ".", "?", ";"]) for word in chosen)
        spoken = normalize(text)
        assert normalize(spoken) == spoken


def test_a_long_text_takes_under_a_second() -> None:
    prose = "On May 5, 2024, at 9:30 a.m., Mr. Lee paid $3.50 for 2 kg of it; she said: fine! "
    for text in (prose, "the quick brown fox, it is said, jumps over a lazy dog. "):
        text = (text * 1000)[:50_000]
        start = time.process_time()
        spoken = normalize(text)
        assert time.process_time() - start < 3.0
        assert len(spoken) > 40_000


@pytest.mark.parametrize(
    "unit",
    ["1", "1,", "1,000", "1-", "1.", "1/", "1:", "a.", "A.", "a-", "aB", "HTMLa", "a_", "'", '"',
     "(", "[", "<a ", "&a", "@a", "a@a.", "#a", "http://a", "/a", "C:\\", "$1,", "1%-", "*", "1+",
     "1=", "^1", "1x1", "MMXX", "Henry I ", "é\u0301", "½", "²", "sooo", "?!", "...", "~", "- a\n",
     "\n\n", "555-", "1234 ", "1 km/", "a/b.py", "\t", "&#1", "1 1/2 ", "THE ", "I'd've",
     "1 123 ", "123 456 ", "1.000", "1'000", "1_000", "12,34,", "1h ", "1h30m", "2m ",
     "5 ft. 2 in. ",
     "No. I ", "Fig. ", "<5 ", "<a@b.c>", "> 5 ", "2x-", "2-3x ", "72F ", "10k-", "Mon-", "Mon, ",
     "Jan-", "Sept. ", "44 B.C.-", "5th c. ", "Elm St. ", "123 N. Main ", "I-95 ", "(020) 7946 ",
     "5551234567", "1-800-", "3-in-", "4-g-", "don`t", "Ⅷ", "➀", "¹", "¹/₂", "1 in ", "1/2 in "],
)  # fmt: skip
def test_no_repetition_takes_more_than_linear_time(unit: str) -> None:
    times = []
    for length in (700, 2_800):
        text = (unit * length)[:length]
        start = time.process_time()
        normalize(text)
        times.append(time.process_time() - start)
    # Quadratic time would be 16-fold.
    assert times[1] < 9 * times[0] + 0.02


def test_a_pathological_long_text_is_fine_too() -> None:
    text = "DVDsHTMLa" * 5_500
    start = time.process_time()
    normalize(text)
    assert time.process_time() - start < 1.0


def test_paragraphs() -> None:
    text = "Chapter 1\n\nIt was late;\nvery late.\n \n\n***\n\n- one\n- two"
    assert normalize_paragraphs(text) == ["chapter one", "it was late; very late.", "one. two."]
    assert normalize(text) == "chapter one. it was late; very late. one. two."


def test_doc_example() -> None:
    spoken = normalize("Dr. Smith paid $3.50 on May 5, 2024.")
    assert spoken == (
        "doctor smith paid three dollars and fifty cents on may fifth, twenty twenty four."
    )
