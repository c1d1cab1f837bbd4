"""Pronunciations of a user: formats, and how words of a text reach the text tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tokenlm.text.normalize import frontend
from tokenlm.text.pronunciation import (
    MAX_RUN_CHARACTERS,
    LexiconError,
    Pronouncer,
    Respeller,
    UserLexicon,
    fit_phones,
    lookup_key,
    parse_phones,
)
from tokenlm.text.tokenizers import (
    PhonemeTokenizer,
    SentencePieceTokenizer,
    TransformersTokenizer,
)

EMBEDDED_PHONES = (
    "aa aa1 ae ae1 ah ah1 ao ao1 aw aw1 ax ay ay1 b ch d dh eh eh1 er er1 ey ey1 f g hh ih ih1 iy "
    "iy1 jh k l m n ng ow ow1 oy oy1 p r s sh t th uh uh1 uw uw1 v w y z zh"
).split()


@pytest.mark.parametrize(
    ("written", "phones"),
    [
        ("W IH1 N", "w ih1 n"),
        ("ax b aw1 t", "ax b aw1 t"),
        ("/wɪn/", "w ih1 n"),
        ("[dʒɪf]", "jh ih1 f"),
        ("ˈnaɪki", "n ay1 k iy0"),
        ("/ˌsiːˌplʌsˈplʌs/", "s iy2 p l ah2 s p l ah1 s"),
        ("/t͡ʃɜːrt͡ʃ/", "ch er1 ch"),
        ("/əˈraʊnd/", "ax r aw1 n d"),
        ("/kəmˈpjuːtər/", "k ax m p y uw1 t axr"),
        ("/ˈbʌtn̩/", "b ah1 t ax n"),
        ("/ʒɑ̃/", "zh aa1 n"),
        ("/'hæpi/", "hh ae1 p iy0"),
    ],
)
def test_both_notations_are_read(written: str, phones: str) -> None:
    assert " ".join(parse_phones(written)) == phones


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("w ihh n", "'ihh' is no phone of the CMU dictionary; IPA stands between slashes"),
        ("b1", "'b1' is no phone"),
        ("/w!n/", "the sign '!' of 'w!n' is not known in IPA"),
        ("//", "has no phones"),
        ("ae " * 65, "at most 64 phones"),
    ],
)
def test_what_is_no_pronunciation_is_named(written: str, message: str) -> None:
    with pytest.raises(LexiconError, match=message):
        parse_phones(written)


def test_phones_are_those_of_the_tokenizer() -> None:
    fit = lambda text: " ".join(fit_phones(parse_phones(text), EMBEDDED_PHONES))  # noqa: E731
    # Secondary stress is written as stress, the reduced vowel as `ax`.
    assert fit("f ow1 t ah0 g r ae2 f") == "f ow1 t ax g r ae1 f"
    assert fit("/ˈwɔtɚ/") == "w ao1 t er"
    assert fit("b ah1 t en") == "b ah1 t ax n"
    assert fit_phones(("ax", "ow1"), {"ah0", "ow1"}) == ("ah0", "ow1")
    with pytest.raises(LexiconError, match="has no phone 'zh'"):
        fit_phones(("zh",), {"z"})


def test_a_file_is_read_and_its_mistakes_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "my.txt"
    path.write_text("\ufeff;;; mine\n# more\n\nNguyen  W IH1 N\nGIF\t/dʒɪf/\nnguyen(2)  n uw1\n",
                    encoding="utf-8")  # fmt: skip
    lexicon = UserLexicon.load(path)
    assert lexicon.phones == {"nguyen": ("w", "ih1", "n"), "gif": ("jh", "ih1", "f")}
    assert UserLexicon.parse(lexicon.text) == lexicon
    path.write_text("ok  ow1\nGIF\n!!  ow1\nx  foo\n", encoding="utf-8")
    with pytest.raises(LexiconError) as caught:
        UserLexicon.load(path)
    told = str(caught.value)
    assert "line 2: the word 'GIF' has no phones" in told
    assert "line 3: '!!' is not a word" in told and "line 4: 'foo' is no phone" in told
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LexiconError, match="is not UTF-8"):
        UserLexicon.load(path)
    with pytest.raises(LexiconError, match=r"gone\.txt cannot be read: No such file"):
        UserLexicon.of(tmp_path / "gone.txt")


def test_lines_that_contradict_each_other() -> None:
    """Numbers mark further pronunciations, of which the first one counts."""
    lexicon = UserLexicon.parse("read  r iy1 d\nread(2)  r eh1 d\nREAD  /riːd/\n")
    assert lexicon.phones == {"read": ("r", "iy1", "d")}
    assert UserLexicon.parse("read(2)  r eh1 d\nread  r iy1 d").phones["read"][1] == "eh1"
    with pytest.raises(LexiconError, match="names: line 3: 'Read' is .* otherwise in line 1; .*"):
        UserLexicon.parse("read  r iy1 d\n# more\nRead  r eh1 d\n", "names")
    with pytest.raises(LexiconError, match="'read': the word is there twice, with other phones"):
        UserLexicon.of({"Read": "r iy1 d", "read": "r eh1 d"})
    assert len(UserLexicon.of({"Read": "r iy1 d", "read": "/riːd/"}).phones) == 1


def test_tags_are_no_words() -> None:
    respell = Respeller({"b", "gif", "br"}, lambda word, key: f"({key})")
    assert respell("<b>GIF</b>,<br>gif b") == "<b>(gif)</b>,<br>(gif) (b)"


def test_later_lexicons_win() -> None:
    first, second = UserLexicon.of({"a": "ax", "b": "b iy1"}), UserLexicon.of({"A": "ey1"})
    assert (first | second).phones == {"a": ("ey1",), "b": ("b", "iy1")}
    assert first | UserLexicon() == first and not UserLexicon.of(None)
    with pytest.raises(LexiconError, match="'x': 'q' is no phone"):
        UserLexicon.of({"x": "q"})
    with pytest.raises(LexiconError, match="not int"):
        UserLexicon.of(3)  # type: ignore[arg-type]
    with pytest.raises(LexiconError, match="a string of phones"):
        UserLexicon.of({"x": 3})  # type: ignore[dict-item]


WORDS = {"gif", "c++", "mr.", "nguyen", "são"}


def respeller() -> Respeller:
    return Respeller(WORDS, lambda word, key: f"<{key}>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A GIF, (gif). GIF/png", "A <gif>, (<gif>). <gif>/png"),
        ("Mr. Nguyen's C++.", "<mr.> <nguyen>'s <c++>."),
        ("GIFs and GIF’s", "<gif>'s and <gif>'s"),
        ("gifs nguyens giff", "gifs nguyens giff"),
        ("S\u0061\u0303o-Nguyen", "<são>-<nguyen>"),
        ("... -- !", "... -- !"),
        ("x" * (MAX_RUN_CHARACTERS - 3) + "/gif gif", "x" * 253 + "/gif <gif>"),
    ],
)
def test_words_are_found_in_a_text(text: str, expected: str) -> None:
    assert respeller()(text) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["GIF", "c++", "Mr.", " ", "\n", ",", "x", "'s", "y" * 200]), max_size=12
    )  # fmt: skip
)
def test_pieces_give_what_the_whole_gives(pieces: list[str]) -> None:
    text = "".join(pieces)
    for cut in (pieces, list(text)):
        reader = respeller()
        assert "".join([*map(reader.feed, cut), reader.finish()]) == respeller()(text)


@pytest.fixture(scope="module")
def phonemes() -> PhonemeTokenizer:
    torch.manual_seed(0)
    lexicon = {
        "live(verb)": ("l", "ih1", "v"),
        "live(adj)": ("l", "ay1", "v"),
        "nguyen's": ("n", "z"),
        "a": ("ax",),
    }
    return PhonemeTokenizer(EMBEDDED_PHONES, lexicon, Pronouncer(len(EMBEDDED_PHONES), dim=8))


def said(tokenizer: PhonemeTokenizer, text: str, **words: str) -> str:
    own, respell = tokenizer.with_lexicon(UserLexicon.of(words))
    return own.decode(own.encode(frontend("english").normalize(respell(text))))


def test_own_entries_win_over_the_built_in_ones(phonemes: PhonemeTokenizer) -> None:
    assert said(phonemes, "I live.", live="l uw1").endswith("| l uw1 .")
    assert said(phonemes, "a live a", **{"live(adj)": "l ow1"}) == "ax | l ow1 | ax"
    assert said(phonemes, "Nguyen's Nguyen", nguyen="w ih1 n") == "w ih1 n z | w ih1 n"
    # The tokenizer itself is as before.
    assert phonemes.decode(phonemes.encode("nguyen's")) == "n z"


def test_words_that_normalisation_would_change_are_said_too(phonemes: PhonemeTokenizer) -> None:
    words = {"FBI": "f ah1", "Qwen2": "k w eh1", "北京": "b ey1 jh ih1 ng", "Mr.": "m ih1 s",
             "C++": "s iy1"}  # fmt: skip
    assert said(phonemes, "FBI! Qwen2, 北京. Mr. C++", **words) == (
        "f ah1 ! | k w eh1 , | b ey1 jh ih1 ng . | m ih1 s | s iy1"
    )


def test_two_words_never_share_a_spelling(phonemes: PhonemeTokenizer) -> None:
    words = {"c-3": "s iy1", "c.3": "s ay1", "cthreeq": "s ow1"}
    assert said(phonemes, "c-3 c.3 cthreeq", **words) == "s iy1 | s ay1 | s ow1"


def test_unlisted_words_are_known(phonemes: PhonemeTokenizer) -> None:
    own, _ = phonemes.with_lexicon(UserLexicon.of({"zed": "z eh1 d"}))
    assert own.unlisted_words("a zebra, zed's. live!") == ["zebra", "live"]


def test_phones_as_tokens_of_a_pretrained_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE({c: n for n, c in enumerate(pre_tokenizers.ByteLevel.alphabet())},
                                 []))  # fmt: skip
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    library = PreTrainedTokenizerFast(tokenizer_object=inner)
    library.save_pretrained(tmp_path)
    tokenizer = TransformersTokenizer(AutoTokenizer.from_pretrained(tmp_path), "none")
    with pytest.raises(LexiconError, match="reads letters, not phones"):
        tokenizer.with_lexicon(UserLexicon.of({"Nguyen": "w ih1 n"}))
    tokenizer.with_tokens(["[W]", "[IH1]", "[N]", "[breath]"])
    same, respell = tokenizer.with_lexicon(UserLexicon.of({"Nguyen": "/wɪn/"}))
    text = frontend("none").normalize(respell("Hi Nguyen's."))
    assert text == "Hi [W][IH1][N]'s."
    first = tokenizer.encode("[W]")
    assert len(first) == 1 and same.encode(text)[3:6] == [first[0], first[0] + 1, first[0] + 2]
    with pytest.raises(LexiconError, match="has no phone 'ch'"):
        tokenizer.with_lexicon(UserLexicon.of({"x": "ch"}))


def test_a_tokenizer_of_letters_says_that_it_cannot() -> None:
    tokenizer = SentencePieceTokenizer.train(["is it so?"], 64, model_type="char")
    with pytest.raises(LexiconError, match="reads letters, not phones"):
        tokenizer.with_lexicon(UserLexicon.of({"x": "z"}))
    assert tokenizer.unlisted_words("is it") == []


def test_keys_are_composed_and_small() -> None:
    assert lookup_key("Sa\u0303O’S") == "são's"
