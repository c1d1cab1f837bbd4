"""Words written short: titles, 'etc.', 'e.g.', 'U.S.', 'St.', 'No. 5', initials."""

from __future__ import annotations

import re

from tokenlm.text.dates import MONTHS, stop_after_date
from tokenlm.text.numerals import cardinal, code_number
from tokenlm.text.punctuation import STARTERS, sentence_stop
from tokenlm.text.roman import roman_value

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
_PLAIN = {
    "approx": "approximately",
    "vs": "versus",
    "viz": "namely",
    "cf": "compare",
    "est": "estimated",
    "max": "maximum",
    "min": "minimum",
    "avg": "average",
    "temp": "temperature",
    "tel": "telephone",
    "misc": "miscellaneous",
    "incl": "including",
    "excl": "excluding",
    "ext": "extension",
    "orig": "original",
    "resp": "respectively",
    "ca": "circa",
    "apt": "apartment",
    "bldg": "building",
    "eds": "editors",
    "prev": "previous",
    "std": "standard",
    "ref": "reference",
    "asst": "assistant",
    "assoc": "associate",
    "esp": "especially",
    "cnr": "corner",
    "jct": "junction",
    "attn": "attention",
    "pkg": "package",
    "appt": "appointment",
}
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
_DIRECTIONS = {
    "N": "north", "S": "south", "E": "east", "W": "west", "NW": "northwest", "NE": "northeast",
    "SW": "southwest", "SE": "southeast",
}  # fmt: skip
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
    """Say abbreviations; a full stop stays where it also ends the sentence."""
    for pattern, words in _PHRASES:
        text = pattern.sub(words, text)
    text = _COUNTED_WORD.sub(_counted_word, text)
    text = _HOUSE.sub(lambda match: code_number(match[1]), text)
    text = _DIRECTION.sub(lambda match: f"{_direction(match[1], match[2], match[3])} ", text)
    text = _DIRECTION_BEHIND.sub(
        lambda match: f" {match[1]}{match[2]} {_DIRECTIONS[match[3] or match[4]]}", text
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
    stop = sentence_stop(match, strict=True) if match.group().endswith(".") else ""
    return f" {match[1].lower().replace('.', '')}{stop}"


def _title(match: re.Match[str]) -> str:
    """'Dr. Brown', and 'I saw the Dr. He was kind.', where a sentence ends."""
    words = _lookup(_TITLES, match[1] or match[2] or match[3])
    before = match.string[max(match.start() - 8, 0) : match.start()]
    if match.group().endswith(".") and _OWNED.search(before):
        return words + sentence_stop(match, strict=True)
    return words


def _counted_word(match: re.Match[str]) -> str:
    """'Fig. 3' is a figure, 'He ate a fig. I ate two.' is not."""
    word, numeral = match.groups()
    before = match.string[max(match.start() - 12, 0) : match.start()]
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
    if match[1]:
        return _STATES[match[1]] + sentence_stop(match, strict=True)
    letters = match[2].replace(".", "").replace(" ", "")
    return _STATES[letters] + sentence_stop(match, strict=True)


def _direction(short: str, first: str, second: str) -> str:
    return _DIRECTIONS[short or first + second]


def _plain_street(match: re.Match[str]) -> str:
    stop = sentence_stop(match, strict=True) if match.group().endswith(".") else ""
    return _STREETS[match[1] or match[2]] + stop


def _month(match: re.Match[str]) -> str:
    """A month ends a sentence as other words do; 'Jan.' before a new sentence may be a name."""
    name = match[1]
    stop = stop_after_date(match)
    before = match.string[max(match.start() - 20, 0) : match.start()]
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
    if stop and sentence_stop(match, strict=True):
        return f"{words}."
    names_follow = street in ("Dr", "St", "Ct", "Pl", "Sq", "Av", "Ter")
    if stop and street == "St" and name not in _NO_ROAD:
        before = match.string[max(match.start() - 24, 0) : match.start()]
        if name[0].isdigit() or _STREET_FIRST.search(before):  # "on Elm St. Tom waits."
            return words + sentence_stop(match)
    is_street = _AFTER_STREET.match(match.string, match.end()) or (stop and not names_follow)
    return words if is_street else match.group()


def _final(match: re.Match[str]) -> str:
    word = match[1].lower()
    if match[1] == "co":  # the end of an address read out: "dot co."
        return match.group()
    names_follow = word in (
        "inc",
        "ltd",
        "co",
        "corp",
        "bros",
        "jr",
        "sr",
        "dept",
        "univ",
        "mgr",
        "utd",
    )
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
    before = match.string[max(match.start() - 16, 0) : match.start()]
    if single and (
        _NO_INITIAL.search(before) or (match[1][0] == "I" and _NO_INITIAL_I.search(before))
    ):
        return match.group()
    if single and word and word.group() in STARTERS:
        return match.group()
    return " ".join(match[1].lower().replace(".", " ").split()) + " "
