"""Times of words: whole and streamed, with tiny models and with paths that are known."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenlm.checkpoint import BundleError, finalize_bundle
from tokenlm.checkpoint.bundle import read_manifest
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.alignment import SegmentAligner
from tokenlm.synthesis.guards import ReadBack
from tokenlm.synthesis.words import Speech, TimedWord
from tokenlm.text.pronunciation import Pronouncer
from tokenlm.text.tokenizers import PhonemeTokenizer

TEXT = "Is it so, Dr. Fox? Yes: 21 lazy dogs jump over it. " + "The quick brown fox is here. " * 2
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(tiny_bundle)


def check(words: Sequence[TimedWord], num_samples: int) -> None:
    """Words of TEXT, in their order, none outside of the speech, none before the last one."""
    assert [word.text for word in words] == WORDS
    assert all(TEXT[word.text_start : word.text_end] == word.text for word in words)
    assert {word.spoken for word in words} >= {"doctor", "twenty one", "yes:", "here."}
    starts = [word.start_seconds for word in words]
    assert starts == sorted(starts) and starts[0] >= 0.0
    assert all(word.start_seconds <= word.end_seconds for word in words)
    assert words[-1].end_seconds <= num_samples / 24_000 + 0.041


@pytest.mark.parametrize("layout", ["one_shot", "interleaved"])
@pytest.mark.parametrize("speed", [1.0, 1.25])
def test_streamed_words_are_those_of_the_whole(
    synthesizer: Synthesizer, layout: str, speed: float
) -> None:
    options = {"layout": layout, "speed": speed, "seed": 1}
    whole = synthesizer.generate(TEXT, word_times=True, **options)  # type: ignore[arg-type]
    assert isinstance(whole, Speech)
    check(whole.words, whole.shape[0])
    plain = synthesizer.generate(TEXT, **options)  # type: ignore[arg-type]
    assert torch.equal(whole, plain) and not isinstance(plain, Speech)
    stream = synthesizer.stream(TEXT, word_times=True, **options)  # type: ignore[arg-type]
    found: list[TimedWord] = []
    seconds = 0.0
    for chunk in stream:
        assert isinstance(chunk, Speech)
        seconds += chunk.shape[0] / 24_000
        assert all(word.start_seconds < seconds + 0.05 for word in chunk.words)
        found += chunk.words
        assert stream.words == found
    assert found == list(whole.words)


def test_how_the_text_is_cut_does_not_matter(synthesizer: Synthesizer) -> None:
    def words(size: int) -> list[TimedWord]:
        pieces = (TEXT[start : start + size] for start in range(0, len(TEXT), size))
        stream = synthesizer.stream(pieces, word_times=True)
        num_samples = sum(chunk.shape[0] for chunk in stream)
        check(stream.words, num_samples)
        return stream.words

    assert words(1) == words(11)


def test_words_are_spread_over_the_chunks(synthesizer: Synthesizer) -> None:
    """The first words come while later ones are not spoken yet."""
    chunks = list(synthesizer.stream(TEXT, word_times=True))
    with_words = [number for number, chunk in enumerate(chunks) if chunk.words]  # type: ignore[attr-defined]
    assert len(with_words) >= 3 and with_words[0] < len(chunks) - 3


def test_a_bundle_without_a_recogniser(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    manifest = read_manifest(folder)
    shutil.rmtree(folder / "token_recognizer")
    rest = {name: path for name, path in manifest.components.items() if name != "token_recognizer"}
    finalize_bundle(folder, replace(manifest, components=rest, files={}))
    synthesizer = Synthesizer.from_pretrained(folder)
    with pytest.raises(BundleError, match="has no component 'token_recognizer'"):
        synthesizer.generate("Yes.", word_times=True)
    with pytest.raises(BundleError, match="has no component 'token_recognizer'"):
        synthesizer.stream("Yes.", word_times=True)
    assert synthesizer.generate("Yes.").shape[0]
    assert synthesizer.stream("Yes.").words == []


def test_speech_is_a_tensor_with_words() -> None:
    word = TimedWord(
        text="Yes.", spoken="yes.", start_seconds=0.1, end_seconds=0.3, text_start=0, text_end=4
    )
    speech = Speech.of(torch.arange(4.0), [word])
    assert speech.words == (word,) and torch.equal(speech, torch.arange(4.0))
    for result in (speech + 1, speech[1:], torch.cat([speech, speech]), speech.clone()):
        assert type(result) is torch.Tensor
    for other in (copy.deepcopy(speech), pickle.loads(pickle.dumps(speech))):
        assert isinstance(other, Speech) and other.words == (word,)
        assert torch.equal(other, speech) and other.data_ptr() != speech.data_ptr()


PHONES = ("ae", "b", "k", "t")
LEXICON = {"cat": ("k", "ae", "t"), "back": ("b", "ae", "k"), "at": ("ae", "t")}


class KnownPath(ReadBack):
    """Reads a path that is known: the best unit of every place has the probability 0.9."""

    path: list[int]
    first = 0

    def log_probs(self, codes: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        # Tokens count up, so that the first tells where the window begins.
        first = 2 * round(float(codes[0, 0, 0]))
        path = self.path[first : first + 2 * codes.shape[1]]
        rest = torch.full((1, len(path), 5), 0.025)
        rest[0, torch.arange(len(path)), path] = 0.9
        return rest.log()


class Counting(TokenRecognizer):
    """Its code vectors are the tokens themselves."""

    def code_vectors(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., None].float()


@pytest.fixture
def reader() -> KnownPath:
    torch.manual_seed(0)
    tokenizer = PhonemeTokenizer(PHONES, dict(LEXICON), Pronouncer(len(PHONES), dim=8))
    config = TokenRecognizerConfig(
        levels=(3, 3), dim=8, num_heads=2, num_layers=1, num_decoder_layers=0, phones=PHONES
    )
    return KnownPath(Counting(config).eval(), tokenizer)


def path_of(tokens: dict[int, str], num_tokens: int) -> list[int]:
    """A path with two places a token: a phone is read at the first place of its token."""
    path = [0] * (2 * num_tokens)
    for token, phone in tokens.items():
        path[2 * token] = 1 + PHONES.index(phone)
    return path


def add_all(aligner: SegmentAligner, num_tokens: int, words: Sequence[str], size: int) -> None:
    for start in range(0, num_tokens, size):
        end = min(start + size, num_tokens)
        aligner.add(range(start, end), lambda _: words, is_last=end == num_tokens)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_times_by_hand(reader: KnownPath, size: int) -> None:
    """k ae t at tokens 3, 5, 7, then a pause, b ae k at 20, 22, 24, ae t at 26, 30."""
    said = {3: "k", 5: "ae", 7: "t", 20: "b", 22: "ae", 24: "k", 26: "ae", 30: "t"}
    reader.path = path_of(said, 40)
    silent = [0, 1, *range(9, 18), 34, 35, 36, 37, 38, 39]
    aligner = SegmentAligner(reader, silent, token_rate=25)
    add_all(aligner, 40, ["cat,", "back", "at."], size)
    middle = 24.5 - 0.25  # k is read up to 24.5, which is 10 ms too late
    assert aligner.spans == [
        (2.0, 9.0),  # from the silence before it to the one behind it
        (18.0, middle),
        (middle, 34.0),
    ]


def test_a_closure_is_no_pause(reader: KnownPath) -> None:
    """Of "at cat", one silent token before k belongs to k; three are a pause."""
    reader.path = path_of({2: "ae", 4: "t", 10: "k", 12: "ae", 14: "t"}, 16)
    for silent, expected in (([8], (8.0, 8.0)), ([6, 7, 8], (6.0, 9.0))):
        aligner = SegmentAligner(reader, silent, token_rate=25)
        add_all(aligner, 16, ["at", "cat"], 16)
        (_, end), (start, _) = aligner.spans  # type: ignore[misc]
        assert (end, start) == expected


def test_without_silence(reader: KnownPath) -> None:
    """Sound before the first unit of a word belongs to it up to 75 ms, behind the last 70 ms."""
    reader.path = path_of({2: "ae", 4: "t", 10: "ae", 14: "t"}, 30)
    aligner = SegmentAligner(reader, (), token_rate=25)
    add_all(aligner, 30, ["at", "at"], 30)
    lead, tail = 0.075 * 25, 0.07 * 25
    first, second = aligner.spans
    assert first == pytest.approx((2 - lead, 10 - lead))
    assert second == pytest.approx((10 - lead, 14.5 + tail))


def test_words_that_cannot_be_placed(reader: KnownPath) -> None:
    """More units than places: time goes by letters. No tokens: no times."""
    reader.path = path_of({0: "k"}, 2)
    aligner = SegmentAligner(reader, (), token_rate=25)
    add_all(aligner, 2, ["cat", "back"], 1)
    first, second = aligner.spans  # three letters of seven, and four
    assert first == pytest.approx((0.0, 6 / 7)) and second == pytest.approx((6 / 7, 2.0))
    silent = SegmentAligner(reader, (), token_rate=25)
    silent.add([], lambda _: ["cat", "at"], is_last=True)
    assert silent.spans == [None, None]
    unsaid = SegmentAligner(reader, (), token_rate=25)  # "-" has no units
    unsaid.add([0, 1], lambda _: ["-"], is_last=True)
    assert unsaid.spans == [(0.0, 0.0)]
