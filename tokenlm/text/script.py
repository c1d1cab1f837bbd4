"""Scripts: texts of several speakers or of many paragraphs, as lines that are spoken one by one.

A script is a dialogue (`Anna: Hello.`), a list of lines in YAML or JSON, or a document in Markdown
or EPUB, whose paragraphs are the lines and whose headings are the chapters.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html.entities import html5
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import yaml

from tokenlm.text.markup import (
    COMMENT,
    KNOWN_ELEMENTS,
    MAX_PAUSE_SECONDS,
    MarkupError,
    MarkupReader,
    Pause,
    Text,
    element_pattern,
)

LINE_PAUSE = 0.4
"""Seconds of silence after a line of a dialogue."""
PARAGRAPH_PAUSE, HEADING_PAUSE, CHAPTER_PAUSE = 0.6, 1.0, 1.5
"""Seconds after a paragraph and a heading of a document, and before a chapter."""
SUFFIXES = (".txt", ".yaml", ".yml", ".json", ".md", ".markdown", ".epub")


class ScriptError(ValueError):
    """A script that cannot be read; the message names the line."""


@dataclass(frozen=True, kw_only=True)
class ScriptLine:
    """A line of a script: what is said in one go, by one voice."""

    text: str
    voice: str = ""
    """Name of a voice; empty is that of the script."""
    style: str = ""
    """How to speak, in words, for a bundle that follows instructions."""
    seed: int | None = None
    """Default that of the script."""
    speed: float = 1.0
    """Factor of the speed of the script."""
    pause: float = LINE_PAUSE
    """Seconds of silence after the line."""
    chapter: str = ""
    """Title of the chapter that begins with this line."""
    markup: bool = True
    """Whether the text may hold markup."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ScriptError("the line has no text.")
        if not 0 <= self.pause <= MAX_PAUSE_SECONDS:
            raise ScriptError(
                f"pause must be from 0 to {MAX_PAUSE_SECONDS:g} seconds, got {self.pause}."
            )
        if self.seed is not None and self.seed < 0:
            raise ScriptError(f"seed must be a whole number from 0, got {self.seed}.")
        if not 0 < self.speed < math.inf:
            raise ScriptError(f"speed must be a positive number, got {self.speed}.")


@dataclass(frozen=True, kw_only=True)
class Script:
    """Lines, and what they are of."""

    lines: tuple[ScriptLine, ...]
    title: str = ""
    author: str = ""
    speakers: tuple[str, ...] = ()
    """Names in the lines, each once, before the voices of speakers took their place."""

    def __post_init__(self) -> None:
        if not self.lines:
            raise ScriptError("the script has no lines.")

    @property
    def chapters(self) -> list[str]:
        """Titles of the chapters."""
        return [line.chapter for line in self.lines if line.chapter]

    def chapter(self, first: int, last: int) -> Script:
        """Some chapters alone, by their numbers from 1 on.

        Raises:
            ScriptError: there are no such chapters.
        """
        starts = [place for place, line in enumerate(self.lines) if line.chapter]
        if not starts:
            raise ScriptError(
                "the script has no chapters; they begin with the headings of Markdown, with the "
                "entries of a book's table of contents, or with lines that have a chapter."
            )
        if not 1 <= first <= last <= len(starts):
            raise ScriptError(f"chapters are numbered from 1 to {len(starts)}.")
        ends = [*starts[1:], len(self.lines)]
        return replace(self, lines=self.lines[starts[first - 1] : ends[last - 1]])


def read_script_file(path: str | Path, voices: Mapping[str, str] | None = None) -> Script:
    """Reads a script by the suffix of its file.

    Args:
        path: a dialogue (.txt), lines (.yaml, .yml, .json), Markdown (.md), or a book (.epub).
        voices: the voice of each speaker.

    Raises:
        ScriptError: it is none of these, or cannot be read.
        ImportError: an EPUB needs lxml.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ScriptError(f"{path}: a script is a file that ends in {', '.join(SUFFIXES)}.")
    if suffix == ".epub":
        return read_epub(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ScriptError(f"{path} is not UTF-8 text.") from None
    try:
        if suffix in (".md", ".markdown"):
            script = read_markdown(text)
        elif suffix == ".txt":
            script = _with_voices(Script(lines=tuple(read_dialogue(text))), voices)
        else:
            script = read_yaml(text, voices)
    except ScriptError as error:
        raise ScriptError(f"{path}: {error}") from None
    return script if script.title else replace(script, title=path.stem)


# --- Dialogues and lists of lines ---

_SPEAKER = re.compile(r"\s*(?P<name>[^\W\d_][\w .'’-]{0,39}?)\s*:\s+(?P<text>\S.*)")


def read_dialogue(text: str, voices: Mapping[str, str] | None = None) -> list[ScriptLine]:
    """Reads `Anna: Hello.`; a line without a name goes on with the line above it.

    Args:
        text: of the dialogue. Lines that begin with # are comments.
        voices: the voice of each speaker; a speaker without one has the voice of that name.

    Raises:
        ScriptError: the text before the first name is not spoken by anybody.
    """
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _SPEAKER.fullmatch(line.rstrip())
        if match:
            found.append((number, match["name"], [match["text"]]))
        elif found:
            found[-1][2].append(line.strip())
        else:
            raise ScriptError(
                f"line {number}: a dialogue begins with a name, as in 'Anna: Hello.'; prose is "
                "spoken by `tokenlm say --text-file`."
            )
    lines = [ScriptLine(text=" ".join(parts), voice=name) for _, name, parts in found]
    return _assign_voices(lines, voices)


def _assign_voices(
    lines: Sequence[ScriptLine], voices: Mapping[str, str] | None
) -> list[ScriptLine]:
    """Puts the voices of speakers in place of their names, in capital or small letters."""
    known = {speaker.casefold(): voice for speaker, voice in (voices or {}).items()}
    return [replace(line, voice=known.get(line.voice.casefold(), line.voice)) for line in lines]


def _with_voices(script: Script, voices: Mapping[str, str] | None) -> Script:
    """A script whose lines have the names of speakers, with their voices."""
    speakers = tuple(dict.fromkeys(line.voice for line in script.lines if line.voice))
    return replace(script, lines=tuple(_assign_voices(script.lines, voices)), speakers=speakers)


_FIELDS: Mapping[str, tuple[type, ...]] = {
    "text": (str,), "voice": (str,), "style": (str,), "seed": (int,), "speed": (int, float),
    "pause": (int, float), "chapter": (str,), "markup": (bool,),
}  # fmt: skip
_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_QUOTE_COMMAS = "within { }, a text with a comma is put in quotation marks"
_QUOTE_TEXTS = (
    "what YAML reads as something else than text (yes, no, 5, 12:30, {a}, [a]) is put in "
    'quotation marks: "yes"'
)


def read_lines(entries: Sequence[Any], voices: Mapping[str, str] | None = None) -> list[ScriptLine]:
    """Lines out of mappings with the fields of `ScriptLine`, or of the form `{Anna: Hello.}`.

    Args:
        entries: of the lines.
        voices: the voice of each speaker.

    Raises:
        ScriptError: an entry is not understood; it is named by its number.
    """
    lines = []
    for number, entry in enumerate(entries, start=1):
        try:
            lines.append(_read_line(entry))
        except ScriptError as error:
            raise ScriptError(f"line {number}: {error}") from None
    return _assign_voices(lines, voices)


def _read_line(entry: Any) -> ScriptLine:
    if not isinstance(entry, Mapping):
        raise ScriptError(f"a line has fields such as voice and text, not {str(entry)[:40]!r}.")
    if len(entry) == 1 and not entry.keys() & _FIELDS.keys():
        ((name, text),) = entry.items()
        entry = {"voice": name, "text": text}
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name not in _FIELDS:
            hint = f"; {_QUOTE_COMMAS}" if None in entry.values() else ""
            raise ScriptError(
                f"{name!r} is no field of a line; there are {', '.join(_FIELDS)}{hint}."
            )
        if value is None:
            continue
        is_number = not isinstance(value, bool) or bool in _FIELDS[name]
        if not isinstance(value, _FIELDS[name]) or not is_number:
            expected = _TYPE_NAMES[_FIELDS[name][-1]]
            hint = f"; {_QUOTE_TEXTS}" if expected == "text" else ""
            raise ScriptError(f"{name} must be {expected}, got {value!r}{hint}.")
        values[name] = value
    if "text" not in values:
        raise ScriptError("the line has no text.")
    return ScriptLine(**values)


def read_yaml(text: str, voices: Mapping[str, str] | None = None) -> Script:
    """Reads lines in YAML or JSON: a list, or a mapping with `lines`, `voices` and `title`.

    Args:
        text: of the script.
        voices: the voice of each speaker, in place of those of the script.

    Raises:
        ScriptError: it is not understood.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScriptError(_explain_yaml(error, text)) from None
    title = author = ""
    if isinstance(content, Mapping):
        unknown = content.keys() - {"lines", "voices", "title", "author"}
        if unknown:
            names = ", ".join(map(repr, sorted(map(str, unknown))))
            raise ScriptError(f"a script has lines, voices, title and author, not {names}.")
        own = content.get("voices") or {}
        if not (isinstance(own, Mapping) and all(isinstance(v, str) for v in own.values())):
            raise ScriptError("voices are the names of speakers and of their voices.")
        voices = {**{str(name): voice for name, voice in own.items()}, **(voices or {})}
        title, author = str(content.get("title") or ""), str(content.get("author") or "")
        content = content.get("lines")
    if not isinstance(content, list):
        raise ScriptError("a script is a list of lines.")
    script = Script(lines=tuple(read_lines(content)), title=title, author=author)
    return _with_voices(script, voices)


_UNQUOTED = re.compile(r"\s*(?:-\s+)?(?P<field>[^\s:{}\[\]\"'#][^:{}\[\]\"'#]*):\s+(?P<text>\S.*)")


def _explain_yaml(error: yaml.YAMLError, text: str) -> str:
    """A sentence about what is no YAML, and what to put in quotation marks there."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"this is no YAML: {problem}."
    # A text that is not closed is noticed at the end, or in the line below it.
    context = getattr(error, "context_mark", None) or mark
    place = f"line {mark.line + 1} of the file, column {mark.column + 1}"
    lines = text.splitlines()
    for number in (mark.line, context.line):
        found = _UNQUOTED.fullmatch(lines[number].rstrip()) if number < len(lines) else None
        if found and not _is_yaml_value(found["text"]):
            quoted = json.dumps(found["text"], ensure_ascii=False)
            hint = f"if this is text, put it in quotation marks: {found['field']}: {quoted}"
            break
    else:
        hint = (
            'a text with ": " or " #" in it, or that begins with one of [ ] { } * & ! | > % @ `, '
            "is put in quotation marks"
        )
    return f"{place}: this is no YAML: {problem}; {hint}."


def _is_yaml_value(text: str) -> bool:
    try:
        return not isinstance(yaml.safe_load(text), Mapping)
    except yaml.YAMLError:
        return False


# --- Documents: blocks of text, which are headings or not ---

_SPACES = re.compile(r"\s+")
_PARAGRAPH_TAG = re.compile(element_pattern("p"))
_TAG_START = re.compile(r"<(?=[A-Za-z/!?])")
_TAG_NAME = re.compile(r"</?([A-Za-z][\w:-]*)")


@dataclass(frozen=True)
class _Block:
    text: str
    level: int = 0
    """Of a heading; 0 is none."""
    chapter: str = ""
    """Title of the chapter that begins here."""


def _lines_of(blocks: Sequence[_Block], *, markup: bool) -> list[ScriptLine]:
    lines: list[ScriptLine] = []
    for block in blocks:
        if markup and lines and _holds_only_pauses(block.text):
            lines[-1] = replace(lines[-1], text=f"{lines[-1].text} {block.text}")
            continue
        if not any(map(str.isalnum, _PARAGRAPH_TAG.sub("", block.text))):
            continue
        if block.chapter and lines:
            lines[-1] = replace(lines[-1], pause=CHAPTER_PAUSE)
        lines.append(
            ScriptLine(
                text=block.text,
                pause=HEADING_PAUSE if block.level else PARAGRAPH_PAUSE,
                chapter=block.chapter,
                markup=markup,
            )
        )
    return lines


def _holds_only_pauses(text: str) -> bool:
    reader = MarkupReader()
    try:
        spans = [*reader.feed(text), *reader.finish()]
    except MarkupError:
        return False
    kinds = [type(span) for span in spans if not (isinstance(span, Text) and span.text.isspace())]
    return Pause in kinds and {*kinds} == {Pause}


def read_markdown(text: str) -> Script:
    """Reads Markdown: paragraphs, items and rows of tables; code is left out.

    Chapters begin with the headings of the highest level that stands more than once, or of the
    highest there is; a heading alone at the top is the title. Pauses and elements of SSML in it are
    kept, other HTML is dropped.

    Raises:
        ScriptError: it holds no text.
    """
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    blocks: list[_Block] = []
    level, prefix, row = 0, "", None
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "heading_close":
            level = 0
        elif token.type == "list_item_open":
            prefix = f"{token.info}. " if token.info else ""
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close" and row is not None:
            blocks.append(_Block(", ".join(filter(None, row))))
            row = None
        elif token.type == "html_block":
            said = _SPACES.sub(" ", _kept_html(token.content)).strip()
            blocks.append(_Block(said))
        elif token.type == "inline":
            said = _SPACES.sub(" ", _inline_text(token.children or [])).strip()
            if row is not None:
                row.append(said)
            else:
                blocks.append(_Block(prefix + said, level))
                prefix = ""
    blocks = [block for block in blocks if block.text]
    blocks, title = _with_chapters(blocks)
    return Script(lines=tuple(_lines_of(blocks, markup=True)), title=title)


def _inline_text(children: Sequence[Any]) -> str:
    parts = []
    for child in children:
        if child.type in ("text", "code_inline"):
            parts.append(_TAG_START.sub("< ", child.content))
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.type == "html_inline":
            parts.append(_kept_html(child.content))
        elif child.type == "image":
            parts.append(child.content)
    return "".join(parts)


def _kept_html(text: str) -> str:
    """Tags of SSML and the text; other tags and comments are dropped."""
    text = COMMENT.sub(" ", text)

    def keep(match: re.Match[str]) -> str:
        name = _TAG_NAME.match(match[0])
        return match[0] if name and name[1].lower() in KNOWN_ELEMENTS else " "

    return re.sub(r"</?[A-Za-z][^<>]*>", keep, text)


def _with_chapters(blocks: list[_Block]) -> tuple[list[_Block], str]:
    """Blocks with chapters at the headings of one level, and the title."""
    levels = sorted(block.level for block in blocks if block.level)
    if not levels:
        return blocks, ""
    highest = levels[0]
    title = ""
    chapter_level = highest
    if levels.count(highest) == 1 and blocks[0].level == highest:
        title = blocks[0].text
        chapter_level = levels[1] if len(levels) > 1 else highest
    found = []
    for place, block in enumerate(blocks):
        begins = block.level and block.level <= chapter_level
        # What stands before the first chapter is a chapter, too, with the name of the whole.
        found.append(replace(block, chapter=block.text) if begins else block)
        if place == 0 and not begins:
            found[0] = replace(block, chapter=title or "Beginning")
    return found, title


# --- EPUB: a zip archive of XHTML documents in the order of a spine ---

_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]*);")
_MAX_MEMBER_BYTES = 32 << 20
"""Largest document of a book; what claims more is no text."""
_BLOCK_TAGS = frozenset(
    "address article aside blockquote body caption center dd div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr legend li main ol p pre section table tbody td tfoot "
    "th thead tr ul".split()
)
_SILENT_TAGS = frozenset(
    "head script style nav svg math img audio video object template rt rp".split()
)
_NOTE_TYPES = frozenset("noteref pagebreak footnote endnote footnotes endnotes rearnote".split())


def read_epub(path: str | Path) -> Script:
    """Reads a book: the documents of its spine, with the chapters of its table of contents.

    References to notes, the notes, and page numbers are left out where the book marks them.

    Raises:
        ScriptError: it is no EPUB without protection, or holds no text.
        ImportError: lxml is not installed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Book(archive, Path(path)).read()
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, ScriptError):
            raise
        reason = error.args[0] if error.args else type(error).__name__
        raise ScriptError(f"{path} is no EPUB that can be read: {reason}") from error


class _Book:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path

    def read(self) -> Script:
        container = self._parse("META-INF/container.xml")
        names = container.xpath("//*[local-name()='rootfile']/@full-path")
        if not names:
            raise ScriptError(f"{self._path} is no EPUB that can be read: it names no content.")
        if "META-INF/encryption.xml" in self._archive.namelist():
            encrypted = self._parse("META-INF/encryption.xml")
            targets = encrypted.xpath("//*[local-name()='CipherReference']/@URI")
            if any(str(t).lower().endswith(("html", "htm", "xml")) for t in targets):
                raise ScriptError(f"{self._path} is protected (DRM): it cannot be read.")
        package, folder = self._parse(str(names[0])), PurePosixPath(str(names[0])).parent
        items = {
            item.get("id"): item for item in package.xpath("//*[local-name()='manifest']/*[@href]")
        }
        hrefs = {key: _resolve(folder, item.get("href")) for key, item in items.items()}
        titles = self._titles(package, items, hrefs)
        blocks: list[_Block] = []
        for reference in package.xpath("//*[local-name()='spine']/*[@idref]"):
            item = items.get(reference.get("idref"))
            if item is None or reference.get("linear") == "no":
                continue
            is_contents = "nav" in (item.get("properties") or "").split()
            if "html" not in (item.get("media-type") or "") or is_contents:
                continue
            own = self._blocks(hrefs[item.get("id")])
            title = titles.get(hrefs[item.get("id")])
            if title is None and not titles:
                title = next((block.text for block in own if block.level), None)
            if own and (title or not blocks):
                own[0] = replace(own[0], chapter=title or own[0].text[:80])
            blocks += own
        facts = {
            name: " ".join(package.xpath(f"string((//*[local-name()='{name}'])[1])").split())
            for name in ("title", "creator")
        }
        return Script(
            lines=tuple(_lines_of(blocks, markup=False)),
            title=facts["title"] or self._path.stem,
            author=facts["creator"],
        )

    def _titles(
        self, package: Any, items: Mapping[str, Any], hrefs: Mapping[str, str]
    ) -> dict[str, str]:
        """Title of each document that the table of contents names, by its name in the archive."""
        contents = [
            key for key, item in items.items() if "nav" in (item.get("properties") or "").split()
        ]
        found: dict[str, str] = {}
        if contents and hrefs[contents[0]] in self._archive.namelist():
            name = hrefs[contents[0]]
            links = self._parse(name).xpath(
                "//*[local-name()='nav'][contains(@*[local-name()='type'], 'toc')]"
                "//*[local-name()='a'][@href]"
            )
            for link in links:
                target = _resolve(PurePosixPath(name).parent, link.get("href"))
                found.setdefault(target, " ".join("".join(link.itertext()).split()))
            return found
        ncx = [key for key, item in items.items() if "ncx" in (item.get("media-type") or "")]
        if ncx and hrefs[ncx[0]] in self._archive.namelist():
            name = hrefs[ncx[0]]
            for point in self._parse(name).xpath("//*[local-name()='navPoint']"):
                source = point.xpath("string(*[local-name()='content']/@src)")
                label = point.xpath("string(*[local-name()='navLabel'])")
                found.setdefault(
                    _resolve(PurePosixPath(name).parent, source), " ".join(label.split())
                )
        return found

    def _parse(self, name: str) -> Any:
        from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # has no stubs

        if self._archive.getinfo(name).file_size > _MAX_MEMBER_BYTES:
            raise ScriptError(f"{self._path}: {name} is too large.")
        # Nothing outside the file is read, and entities are not expanded.
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, recover=True, huge_tree=False
        )
        root = etree.fromstring(_ENTITY.sub(_by_number, self._archive.read(name)), parser)
        if root is None:
            raise ScriptError(f"{self._path}: {name} is no XML.")
        return root

    def _blocks(self, name: str) -> list[_Block]:
        blocks: list[_Block] = []
        text: list[str] = []

        def end(level: int = 0) -> None:
            said = _SPACES.sub(" ", "".join(text)).strip()
            text.clear()
            if any(map(str.isalnum, said)):
                blocks.append(_Block(said, level))

        for kind, value in _walk(self._parse(name)):
            if kind == "text":
                text.append(value)
            else:
                end(int(value[1]) if kind == "end" and re.fullmatch("h[1-6]", value) else 0)
        end()
        return blocks


def _by_number(match: re.Match[bytes]) -> bytes:
    """An entity of HTML, which XML does not know, by its number; another one as it is written."""
    name = match[1].decode()
    if name in ("amp", "lt", "gt", "quot", "apos"):
        return match[0]
    known = html5.get(f"{name};")
    return b"".join(b"&#%d;" % ord(c) for c in known) if known else b"&amp;%s;" % match[1]


def _walk(element: Any) -> Iterator[tuple[str, str]]:
    """Texts of an element, and where blocks begin and end."""
    stack: list[tuple[str, Any]] = [("open", element)]
    while stack:
        kind, node = stack.pop()
        if kind != "open":
            yield kind, node
            continue
        if not isinstance(node.tag, str):  # a comment or an instruction
            continue
        tag = node.tag.rpartition("}")[2].lower()
        types = {part for key, value in node.items() if key.rpartition("}")[2] in ("type", "role")
                 for part in value.removeprefix("doc-").split()}  # fmt: skip
        if tag in _SILENT_TAGS or types & _NOTE_TYPES:
            continue
        is_block = tag in _BLOCK_TAGS
        children: list[tuple[str, Any]] = [("text", node.text or "")]
        for child in node:
            children += [("open", child), ("text", child.tail or "")]
        if is_block:
            children = [("start", tag), *children, ("end", tag)]
        elif tag == "br":
            children.append(("text", " "))
        stack += reversed(children)


def _resolve(folder: PurePosixPath, href: str) -> str:
    """Name in the archive of what a document refers to."""
    parts: list[str] = []
    for part in (folder / unquote(href.partition("#")[0])).parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
