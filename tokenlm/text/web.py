"""Addresses and identifiers of computers: URLs, e-mail, handles, hashtags, files, paths, names."""

from __future__ import annotations

import re

from tokenlm.text.numerals import code_number

_DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|io|ai|app|dev|co|uk|us|de|fr|it|es|nl|eu|ca|au|ch|jp|"
    "cn|ru|in|br|me|tv|ly|gg|fm|xyz|tech|online|site|blog|news|museum|name|cloud|live|pub"
)
_EXTENSIONS = (
    "txt|pdf|docx?|xlsx?|pptx?|csv|tsv|json|jsonl|ya?ml|toml|xml|html?|css|js|ts|jsx|tsx|py|ipynb|"
    "c|h|cpp|hpp|cc|rs|go|java|kt|rb|php|sh|bat|exe|dll|so|zip|tar|gz|bz2|xz|7z|rar|jpe?g|png|"
    "gif|bmp|svg|tiff?|webp|mp[34]|wav|ogg|flac|avi|mov|mkv|md|rst|tex|log|ini|cfg|conf|db|sql|"
    "iso|img|bin|dat|pt|onnx|safetensors|lock|apk|dmg|deb|rpm"
)
_SAID_AS_WORDS = frozenset(
    "com org net gov info biz co app dev me tech online site blog news museum name cloud live pub "
    "xyz doc zip json yaml toml tar rar gif bin log java go mov wav rust bat so img conf dat lock "
    "deb".split()
)

_URL = re.compile(
    r"(?:(?:https?|ftp|file|ssh|git|wss?)://|www\.)[^\s<>\"|]{1,2000}|"
    rf"(?<![\w.@/-])(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,62}})\.){{1,5}}(?:{_DOMAINS})"
    r"(?![A-Za-z0-9-]|\.[A-Za-z])(?::[0-9]{1,5}(?![0-9]))?(?:/[^\s<>\"|]{0,2000})?",
)
_EMAIL = re.compile(
    r"(?<![\w.+-])(?:mailto:)?[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,5}"
    r"[A-Za-z]{2,12}\b",
    re.ASCII,
)
# <https://…> and <jane@example.com>: the brackets only show where the address ends.
_BRACKETED = re.compile(
    r"<(?=(?:(?:https?|ftp|mailto|tel|file|ssh|git|wss?):|www\.|[\w.+%-]{1,64}@|"
    r"[\w-]{1,63}\.[\w.-]{1,60}[/>]))(?:mailto:|tel:)?([^\s<>]{1,2000})>",
    re.ASCII,
)
_SHORT_EMAIL = re.compile(r"[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,5}[A-Za-z]", re.ASCII)
_HANDLE = re.compile(r"(?<![\w@/.])@(?=[A-Za-z_][\w.]{0,60})([\w.]{0,60}\w)", re.ASCII)
_NUMBER_OF = re.compile(r"(?<![\w&#/])#(?=[A-Z]{1,4}-[0-9])")
_HASHTAG = re.compile(r"(?<![\w&#/])#(?=[0-9_]{0,20}[A-Za-z])(\w{1,100})", re.ASCII)
_WINDOWS_PATH = re.compile(r"(?<![\w])([A-Za-z]):\\([^\s\"<>|*?]{0,1000})", re.ASCII)
_UNIX_PATH = re.compile(
    r"(?<![\w/<.*%)\]])(?:~|\.{1,2})?/(?=[\w.])[\w./+@%-]{1,1000}(?<![.,/])/?", re.ASCII
)
_FILE = re.compile(
    rf"(?<![\w./-])(?!(?:[A-Za-z]\.){{2,6}}(?![A-Za-z]{{2}}))(?:[\w-]{{1,100}}/){{0,12}}[\w-]{{1,100}}(?:\.[\w-]{{1,100}}){{0,4}}\."
    rf"(?:{_EXTENSIONS})(?![\w/-]|\.[A-Za-z0-9])",
    re.ASCII,
)
_SNAKE = re.compile(r"(?<=[A-Za-z0-9])_{1,9}(?=[A-Za-z0-9])")
_CALL = re.compile(r"(?<=\w)\(\)", re.ASCII)
_DOT_NET = re.compile(r"(?<!\S)\.(?=(?:NET|env|gitignore|bashrc|profile)\b)")
_ATTRIBUTE = re.compile(r"(?<=[a-z_0-9][a-z_0-9])\.(?=[a-z_]{3})")
_TRAILING = re.compile(r"[.,;:!?'\")\]}]{1,20}$")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^A-Za-z0-9]")
_SIGNS = {
    ".": "dot", "/": "slash", "\\": "backslash", ":": "colon", "?": "question mark",
    "_": "underscore", "=": "equals", "&": "and", "#": "hash", "%": "percent", "~": "tilde",
    "+": "plus", "-": "dash", "@": "at", "*": "star",
}  # fmt: skip


def expand_web(text: str) -> str:
    """Say addresses, handles, hashtags, file names and paths; part snake_case words."""
    if "<" in text:
        text = _BRACKETED.sub(_bracketed, text)
    if "@" in text:
        text = _EMAIL.sub(lambda match: _spell(match.group().removeprefix("mailto:")), text)
        text = _HANDLE.sub(lambda match: f" at {_name(match.group(1))}", text)
    text = _URL.sub(_url, text)
    if "#" in text:
        text = _NUMBER_OF.sub("number ", text)
        text = _HASHTAG.sub(lambda match: f" hashtag {_name(match.group(1))} ", text)
    if "\\" in text:
        text = _WINDOWS_PATH.sub(_windows_path, text)
    text = _FILE.sub(lambda match: _spell(match.group(), dash=" ", underscore=" "), text)
    if "/" in text:
        text = _UNIX_PATH.sub(lambda match: _spell(match.group().rstrip("/"), dash=" "), text)
    text = _ATTRIBUTE.sub(" dot ", text)
    text = _DOT_NET.sub("dot ", text)
    return _SNAKE.sub(" ", _CALL.sub("", text))


def _url(match: re.Match[str]) -> str:
    address = match.group()
    ending = _TRAILING.search(address)
    tail = ending.group() if ending else ""
    address = address[: len(address) - len(tail)]
    if tail.startswith(")") and "(" in address:
        address, tail = address + ")", tail[1:]
    scheme, found, rest = address.partition("://")
    return _spell((rest if found else scheme).rstrip("/")) + tail


def _bracketed(match: re.Match[str]) -> str:
    address = match[1]
    return _spell(address) if _SHORT_EMAIL.fullmatch(address) else address


def _windows_path(match: re.Match[str]) -> str:
    drive, path = match.groups()
    ending = _TRAILING.search(path)
    tail = ending.group() if ending else ""
    path = path[: len(path) - len(tail)]
    return f"{drive.lower()} colon {_spell(chr(92) + path)}{tail}"


def _spell(address: str, *, dash: str = "dash", underscore: str = "underscore") -> str:
    """An address as words, its signs named."""
    words: list[str] = []
    pieces = _PIECE.findall(address)
    for index, piece in enumerate(pieces):
        if piece == "-":
            words.append(dash)
        elif piece == "_":
            words.append(underscore)
        elif not piece.isalnum():
            words.append(_SIGNS.get(piece, " "))
        elif piece.isdigit():
            words.append(code_number(piece))
        else:
            after_dot = index > 0 and pieces[index - 1] == "."
            ends = index + 1 == len(pieces) or pieces[index + 1] in "/:?#"
            words.append(_part(piece, after_dot and ends))
    return " ".join(words)


def _part(piece: str, is_suffix: bool) -> str:
    lower = piece.lower()
    if lower == "www" or (is_suffix and len(lower) <= 4 and lower not in _SAID_AS_WORDS):
        return " ".join(lower)
    # An unbroken run of capitals keeps them: whether it is spelled is the acronym rules' to say.
    return piece if len(piece) > 1 and piece.isupper() else lower


def _name(name: str) -> str:
    """A handle or tag, parted at capitals, digits and underscores."""
    words = [
        code_number(piece) if piece.isdigit() else piece if piece.isupper() else piece.lower()
        for piece in _PIECE.findall(name.replace("_", " ").replace(".", " dot "))
        if piece.isalnum()
    ]
    return " ".join(words)
