"""Numbers that name rather than count: addresses of machines, telephones, versions, serials."""

from __future__ import annotations

import re

from tokenlm.text.numerals import MAX_CARDINAL_DIGITS, code_number, digits, ordinal, spoken_number

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
_PAIRED_CUES = (
    "room",
    "flight",
    "area code",
    "highway",
    "route",
    "interstate",
    "suite",
    "apartment",
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
_COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west"}
_NUMBERED_ROAD = re.compile(
    r"\b(U\.S\.|SR|CR|FM|US(?=-))[ -]([1-9][0-9]{0,3})(?![\w%]|[.,:-][0-9]| [a-z]{2,16}s\b)"
    r"(?: ([NSEW])\b(?!\.[A-Z])(?:\.(?= [a-z]|,))?)?"
)
_LONG = re.compile(rf"[0-9]{{{MAX_CARDINAL_DIGITS + 1},}}")
_DIGIT = re.compile(r"[0-9]")


def expand_verses(text: str) -> str:
    """Say 'Gen. 1:1' and its like; run before times of day."""
    if not _DIGIT.search(text):
        return text
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
    """Say IP addresses, telephone and card numbers, versions, and very long digit strings."""
    if not _DIGIT.search(text):
        return text
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
            + (f" {_COMPASS[match[3]]}" if match[3] else "")
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
    return f"{words} {_COMPASS[side]}" if side else words


def _interstate(match: re.Match[str]) -> str:
    number, side = match.groups()
    return f"I {code_number(number)}{' ' + _COMPASS[side] if side else ''}"


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
    before = match.string[max(match.start() - 12, 0) : match.start()]
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
