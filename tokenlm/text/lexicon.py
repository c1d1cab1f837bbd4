"""Pronunciations of a user's own, in phones of the CMU dictionary or in IPA.

A file has a word and its phones in each line; `;;;` or `#` and a space begin a comment:

    Nguyen   w ih1 n
    nginx    eh1 n jh ih0 n eh1 k s
    GIF      /dʒɪf/
    C++      /ˌsiːˌplʌsˈplʌs/

A word is written as it stands in texts, without spaces, in capital or small letters. Words are
looked up before a text is normalised, so that acronyms, names with digits and words of other
scripts can have a pronunciation, too. Endings such as 's are said as behind any other word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenlm.text.pronunciation import LexiconError

MAX_WORD_CHARACTERS = 64
"""Longest word of a lexicon."""
MAX_RUN_CHARACTERS = 256
"""What has more characters between two spaces is not looked up."""
MAX_PHONES = 64
"""Most phones of a word."""

Phones = tuple[str, ...]
"""Phones of the CMU dictionary in small letters; vowels have the digit of their stress."""

VOWELS = frozenset("aa ae ah ao aw ay eh er ey ih iy ow oy uh uw".split())
CONSONANTS = frozenset("b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh".split())
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

_VARIANT = re.compile(r"\(\d+\)$")
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
        """Reads the content of a lexicon file; of several entries of a word the first one counts.

        Args:
            text: lines of a word and its phones.
            name: of the file, for errors.

        Raises:
            LexiconError: lines that cannot be read, up to ten of them.
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
            LexiconError: it cannot be read, or has lines that cannot.
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
                phones.setdefault(check_word(word), parse_phones(said))
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
    """Entries of a lexicon file, and what is wrong with other lines: number and sentence."""
    phones: dict[str, Phones] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or _COMMENT.match(line):
            continue
        word, *rest = line.split(maxsplit=1)
        try:
            if not rest:
                raise LexiconError(f"the word {word!r} has no phones.")
            phones.setdefault(check_word(_VARIANT.sub("", word)), parse_phones(rest[0]))
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
