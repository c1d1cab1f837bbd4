"""Words written short: titles, 'etc.', 'e.g.', 'U.S.', 'St.', 'No. 5', initials."""

from __future__ import annotations

import re

from tokenlm.text.dates import MONTHS

_TITLES = {
    "Mr": "mister", "Mrs": "missus", "Ms": "miz", "Messrs": "messers", "Dr": "doctor",
    "Drs": "doctors", "Prof": "professor", "Rev": "reverend", "Gen": "general", "Col": "colonel",
    "Capt": "captain", "Lt": "lieutenant", "Cmdr": "commander", "Maj": "major", "Sgt": "sergeant",
    "Cpl": "corporal", "Sen": "senator", "Rep": "representative", "Gov": "governor",
    "Pres": "president", "Hon": "honorable", "Supt": "superintendent", "Adm": "admiral",
    "Mt": "mount", "Ft": "fort",
}  # fmt: skip
_STREETS = {
    "St": "street", "Ave": "avenue", "Av": "avenue", "Blvd": "boulevard", "Rd": "road",
    "Ln": "lane", "Dr": "drive", "Hwy": "highway", "Pkwy": "parkway", "Sq": "square",
    "Pl": "place", "Ct": "court", "Ter": "terrace", "Cres": "crescent",
}  # fmt: skip
# Sentences do end after these: the full stop is kept where a new one seems to begin.
_FINAL = {
    "etc": "et cetera", "inc": "incorporated", "ltd": "limited", "co": "company",
    "corp": "corporation", "bros": "brothers", "jr": "junior", "sr": "senior", "esq": "esquire",
    "al": "al", "univ": "university", "dept": "department", "govt": "government",
    "assn": "association", "mfg": "manufacturing", "intl": "international", "natl": "national",
    "hrs": "hours", "mins": "minutes", "secs": "seconds",
}  # fmt: skip
_PLAIN = {
    "approx": "approximately", "vs": "versus", "viz": "namely", "cf": "compare",
    "est": "estimated", "max": "maximum", "min": "minimum", "avg": "average",
    "temp": "temperature", "tel": "telephone", "misc": "miscellaneous", "incl": "including",
    "excl": "excluding", "ext": "extension", "orig": "original", "resp": "respectively",
    "ca": "circa", "apt": "apartment", "bldg": "building", "eds": "editors",
    "prev": "previous", "std": "standard", "ref": "reference",
}  # fmt: skip
_COUNTED = {
    "No": "number", "Nos": "numbers", "Vol": "volume", "Vols": "volumes", "Ch": "chapter",
    "Chap": "chapter", "p": "page", "pp": "pages", "pg": "page", "Fig": "figure",
    "Figs": "figures", "Eq": "equation", "Sec": "section", "Ver": "version", "Pt": "part",
    "Art": "article", "Tab": "table", "Ex": "example", "Rm": "room", "Ste": "suite",
    "Apt": "apartment", "Ext": "extension", "Op": "opus", "c": "circa",
}  # fmt: skip
_MONTHS = {month[:3].capitalize(): month for month in MONTHS if month != "may"} | {
    "Sept": "september"
}
_PHRASES = (
    (re.compile(r"\be\. ?g\.(?!\w)|\beg\.", re.IGNORECASE), "for example"),
    (re.compile(r"\bi\. ?e\.(?!\w)|\bie\.", re.IGNORECASE), "that is"),
    (re.compile(r"\ba\.k\.a\.|\baka\b", re.IGNORECASE), "also known as"),
    (re.compile(r"\bw\.r\.t\.|\bwrt\b"), "with respect to"),
    (re.compile(r"(?<![\w/])w/o(?![\w/])"), "without "),
    (re.compile(r"(?<![\w/])w/ ?(?=[\w])"), "with "),
    (re.compile(r"(?<![\w/])b/c(?![\w/])"), "because"),
    (re.compile(r"(?<![\w/])c/o(?![\w/])"), "care of"),
    (re.compile(r"(?<![\w/])[nN]/[aA](?![\w/])"), "not applicable"),
    (re.compile(r"\band/or\b", re.IGNORECASE), "and or"),
    (re.compile(r"\bs/he\b"), "she or he"),
    (re.compile(r"\b[Rr]ock ?'?n'? ?[Rr]oll\b"), "rock and roll"),
    (re.compile(r"\b[nN]° ?(?=[0-9])"), "number "),
    (re.compile(r"(?<![\w&])AT&T(?![\w&])"), "a t and t"),
    (re.compile(r"(?<![\w&])([CF])#(?![\w#])"), r"\1 sharp"),
    (re.compile(r"\bvs\b(?!\.)", re.IGNORECASE), "versus"),
    (re.compile(r"(?<=[a-z]) '?n' (?=[a-z])"), " and "),
)
_TITLE = re.compile(
    rf"\b({'|'.join(_TITLES)}|{'|'.join(_TITLES).lower()})\.(?= ?[\w&])|\b(Mr|Mrs|Ms|Dr|Prof|"
    rf"Sgt|Lt|Mt|Ft|Capt|Col)(?= [A-Z][a-z])"
)
_BARE_TITLE = re.compile(r"\b(Mr|Mrs|Dr|Prof|mr|mrs|dr|prof)\.(?! ?[\w&])")
_STREET = re.compile(
    rf"\b([A-Z][A-Za-z']{{0,30}}|[0-9]{{1,3}}(?:st|nd|rd|th)) ({'|'.join(_STREETS)})\b(\.?)"
)
_AFTER_STREET = re.compile(r" (?:[a-z&]|(?:NW|NE|SW|SE|[NSEW])\b)|[\"',;:?!)-]|$")
_NO_STREET = frozenset("The A My Our Dear Your This That And Mr Mrs Prof".split())
_SAINT = re.compile(r"\bSte?\.? (?=[A-Z][a-z])")
_FINAL_WORD = re.compile(rf"\b({'|'.join(_FINAL)})\.", re.IGNORECASE)
_BARE_FINAL = re.compile(r"(?:(?<=[a-z] )|(?<=[a-z], ))(Inc|Ltd|Corp|Jr|Sr|etc)\b(?![.\w])")
_PLAIN_WORD = re.compile(rf"\b((?i:{'|'.join(_PLAIN)}))\.(?=[ ,]? ?[a-z0-9($£€\"'])")
_COUNTED_WORD = re.compile(
    rf"\b({'|'.join(_COUNTED)}|{'|'.join(_COUNTED).lower()})\. ?(?=\(?[0-9]|[IVX]{{1,5}}\b)"
)
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})\.(?=[, ]|$)")
_INITIALISM = re.compile(r"(?<![\w.])((?:[A-Za-z]\.){2,8})(s\b|'s\b)?(?![\w])")
_INITIALS = re.compile(r"(?<![\w.'])((?:[A-Z]\. ?){1,4})(?=[A-Z][a-z])")
_DEGREE = re.compile(r"(?<![\w.])(M|B|D|Ed|Ph|LL)\. ?(Sc|Phil|Ed|Eng|Tech|D|A|B|M)\b\.?")
_STARTERS = frozenset(
    "He She It The They This That These Those But And In We I You A An So Then There What "
    "When Where Why How If As At On My Our His Her Their Its No Yes For After Before While "
    "However Although Now Not Some Many Most All Both Each Who Which Do Did Is Are Was Were "
    "Can Could".split()
)
_NEXT_WORD = re.compile(r"[\"')\]]{0,3} +[\"'(]?([A-Z][a-z]*)")


def sentence_stop(match: re.Match[str], *, strict: bool = False) -> str:
    """'.' when the full stop of an abbreviation also ends the sentence, else ''.

    Args:
        match: the abbreviation with its full stop.
        strict: names may follow the abbreviation (U.S. Army): only a word that commonly opens a
            sentence counts, not any capital.
    """
    rest = match.string[match.end() : match.end() + 40]
    if not rest.strip("\"')] "):
        return "."
    following = _NEXT_WORD.match(rest)
    if not following or rest[following.end() : following.end() + 1].isupper():  # 5 p.m. EST
        return ""
    return "." if not strict or following.group(1) in _STARTERS else ""


def expand_abbreviations(text: str) -> str:
    """Say abbreviations; a full stop stays where it also ends the sentence."""
    for pattern, words in _PHRASES:
        text = pattern.sub(words, text)
    text = _COUNTED_WORD.sub(lambda match: f"{_lookup(_COUNTED, match[1])} ", text)
    text = _STREET.sub(_street, text)
    text = _SAINT.sub("saint ", text)
    text = _BARE_TITLE.sub(lambda match: _lookup(_TITLES, match[1]) + sentence_stop(match), text)
    text = _TITLE.sub(lambda match: _lookup(_TITLES, match[1] or match[2]), text)
    text = _DEGREE.sub(_degree, text)
    text = _FINAL_WORD.sub(_final, text)
    text = _BARE_FINAL.sub(lambda match: _FINAL[match[1].lower()], text)
    text = _PLAIN_WORD.sub(lambda match: _PLAIN[match[1].lower()], text)
    text = _MONTH.sub(lambda match: _MONTHS[match[1]], text)
    text = _INITIALISM.sub(_initialism, text)
    return _INITIALS.sub(_initials, text)


def _lookup(words: dict[str, str], written: str) -> str:
    return words.get(written) or words[written.capitalize()]


def _street(match: re.Match[str]) -> str:
    """'Wall St.' is a street, 'Ask Dr. Lee' is not: a name before it, and no name behind it."""
    name, street, stop = match.groups()
    if name in _NO_STREET:
        return match.group()
    words = f"{name} {_STREETS[street]}"
    if stop and sentence_stop(match, strict=True):
        return f"{words}."
    names_follow = street in ("Dr", "St", "Ct", "Pl", "Sq", "Av", "Ter")
    is_street = _AFTER_STREET.match(match.string, match.end()) or (stop and not names_follow)
    return words if is_street else match.group()


def _final(match: re.Match[str]) -> str:
    word = match[1].lower()
    if match[1] == "co":  # the end of an address read out: "dot co."
        return match.group()
    names_follow = word in ("inc", "ltd", "co", "corp", "bros", "jr", "sr", "dept", "univ")
    return _FINAL[word] + sentence_stop(match, strict=names_follow)


def _degree(match: re.Match[str]) -> str:
    stop = sentence_stop(match, strict=True) if match.group().endswith(".") else ""
    letters = f"{match[1]}{match[2]}".lower()
    return " ".join(letters) + stop


def _initialism(match: re.Match[str]) -> str:
    """'U.S.' -> 'u s'; 'a.m.' and 'p.m.' end a sentence before any capital."""
    letters = match[1].lower().replace(".", "")
    words = " ".join(letters)
    if match[2]:
        return f"{words}'s"
    return words + sentence_stop(match, strict=letters not in ("am", "pm"))


def _initials(match: re.Match[str]) -> str:
    """'J. R. R. Tolkien' -> 'j r r Tolkien'; 'Vitamin C. The ...' keeps its full stop."""
    rest = match.string[match.end() : match.end() + 12]
    word = re.match(r"[A-Za-z]+", rest)
    single = match[1].count(".") == 1
    if single and word and word.group() in _STARTERS:
        return match.group()
    return " ".join(match[1].lower().replace(".", " ").split()) + " "
