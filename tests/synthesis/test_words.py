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
from tokenlm.synthesis.guards import ReadBack
from tokenlm.synthesis.words import SegmentAligner, Speech, TimedWord
from tokenlm.text.pronunciation import Pronouncer
from tokenlm.text.tokenizers import PhonemeTokenizer

TEXT = "Is it so, Dr. Fox? Yes: 21 lazy dogs jump over it. " + "The quick brown fox is here. " * 4
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
    for size in (1, 11):
        pieces = (TEXT[start : start + size] for start in range(0, len(TEXT), size))
        stream = synthesizer.stream(pieces, word_times=True, **options)  # type: ignore[arg-type]
        assert [word for chunk in stream for word in chunk.words] == found  # type: ignore[attr-defined]


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
