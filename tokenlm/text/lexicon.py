"""A pronunciation lexicon: words and their phones, in the plain format of the CMU dictionary.

    ;;; a comment
    photograph  f ow1 t ax g r ae1 f
    live(verb)  l ih1 v

A name in brackets is a variant of a homograph (`tokenlm/text/homographs.txt`). A file may be edited
by hand to mend how a name is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tokenlm.atomic import atomic_path
from tokenlm.text.tokenizer_config import TokenizerError

Lexicon = dict[str, tuple[str, ...]]
"""Lower-case word -> its phones."""

_VARIANT = re.compile(r"\(\d+\)$")


def read_lexicon(path: str | Path) -> Lexicon:
    """Read a lexicon; of several pronunciations of a word the first one counts.

    Raises:
        TokenizerError: there is no such file, or a line has no phones; the line is named.
    """
    lexicon: Lexicon = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"the lexicon {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;;"):
            continue
        word, *phones = line.split()
        if not phones:
            raise TokenizerError(f"{path}, line {number}: the word {word!r} has no phones")
        lexicon.setdefault(_VARIANT.sub("", word).lower(), tuple(phone.lower() for phone in phones))
    return lexicon


def write_lexicon(lexicon: Mapping[str, tuple[str, ...]], path: str | Path) -> None:
    """Write a lexicon in alphabetical order, whole or not at all."""
    lines = [f"{word}  {' '.join(phones)}\n" for word, phones in sorted(lexicon.items())]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
