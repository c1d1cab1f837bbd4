"""A pronunciation lexicon by flite's letter-to-sound program, for the phoneme tokenizer.

    python -m training.recipes.corpus.lexicon --manifest corpus/train.jsonl OUTPUT

The words are those of the manifest and of the machine's word list. Flite says them by the lexicon
of Carnegie Mellon University that it carries, or by rules learned from it. Words with endings such
as 's and n't are left out, since the tokenizer says these by rule; plurals that end in an s
where a z belongs are mended, and what stands in `by_hand.txt` counts more than flite.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tokenlm.text.normalize import normalize
from tokenlm.text.pronunciation import (
    Lexicon,
    add_ending,
    ends_in_voiceless_z,
    read_lexicon,
    split_ending,
    write_lexicon,
)
from training.data.manifest import read_manifest
from training.recipes.corpus.engines import EngineError

WORDS_AT_ONCE = 100
PAUSE = "pau"
MARKER = "the"
BY_HAND = Path(__file__).with_name("by_hand.txt")
_WORD = re.compile(r"[a-z']*[a-z][a-z']*")


def pronounce(words: Sequence[str]) -> Lexicon:
    """Phones of words, as flite says each of them alone; words that it skips are left out.

    Raises:
        EngineError: flite's program `t2p` is not installed.
    """
    program = shutil.which("t2p")
    if program is None:
        raise EngineError(
            "flite's program t2p is not installed; on Debian or Ubuntu: apt-get install flite"
        )
    lexicon: Lexicon = {}
    (marker,) = _parts(program, [MARKER])
    for start in range(0, len(words), WORDS_AT_ONCE):
        lexicon |= _pronounce_some(program, words[start : start + WORDS_AT_ONCE], marker)
    return lexicon


def _pronounce_some(program: str, words: Sequence[str], marker: tuple[str, ...]) -> Lexicon:
    """Phones of a few words; halves them where the answer does not fit.

    The program joins all phones and skips some words. A known word after each of the others shows
    which phones belong to it.
    """
    parts = _parts(program, [part for word in words for part in (word, MARKER)])
    if len(parts) == 2 * len(words) and all(part == marker for part in parts[1::2]):
        return dict(zip(words, parts[::2], strict=True))
    if len(words) == 1:
        return {}
    half = len(words) // 2
    first = _pronounce_some(program, words[:half], marker)
    return first | _pronounce_some(program, words[half:], marker)


def _parts(program: str, words: Sequence[str]) -> list[tuple[str, ...]]:
    """What the program says between pauses."""
    # A question mark, because a full stop makes some words abbreviations.
    text = " ".join(f"{word}?" for word in words)
    done = subprocess.run([program, text], capture_output=True, text=True, check=False)
    parts: list[tuple[str, ...]] = []
    phones: list[str] = []
    for phone in done.stdout.split():
        if phone == PAUSE:
            if phones:
                parts.append(tuple(phones))
            phones = []
        else:
            phones.append(phone)
    return parts


def corpus_words(texts: Iterable[str], word_list: Path) -> list[str]:
    """Words of texts and of a word list that are written in English letters, sorted."""
    found: set[str] = set()
    for text in texts:
        found.update(normalize(text).replace("-", " ").split())
    if word_list.exists():
        found.update(word_list.read_text(encoding="utf-8", errors="ignore").lower().split())
    plain = {word.strip(",.?!;:") for word in found}
    return sorted(word for word in plain if _WORD.fullmatch(word) and not split_ending(word))


def mended_plurals(lexicon: Lexicon, names: Collection[str] = ()) -> Lexicon:
    """Plurals (and third persons) that end in an s where their word asks for a z, said by rule.

    Args:
        lexicon: words and plurals as they are said.
        names: words that are written with a capital; they need not be plurals.
    """
    mended: Lexicon = {}
    for word, said in lexicon.items():
        base = word[:-1]
        if not word.endswith("s") or len(base) < 4 or base not in lexicon or word in names:
            continue
        ruled = add_ending(lexicon[base], "s")
        is_voiceless = said[-1] == "s" and ruled[-1] == "z" and not base.endswith("s")
        if is_voiceless or ends_in_voiceless_z(said):
            mended[word] = ruled
    return mended


def _names(word_list: Path) -> set[str]:
    """Words of the list that it has with a capital alone."""
    if not word_list.exists():
        return set()
    listed = word_list.read_text(encoding="utf-8", errors="ignore").split()
    small = {word for word in listed if word.islower()}
    return {word.lower() for word in listed} - small


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    prog = "python -m training.recipes.corpus.lexicon"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--word-list", type=Path, default=Path("/usr/share/dict/words"))
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        texts = [row.text for row in read_manifest(options.manifest).utterances]
        words = corpus_words(texts, options.word_list)
        lexicon = pronounce(words)
        lexicon |= mended_plurals(lexicon, _names(options.word_list)) | read_lexicon(BY_HAND)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_lexicon(lexicon, options.output)
    print(f"{options.output}: {len(lexicon)} of {len(words)} words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
