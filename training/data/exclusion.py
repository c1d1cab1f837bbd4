"""Which texts no model may learn from: those that models are judged, chosen or stopped by.

Every draw of every split and stage goes through this: the texts of a corpus, those made harder
for post-training, and the rows of manifests and shards that a stage trains on. The evaluation
texts are those of `configs/eval`, whatever files lie there, and of further files that are named.

Two texts are the same when the same words are spoken: "1" is "one", and case, punctuation and
accents do not count (`spoken_key`). A text is excluded

- when it is an evaluation text, however short. "Yes." alone is excluded where "Yes." is a line of a
  test set; the word is not;
- when a whole evaluation text of at least `MIN_CONTAINED_WORDS` words stands in it, as when two
  texts are joined. Series do not count here: a count to twenty holds the count to ten, and lists
  of months, weekdays, letters and digits are the same ones everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from tokenlm.checkpoint import packaged_configs
from tokenlm.text.normalize import normalize
from tokenlm.text.symbols import ForeignWords
from training.data.table import Columns, Table, digest, files_digest
from training.data.texts import TEXT_CODE

MIN_CONTAINED_WORDS = 6
"""Words of the shortest evaluation text that is looked for inside longer ones."""
MIN_OWN_WORDS = 4
"""Different words, numbers, days and units apart, that such a text needs: else it is a series."""
LOG_SUFFIX = ".log.jsonl"
"""End of the name of files beside the test sets that hold no texts."""

_WORDS = re.compile(r"[^\W\d_]+")
_APOSTROPHES = re.compile(r"['’ʼ`]")
_NUMBER = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion trillion"
).split()
_SERIES = frozenset(
    _NUMBER
    + "oh double point minus and first second third fourth fifth sixth seventh eighth ninth tenth "
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december".split()
)
# "Four hundred and seventeen" is the same number as "four hundred seventeen".
_LINK = re.compile(rf"\b(hundred|thousand|million) and (?=(?:{'|'.join(_NUMBER)})\b)")
# What `normalize` may read as other words than those written: any sign or digit, capitals in a
# row, words before a full stop inside the text, and these.
_SIGN = re.compile(r"[^A-Za-z\s,.?!;:\"'’()-]")
_CAPITALS = re.compile(r"[A-Z]{2}")
_STOP = re.compile(r"\b[A-Za-z]{1,6}\.(?!\W*$)|\b[A-Za-z]\.")
_SHORT = frozenset(
    "mr mrs ms dr drs prof rev gen col capt lt maj sgt cpl sen rep gov hon mt ft st ste ave av "
    "blvd rd ln hwy pkwy sq pl ct etc inc ltd co corp bros jr sr vs aka wrt ok dept govt".split()
)
# A word that `normalize` leaves as it is, wherever it stands.
_KEPT = re.compile(r"(?<![\w'’.@/-])[a-z]{4,}(?![\w'’.@/-])")
# Words that may be written by a sign or cut short: by them no text is told.
_WRITTEN_SHORT = frozenset(
    "dollars dollar cents cent pounds pound pence euros euro percent degrees degree celsius "
    "fahrenheit miles mile meters meter kilometers kilometer inches inch feet foot ounces grams "
    "kilograms liters hours hour minutes minute seconds second half quarter third doctor mister "
    "missus professor captain colonel general senator governor reverend saint mount street avenue "
    "road drive court number numbers company incorporated limited junior senior department example "
    "versus okay without with plus equals times hundred thousand million billion".split()
)
_MATCH = pa.schema({"match": pa.string()})


def spoken_key(text: str) -> str:
    """The words of a text as they are spoken: what makes two texts the same.

    Returns:
        Lower-case words with single spaces, without marks and apostrophes; '' where there is none.
    """
    key = _key(text)
    return _key(normalize(text)) if _needs_reading(text, key) else key


def _key(text: str) -> str:
    """`spoken_key` of a text that is written as it is spoken."""
    found = " ".join(_WORDS.findall(_APOSTROPHES.sub("", text).lower()))
    return _LINK.sub(r"\1 ", found) if " and " in found else found


def _needs_reading(text: str, key: str) -> bool:
    return bool(
        _SIGN.search(text)
        or _CAPITALS.search(text)
        or ("." in text and _STOP.search(text))
        or not _SHORT.isdisjoint(key.split())
    )


class Exclusion:
    """A set of texts that are not to be learned from, fast enough for millions of rows."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Take the texts, as they are written or as they are spoken."""
        self._whole: set[str] = set()
        for text in texts:
            key = _key(text)
            if _needs_reading(text, key):
                # In lower case, too, where fewer short forms can be told from words.
                self._whole |= {_key(normalize(text)), _key(normalize(text.lower()))}
            if not _SIGN.search(text):
                self._whole.add(key)
        self._whole.discard("")
        self._words = frozenset(word for key in self._whole for word in key.split())
        self._by_start: dict[str, list[str]] = {}
        self._anchors: dict[str, set[str]] = {}
        for key in self._whole:
            words = key.split()
            own = {word for word in words if len(word) > 1 and word not in _SERIES}
            if len(words) >= MIN_CONTAINED_WORDS and len(own - _WRITTEN_SHORT) >= MIN_OWN_WORDS:
                start = " ".join(words[:MIN_CONTAINED_WORDS])
                self._by_start.setdefault(start, []).append(key)
                first, second = sorted(own - _WRITTEN_SHORT, key=len)[-2:]
                self._anchors.setdefault(first, set()).add(second)
        self._first_words = frozenset(start.split(" ", 1)[0] for start in self._by_start)

    def __len__(self) -> int:
        return len(self._whole)

    def match(self, text: str) -> str | None:
        """The evaluation text that a text is or holds, as `spoken_key` has it; None of none."""
        key = _key(text)
        found = None if _SIGN.search(text) else self._match(key)
        if found is None and _needs_reading(text, key) and self._may_match(text, key):
            foreign = ForeignWords()  # the rest of a text without them is another text
            foreign.feed(f"{text} ")
            found = None if foreign.words else self._match(_key(normalize(text)))
        return found

    def matches(self, table: Table) -> Table:
        """The column `match` beside the rows of a table with `text`: what `match` says of it."""
        names = digest(sorted(self._whole), files_digest(TEXT_CODE, Path(__file__)))
        return table.derive(f"match {names}", self._match_rows, _MATCH, ["text"])

    def _match_rows(self, rows: Columns) -> Columns:
        return {"match": [self.match(text) if text else None for text in rows["text"]]}

    def excludes(self, text: str) -> bool:
        """Whether a text is not to be learned from."""
        return self.match(text) is not None

    def _match(self, key: str) -> str | None:
        if key in self._whole:
            return key
        words = key.split()
        for place in range(len(words) - MIN_CONTAINED_WORDS + 1):
            if words[place] in self._first_words:
                start = " ".join(words[place : place + MIN_CONTAINED_WORDS])
                rest = None
                for whole in self._by_start.get(start, ()):
                    rest = rest or " ".join(words[place:]) + " "
                    if rest.startswith(whole + " "):
                        return whole
        return None

    def _may_match(self, text: str, key: str) -> bool:
        """Whether it is worth reading a text out: that takes a hundred times as long."""
        if all(match[0] in self._words for match in _KEPT.finditer(text)):
            return True
        words = set(key.split())
        return any(not words.isdisjoint(self._anchors[w]) for w in words & self._anchors.keys())


def read_texts(path: Path) -> list[str]:
    """Texts of a file: JSONL rows with `text` and perhaps `spoken`, or one text per line.

    Blank lines and lines that begin with # are left out. A relative path that does not exist is
    taken from the folder that holds `configs/`.

    Raises:
        ValueError: there is no such file, or a row of JSONL has no text.
    """
    where = path if path.is_absolute() or path.exists() else packaged_configs().parent / path
    if not where.is_file():
        raise ValueError(f"there is no test set at {where}")
    lines = [line.strip() for line in where.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if where.suffix == ".lst":  # of seed-tts-eval: id|prompt text|prompt audio|text
        lines = [line.split("|")[3] for line in lines if line.count("|") >= 3]
    if where.suffix != ".jsonl":
        return lines
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            texts += [row["text"], row["spoken"]] if row.get("spoken") else [row["text"]]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{where}: row {number} is no JSON object with a text") from None
    return texts


def evaluation_files(folder: Path | None = None) -> list[Path]:
    """Files of evaluation texts of a folder, default `configs/eval`: `.jsonl`, `.txt`, no logs."""
    folder = packaged_configs() / "eval" if folder is None else folder
    found = [path for path in folder.iterdir() if path.suffix in (".jsonl", ".txt")]
    return sorted(path for path in found if not path.name.endswith(LOG_SUFFIX))


def evaluation_exclusion(further: Sequence[Path] = ()) -> Exclusion:
    """All evaluation texts: those of `configs/eval`, and of further files (see `read_texts`).

    Raises:
        ValueError: a file cannot be read.
    """
    return _exclusion(tuple(further))


@lru_cache(maxsize=4)
def _exclusion(further: tuple[Path, ...]) -> Exclusion:
    files = [*evaluation_files(), *further]
    return Exclusion(text for path in files for text in read_texts(path))
