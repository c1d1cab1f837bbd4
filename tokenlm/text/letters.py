"""Abbreviations, codes, Roman numerals and acronyms to words."""

from __future__ import annotations

import re

from tokenlm.text.calendar import MONTHS, stop_after_date
from tokenlm.text.measures import DIRECTIONS
from tokenlm.text.numbers import (
    MAX_CARDINAL_DIGITS,
    cardinal,
    code_number,
    digits,
    ordinal,
    plural,
    roman_value,
    spoken_number,
    text_before,
    year,
)
from tokenlm.text.symbols import STARTERS, sentence_stop

# --- Abbreviations: titles, 'etc.', 'e.g.', 'U.S.', 'St.', 'No. 5', initials ---

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
    "Pl": "place", "Ct": "court", "Ter": "terrace", "Cres": "crescent", "Cir": "circle",
    "Fwy": "freeway", "Expy": "expressway", "Expwy": "expressway", "Tpke": "turnpike",
    "Trl": "trail", "Plz": "plaza", "Aly": "alley", "Xing": "crossing", "Cswy": "causeway",
    "Byp": "bypass", "Rte": "route",
}  # fmt: skip
# Sentences do end after these: the full stop is kept where a new one seems to begin.
_FINAL = {
    "etc": "et cetera", "inc": "incorporated", "ltd": "limited", "co": "company",
    "corp": "corporation", "bros": "brothers", "jr": "junior", "sr": "senior", "esq": "esquire",
    "al": "al", "univ": "university", "dept": "department", "govt": "government",
    "assn": "association", "mfg": "manufacturing", "intl": "international", "natl": "national",
    "hrs": "hours", "mins": "minutes", "secs": "seconds", "mgr": "manager", "ea": "each",
    "pct": "percent", "utd": "united", "mgmt": "management", "qty": "quantity",
}  # fmt: skip
_BEFORE_NAMES = frozenset("inc ltd co corp bros jr sr dept univ mgr utd".split())
_PLAIN = {
    "approx": "approximately", "vs": "versus", "viz": "namely", "cf": "compare", "est": "estimated",
    "max": "maximum", "min": "minimum", "avg": "average", "temp": "temperature", "tel": "telephone",
    "misc": "miscellaneous", "incl": "including", "excl": "excluding", "ext": "extension",
    "orig": "original", "resp": "respectively", "ca": "circa", "apt": "apartment",
    "bldg": "building", "eds": "editors", "prev": "previous", "std": "standard", "ref": "reference",
    "asst": "assistant", "assoc": "associate", "esp": "especially", "cnr": "corner",
    "jct": "junction", "attn": "attention", "pkg": "package", "appt": "appointment",
}  # fmt: skip
# These end no sentence, whatever stands behind them.
_OPEN = "approx|vs|viz|cf|incl|excl|esp|attn|cnr|jct|asst|assoc|prev"
_STATES = {
    "Ala": "alabama", "Ariz": "arizona", "Ark": "arkansas", "Calif": "california",
    "Colo": "colorado", "Conn": "connecticut", "Del": "delaware", "Fla": "florida",
    "Ga": "georgia", "Ill": "illinois", "Ind": "indiana", "Kan": "kansas", "Ky": "kentucky",
    "La": "louisiana", "Md": "maryland", "Mass": "massachusetts", "Mich": "michigan",
    "Minn": "minnesota", "Miss": "mississippi", "Mo": "missouri", "Mont": "montana",
    "Neb": "nebraska", "Nev": "nevada", "Okla": "oklahoma", "Ore": "oregon",
    "Pa": "pennsylvania", "Tenn": "tennessee", "Tex": "texas", "Vt": "vermont", "Va": "virginia",
    "Wash": "washington", "Wis": "wisconsin", "Wyo": "wyoming",
    "NY": "new york", "NJ": "new jersey", "NH": "new hampshire", "NM": "new mexico",
    "NC": "north carolina", "ND": "north dakota", "SC": "south carolina", "SD": "south dakota",
    "WVa": "west virginia",
}  # fmt: skip
_COUNTED = {
    "No": "number", "Nos": "numbers", "Vol": "volume", "Vols": "volumes", "Ch": "chapter",
    "Chap": "chapter", "p": "page", "pp": "pages", "pg": "page", "Fig": "figure",
    "Figs": "figures", "Eq": "equation", "Sec": "section", "Ver": "version", "Pt": "part",
    "Art": "article", "Tab": "table", "Ex": "example", "Rm": "room", "Ste": "suite",
    "Apt": "apartment", "Ext": "extension", "Op": "opus", "c": "circa", "Col": "column",
    "Para": "paragraph", "Ln": "line", "Bk": "book", "Nr": "number", "Secs": "sections",
    "Arts": "articles", "Eqs": "equations", "Chs": "chapters", "Chaps": "chapters",
    "Sc": "scene", "Refs": "references", "Ref": "reference", "Exs": "examples",
    "Paras": "paragraphs",
}  # fmt: skip
_MONTHS = {month[:3].capitalize(): month for month in MONTHS if month != "may"} | {
    "Sept": "september"
}


def _cued_word(match: re.Match[str]) -> str:
    return {"attn": "attention", "qty": "quantity"}[match[1].lower()]


def _size(match: re.Match[str]) -> str:
    return {"lg": "large", "med": "medium", "sm": "small"}[match[1]]


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
    (re.compile(r"\b[Rr]ock ?['`]?n['`]? ?[Rr]oll\b"), "rock and roll"),
    (re.compile(r"(?<=[0-9](?:st|nd|rd|th) )ed\.(?=[ ,;)\]]|$)"), "edition"),
    (
        re.compile(r"\best\.?(?= (?:in )?1[0-9]{3}\b| (?:in )?20[0-9]{2}\b)", re.IGNORECASE),
        "established",
    ),
    (re.compile(r"\b[nN]° ?(?=[0-9])"), "number "),
    (re.compile(r"\b[nN]o\.(?= of (?:the )?[a-z]{2,})"), "number"),
    (re.compile(r"(?<=\()b\. ?(?=(?:c\. ?)?[12]?[0-9]{3}\b|[a-z])"), "born "),
    (re.compile(r"(?<=\()d\. ?(?=(?:c\. ?)?[12]?[0-9]{3}\b|[a-z])"), "died "),
    (re.compile(r"\bPt\. (?=[A-Z][a-z])"), "Point "),
    (re.compile(r"\bRt\. Hon\."), "right honorable"),
    (re.compile(r"\bApt (?=#?[0-9])"), "apartment "),
    (re.compile(r"\bRm (?=[0-9])"), "room "),
    (re.compile(r"\bSte (?=#?[0-9])"), "suite "),
    # E. coli, C. elegans: no sentence begins with a small letter.
    (re.compile(r"(?<![\w.'&])([A-Z])\.(?= [a-z]{4,})"), r"\1"),
    (re.compile(r"\bCo\. (?:Rd\.|Road) (?=[0-9])"), "County Road "),
    (re.compile(r"\b[fF]ig\. (?=[A-H](?:[,.;:)]| (?:and|or|shows?|is|has)\b))"), "figure "),
    (re.compile(r"\bApp\. (?=[A-H](?:[,.;:)]| (?:and|or|shows?|is|has)\b))"), "appendix "),
    (re.compile(r"(?<![\w&])AT&T(?![\w&])"), "a t and t"),
    (re.compile(r"(?<![\w&])([CF])#(?![\w#])"), r"\1 sharp"),
    (re.compile(r"\bvs\b(?!\.)", re.IGNORECASE), "versus"),
    (re.compile(r"(?<=[a-z] )v\.(?= [A-Z])"), "versus"),
    (re.compile(r"\b([Cc]opyright) (?:\([cC]\)|©)(?!\w)"), r"\1"),
    (re.compile(r"(?<=[0-9](?:st|nd|rd|th) )[Ff]l\.(?=[ ,;)\]]|$)"), "floor"),
    (re.compile(r"(?<=[0-9](?:st|nd|rd|th) )min\.(?=[ ,;)\]]|$)"), "minute"),
    (re.compile(r"(?<=[0-9] )(lg|med|sm)\.(?= [a-z])"), _size),
    (re.compile(r"\b(Attn|Qty|ATTN|QTY)(?=: )"), _cued_word),
    (re.compile(r"(?<=[a-z]) '?n' (?=[a-z])"), " and "),
)
_TITLE = re.compile(
    rf"(?:(?<![0-9])(?<![0-9] )|(?![Ff]t\b|"
    rf"[Mm]t(?!\. [A-Z])))\b(?:({'|'.join(_TITLES)})\.(?= ?[\w&])|"
    rf"({'|'.join(_TITLES).lower()})\.(?= ?[A-Z0-9&])(?! ?(?:{'|'.join(STARTERS)})\b)|(Mr|Mrs|Ms|"
    rf"Dr|Prof|Sgt|Lt|Mt|Ft|Capt|Col)(?= [A-Z][a-z]|(?<=[rsf]) (?:and|or|&) (?:Mrs?|Ms|Miss|Dr|"
    rf"Prof)\b))"
)
# "He met a sgt. on the way": what is only ever short for a rank.
_RANK = re.compile(
    r"\b((?:an?|the|my|your|his|her|our|their|that|this|another|every|each) )"
    r"(sgt|cpl|lt|capt|cmdr|supt|prof|gov)\.(?![\w.])"
)
_STATE = re.compile(
    rf"(?:(?<=[a-z]{{2}}, )|(?<=\b[DR]-))(?:({'|'.join(_STATES)})|(N\. ?[CDHJMY]|S\. ?[CD]|"
    r"W\. ?Va))\.(?![A-Za-z0-9])"
)
_LETTERED_NAME = re.compile(
    r"\b((?:mister|missus|miz|doctor|professor|[Aa]gent|[Jj]udge|[Cc]oach) [A-Z])\.(?= [a-z])"
)
# "It's vitamin D. Don't forget.", "It is I. Tom knows.": the letter ends the sentence.
_NO_INITIAL = re.compile(
    r"\b(?:an?|vitamins?|types?|plan|grade|group|class|hepatitis|exhibit|section|option|level|team|"
    r"point|gate|row|seat|letter|answer|size|key of|model|room|zone|block|terminal|category|"
    r"(?:type|grade|answer|letter|size) (?:is|was)) $",
    re.IGNORECASE,
)
_NO_INITIAL_I = re.compile(
    r"\b(?:is|was|am|than|as|nor|not|only|it's|(?:he|she|we|you|they|him|her|them) (?:and|or)) $",
    re.IGNORECASE,
)
# "Tampa, Fla.", "D-Calif."; but "Hello, Miss. How are you?"
_CITY = re.compile(r"\b([A-Z][a-z']{2,20}), $|\b[DR]-$")
_NO_CITY = frozenset(
    "Hello Then Well Thanks Please Sorry Dear Look Listen Goodbye Good Here There Okay Maybe Sure "
    "Yes Mom Mum Dad Hey Son Sir Man Sis Nay Yea Why And But "
    "Really This That Mother Father Mama Papa Come Wait Stop Never Always Perhaps".split()
)
_OPEN_WORD = re.compile(rf"\b((?i:{_OPEN}))\.(?= [A-Z])")
_BARE_TITLE = re.compile(r"\b(Mr|Mrs|Dr|Prof|mr|mrs|dr|prof)\.(?! ?[\w&])")
_STREET = re.compile(
    rf"\b([A-Z][A-Za-z']{{0,30}}|[0-9]{{1,3}}(?:st|nd|rd|th)) ({'|'.join(_STREETS)})\b(\.?)"
)
_AFTER_STREET = re.compile(r" (?:[a-z&]|(?:NW|NE|SW|SE|[NSEW])\b)|[\"',;:?!)-]|$")
_NO_STREET = frozenset("The A My Our Dear Your This That And Mr Mrs Prof".split())
_SAINT = re.compile(r"\bSte?\.? (?=[A-Z][a-z])")
_FINAL_WORD = re.compile(rf"\b({'|'.join(_FINAL)})\.", re.IGNORECASE)
_BARE_FINAL = re.compile(r"(?:(?<=[a-z] )|(?<=[a-z], ))(Inc|Ltd|Corp|Jr|Sr|etc)\b(?![.\w])")
_PLAIN_WORD = re.compile(
    rf"(?<![0-9])\b(?!(?<=[0-9] )min\.|(?:max|min|apt|ref|ext)\. (?:i|he|she|it|we|they|you|to|"
    rf"the)\b)((?i:{'|'.join(_PLAIN)}))\.(?=[ ,]? ?[a-z0-9($£€\"'])"
)
_COUNTED_WORD = re.compile(
    rf"\b({'|'.join(_COUNTED)}|{'|'.join(_COUNTED).lower()})\. ?(?:(?=\(?[0-9])|([IVX]{{1,6}})\b)"
)
# "Wait a sec. 5 people are ahead.": after these the word is itself, not short for another.
_WORD_BEFORE = re.compile(
    r"\b(?:an?|the|my|your|his|her|our|their|this|that|each|every|some|any|of|one|modern|fine|pop|"
    r"abstract|street|vitamin|turn up) $",
    re.IGNORECASE,
)
_OWNED = re.compile(r"\b(?:the|an?|my|your|his|her|our|their|that|this) $", re.IGNORECASE)
_SAID_BEFORE = re.compile(r"\b(?:said|say|says|answer is|answer was|oh|still) $", re.IGNORECASE)
_WORDS_TOO = frozenset("no art sec fig ex tab ch op pt c vol p ext apt".split())
_ONE_BEFORE = re.compile(
    r"$|[\"',;:)?!–—]|\.(?:$| [A-Z])| (?:of|is|was|and|or|to|in|by|has|begins|covers|deals|shows)\b"
)
_MONTH = re.compile(rf"(?<![\w'])({'|'.join(_MONTHS)})\.(?=[, )?!:;\"'–-]|$)")
# Jan and Mar are names as well: "I met Jan. He left."
_MONTH_BEFORE = re.compile(
    r"(?:^|[(\"]|[.?!] |\b(?:[iI]n|[sS]ince|[uU]ntil|[bB]y|last|next|early|late|mid|of|from|to|"
    r"till|every|during|through|before|after|and|this|[0-9]|the [a-z ]{3,14}) )$"
)
_ROADS = "|".join(
    [*_STREETS, "Street", "Avenue", "Road", "Drive", "Boulevard", "Lane", "Place", "Way", "Court"]
)
_NAMED_ROAD = rf"(?:(?:[A-Z][a-z']{{1,20}}|[0-9]{{1,3}}(?:st|nd|rd|th)) ){{1,2}}(?:{_ROADS})\b"
_DIRECTION = re.compile(rf"(?<![\w.])(?:(NW|NE|SW|SE|[NSEW])\.?|(N|S)\.([EW])\.) (?={_NAMED_ROAD})")
_DIRECTION_BEHIND = re.compile(
    rf"(?<=[a-z]) ({_ROADS})(\.?,?) (?:(NW|NE|SW|SE)\b|([NSEW])(?=[,;)]|\.?$))"
)
_HOUSE = re.compile(
    rf"(?<![\w.,$£€/-])([0-9]{{3,5}})(?= (?:(?:NW|NE|SW|SE|[NSEW])\.? )?{_NAMED_ROAD}(?! bankers))"
)
_PLAIN_STREET = re.compile(r"\b(?:(Blvd|Pkwy|Fwy|Expy|Expwy|Tpke|Hwy)\b\.?|(Ave|Rd|Ln)\.)")
_STREET_FIRST = re.compile(
    r"\b(?:[oO]n|[aA]long|[dD]own|[oO]ff|[oO]nto|[uU]p|[aA]t) (?:[A-Z][a-z]+ )?$"
)
_NO_ROAD = frozenset(
    "Mount Mt East West North South Port Lake Fort Old New Little Great Cape Bay River Isle Point "
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Sault Church Saint".split()
)
_DOTTED_UNIT = re.compile(
    r"(?<=[0-9]) ?(m\.p\.h|k\.p\.h|m\.p\.g|r\.p\.m|b\.p\.m|f\.p\.s|p\.s\.i)(?:\.|\b)", re.IGNORECASE
)
_INITIALISM = re.compile(r"(?<![\w.])((?:[A-Za-z]\.){2,8})(s\b|'s\b)?(?![\w])")
_INITIALS = re.compile(r"(?<![\w.'])((?:[A-Z]\. ?){1,4})(?=[A-Z][a-z])")
_DEGREE = re.compile(r"(?<![\w.])(M|B|D|Ed|Ph|LL)\. ?(Sc|Phil|Ed|Eng|Tech|D|A|B|M)\b\.?")


def expand_abbreviations(text: str) -> str:
    """Expand abbreviations; a full stop stays where it also ends the sentence."""
    for pattern, words in _PHRASES:
        text = pattern.sub(words, text)
    text = _COUNTED_WORD.sub(_counted_word, text)
    text = _HOUSE.sub(lambda match: code_number(match[1]), text)
    text = _DIRECTION.sub(lambda match: f"{_direction(match[1], match[2], match[3])} ", text)
    text = _DIRECTION_BEHIND.sub(
        lambda match: f" {match[1]}{match[2]} {DIRECTIONS[match[3] or match[4]]}", text
    )
    text = _STREET.sub(_street, text)
    text = _PLAIN_STREET.sub(_plain_street, text)
    text = _SAINT.sub("saint ", text)
    text = _BARE_TITLE.sub(lambda match: _lookup(_TITLES, match[1]) + sentence_stop(match), text)
    text = _TITLE.sub(_title, text)
    text = _RANK.sub(
        lambda match: f"{match[1]}{_lookup(_TITLES, match[2])}{sentence_stop(match, strict=True)}",
        text,
    )
    text = _LETTERED_NAME.sub(r"\1", text)
    text = _STATE.sub(_state, text)
    text = _DEGREE.sub(_degree, text)
    text = _FINAL_WORD.sub(_final, text)
    text = _BARE_FINAL.sub(lambda match: _FINAL[match[1].lower()], text)
    text = _OPEN_WORD.sub(lambda match: _PLAIN[match[1].lower()], text)
    text = _PLAIN_WORD.sub(lambda match: _PLAIN[match[1].lower()], text)
    text = _MONTH.sub(_month, text)
    text = _DOTTED_UNIT.sub(_dotted_unit, text)
    text = _INITIALISM.sub(_initialism, text)
    return _INITIALS.sub(_initials, text)


def _dotted_unit(match: re.Match[str]) -> str:
    return f" {match[1].lower().replace('.', '')}{sentence_stop(match, strict=True)}"


def _title(match: re.Match[str]) -> str:
    """'Dr. Brown', and 'I saw the Dr. He was kind.', where a sentence ends."""
    words = _lookup(_TITLES, match[1] or match[2] or match[3])
    is_owned = _OWNED.search(text_before(match, 8))
    return words + sentence_stop(match, strict=True) if is_owned else words


def _counted_word(match: re.Match[str]) -> str:
    """'Fig. 3' is a figure, 'He ate a fig. I ate two.' is not."""
    word, numeral = match.groups()
    before = text_before(match, 12)
    is_short = word[0].isupper() or word not in _WORDS_TOO
    if not is_short and (_SAID_BEFORE if word == "no" else _WORD_BEFORE).search(before):
        return match.group()
    if word == "secs" and before[-2:-1].isdigit():
        return match.group()
    if numeral in ("V", "X") and word.lower() == "no":
        if not _ONE_BEFORE.match(match.string, match.end()):
            return match.group()  # "No. X marks the spot."
    if numeral == "I":
        is_pronoun = word.lower() == "no" or not is_short
        if is_pronoun or not _ONE_BEFORE.match(match.string, match.end()):
            return match.group()
    said = cardinal(roman_value(numeral)) if numeral else ""
    return f"{_lookup(_COUNTED, word)} {said}"


def _state(match: re.Match[str]) -> str:
    city = _CITY.search(match.string, max(match.start() - 24, 0), match.start())
    if not city or city[1] in _NO_CITY:
        return match.group()
    letters = match[1] or match[2].replace(".", "").replace(" ", "")
    return _STATES[letters] + sentence_stop(match, strict=True)


def _direction(short: str, first: str, second: str) -> str:
    return DIRECTIONS[short or first + second]


def _plain_street(match: re.Match[str]) -> str:
    return _STREETS[match[1] or match[2]] + sentence_stop(match, strict=True)


def _month(match: re.Match[str]) -> str:
    """A month ends a sentence as other words do; 'Jan.' before a new sentence may be a name."""
    name = match[1]
    stop = stop_after_date(match)
    before = text_before(match, 20)
    if name in ("Jan", "Mar") and stop and not _MONTH_BEFORE.search(before):
        return match.group()
    return _MONTHS[name] + stop


def _lookup(words: dict[str, str], written: str) -> str:
    return words.get(written) or words[written.capitalize()]


def _street(match: re.Match[str]) -> str:
    """'Wall St.' is a street, 'Ask Dr. Lee' is not: a name before it, and no name behind it."""
    name, street, stop = match.groups()
    if name in _NO_STREET:
        return match.group()
    words = f"{name} {_STREETS[street]}"
    if sentence_stop(match, strict=True):
        return f"{words}."
    names_follow = street in ("Dr", "St", "Ct", "Pl", "Sq", "Av", "Ter")
    if stop and street == "St" and name not in _NO_ROAD:
        before = text_before(match, 24)
        if name[0].isdigit() or _STREET_FIRST.search(before):  # "on Elm St. Tom waits."
            return words + sentence_stop(match)
    is_street = _AFTER_STREET.match(match.string, match.end()) or (stop and not names_follow)
    return words if is_street else match.group()


def _final(match: re.Match[str]) -> str:
    word = match[1].lower()
    if match[1] == "co":  # the end of an address read out: "dot co."
        return match.group()
    return _FINAL[word] + sentence_stop(match, strict=word in _BEFORE_NAMES)


def _degree(match: re.Match[str]) -> str:
    return " ".join(f"{match[1]}{match[2]}".lower()) + sentence_stop(match, strict=True)


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
    before = text_before(match, 16)
    if single and (
        _NO_INITIAL.search(before) or (match[1][0] == "I" and _NO_INITIAL_I.search(before))
    ):
        return match.group()
    if single and word and word.group() in STARTERS:
        return match.group()
    return " ".join(match[1].lower().replace(".", " ").split()) + " "


# --- Codes: numbers that name rather than count, such as telephones, versions, serials ---

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IP_ADDRESS = re.compile(
    rf"(?<![\w.])((?:{_OCTET}\.){{3}}{_OCTET})(?::([0-9]{{2,5}}))?(?:/([0-9]{{1,2}}))?(?![\w/]|"
    rf"\.[0-9])"
)
_MAC_ADDRESS = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])")
_CUED_VERSION = re.compile(
    r"\b(python|version|ver\.?|release|ubuntu|debian|fedora|java|ios|ipados|macos|android|"
    r"windows|firefox|"
    r"chrome|safari|php|ruby|perl|node(?:\.js)?|linux|kernel|django|pytorch|cuda|"
    r"bluetooth|usb|http|tls|gpt|claude|llama|qwen|gemini|golang|go|rust|typescript)"
    r"([ -])?v?([0-9]{1,4}(?:\.[0-9]{1,4}){1,4})(?![0-9]|\.[0-9])",
    re.IGNORECASE,
)
_V_VERSION = re.compile(
    r"(?<![A-Za-z0-9.])v\.? ?([0-9]{1,4}(?:\.[0-9]{1,4}){0,4})(?=(?:rc|b|a)?[0-9]{0,2}\b)"
)
_DOTTED = re.compile(r"(?<![\w.])([0-9]{1,8}(?:\.[0-9]{1,8}){2,8})(?![0-9]|\.[0-9])")
_SPACED_PHONE = re.compile(
    r"(?<![\w.,$£€-])(?:\+ ?[0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9]{1,5}"
    r"(?:[ .-][0-9]{2,8}){1,4}|\(0[0-9]{1,5}\)[ /-]?[0-9]{3,8}(?:[ -][0-9]{2,6}){0,2}|"
    r"(?:1[ .-]?)?\([0-9]{3}\) ?[0-9]{3}[ .-]?[0-9]{4}|"
    r"(?:1[ .-])?[0-9]{3}([ .-])[0-9]{3}\1[0-9]{4}|0[0-9]{2,4}[ -][0-9]{3,4}[ -][0-9]{3,4}|"
    r"0[0-9]{2,4}[ /-][0-9]{5,8}|(?<![0-9a-fA-F] )0[1-9](?:[ .][0-9]{2}){4}(?! [0-9a-fA-F])|"
    r"[0-9]{2,3} [0-9]{4} [0-9]{4}|(?<![0-9] )[2-9][0-9]{2} (?!19|20|[0-9]{2}00)[0-9]{4}|"
    r"00[1-9][0-9]{0,2}(?:[ -][0-9]{2,8}){1,4}|"
    r"[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3}-(?![0-9]00\b)[0-9]{4})(?: ?[xX]([0-9]{2,5}))?(?![\w-]|"
    r"[.,][0-9]| [0-9]| ?[%°€$£]| (?:people|men|women|children)\b)"
)
_BARE_PHONE = re.compile(
    r"(?<![\w.,$£€¥₹+#/-])(?<![$£€¥₹] )(1?)([2-9][0-9]{2})([0-9]{3})([0-9]{4})(?![\w/]|[.,-][0-9]|"
    r" ?[%°€$£]| to [0-9])( [a-z]{2,16}\b)?"
)
# "1-800-FLOWERS": the letters are keys, but nobody reads them so.
_TOLL_FREE_WORD = re.compile(
    r"(?<![\w-])(1[ .-])?\(?(8(?:00|22|33|44|55|66|77|88))\)?[ .-](?:(?=[0-9A-Z]{0,4}-?[A-Z]{3})|"
    r"(?<=1[ .-][0-9]{3}-)(?=[a-z]{3}))"
)
_INTERNATIONAL = re.compile(r"(?<![\w+])\+[0-9]{7,15}(?![0-9])")
_CUED_DIGITS = re.compile(
    r"\b(call(?:ed|ing)?|dial(?:ed|ing)?|phone|tel|extension|ext|pin|zip(?: code)?|code|otp|"
    r"account|room|flight|area code|highway|route|interstate|suite|apartment)([.:]{0,2} "
    r"(?:is |number |no\. )?)([0-9]{3,12})(?!\w|[.,:/][0-9]|-[0-9]| [a-z]+s\b)",
    re.IGNORECASE,
)
_PAIRED_CUES = frozenset(
    "room|flight|area code|highway|route|interstate|suite|apartment".split("|")
)
_MODEL = re.compile(
    r"\b(Boeing|Airbus|Porsche|RTX|GTX) ([0-9]{3,4})(?:-([0-9]{2,4}))?(?![\w,.-][0-9]|\w)"
)
_ZIP_CODE = re.compile(
    r"\b(A[LKZR]|C[AOT]|D[CE]|FL|GA|HI|I[DLNA]|K[SY]|LA|M[EDAINSOT]|N[EVHJMYCD]|O[HKR]|PA|RI|S[CD]|"
    r"T[NX]|UT|V[TA]|W[AVIY]) ([0-9]{5})(-[0-9]{4})?(?![\w-]|[.,][0-9])"
)
_TRIPLE = re.compile(r"(?<![\w.,/-])[0-9]{1,2}(?:-[0-9]{1,2}){2}(?![\w/-]|[.,][0-9])")
_CARD = re.compile(r"(?<![\w.,-])[0-9]{4}(?:([ -])[0-9]{4})(?:\1[0-9]{4}){1,3}(?![\w-])")
_SERIAL = re.compile(r"(?<![\w.,-])[0-9]{1,7}(?:-[0-9]{1,7}){3,6}(?![\w-])")
_BOOKS = {
    "Gen": "Genesis", "Ex": "Exodus", "Exod": "Exodus", "Lev": "Leviticus", "Num": "Numbers",
    "Deut": "Deuteronomy", "Josh": "Joshua", "Judg": "Judges", "Sam": "Samuel", "Kgs": "Kings",
    "Chr": "Chronicles", "Chron": "Chronicles", "Neh": "Nehemiah", "Esth": "Esther",
    "Ps": "Psalm", "Pss": "Psalms", "Prov": "Proverbs", "Eccl": "Ecclesiastes",
    "Isa": "Isaiah", "Jer": "Jeremiah", "Lam": "Lamentations", "Ezek": "Ezekiel",
    "Dan": "Daniel", "Hos": "Hosea", "Mic": "Micah", "Hab": "Habakkuk", "Zech": "Zechariah",
    "Mal": "Malachi", "Mat": "Matthew", "Matt": "Matthew", "Mk": "Mark", "Lk": "Luke",
    "Jn": "John", "Rom": "Romans", "Cor": "Corinthians", "Gal": "Galatians", "Eph": "Ephesians",
    "Phil": "Philippians", "Col": "Colossians", "Thess": "Thessalonians", "Tim": "Timothy",
    "Tit": "Titus", "Heb": "Hebrews", "Jas": "James", "Pet": "Peter", "Rev": "Revelation",
    "Acts": "Acts", "Ruth": "Ruth", "Job": "Job", "Song": "Song", "Joel": "Joel", "Amos": "Amos",
    "Mark": "Mark", "Luke": "Luke", "John": "John",
}  # fmt: skip
_NUMBERED = frozenset("Samuel Kings Chronicles Corinthians Thessalonians Timothy Peter".split())
_BOOK = "|".join(sorted({*_BOOKS, *_BOOKS.values()}, key=len, reverse=True))
_VERSE = re.compile(
    rf"(?<![\w.])(?:([1-3]|I{{1,3}}) )?\b({_BOOK})\.? ([0-9]{{1,3}}):([0-9]{{1,3}})"
    r"(?: ?[-–] ?([0-9]{1,3}))?"
    r"(?![\w:]|\.[0-9]| ?[AaPp]\.?[Mm]\b)"
)
_NUMBERED_BOOK = re.compile(
    r"(?<![\w.])([1-3]) (Sam|Kgs|Kings|Chr|Chron|Cor|Thess|Tim|Pet|Samuel|Chronicles|Corinthians|"
    r"Thessalonians|Timothy|Peter)\b(?:\.(?= [0-9]))?(?= [0-9])"
)
_GROUP = re.compile(r"[0-9]{1,15}")
_COUNT_BEFORE = re.compile(
    r"(?:than|over|about|nearly|almost|exceeds?|exceeding|values?|total|population|equals?|up to|"
    r"of|id|ID|=|:=)[ :]{1,2}$"
)
_NOT_COUNTED = frozenset("is was has as this its his works rings does answers belongs".split())
_ROAD = re.compile(
    r"\b(?:([Hh]wy|HWY|Highway)|(?:[Rr]te?|RTE?|Route))\b\.? ?([0-9]{1,4})\b(?![.,:-][0-9]|-|%)"
    r"(?: ([NSEW])\b(?!\.[A-Z])(?:\.(?= [a-z]|,))?)?"
)
_INTERSTATE = re.compile(
    r"(?<![\w-])I-([0-9]{1,3})(?: ?([NSEW])(?:B|\.(?= [a-z]|,))?)?(?![\w-]|[.,][0-9])"
)
_NUMBERED_ROAD = re.compile(
    r"\b(U\.S\.|SR|CR|FM|US(?=-))[ -]([1-9][0-9]{0,3})(?![\w%]|[.,:-][0-9]| [a-z]{2,16}s\b)"
    r"(?: ([NSEW])\b(?!\.[A-Z])(?:\.(?= [a-z]|,))?)?"
)
_LONG = re.compile(rf"[0-9]{{{MAX_CARDINAL_DIGITS + 1},}}")


def expand_verses(text: str) -> str:
    """Expand 'Gen. 1:1' and its like; run before times of day."""
    return _NUMBERED_BOOK.sub(
        lambda match: f"{ordinal(int(match[1]))} {_BOOKS.get(match[2], match[2])}",
        _VERSE.sub(_verse, text),
    )


def _verse(match: re.Match[str]) -> str:
    number, book, chapter, first, last = match.groups()
    if not number and _BOOKS.get(book, book) in _NUMBERED:  # "the Kings 3:2 win"
        return match.group()
    rank = f"{ordinal(len(number) if number[0] == 'I' else int(number))} " if number else ""
    words = f"{spoken_number(chapter)} {spoken_number(first)}"
    words += f" to {spoken_number(last)}" if last else ""
    return f"{rank}{_BOOKS.get(book, book)} {words}"


def expand_codes(text: str) -> str:
    """Expand IP addresses, telephone and card numbers, versions, and very long digit strings."""
    text = _LONG.sub(lambda match: f" {digits(match.group())} ", text)
    text = _IP_ADDRESS.sub(_ip_address, text)
    text = _MAC_ADDRESS.sub(
        lambda match: " ".join(_hex(part) for part in match.group().split(":")), text
    )
    text = _CUED_VERSION.sub(_cued_version, text)
    text = _V_VERSION.sub(lambda match: f"version {_parts(match.group(1))} ", text)
    text = _CARD.sub(lambda match: _grouped(match.group()), text)
    text = _TOLL_FREE_WORD.sub(
        lambda match: f"{'one ' if match[1] else ''}{_phone_group(match[2])} ", text
    )
    text = _SPACED_PHONE.sub(_spaced_phone, text)
    text = _BARE_PHONE.sub(_bare_phone, text)
    text = _SERIAL.sub(lambda match: _grouped(match.group()), text)
    text = _TRIPLE.sub(
        lambda match: " ".join(code_number(part) for part in match.group().split("-")), text
    )
    text = _INTERNATIONAL.sub(lambda match: f"plus {digits(match.group())}", text)
    text = _ZIP_CODE.sub(
        lambda match: f"{' '.join(match[1])} {_grouped(match[2] + (match[3] or ''))}", text
    )
    text = _MODEL.sub(_model, text)
    text = _ROAD.sub(_road, text)
    text = _INTERSTATE.sub(_interstate, text)
    text = _NUMBERED_ROAD.sub(
        lambda match: (
            f"{match[1].replace('.', '')} {code_number(match[2])}"
            + (f" {DIRECTIONS[match[3]]}" if match[3] else "")
        ),
        text,
    )
    text = _CUED_DIGITS.sub(_cued_digits, text)
    return _DOTTED.sub(lambda match: _parts(match.group(1)), text)


def _ip_address(match: re.Match[str]) -> str:
    address, port, prefix = match.groups()
    words = " dot ".join(digits(part) for part in address.split("."))
    if port:
        words += f" port {code_number(port)}"
    return f"{words} slash {spoken_number(prefix)}" if prefix else words


def _hex(pair: str) -> str:
    return " ".join(digits(sign) if sign.isdigit() else sign.lower() for sign in pair)


def _cued_version(match: re.Match[str]) -> str:
    cue, space, number = match.groups()
    return f"{cue}{' ' if space else ''} {_parts(number)}".replace("  ", " ")


def _parts(number: str) -> str:
    """'3.11' -> 'three point eleven': the parts of a version are counted, not decimals."""
    return " point ".join(spoken_number(part) for part in number.split("."))


def _road(match: re.Match[str]) -> str:
    highway, number, side = match.groups()
    words = f"{'Highway' if highway else 'Route'} {code_number(number)}"
    return f"{words} {DIRECTIONS[side]}" if side else words


def _interstate(match: re.Match[str]) -> str:
    number, side = match.groups()
    return f"I {code_number(number)}{' ' + DIRECTIONS[side] if side else ''}"


def _spaced_phone(match: re.Match[str]) -> str:
    number, extension = match.group(), match[2]
    if number.startswith("+") and sum(map(str.isdigit, number)) < 7:  # a sum: "+5 10"
        return number
    if extension:
        return f"{_phone(number[: -len(extension)])} extension {digits(extension)}"
    return _phone(number)


def _bare_phone(match: re.Match[str]) -> str:
    """Ten digits in a row are a telephone number, unless they count something."""
    one, *groups, following = match.groups()
    word = (following or "").strip()
    before = text_before(match, 12)
    is_count = word.endswith("s") and word not in _NOT_COUNTED or _COUNT_BEFORE.search(before)
    if is_count or word in ("people", "men", "women", "children") or match[4].endswith("000"):
        return match.group()
    words = ", ".join([_phone_group(groups[0]), *map(digits, groups[1:])])
    return f"{'one, ' if one else ''}{words}{following or ''}"


def _phone(number: str) -> str:
    """Digit by digit, a breath between groups; '800' of a toll-free number in one go."""
    groups = [_phone_group(group) for group in _GROUP.findall(number)]
    if number.startswith("1") and len(groups) > 1 and len(_GROUP.findall(number)[0]) == 1:
        groups[:2] = [f"{groups[0]} {groups[1]}"]
    words = ", ".join(groups)
    return f"plus {words}" if number.startswith("+") else words


def _phone_group(group: str) -> str:
    return spoken_number(group) if len(group) == 3 and group.endswith("00") else digits(group)


def _grouped(number: str) -> str:
    return ", ".join(digits(group) for group in _GROUP.findall(number))


def _model(match: re.Match[str]) -> str:
    name, number, variant = match.groups()
    return f"{name} {code_number(number)}{' ' + code_number(variant) if variant else ''}"


def _cued_digits(match: re.Match[str]) -> str:
    """After `call` and its like every number is spelled; rooms and flights are read in pairs."""
    cue, gap, number = match.groups()
    if cue.lower() in _PAIRED_CUES:
        return f"{cue}{gap}{code_number(number)}"
    counted = cue.lower().startswith(("call", "dial", "phone")) and number.endswith("00")
    return f"{cue}{gap}{spoken_number(number) if counted else digits(number)}"


# --- Roman numerals: 'Henry VIII', 'World War II', 'Chapter IV', 'the XIX century' ---

_RULERS = (
    "Henry|Louis|George|Edward|Elizabeth|Richard|Charles|James|William|Mary|Paul|Benedict|Pius|Leo|"
    "Gregory|Innocent|Clement|Napoleon|Nicholas|Alexander|Catherine|Philip|Phillip|Frederick|"
    "Ferdinand|Ramses|Ramesses|Ivan|Peter|Wilhelm|Franz|Joseph|Carl|Gustav|Christian|Harald|Haakon|"
    "Olav|Albert|Leopold|Umberto|Victor|Emmanuel|John|Robert|David|Otto|Rudolf|Maximilian|"
    "Ptolemy|Darius|Xerxes|Cleopatra|Francis|Alfonso|Juan|Carlos|Felipe|Margrethe|Selim|Mehmed|"
    "Suleiman|Murad|Abdul|Boniface|Urban|Sixtus|Julius|Isabella|Matthew|Michael|Thomas|Samuel"
)
_CUES = (
    "World War|War|Chapter|Part|Volume|Vol\\.?|Book|Act|Scene|Section|Article|Phase|Type|Class|"
    "Level|Stage|Super Bowl|Rocky|Final Fantasy|Episode|Title|Appendix|Mark|Apollo|Table|Figure|"
    "Factor|Schedule|Grade|Round|Season|Canto|Corps|Legion|Psalm|Sonnet|Symphony|Opus|Saturn|"
    "Gemini|Group|Division|Unit|Step|Problem|Lesson|Verse|Tier|Pillar"
)
_ROMAN = r"(?=[MDCLXVI])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_CUED = re.compile(
    rf"\b((?:{_CUES}|{_CUES.upper()}|{_CUES.lower()}) )(?![CDLM]\b)({_ROMAN})(?![\w'-]|\.[A-Z])"
)
_TITLED_RULER = re.compile(
    rf"\b((?:King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser|Sultan|Prince|Duke)"
    rf"(?: [A-Z][a-z]{{1,20}}){{1,3}} )({_ROMAN})(?![\w-])"
)
_RULER = re.compile(rf"\b((?:{_RULERS}) )({_ROMAN})(?![\w-])")
_CENTURY = re.compile(rf"\b({_ROMAN})(?=(?:th)? [Cc]entur(?:y|ies)\b|th\b)(?:th)?")
_AFTER_NAME = re.compile(
    r"(?<=[a-z] )(II|III|VII|VIII|IX|X{1,3}I{1,3}|X{1,3}I?V|X{1,3}VI{1,3}|X{1,2}IX)"
    r"(?![\w'-])"
)
_AFTER_ONE = re.compile(
    r"$|[\"',.;:)?!–—]| (?:was|of|is|in|on|at|and|or|to|the|by|died|ruled|reigned|became|had|"
    r"begins|ends|began)\b"
)
_LETTER = re.compile(r"\b[MDCLXVI]+(?:th)?\b")
_INITIAL = re.compile(r"\. [A-Z]")
_LONG_ROMAN = re.compile(rf"\b(?=[MDCLXVI]{{5}})({_ROMAN})(?![\w-])")
_ALONE = re.compile(
    r"(?<![\w.'-])(II|III|VII|VIII|IX|XI{1,3}|XIV|XVI{0,3}|XIX|XXI{0,3}|XXIV)(?![\w'-])"
)


def expand_roman(text: str) -> str:
    """Expand Roman numerals: ranks after rulers and before 'century', counts elsewhere."""
    if not _LETTER.search(text):
        return text
    text = _CENTURY.sub(lambda match: ordinal(roman_value(match[1])), text)
    text = _CUED.sub(_cued, text)
    text = _TITLED_RULER.sub(_rank, text)
    text = _RULER.sub(_ruler, text)
    text = _AFTER_NAME.sub(lambda match: cardinal(roman_value(match[1])), text)
    text = _LONG_ROMAN.sub(lambda match: year(roman_value(match[1])), text)
    return _ALONE.sub(lambda match: cardinal(roman_value(match[1])), text)


def _rank(match: re.Match[str]) -> str:
    return f"{match[1]}the {ordinal(roman_value(match[2]))}"


def _cued(match: re.Match[str]) -> str:
    cue, numeral = match.groups()
    if (
        numeral == "I"
        and not cue.lower().endswith("war ")
        and not _AFTER_ONE.match(match.string, match.end())
    ):
        return match.group()  # "the book I bought"
    return f"{cue}{cardinal(roman_value(numeral))}"


def _ruler(match: re.Match[str]) -> str:
    """A lone 'I' after a name may be the pronoun, and other single letters an initial."""
    numeral = match[2]
    if len(numeral) > 1:
        return _rank(match)
    is_initial = numeral in "CDLM" or _INITIAL.match(match.string, match.end())
    is_pronoun = numeral == "I" and not _AFTER_ONE.match(match.string, match.end())
    return match.group() if is_initial or is_pronoun else _rank(match)


# --- Acronyms, camelCase, letters joined to digits, sentences in capitals ---

_SAID_AS_WORDS = frozenset(
    "NASA NATO UNESCO UNICEF OPEC FIFA UEFA AIDS LASER RADAR SCUBA SONAR COVID SARS MERS RAM "
    "ROM SIM PIN GIF LAN SAT ACT NAFTA ASEAN DARPA NOAA FEMA OSHA MIDI JPEG MPEG ASCII YAML "
    "JSON LATEX SWAT YOLO FOMO POTUS SCOTUS MENSA CERN ESA IKEA LEGO VISA NASDAQ HIPAA BASIC "
    "COBOL FORTRAN LISP PEP GAN GANS BERT LORA CRUD NAND FLAC WAV ISIS INTERPOL IMAX TED GUI "
    "NIMBY ZIP BIOS DOS CAD TASER RAID SQUID MASH DRAM SRAM REST SOAP CAPTCHA CUDA UNIX "
    "LINUX ERIC AWOL ICE SALT START SIDS MOMA PETA OK".split()
)
_SPELLED = frozenset(
    "FBI CIA NSA USA UK EU UN US USSR UAE HTML HTTP HTTPS URL SQL API CPU GPU TPU TV DVD CD "
    "PC AI IT HR CEO CFO CTO COO VIP ASAP FAQ DIY ATM GPS USB BBC CNN NBC ABC CBS ESPN MTV "
    "NBA NFL NHL MLB UFC IRS FDA CDC EPA DNA RNA HIV MRI PHD BMW IBM HP AMD LED LCD AC DC FM "
    "AM PM ID RIP BTW IMO LOL OMG FYI TBA TBD AKA ETA IQ EQ GDP IMF WHO WTO LGBT LLC LLM "
    "LLMS TTS ASR NLP IEEE ISBN ACLU NAACP UCLA MIT YMCA NCAA IPO SUV UFO IOU IOS PDF XML "
    "CSS PHP IP TCP UDP SSH FTP DJ MC MP MVP NGO POV PTSD ADHD OCD RPG RSVP SOS UV VPN WWF "
    "XL YTD EDT EST PST GMT UTC ISO CAPS AAA AARP OECD ACID APA ARPA ATV AWS BBQ CGI CPR CV DOJ "
    "DUI EMI EMT ER ESL EV FAA FCC GED GMO GOP ICU IDE ISP IUD IVF LAPD NYPD NYSE NYC LA DC "
    "JFK MLK FDR LBJ KFC KGB MBA MI6 NRA OPI PBS PS QA RSS SDK SEO SMS SSD TLC UI UX VAT VC "
    "WWI YA IPA ETF AGI RL GRPO DPO CTC EMA AUX EULA".split()
) - {"CAPS", "ACID", "ARPA", "AUX", "EULA"}
_COMMON = frozenset(
    "A I AN AS AT BE BY DO GO HE HI IF IN IS ME MY NO OF OH ON OR SO TO UP WE AH HA HO HEY "
    "AND THE FOR NOT BUT YOU ALL ANY CAN HAD HAS HER HIM HIS HOW ITS LET MAY NEW NOW OLD ONE "
    "OUR OUT OWN SAY SEE SHE TOO TWO USE WAS WAY WHY YES YET ARE BAD BIG BOY BUY CAR CAT CUT "
    "DAD DAY DID DIE DOG EAT END FAR FEW FUN GET GOD GOT GUN GUY HIT HOT JOB KEY KID LAW LAY "
    "LIE LOT LOW MAN MEN MOM MUM NOR OFF OIL PAY PUT RED RUN SAD SAT SET SIT SIX SON SUN TAX "
    "TEN TOP TRY WAR WIN WON WOW YEP NAH HUH DUH AHA HMM SHH UGH MAD WET DRY ILL AGO AIR ADD "
    "AGE ASK BED BOX EGG EYE FLY FIX GAS HAT ICE LEG LIP MAP MIX NET NUT PEN PET PIE POP RAT "
    "ROW SEA SEX SKY TEA TIE TIP TOE TOY VAN ZOO ONTO FREE STOP HELP NEVER ONLY MUST VERY".split()
)
_FIXED = {
    "ok": "okay", "phd": "p h d", "latex": "latex", "ios": "i o s", "ipados": "ipad o s",
    "macos": "mac o s", "wifi": "wi-fi", "mph": "m p h", "nlp": "n l p", "ebook": "e-book",
    "iot": "i o t", "yoy": "year over year", "sqlite": "s q lite", "mysql": "my s q l",
    "javascript": "javascript", "ieee": "i triple e", "pc": "p c", "tv": "t v", "mri": "m r i",
    "wwi": "world war one", "wwii": "world war two",
}  # fmt: skip
SOUNDS = frozenset(
    "hm hmm mm mmm brr grr shh sh psst pst tsk pfft zzz zz hmph mhm mhmm pff psh pssh tch bzz bzzt "
    "hrm aww eww".split()
)
"""Interjections that are no letters, though most have no vowel; lexica say how they sound."""
_INTERJECTIONS = SOUNDS | frozenset("nth th st nd rd ll ve re ng".split())
_HYPHENED = frozenset(
    "wi-fi hi-fi lo-fi sci-fi e-mail e-mails x-ray x-rays t-shirt t-shirts".split()
)
_ONSETS = frozenset(
    "b bl br c ch chr cl cr d dr dw f fl fr g gh gl gn gr h j k kh kl kn kr l m n p ph pl pr "
    "ps qu r rh s sc sch scr sh shr sk sl sm sn sp sph spl spr squ st str sw t th thr tr "
    "tw v w wh wr y z".split()
)
_CODAS = frozenset(
    " b c d f g k l m n p r s t v w x z bs ck cks ct cts ch cs dd ds ff ft gg ggs ght ghts gs gh "
    "ks ld lds lf lk ll lls lm lp ls lt lts mb mp mps ms nc nd nds ng ngs nk nks ns nst nt nth nts "
    "ph ps pt pts rb rc rd rds rf rg rk rks rl rm rms rn rns rp rs rst rt rth rts sc sh sk sks sm "
    "sp ss st sts tch th ths ts tt wl wn ws xt xts zz".split(" ")
)
_VOWELS = re.compile(r"[aeiouy]")

_TOKEN = re.compile(r"[A-Za-z0-9]++(?:['-][A-Za-z0-9]++)*")
_PLAIN_TOKEN = re.compile(r"[A-Za-z]?[a-z]+(?:-[a-z]+)*")
_CAMEL = re.compile(r"(?:Mc|Mac|De|La|Le|Van|Fitz)[A-Z][a-z]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_PLURAL = re.compile(r"([A-Z]{2,8})(?:'?s|'S)")
_POSSESSIVE = re.compile(r"(.{1,40}?)'(s|S|t|T|ll|LL|re|RE|ve|VE|m|M|d|D)")
_SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]*")
_WORD = re.compile(r"(?<![A-Za-z0-9.&])[A-Za-z]{2,}(?:'[A-Za-z]+)?(?![A-Za-z0-9&])")
_REPEATED = re.compile(r"([a-z])\1{2,}")


def lower_shouting(text: str) -> str:
    """Lower the sentences written all in capitals, except acronyms that are known as such."""
    return _SENTENCE.sub(_calm, text) if _WORD.search(text) else text


def _calm(match: re.Match[str]) -> str:
    words = _WORD.findall(match.group())
    if len(words) < 2 or any(not word.isupper() for word in words):
        return match.group()
    wordlike = [
        word
        for word in words
        if word in _COMMON or "'" in word or (len(word) > 3 and not is_spelled(word))
    ]
    if len(wordlike) * 2 < len(words):
        return match.group()
    return _WORD.sub(_calm_word, match.group())


def _calm_word(match: re.Match[str]) -> str:
    word = match.group()
    # Between shouted words these are pronouns and prepositions more often than acronyms.
    return word if word in _SPELLED - {"US", "IT", "AM", "WHO", "ID"} else word.lower()


def expand_acronyms(text: str) -> str:
    """Spell initialisms, split camelCase and letter-digit names, lower everything else."""
    return _TOKEN.sub(_token, text)


def _token(match: re.Match[str]) -> str:
    token = match.group()
    if token.isdigit() or not any(sign.isalpha() for sign in token):
        return token
    if token.lower().removesuffix("'s") in _HYPHENED:
        return token.lower()
    parts = token.split("-")
    words = last = _speak(parts[0], joined=len(parts) > 1)
    for before, part in zip(parts, parts[1:], strict=False):
        spoken = _speak(part, joined=True)
        # Only two words keep their hyphen: spelled letters and numbers stand apart.
        are_words = before.isalpha() and part.isalpha() and not (before + part).isupper()
        tight = are_words and " " not in last and " " not in spoken
        words += f"-{spoken}" if tight else f" {spoken}"
        last = spoken
    return words


def _speak(part: str, *, joined: bool = False) -> str:
    """One token without hyphens."""
    if part.lower() in _FIXED:
        return _FIXED[part.lower()]
    if part.isdigit():
        return code_number(part) if joined else part
    if _PLAIN_TOKEN.fullmatch(part):
        return _word(part)
    several = _PLURAL.fullmatch(part)
    if several and (several[1] not in _COMMON or part[-1] == "s"):
        return _capitals(several[1], "'s")
    possessive = _POSSESSIVE.fullmatch(part)
    if possessive:
        base, suffix = possessive.groups()
        is_contraction = suffix in ("T", "LL", "RE", "VE", "M", "D")
        return f"{base.lower() if is_contraction else _speak(base)}'{suffix.lower()}"
    if part[-1] == "s" and part[-2:-1].isdigit():
        return plural(_speak(part[:-1], joined=True))
    if "'" in part:
        return part.lower()
    if part.isupper() and part.isalpha():
        return _capitals(part)
    has_digits = any(sign.isdigit() for sign in part)
    return " ".join(_piece(piece, has_digits) for piece in _CAMEL.findall(part))


def _piece(piece: str, has_digits: bool) -> str:
    if piece.isdigit():
        return code_number(piece)
    if piece.isupper() and len(piece) > 1:
        # Next to digits capitals are a code (RTX4090), whatever they would sound like.
        is_code = has_digits and len(piece) < 4
        return (
            " ".join(piece.lower()) if is_code and piece not in _SAID_AS_WORDS else _capitals(piece)
        )
    return _word(piece)


def _capitals(letters: str, suffix: str = "") -> str:
    if len(letters) > 2 and letters not in _SPELLED:
        sound = _REPEATED.sub(r"\1\1", letters.lower())
        if sound in SOUNDS:
            return _word(letters)
    if is_spelled(letters):
        return " ".join(letters.lower()) + suffix
    word = _FIXED.get(letters.lower()) or _word(letters)
    return word + (suffix.lstrip("'") if suffix and letters in _SAID_AS_WORDS else suffix)


def _word(word: str) -> str:
    """A word in lower case; one without any vowel is spelled, drawn-out letters are shortened."""
    lower = word.lower()
    if lower in _INTERJECTIONS or len(lower) == 1:
        return lower
    has_vowel = _VOWELS.search(lower)
    if not has_vowel or lower.endswith("ww"):
        short = _REPEATED.sub(r"\1\1", lower)
        if short in _INTERJECTIONS:
            return "zzz" if short == "zz" else short
    if not has_vowel:
        return " ".join(lower) if len(lower) <= 6 else lower
    return _REPEATED.sub(_shorten, lower)


def _shorten(match: re.Match[str]) -> str:
    inside = match.end() < len(match.string)
    return match[1] * (2 if inside and match[1] in "eo" else 1)


def is_spelled(letters: str) -> bool:
    """Whether a run of capitals is said letter by letter."""
    if letters in _SPELLED:
        return True
    if letters in _SAID_AS_WORDS or letters in _COMMON:
        return False
    return len(letters) < 4 or not _is_pronounceable(letters.lower())


def _is_pronounceable(word: str) -> bool:
    vowel = re.search(r"[aeiou]|(?<=.)y", word)
    if not vowel:
        return False
    if len(word) > 6:
        return True
    onset = word[: vowel.start()]
    coda = word[len(word.rstrip("bcdfghjklmnpqrstvwxz")) :]
    return (
        (not onset or onset in _ONSETS)
        and coda in _CODAS
        and not re.search(r"[aeiou]{4}|aa|ii|uu|[^aeiouy]{4}", word)
    )
