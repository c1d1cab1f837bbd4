"""Speech tokens read back, in phones and in characters."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.guards import ReadBack, ReadBackScore
from tokenlm.text.pronunciation import Pronouncer
from tokenlm.text.tokenizers import PhonemeTokenizer
from tokenlm.text.transcripts import WordErrors

PHONES = ("ae", "ae1", "b", "k", "t")
LEXICON = {"cat": ("k", "ae1", "t"), "back": ("b", "ae1", "k"), "at": ("ae", "t")}
SIZES = {"levels": (3, 3), "dim": 8, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 0}


@pytest.fixture
def tokenizer() -> PhonemeTokenizer:
    torch.manual_seed(0)
    return PhonemeTokenizer(PHONES, dict(LEXICON), Pronouncer(len(PHONES), dim=8))


def recognizer(**more: object) -> TokenRecognizer:
    torch.manual_seed(0)
    return TokenRecognizer(TokenRecognizerConfig(**SIZES, **more)).eval()  # type: ignore[arg-type]


class Saying(ReadBack):
    """Reads what it is told: the best unit of every place has the probability 0.9."""

    path: list[int]

    def log_probs(self, codes: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        size = 1 + len(self.recognizer.config.phones)
        rest = torch.full((len(codes), len(self.path), size), 0.1 / (size - 1))
        rest[:, torch.arange(len(self.path)), self.path] = 0.9
        return rest.log()


def test_phones_are_compared_where_both_know_them(tokenizer: PhonemeTokenizer) -> None:
    assert tokenizer.sounds == ("ae", "b", "k", "t")
    phones = recognizer(phones=tokenizer.sounds)
    reader = ReadBack(phones, tokenizer)
    assert reader.unit == "phone" and reader.outputs_per_token == 2
    assert reader.encode("back, at") == [2, 1, 3, 1, 4]  # no stress, boundary or mark
    codes = phones.code_vectors(torch.tensor([[1, 2, 3]]))
    assert reader.log_probs(codes).shape == (1, 6, 5)
    more = recognizer(phones=(*tokenizer.sounds, "zh"))
    assert ReadBack(more, tokenizer).encode("at") == [1, 4]
    for deaf in (
        ReadBack(phones),
        ReadBack(recognizer(), tokenizer),
        ReadBack(recognizer(phones=("ae", "b")), tokenizer),
    ):
        assert deaf.unit == "character" and deaf.outputs_per_token == 1
        assert deaf.encode("At.") == [3, 22]


def test_errors_and_surprise_by_hand(tokenizer: PhonemeTokenizer) -> None:
    reader = Saying(recognizer(phones=tokenizer.sounds), tokenizer)
    reader.path = [3, 3, 1, 0, 4, 0]  # k ae t
    tokens = [1, 2, 3]
    right, wrong, shorter = reader(["cat", "back", "at"], [tokens] * 3)
    assert right is not None and wrong is not None and shorter is not None
    assert right.error_rate == 0.0
    assert wrong.error_rate == pytest.approx(2 / 3)  # k for b, and t for k, of three
    assert shorter.error_rate == pytest.approx(1 / 2)
    # Against all paths that say the text, one by one.
    for found, units in ((right, [3, 1, 4]), (wrong, [2, 1, 3]), (shorter, [1, 4])):
        total = 0.0
        for path in itertools.product(range(5), repeat=6):
            kept = [c for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c)]
            if kept == units:
                chances = (0.9 if c == b else 0.025 for c, b in zip(path, reader.path, strict=True))
                total += math.prod(chances)
        assert found.ctc_loss == pytest.approx(-math.log(total) / len(units), rel=1e-4)


def test_words_that_are_lost_doubled_or_put_in(tokenizer: PhonemeTokenizer) -> None:
    reader = Saying(recognizer(phones=tokenizer.sounds), tokenizer)
    cat, back = [3, 1, 4], [2, 1, 3]
    for said, words in (
        ([cat, back, cat], WordErrors()),
        ([cat, cat], WordErrors(missing=1)),
        ([cat, back, back, cat], WordErrors(repeated=1)),
        ([cat, back, cat, back, cat], WordErrors(repeated=2)),
        ([cat, back, cat, [2, 4, 2, 4]], WordErrors(inserted=1)),
        ([cat, [2, 1, 4], cat], WordErrors()),  # one wrong phone is no lost word
    ):
        reader.path = [place for word in said for phone in word for place in (phone, 0)]
        (found,) = reader(["cat, back, cat."], [[1] * (len(reader.path) // 2)])
        assert found is not None and found.words == words, said


def test_words_of_characters() -> None:
    spaced = ReadBack(recognizer(alphabet=" ab你好"))
    assert spaced.encode_words("ab, b. 你好a") == [[2, 3], [3], [4], [5], [2]]
    unspaced = ReadBack(recognizer(alphabet="ab"))
    assert unspaced.encode_words("ab b") == [[1], [2], [2]]


def test_what_cannot_be_read(tokenizer: PhonemeTokenizer) -> None:
    reader = ReadBack(recognizer(phones=tokenizer.sounds), tokenizer)
    unread = ReadBackScore(error_rate=1.0, ctc_loss=math.inf, words=WordErrors(missing=2))
    assert reader(["...", "cat back", "?!"], [[1, 2], [], []]) == [None, unread, None]
    assert reader([], []) == []
    # Two places are too few for three phones.
    (short,) = reader(["cat"], [[4]])
    assert short is not None and short.ctc_loss == math.inf and short.error_rate <= 5 / 3


def test_soft_codes_get_a_gradient(tokenizer: PhonemeTokenizer) -> None:
    """What the stage token_reward learns from."""
    phones = recognizer(phones=tokenizer.sounds)
    codes = phones.code_vectors(torch.tensor([[1, 2, 3]])).requires_grad_()
    ReadBack(phones, tokenizer).log_probs(codes)[..., 1].sum().backward()
    assert codes.grad is not None and bool((codes.grad != 0).any())


def test_a_batch_is_read_as_each_alone(tokenizer: PhonemeTokenizer) -> None:
    texts = ["cat", "back at", "...", "at"]
    rows = [[1, 5, 7, 3, 3, 8, 2, 2], [4, 4, 1, 0, 6], [3], []]
    for reader in (
        ReadBack(recognizer(phones=tokenizer.sounds), tokenizer),
        ReadBack(recognizer(), tokenizer),
    ):
        together = reader(texts, rows)
        for text, row, found in zip(texts, rows, together, strict=True):
            (alone,) = reader([text], [row])
            assert (found is None) == (alone is None)
            if found is not None and alone is not None:
                assert found.error_rate == alone.error_rate
                assert found.ctc_loss == pytest.approx(alone.ctc_loss, rel=1e-4)


def test_spaces_at_the_ends_are_no_errors() -> None:
    reader = Saying(recognizer(alphabet=" ab"))
    reader.log_probs = (  # type: ignore[method-assign]
        lambda codes, mask=None: torch.eye(4)[[1, 2, 1, 0, 1, 3, 1]][None].log().clamp(min=-20)
    )
    (found,) = reader(["A b."], [[1] * 7])
    assert found is not None and found.error_rate == 0.0


def test_the_embedded_recogniser_hears_its_own_voices() -> None:
    embedded = Synthesizer.from_pretrained("mini-en")
    read_back = embedded.components.read_back
    assert read_back.unit == "phone"
    voices = [embedded.voice(name) for name in embedded.voices]
    texts = [voice.prompt_text for voice in voices]
    rows = [voice.prompt_tokens.tolist() for voice in voices]
    right = read_back(texts, rows)
    assert sum(found.error_rate for found in right if found is not None) / len(right) < 0.15
    wrong = read_back(texts, [rows[-1], *rows[:-1]])
    for mine, other in zip(right, wrong, strict=True):
        assert mine is not None and other is not None
        assert mine.error_rate < other.error_rate and mine.ctc_loss < other.ctc_loss
