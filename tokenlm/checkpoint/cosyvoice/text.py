"""The text tokenizers of CosyVoice 2 and 3: those of Qwen2 with tokens behind its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tokenlm.checkpoint.key_table import WeightsError
from tokenlm.text.normalize import NormalizerName
from tokenlm.text.tokenizer_config import TokenizerError
from tokenlm.text.tokenizers import TransformersTokenizer

Version = Literal[2, 3]

END_OF_PROMPT = "<|endofprompt|>"
END_OF_PROMPT_ID = 151_646
"""Behind the 151,643 pieces of Qwen2 and its three special tokens."""

_TAGS = (
    END_OF_PROMPT,
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
)

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()
_PINYIN = (
    "b p m f d t n l g k h j q x zh ch sh r z c s y w "
    "a o e i u ai ei ao ou an en ang eng ong in ing un ian iu ue uo uang "
    "ā á ǎ à ō ó ǒ ò ē é ě è ī í ǐ ì ū ú ǔ ù ǘ ǚ ǜ vè ér ěr èr "
    "āi ái ǎi ài ēi éi ěi èi āo áo ǎo ào ōu óu ǒu òu "
    "ān án ǎn àn ēn én ěn èn īn ín ǐn ìn ūn ún ǔn ùn "
    "āng áng ǎng àng ēng éng ěng èng īng íng ǐng ìng ōng óng ǒng òng "
    "iā iá iǎ ià iē ié iě iè iāo iáo iǎo iào iū iú iǔ iù iān ián iǎn iàn "
    "iāng iáng iǎng iàng iōng ióng iǒng iòng "
    "uā uá uǎ uà uō uó uǒ uò uē ué uě uè uī uí uǐ uì uāi uái uǎi uài "
    "uān uán uǎn uàn uāng uáng uǎng uàng"
).split()


def _pronunciation() -> list[str]:
    """Phones that version 3 takes as tokens: those of the CMU dictionary, then parts of pinyin."""
    cmu = _CONSONANTS + [vowel + stress for vowel in _VOWELS for stress in ("", "0", "1", "2")]
    return [f"[{sound}]" for group in (cmu, _PINYIN) for sound in sorted(group)]


def added_tokens(version: Version) -> tuple[str, ...]:
    """Text tokens behind those of Qwen2, in the order of their ids."""
    return _TAGS if version == 2 else (*_TAGS, "<|endofsystem|>", *_pronunciation())


def text_tokenizer(
    folder: Path, version: Version, normalizer: NormalizerName, vocab_size: int
) -> TransformersTokenizer:
    """The text tokenizer with the tokens that were added behind it.

    Args:
        folder: as it was published.
        version: of CosyVoice.
        normalizer: what texts go through before they are encoded.
        vocab_size: text ids that the language model has.

    Raises:
        WeightsError: it cannot be read, or its ids are not those of the language model.
    """
    try:
        tokenizer = TransformersTokenizer.from_folder(folder).with_tokens(added_tokens(version))
    except (TokenizerError, UnicodeDecodeError) as error:
        raise WeightsError(f"{folder}: {error}") from error
    tokenizer.normalizer = normalizer
    if tokenizer.vocab_size > vocab_size:
        raise WeightsError(
            f"{folder} has {tokenizer.vocab_size} text ids, llm.pt {vocab_size}: it is the text "
            "tokenizer of another model, or damaged."
        )
    first = tokenizer.encode(END_OF_PROMPT)
    # A table of the full size was trained with these ids, a smaller one with those that there are.
    if vocab_size > END_OF_PROMPT_ID and first != [END_OF_PROMPT_ID]:
        raise WeightsError(
            f"{folder} encodes {END_OF_PROMPT} as {first}, llm.pt knows it as {END_OF_PROMPT_ID}: "
            "it is the text tokenizer of another model, or damaged."
        )
    return tokenizer
