"""How words are pronounced: lexicons, regular endings, and letter-to-sound for all other words.

The lexicon is in the plain format of the CMU dictionary; it may be edited by hand to mend how a
name is pronounced:

    ;;; a comment
    photograph  f ow1 t ax g r ae1 f
    live(verb)  l ih1 v

A name in brackets is a variant of a homograph, a word that is spelt like another and pronounced
differently. The tagger tells them apart by their context; the lexicon says how each is pronounced:
`live` is the variant `verb` or `adj`, whatever the phones of a voice are called.
`tokenlm/text/homographs.txt` lists the words with their variants, and the cues for senses that are
the same part of speech; the weights for parts of speech are learned by
`python -m training.recipes.homographs`. A word depends on the words before it in its text and on at
most `WORDS_AHEAD` after it, so that texts may come in pieces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.atomic import atomic_path
from tokenlm.text.markup import MARKUP

# --- Lexicon ---

Lexicon = dict[str, tuple[str, ...]]
"""Lower-case word -> its phones."""

VOWELS = frozenset("aa ae ah ao aw ay eh er ey ih iy ow oy uh uw".split())
CONSONANTS = frozenset("b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh".split())
_VARIANT = re.compile(r"\(\d+\)$")


class LexiconError(ValueError):
    """A lexicon, or a pronunciation of one, cannot be read or used; the message says why."""


def read_lexicon(path: str | Path) -> Lexicon:
    """Read a lexicon; of several pronunciations of a word the first one counts.

    Raises:
        LexiconError: there is no such file, or a line has no phones; the line is named.
    """
    lexicon: Lexicon = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LexiconError(f"the lexicon {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;;"):
            continue
        word, *phones = line.split()
        if not phones:
            raise LexiconError(f"{path}, line {number}: the word {word!r} has no phones")
        lexicon.setdefault(_VARIANT.sub("", word).lower(), tuple(phone.lower() for phone in phones))
    return lexicon


def write_lexicon(lexicon: Mapping[str, tuple[str, ...]], path: str | Path) -> None:
    """Write a lexicon in alphabetical order, whole or not at all."""
    lines = [f"{word}  {' '.join(phones)}\n" for word, phones in sorted(lexicon.items())]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")


# --- Regular endings of plurals, possessives and contractions ---
#
#     dog's  dog + z        isn't  is + ax n t        judges'  judges        it'd  it + ax d
#
# The phones are those of the CMU dictionary and of flite, with or without digits of stress.

_HISSING = frozenset({"s", "z", "sh", "zh", "ch", "jh"})
_VOICELESS = frozenset({"p", "t", "k", "f", "th", *_HISSING - {"z", "zh", "jh"}})
_VOWELS = VOWELS | {"ax"}
_LIQUIDS = frozenset({"l", "r", "m", "n", "ng"})
ENDING_PHONES = frozenset("ax d er l m n s t v z".split())
"""All phones that an ending may add."""
_ENDINGS = ("n't", "'ve", "'ll", "'re", "'d", "'m", "'s", "'")
_OWN_SOUND = frozenset("ain't can't don't shan't won't you're they're we're".split())
"""Contractions that are not pronounced as their words are."""


def split_ending(word: str) -> tuple[str, str] | None:
    """Split a contraction or possessive: `isn't` is ("is", "n't").

    Returns:
        None where the word has no ending of this kind, or is pronounced irregularly.
    """
    if word in _OWN_SOUND:
        return None
    for ending in _ENDINGS:
        base = word.removesuffix(ending)
        if base != word and base.strip("'"):
            return base, ending
    return None


def add_ending(phones: Sequence[str], ending: str) -> tuple[str, ...]:
    """The phones of a word with an ending of `split_ending`, or `s` of a plural or a verb.

    Args:
        phones: of the word, at least one.
        ending: what is added.
    """
    last = phones[-1].rstrip("0123456789")
    is_vowel = last in _VOWELS
    if ending in ("s", "'s"):
        if last in _HISSING:
            return (*phones, "ax", "z")
        return (*phones, "s" if last in _VOICELESS else "z")
    if ending == "'":  # dogs', James'
        return tuple(phones)
    if ending == "n't":
        if last == "t" and len(phones) > 1 and phones[-2] == "s":
            phones = phones[:-1]  # the first t of mustn't is silent
        return (*phones, "n", "t") if is_vowel else (*phones, "ax", "n", "t")
    if ending == "'re":
        return (*phones, "er")
    sound = {"'ve": "v", "'ll": "l", "'d": "d", "'m": "m"}[ending]
    joins = is_vowel or (ending == "'d" and last in _LIQUIDS)
    return (*phones, sound) if joins else (*phones, "ax", sound)


def ends_in_voiceless_z(phones: Sequence[str]) -> bool:
    """Whether a last z follows a voiceless phone, as it does in no English word."""
    return len(phones) > 1 and phones[-1] == "z" and phones[-2] in _VOICELESS


# --- Pronunciations of a user's own ---
#
# A file has a word and its phones in each line; `;;;` or `#` and a space begin a comment:
#
#     Nguyen   w ih1 n
#     nginx    eh1 n jh ih0 n eh1 k s
#     GIF      /dʒɪf/
#     C++      /ˌsiːˌplʌsˈplʌs/
#
# A word is written as it stands in texts, without spaces, in capital or small letters. Words are
# looked up before a text is normalised, so that acronyms, names with digits and words of other
# scripts can have a pronunciation, too. Endings such as 's are said as behind any other word.

MAX_WORD_CHARACTERS = 64
"""Longest word of a lexicon."""
MAX_RUN_CHARACTERS = 256
"""What has more characters between two spaces is not looked up."""
MAX_PHONES = 64
"""Most phones of a word."""

Phones = tuple[str, ...]
"""Phones of the CMU dictionary in small letters; vowels have the digit of their stress."""

_REDUCED = {
    **{"ax": "ah0", "axr": "er0", "ix": "ih0", "ux": "uw0", "dx": "d", "nx": "n"},
    **{"el": "ah0 l", "em": "ah0 m", "en": "ah0 n"},
}
"""Phones of TIMIT and flite that the CMU dictionary writes otherwise."""

_IPA = {
    # consonants
    **{c: c for c in "bdfklmnpstvwz"},
    **{"g": "g", "ɡ": "g", "h": "hh", "ɦ": "hh", "ħ": "hh", "r": "r", "ɹ": "r", "ɻ": "r", "ʁ": "r"},
    **{"ɾ": "d", "ʀ": "r", "θ": "th", "ð": "dh", "ʃ": "sh", "ʒ": "zh", "ŋ": "ng", "ɫ": "l"},
    **{"j": "y", "ʍ": "w", "ʔ": "t", "x": "k", "χ": "k", "ɣ": "g", "β": "v", "ɲ": "n y"},
    **{"ʎ": "l y", "ç": "hh y", "ɥ": "w", "q": "k", "c": "k", "ɕ": "sh", "ʑ": "zh", "ʂ": "sh"},
    **{"ʐ": "zh", "ɭ": "l", "ɳ": "n", "ʈ": "t", "ɖ": "d", "ɱ": "m", "ɬ": "l", "ʋ": "v"},
    **{"tʃ": "ch", "ʧ": "ch", "dʒ": "jh", "ʤ": "jh", "tɕ": "ch", "dʑ": "jh"},
    # vowels
    **{"i": "iy", "ɪ": "ih", "e": "eh", "ɛ": "eh", "æ": "ae", "a": "aa", "ɑ": "aa", "ɒ": "aa"},
    **{"ɔ": "ao", "o": "ow", "ʊ": "uh", "u": "uw", "ʌ": "ah", "ə": "ax", "ɐ": "ax", "ɜ": "er"},
    **{"ɝ": "er", "ɚ": "axr", "ɘ": "ax", "ɵ": "ax", "y": "uw", "ø": "er", "œ": "er", "ɨ": "ih"},
    **{"ʉ": "uw", "ɯ": "uw", "ɤ": "ah", "ʏ": "uh", "ɶ": "aa", "ɞ": "er"},
    **{"eɪ": "ey", "ei": "ey", "ɛɪ": "ey", "aɪ": "ay", "ai": "ay", "ɑɪ": "ay", "ʌɪ": "ay"},
    **{"aʊ": "aw", "au": "aw", "ɑʊ": "aw", "ɔɪ": "oy", "ɔi": "oy", "oɪ": "oy", "oʊ": "ow"},
    **{"ou": "ow", "əʊ": "ow", "əu": "ow", "ɪə": "ih r", "iə": "iy ax", "eə": "eh r"},
    **{"ɛə": "eh r", "ʊə": "uh r"},
}
"""Sounds of the IPA, and the nearest ones of the CMU dictionary."""
_LONGEST_IPA = max(map(len, _IPA))
_STRESS = {"ˈ": "1", "'": "1", "ˌ": "2", ",": "2"}
_SYLLABIC, _NASAL = "\u0329", "\u0303"
_PASSED_OVER = frozenset("ːˑ.‿|-() \u0361\u035cʰʲˠʷˤˀ")

_COMMENT = re.compile(r";;;|#\s|#$")
_RUN = re.compile(r"\S+")
_LETTERS = r"(?:[^\W_][\u0300-\u036f]*)+"  # a letter may have its accents behind it
_PIECE = re.compile(rf"{_LETTERS}(?:['’]{_LETTERS})*")
_EDGES = "\"'“”‘’„«»()[]{}<>,;:!?…。，！？、.*_-–—"
_ENDING = re.compile(r"['’](?:s|d|ll|ve|re|m)?$", re.IGNORECASE)
_PLAIN = re.compile(r"[a-z]+(?:'[a-z]+)*'?(?:\([a-z]+\))?")
_TAGGED_PHONE = re.compile(r"\[([A-Z]{1,3}[0-2]?)\]")


def parse_phones(text: str) -> Phones:
    """A pronunciation: phones of the CMU dictionary, or IPA between slashes or brackets.

    What has letters outside ASCII is IPA without these, too.

    Raises:
        LexiconError: a sound is not known; it is named.
    """
    bare = text.strip()
    enclosed = re.fullmatch(r"/([^/]*)/|\[([^][]*)\]", bare)
    if enclosed or not bare.isascii():
        phones = parse_ipa(enclosed[1] or enclosed[2] or "" if enclosed else bare)
    else:
        phones = _parse_cmu(bare)
    if not phones:
        raise LexiconError(f"the pronunciation {text!r} has no phones.")
    if len(phones) > MAX_PHONES:
        raise LexiconError(f"a word has at most {MAX_PHONES} phones, not {len(phones)}.")
    return phones


def _parse_cmu(text: str) -> Phones:
    phones = []
    for name in text.lower().split():
        base = name.rstrip("012")
        if base in _REDUCED or (base in CONSONANTS and base == name):
            phones.append(base)
        elif base in VOWELS and len(name) - len(base) <= 1:
            phones.append(name)
        else:
            raise LexiconError(
                f"{name!r} is no phone of the CMU dictionary; IPA stands between slashes, as /wɪn/."
            )
    return tuple(phones)


def parse_ipa(text: str) -> Phones:
    """Phones of the CMU dictionary for IPA; sounds that English lacks become the nearest one.

    A word with a single vowel has its stress there.

    Raises:
        LexiconError: a sign is not known; it is named.
    """
    rest = unicodedata.normalize("NFD", text.strip()).replace("c\u0327", "ç")
    phones: list[str] = []
    stress, place = "", 0
    while place < len(rest):
        sign = rest[place]
        place += 1
        if sign in _STRESS:
            stress = _STRESS[sign]
        elif sign == _SYLLABIC and phones:
            phones[-1:] = ["ax", phones[-1]]
        elif sign == _NASAL and phones:
            phones.append("n")
        elif sign in _PASSED_OVER or unicodedata.combining(sign):
            continue
        else:
            # Tie bars may stand between the two letters of one sound.
            following = rest[place : place + 2 * _LONGEST_IPA]
            tied = sign + re.sub("[\u0361\u035c]", "", following)
            sizes = range(min(_LONGEST_IPA, len(tied)), 0, -1)
            size = next((n for n in sizes if tied[:n] in _IPA), 0)
            if not size:
                raise LexiconError(f"the sign {sign!r} of {text!r} is not known in IPA.")
            for phone in _IPA[tied[:size]].split():
                is_vowel = phone in VOWELS
                phones.append(phone + stress if is_vowel else phone)
                stress = "" if is_vowel or phone in _REDUCED else stress
            missing = size - 1
            while missing:
                missing -= rest[place] not in "\u0361\u035c"
                place += 1
    return _stressed(_join_r(phones))


def _join_r(phones: Sequence[str]) -> list[str]:
    """A central vowel and the r behind it are one phone, unless a vowel follows."""
    joined: list[str] = []
    for place, phone in enumerate(phones):
        before = joined[-1] if joined else ""
        following = phones[place + 1] if place + 1 < len(phones) else ""
        is_open = following.rstrip("012") in VOWELS or following in _REDUCED
        if phone == "r" and (before[:2] == "er" or before == "axr"):
            continue
        if phone == "r" and before == "ax" and not is_open:
            joined[-1] = "axr"
            continue
        joined.append(phone)
    return joined


def _stressed(phones: Sequence[str]) -> Phones:
    """The only vowel of a word has its stress; other vowels that are not marked have none."""
    vowels = [place for place, phone in enumerate(phones) if phone.rstrip("012") in VOWELS]
    if len(vowels) == 1 and phones[vowels[0]] in VOWELS:
        return tuple(p + "1" if n == vowels[0] else p for n, p in enumerate(phones))
    return tuple(phone + "0" if phone in VOWELS else phone for phone in phones)


def fit_phones(phones: Iterable[str], known: Collection[str]) -> Phones:
    """A pronunciation in the phones that a text tokenizer knows.

    Sets of phones differ in how they write stress and the reduced vowel: `ah0` is `ax` in one, and
    `ow2` is `ow1` where there is no secondary stress.

    Raises:
        LexiconError: there is none for a phone.
    """
    fitted: list[str] = []
    for phone in phones:
        for part in [phone] if phone in known else _REDUCED.get(phone, phone).split():
            found = next((other for other in _alternatives(part) if other in known), None)
            if found is None:
                raise LexiconError(f"the text tokenizer of this bundle has no phone {phone!r}.")
            fitted.append(found)
    return tuple(fitted)


def _alternatives(phone: str) -> list[str]:
    base, stress = phone.rstrip("012"), phone[len(phone.rstrip("012")) :]
    if base in CONSONANTS:
        return [base]
    others = {"1": ["1", ""], "2": ["2", "1", ""], "0": ["0", "", "1"], "": ["", "0", "1"]}[stress]
    reduced = ["ax"] if phone == "ah0" else []
    return [phone, *reduced, *(base + other for other in others)]


@dataclass(frozen=True)
class UserLexicon:
    """Words and their phones, as a user gives them."""

    phones: Mapping[str, Phones] = field(default_factory=dict)
    """Word in small letters -> phones of the CMU dictionary."""

    @classmethod
    def parse(cls, text: str, name: str = "the lexicon") -> UserLexicon:
        """Reads the content of a lexicon file.

        Args:
            text: lines of a word and its phones.
            name: of the file, for errors.

        Raises:
            LexiconError: lines that cannot be read or contradict another one, up to ten of them.
        """
        phones, problems = read_lines(text)
        if problems:
            shown = [f"line {number}: {problem}" for number, problem in problems[:10]]
            more = [f"and {len(problems) - 10} more."] if len(problems) > 10 else []
            raise LexiconError(f"{name}: " + " ".join([*shown, *more]))
        return cls(phones)

    @classmethod
    def load(cls, path: str | Path) -> UserLexicon:
        """Reads a lexicon file.

        Raises:
            LexiconError: it cannot be read, or has lines that cannot, or that contradict others.
        """
        return cls.parse(read_lexicon_file(path), str(path))

    @classmethod
    def of(cls, source: LexiconSource) -> UserLexicon:
        """The lexicon of an argument: itself, a file, or words with their pronunciations.

        Raises:
            LexiconError: it cannot be read.
        """
        if source is None:
            return cls()
        if isinstance(source, UserLexicon):
            return source
        if isinstance(source, str | Path):
            return cls.load(source)
        if not isinstance(source, Mapping):
            raise LexiconError(
                f"a lexicon is a file, or words and their phones, not {type(source).__name__}."
            )
        phones: dict[str, Phones] = {}
        for word, said in source.items():
            if not (isinstance(word, str) and isinstance(said, str)):
                raise LexiconError("a lexicon has a string of phones for each word.")
            try:
                known = parse_phones(said)
                if phones.setdefault(check_word(word), known) != known:
                    raise LexiconError("the word is there twice, with other phones.")
            except LexiconError as error:
                raise LexiconError(f"{word!r}: {error}") from None
        return cls(phones)

    @property
    def text(self) -> str:
        """The lexicon as a file has it."""
        return "".join(f"{word}  {' '.join(said)}\n" for word, said in self.phones.items())

    def __bool__(self) -> bool:
        return bool(self.phones)

    def __or__(self, other: UserLexicon) -> UserLexicon:
        """Both lexicons; of a word in both, the entry of the other one."""
        if not (self and other):
            return other or self
        return UserLexicon({**self.phones, **other.phones})


LexiconSource = UserLexicon | str | Path | Mapping[str, str] | None
"""What is taken for a lexicon: one, a file, or words with their phones."""


def read_lexicon_file(path: str | Path) -> str:
    """Content of a lexicon file.

    Raises:
        LexiconError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LexiconError(f"the lexicon {path} is not UTF-8 text.") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise LexiconError(f"the lexicon {path} cannot be read: {reason}.") from None


def read_lines(text: str) -> tuple[dict[str, Phones], list[tuple[int, str]]]:
    """Entries of a lexicon file, and what is wrong with other lines: number and sentence.

    As in the CMU dictionary, a word with a number, `read(2)`, is a further pronunciation of it; the
    first one counts. A word that stands there twice without a number must be pronounced the same.
    """
    phones: dict[str, Phones] = {}
    given: dict[str, tuple[int, Phones]] = {}
    """Lines of words without a number, and their phones."""
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or _COMMENT.match(line):
            continue
        word, *rest = line.split(maxsplit=1)
        try:
            if not rest:
                raise LexiconError(f"the word {word!r} has no phones.")
            base = _VARIANT.sub("", word)
            key, said = check_word(base), parse_phones(rest[0])
            before, other = given.setdefault(key, (number, said)) if base == word else (0, said)
            if said != other:
                raise LexiconError(
                    f"{word!r} is pronounced otherwise in line {before}; leave one of the two out, "
                    f"or call this one {word}(2): the first one counts."
                )
            phones.setdefault(key, said)
        except LexiconError as error:
            problems.append((number, str(error)))
    return phones, problems


def check_word(word: str) -> str:
    """A word as it is looked up, in small letters.

    Raises:
        LexiconError: it is no word.
    """
    key = lookup_key(word)
    if not any(map(str.isalnum, key)) or any(map(str.isspace, key)):
        raise LexiconError(f"{word!r} is not a word: letters or digits without spaces.")
    if len(key) > MAX_WORD_CHARACTERS:
        raise LexiconError(f"a word has at most {MAX_WORD_CHARACTERS} characters.")
    return key


def lookup_key(word: str) -> str:
    """A word in small letters, composed, with straight apostrophes."""
    return unicodedata.normalize("NFC", word).replace("’", "'").lower()


class Respeller:
    """Writes words of a lexicon so that they reach the text tokenizer.

    A word that normalisation would change (an acronym, a name with digits, another script) is
    replaced by how it is spelled in the lexicon of the tokenizer. The others stay. A text that
    arrives in pieces is given on up to its last word, which may go on.
    """

    def __init__(self, words: Collection[str], spell: Callable[[str, str], str]) -> None:
        """Makes one.

        Args:
            words: of the lexicon, as `lookup_key` gives them.
            spell: function of a word as written and as looked up, to how it is spelled.
        """
        self._words, self._spell = words, spell
        self._held = ""
        """The beginning of the last word, which may go on."""
        self._is_long = False
        """Whether a beginning of that word has been given on: it is too long to be looked up."""

    def copy(self) -> Respeller:
        """One for another text."""
        return Respeller(self._words, self._spell)

    def __call__(self, text: str) -> str:
        """A whole text."""
        return _RUN.sub(lambda match: self._respell(match[0]), text)

    def feed(self, piece: str) -> str:
        """The next piece of a text: what it completes."""
        text, done = self._held + piece, ""
        end = next((n for n in range(len(text), 0, -1) if text[n - 1].isspace()), 0)
        if self._is_long:
            start = next((n for n, sign in enumerate(text) if sign.isspace()), len(text))
            done, text, end = text[:start], text[start:], max(end - start, 0)
            self._is_long = not text
        done += self(text[:end])
        self._held = text[end:]
        if len(self._held) > MAX_RUN_CHARACTERS:
            self._is_long = True
        if self._is_long:
            done, self._held = done + self._held, ""
        return done

    def finish(self) -> str:
        """The rest of a text that is complete."""
        rest, self._held = self._held, ""
        return self(rest)

    def _respell(self, run: str) -> str:
        """What stands between two spaces."""
        if len(run) > MAX_RUN_CHARACTERS:
            return run
        if "<" in run and (tag := MARKUP.search(run)):
            before, after = run[: tag.start()], run[tag.end() :]
            return self._respell(before) + tag[0] + self._respell(after)
        core = run.strip(_EDGES)
        before = run[: run.find(core)] if core else run
        # The full stop of `.NET` and the marks of `C++` belong to the word, if the lexicon says so.
        for inner in dict.fromkeys((run, run.rstrip(_EDGES), run.lstrip(_EDGES), core)):
            if inner and lookup_key(inner) in self._words:
                start = run.find(inner)
                end = start + len(inner)
                return run[:start] + self._spell(inner, lookup_key(inner)) + run[end:]
        if not core:
            return before
        respelled = _PIECE.sub(lambda match: self._respell_word(match[0]), core)
        return before + respelled + run[len(before) + len(core) :]

    def _respell_word(self, word: str) -> str:
        if (key := lookup_key(word)) in self._words:
            return self._spell(word, key)
        ending = _ENDING.search(word)
        root = word[: ending.start()] if ending else word
        if ending and (key := lookup_key(root)) in self._words:
            # GIF's would be read as GIFs, and that as a plural of letters.
            root = key if root.isupper() else root
            return self._spell(root, key) + ending[0].replace("’", "'").lower()
        # GIFs: the plural of what is written in capitals.
        if len(word) > 2 and word[-1] == "s" and word[:-1].isupper():
            if (key := lookup_key(word[:-1])) in self._words:
                return self._spell(key, key) + "'s"
        return word


def is_plain(key: str) -> bool:
    """Whether a word has English letters alone, and perhaps the variant of a homograph."""
    return _PLAIN.fullmatch(key) is not None


def made_up_word(key: str, normalize: Callable[[str], str], taken: Collection[str]) -> str:
    """A word that stands for one that normalisation would change: letters that are no other word.

    Args:
        key: as looked up.
        normalize: function from a text to its words as they are spoken.
        taken: words that mean something else.
    """
    letters = "".join(c for c in normalize(key) if "a" <= c <= "z")
    if not letters:  # of another script
        letters = "".join(chr(ord("a") + int(digit, 16)) for digit in key.encode().hex())
    candidate = f"{letters}q"
    while candidate in taken or normalize(candidate) != candidate:
        candidate += "q"
    return candidate


def tagged_phones(names: Iterable[str]) -> dict[str, str]:
    """Tokens of a text tokenizer that stand for phones, such as `[AA1]`, by phone."""
    found = {}
    for name in names:
        match = _TAGGED_PHONE.fullmatch(name)
        if match and match[1].lower().rstrip("012") in VOWELS | CONSONANTS:
            found[match[1].lower()] = name
    return found


# --- Letter to sound ---
#
# Shapes: B words, L letters, D channels, P phones known. Convolutions see each letter among its
# neighbours, and connectionist temporal classification (Graves et al., 2006) aligns the phones by
# itself, so that a lexicon is all that training needs. Every letter has two places for phones,
# which is enough for English: few letters, such as x and u, stand for two phones.

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
"""Letters read; index 0 is padding."""
PLACES_PER_LETTER = 2
_KERNEL_SIZE = 5


class _Block(nn.Module):
    """Convolution over neighbouring letters, with a residual connection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv1d(dim, dim, _KERNEL_SIZE, padding=_KERNEL_SIZE // 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = self.norm(x) * mask
        return x + functional.gelu(self.conv(hidden.transpose(1, 2))).transpose(1, 2)


class Pronouncer(nn.Module):
    """Words to phone indices.

    Args:
        num_phones: P; index 0 of the outputs is the blank, phone p is output p + 1.
        dim: channels.
        num_layers: each sees two letters further to both sides.
    """

    def __init__(self, num_phones: int, dim: int = 96, num_layers: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, dim)
        self.blocks = nn.ModuleList(_Block(dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.phones = nn.Linear(dim, PLACES_PER_LETTER * (num_phones + 1))

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities (B, L * PLACES_PER_LETTER, P + 1) of phones.

        Args:
            letters: (B, L) indices into `LETTERS` plus 1, 0 where padded.
            lengths: (B,) letters of each word, at least 1.
        """
        batch, size = letters.shape
        mask = torch.arange(size, device=letters.device)[None] < lengths[:, None]
        x = self.embedding(letters)
        for block in self.blocks:
            x = block(x, mask[..., None])
        scores = self.phones(self.norm(x)).view(batch, size * PLACES_PER_LETTER, -1)
        return scores.log_softmax(dim=-1)

    @torch.inference_mode()
    def pronounce(self, words: Sequence[str]) -> list[list[int]]:
        """Phone indices (0 and up) of each word by the best path; letters not known are dropped."""
        if not words:
            return []
        letters, lengths = pad_words(words)
        best = self(letters, lengths).argmax(dim=-1)
        return [
            [
                phone - 1
                for place, phone in enumerate(path)
                if phone and (place == 0 or path[place - 1] != phone)
            ]
            for path in (
                row[: length * PLACES_PER_LETTER]
                for row, length in zip(best.tolist(), lengths.tolist(), strict=True)
            )
        ]


def encode_letters(word: str) -> list[int]:
    """Indices of the letters of a word; [0], a pause, when it has none."""
    return [LETTERS.index(letter) + 1 for letter in word if letter in LETTERS] or [0]


def pad_words(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Letters (B, L), padded behind with 0, and the length (B,) of each word."""
    rows = [torch.tensor(encode_letters(word)) for word in words]
    lengths = torch.tensor([row.shape[0] for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


# --- Homographs ---

TABLE_FILE = "homographs.txt"
WEIGHTS_FILE = "homograph_weights.tsv"
CLASSES = ("noun", "verb", "past", "adj", "adv", "nouns", "verbs")
"""Parts of speech that differ in sound: `past` is a past form of a verb, `nouns` a plural, `verbs`
the third person."""
_PLURALS = {"noun": "nouns", "verb": "verbs"}
_CUE = 3.0
_POSITIONED_CUE = 6.0
_MAX_CUES = 2
WORDS_AHEAD = 4
"""Words after a word that may decide what it is."""
WORDS_BEFORE = 4
_CUES_BEFORE = 10
POSITIONED = ":"
"""In a cue, between its distance from the word (+1 is right behind) and what stands there."""
_ENDS = frozenset(".?!;:")
_EDGE = "$"

_GROUPS = {
    "det": "a an the this that these those every each some any no another either neither such all "
    "both half what which whose many much few several most more",
    "poss": "my your his her its our their whose one's someone's everyone's people's",
    "subj": "i you he she it we they who there nobody everybody everyone someone anyone",
    "obj": "me him them us himself herself themselves itself myself yourself ourselves",
    "be": "am is are was were be been being isn't aren't wasn't weren't i'm you're we're they're "
    "he's she's it's that's there's",
    "have": "have has had having haven't hasn't hadn't i've you've we've they've",
    "do": "do does did don't doesn't didn't",
    "modal": "can could may might must shall should will would can't cannot couldn't won't "
    "wouldn't shouldn't mustn't needn't i'll you'll he'll she'll we'll they'll it'll i'd you'd "
    "he'd she'd we'd they'd let's please",
    "to": "to",
    "prep": "of in on at by for from with about into over under after before between through "
    "during without within against among around across behind beyond near toward towards upon off "
    "out up down per via until since as like than",
    "conj": "and or but nor so yet because although though while if unless when where whether that",
    "not": "not never n't hardly",
    "adv": "very too quite rather so always often usually sometimes also just only still already "
    "even ever really almost well soon now then here again seldom rarely",
    "past": "yesterday ago last once earlier previously",
    "num": "one two three four five six seven eight nine ten eleven twelve twenty thirty forty "
    "fifty hundred thousand million first second third fourth fifth",
    "end": _EDGE,
    "comma": ",",
}  # fmt: skip
_GROUP = {word: name for name, words in reversed(_GROUPS.items()) for word in words.split()}
_SUFFIXES = ("ing", "ed", "ly", "tion", "ness", "ment", "ity", "ous", "ful", "ive", "able", "al",
             "er", "est", "ic", "y", "'s", "s'", "s")  # fmt: skip


@dataclass(frozen=True)
class Context:
    """The words around a word, the nearest first, within its sentence."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    is_closed: bool
    """Whether further words cannot change `after`."""


def context(parts: Sequence[str], at: int) -> Context:
    """The words and commas around `parts[at]`."""
    before: list[str] = []
    for part in reversed(parts[max(0, at - WORDS_BEFORE) : at]):
        if part in _ENDS:
            break
        before.append(part)
    after: list[str] = []
    num_words = 0
    ahead = parts[at + 1 : at + 1 + 2 * WORDS_AHEAD]
    is_closed = len(ahead) == 2 * WORDS_AHEAD
    for part in ahead:
        if part in _ENDS:
            is_closed = True
            break
        after.append(part)
        num_words += part != ","
        if num_words == WORDS_AHEAD:
            is_closed = True
            break
    return Context(tuple(before), tuple(after), is_closed)


def features(word: str, around: Context) -> Iterator[str]:
    """Names of the features of a word in its context; the word itself is one of them."""
    l1, l2, l3, *_ = (*around.before, _EDGE, _EDGE, _EDGE)
    r1, r2, r3, *_ = (*around.after, _EDGE, _EDGE, _EDGE)
    k1, k2, k3, q1, q2, q3 = map(_kind, (l1, l2, l3, r1, r2, r3))
    yield "bias"
    yield f"w {word}"
    yield f"l1 {l1}"
    yield f"l2 {l2}"
    yield f"l3 {l3}"
    yield f"r1 {r1}"
    yield f"r2 {r2}"
    yield f"r3 {r3}"
    yield f"l21 {l2} {l1}"
    yield f"r12 {r1} {r2}"
    yield f"lr {l1} {r1}"
    yield f"k1 {k1}"
    yield f"k2 {k2}"
    yield f"k21 {k2} {k1}"
    yield f"k321 {k3} {k2} {k1}"
    yield f"q1 {q1}"
    yield f"q12 {q1} {q2}"
    yield f"q123 {q1} {q2} {q3}"
    yield f"kq {k1} {q1}"
    yield f"kkq {k2} {k1} {q1}"
    yield f"kqq {k1} {q1} {q2}"
    yield f"s1 {l1[-3:]}"
    yield f"t1 {r1[-3:]}"
    yield f"wk {l1} {q1}"
    yield f"kw {k1} {r1}"


def cue_words(parts: Sequence[str], at: int, around: Context) -> set[str]:
    """The words nearby, and those in a certain position: `-2:was`."""
    near = {*parts[max(0, at - _CUES_BEFORE) : at], *around.after}
    placed = {f"-{n}{POSITIONED}{word}" for n, word in enumerate(around.before[:3], 1)}
    return near | placed | {f"+{n}{POSITIONED}{word}" for n, word in enumerate(around.after[:3], 1)}


def _kind(word: str) -> str:
    """The group of a word, else how it ends."""
    group = _GROUP.get(word)
    if group is None:
        group = next((f"-{end}" for end in _SUFFIXES if word.endswith(end) and len(word) > 3), "x")
    return group


@dataclass(frozen=True)
class Sense:
    """One of the senses of a homograph."""

    variant: str
    """What a lexicon calls its pronunciation."""
    name: str
    """A part of speech, or one and a sense of it: `noun.metal`."""
    bias: float = 0.0
    cues: Mapping[str, float] = field(default_factory=dict)
    """Words nearby that are evidence for it, with their weights; `+1:to` stands right behind."""

    @property
    def part(self) -> str:
        """The part of speech."""
        return self.name.partition(".")[0]


Homographs = dict[str, tuple[Sense, ...]]


def parse_homographs(text: str) -> Homographs:
    """Read the table.

    A line `lead  lead=verb,noun metal=noun.metal` names the variants of a word and what they are.
    Indented lines below it, `noun.metal -1 pipe paint`, are a bias and the words nearby that speak
    for a sense (with `!` before them: against it). Lines that begin with # are comments.

    Raises:
        ValueError: a line is not of this form; it is named.
    """
    found: Homographs = {}
    word = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        first, *rest = line.split()
        try:
            if line[0].isspace():
                found[word] = _with_cues(found[word], first, float(rest[0]), rest[1:])
                continue
            word = first
            named = [(part.split("=")[0], part.split("=")[1].split(",")) for part in rest]
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"homographs, line {number}: {error}") from error
        senses = tuple(Sense(name, what) for name, many in named for what in many)
        if len(named) < 2 or any(sense.part not in CLASSES for sense in senses):
            raise ValueError(
                f"homographs, line {number}: {word!r} needs two variants or more, each of {CLASSES}"
            )
        found[word] = senses
    return found


def _with_cues(
    senses: Sequence[Sense], name: str, bias: float, words: Sequence[str]
) -> tuple[Sense, ...]:
    cues = {
        word.removeprefix("!"): (-1 if word.startswith("!") else 1)
        * (_POSITIONED_CUE if POSITIONED in word else _CUE)
        for word in words
    }
    if name not in {sense.name for sense in senses}:
        raise ValueError(f"there is no {name!r}")
    return tuple(Sense(m.variant, m.name, bias, cues) if m.name == name else m for m in senses)


class HomographTagger:
    """Tells which variant of a homograph is meant.

    Args:
        homographs: the words.
        weights: of features of the context, one for each of `CLASSES`.
    """

    def __init__(self, homographs: Homographs, weights: Mapping[str, Sequence[float]]) -> None:
        self._weights = weights
        self._senses: Homographs = {}
        self._lemmas = {s_form(word): word for word in homographs}
        for word, senses in homographs.items():
            plural = tuple(
                Sense(m.variant, m.name.replace(m.part, _PLURALS[m.part], 1), m.bias, m.cues)
                for m in senses
                if m.part in _PLURALS
            )
            if plural:
                self._senses[s_form(word)] = plural
        self._senses |= homographs

    def __contains__(self, word: str) -> bool:
        return word in self._senses

    @property
    def words(self) -> tuple[str, ...]:
        """All homographs, with their forms in s."""
        return tuple(self._senses)

    def lemma(self, word: str) -> str:
        """The word of the table that a homograph is a form of."""
        return self._lemmas.get(word, word)

    def senses(self, word: str) -> tuple[Sense, ...]:
        """The senses of a word; none if it is no homograph."""
        return self._senses.get(word, ())

    def is_settled(self, parts: Sequence[str], at: int) -> bool:
        """Whether no further words could change the variant of `parts[at]`."""
        return parts[at] not in self._senses or context(parts, at).is_closed

    def variant(self, parts: Sequence[str], at: int) -> str | None:
        """The variant of `parts[at]`, None for a word that is no homograph.

        Args:
            parts: lower-case words and marks of a normalised text.
            at: index of the word.
        """
        senses = self._senses.get(parts[at])
        if senses is None:
            return None
        if len(senses) == 1:
            return senses[0].variant
        around = context(parts, at)
        totals = [0.0] * len(CLASSES)
        for feature in features(parts[at], around):
            for column, weight in enumerate(self._weights.get(feature, ())):
                totals[column] += weight
        near = cue_words(parts, at, around)

        def score(sense: Sense) -> float:
            hits = sorted((sense.cues[word] for word in near if word in sense.cues), key=abs)
            return totals[CLASSES.index(sense.part)] + sense.bias + sum(hits[-_MAX_CUES:])

        return max(senses, key=score).variant


def s_form(word: str) -> str:
    """The plural of a noun or the third person of a verb, as it is spelt."""
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


@cache
def load_tagger() -> HomographTagger:
    """The tagger that comes with the package; read once, when it is first needed."""
    folder = files("tokenlm.text")
    table = parse_homographs((folder / TABLE_FILE).read_text(encoding="utf-8"))
    weights = parse_weights((folder / WEIGHTS_FILE).read_text(encoding="utf-8"))
    return HomographTagger(table, weights)


def parse_weights(text: str) -> dict[str, tuple[float, ...]]:
    """Feature -> its weight for each of `CLASSES`, from lines of hundredths; # begins a comment."""
    weights: dict[str, tuple[float, ...]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            feature, *values = line.split("\t")
            weights[feature] = tuple(int(value or 0) / 100 for value in values)
    return weights
