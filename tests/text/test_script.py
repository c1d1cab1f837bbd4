"""Scripts: dialogues, lists of lines, Markdown, and books."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest

from tokenlm.text.script import (
    _FIELDS,
    CHAPTER_PAUSE,
    HEADING_PAUSE,
    PARAGRAPH_PAUSE,
    Script,
    ScriptError,
    ScriptLine,
    read_dialogue,
    read_epub,
    read_lines,
    read_markdown,
    read_script_file,
    read_yaml,
)


def texts(script: Script) -> list[str]:
    return [line.text for line in script.lines]


def chapters(script: Script) -> list[tuple[str, str]]:
    return [(line.chapter, line.text) for line in script.lines if line.chapter]


def test_dialogues() -> None:
    text = (
        "\n# a comment\nAnna: Hello, Bob: how are you?\n\nbob:  Well.\n  Thanks.\n"
        "Mrs. O'Neil: At 9:30.\n"
    )
    lines = read_dialogue(text, {"anna": "slt", "Bob": "kal"})
    assert [(line.voice, line.text) for line in lines] == [
        ("slt", "Hello, Bob: how are you?"),
        ("kal", "Well. Thanks."),
        ("Mrs. O'Neil", "At 9:30."),
    ]
    with pytest.raises(ScriptError, match="line 2: a dialogue begins with a name"):
        read_dialogue("\nhello there\nAnna: Hi.")


def test_lists_of_lines() -> None:
    script = read_yaml(
        "title: Play\nvoices: {Anna: slt}\nlines:\n- Anna: Hello.\n- {voice: kal, text: 'Yes.', "
        "style: calm, seed: 7, speed: 0.9, pause: 1, chapter: Two, markup: false}\n- text: No.\n"
    )
    assert script.title == "Play" and script.chapters == ["Two"]
    assert script.lines[0] == ScriptLine(text="Hello.", voice="slt")
    assert script.lines[1] == ScriptLine(
        text="Yes.", voice="kal", style="calm", seed=7, speed=0.9, pause=1, chapter="Two",
        markup=False,
    )  # fmt: skip
    assert script.lines[2] == ScriptLine(text="No.")
    assert read_yaml('[{"voice": "a", "text": "b"}]').lines == (ScriptLine(text="b", voice="a"),)
    assert set(_FIELDS) == {field.name for field in dataclasses.fields(ScriptLine)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {text: a}\n- {text: b, tone: c}", "line 2: 'tone' is no field of a line"),
        ("- {text: a}\n- {voice: b}", "line 2: the line has no text"),
        ("- {text: ' '}", "line 1: the line has no text"),
        ("- {text: 5}", "line 1: text must be text, got 5; what YAML"),
        ("- {text: a, seed: 1.5}", "line 1: seed must be a whole number, got 1.5."),
        ("- {text: a, seed: true}", "line 1: seed must be a whole number, got True."),
        ("- {text: a, pause: 99}", "line 1: pause must be from 0 to 60 seconds"),
        ("- hello", "line 1: a line has fields such as voice and text, not 'hello'"),
        (
            "lines: [{text: a}]\nspeed: 2",
            "lines, voices, title and author, not 'speed'",
        ),
        ("voices: [a]\nlines: [{text: a}]", "voices are the names of speakers"),
        ("hello", "a script is a list of lines"),
        ("[]", "the script has no lines"),
        ("- {text: a\n- b", "line 2 of the file, column 4: this is no YAML"),
        ("- text: a\n- text: b\n  seed: -5", "line 2: seed must be a whole number from 0, got -5"),
        ("- {text: a, speed: 0}", "line 1: speed must be a positive number, got 0"),
        ("- {text: a, speed: .nan}", "line 1: speed must be a positive number, got nan"),
        ("- {text: a, pause: .nan}", "line 1: pause must be from 0 to 60 seconds, got nan"),
        ("- {text: a, pause: long}", "line 1: pause must be a number, got 'long'."),
        ("- {Anna: Hello, Bob}", "within { }, a text with a comma is put in quotation marks"),
        ("- Anna: yes", "text must be text, got True; what YAML reads as something else than text"),
        ("- Anna: 12:30", "text must be text, got 750"),
        ("- Anna: ok\n Bob: no", "found '<block mapping start>'; a text with"),
        ("\0", "this is no YAML: special characters are not allowed."),
    ],
)
def test_mistakes_in_lists(text: str, message: str) -> None:
    with pytest.raises(ScriptError) as error:
        read_yaml(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["Well: yes.", "[pause 1s] Hello", "'tis so", "*no*", "& so", "!Stop it", "@home", "`x`",
     "{a} b", '"A" she said', "> b", "|x", "% b"],
)  # fmt: skip
def test_texts_that_yaml_does_not_take_unquoted(text: str) -> None:
    for name, source in (("Anna", f"- Bob: Hi.\n- Anna: {text}"), ("text", f"- text: {text}")):
        number = source.count("\n") + 1
        with pytest.raises(ScriptError, match=f"line {number} of the file, column ") as error:
            read_yaml(source)
        quoted = json.dumps(text)
        assert f"put it in quotation marks: {name}: {quoted}." in str(error.value)
        lines = read_yaml(f"- {name}: {quoted}").lines
        assert [line.text for line in lines] == [text]


def test_speakers_are_known_by_name(tmp_path: Path) -> None:
    path = tmp_path / "play.txt"
    path.write_text("Anna: Hi.\nBob: Hi.\nAnna: Well.\n", encoding="utf-8")
    script = read_script_file(path, {"anna": "slt", "Ana": "kal"})
    assert script.speakers == ("Anna", "Bob")
    assert [line.voice for line in script.lines] == ["slt", "Bob", "slt"]
    script = read_yaml("voices: {Anna: slt}\nlines:\n- Anna: Hi.\n- text: Well.", {"Bob": "kal"})
    assert script.speakers == ("Anna",) and script.lines[0].voice == "slt"
    assert read_markdown(MARKDOWN).speakers == ()


def test_what_has_no_chapters_has_no_part() -> None:
    script = read_yaml("[{text: a}]")
    with pytest.raises(ScriptError, match="the script has no chapters; they begin with"):
        script.chapter(1, 1)


def test_lines_of_an_api_are_lines() -> None:
    assert read_lines([{"text": "a", "voice": None}]) == [ScriptLine(text="a")]


MARKDOWN = """# The Book

By *nobody*, of [a place](https://example.com).

## One

First paragraph of
chapter one; a < b.

[pause 2s]

1. an item
2. another

| a | b |
|---|---|
| 1 | 2 |

```python
code()
```

### A part

## Two

<div align="center">In <b>the</b> middle</div>

Wait <break time="1s"/> here &lt;foo&gt; `x`.
"""


def test_markdown() -> None:
    script = read_markdown(MARKDOWN)
    assert script.title == "The Book"
    assert chapters(script) == [("The Book", "The Book"), ("One", "One"), ("Two", "Two")]
    assert texts(script) == [
        "The Book",
        "By nobody, of a place.",
        "One",
        "First paragraph of chapter one; a < b. [pause 2s]",
        "1. an item",
        "2. another",
        "a, b",
        "1, 2",
        "A part",
        "Two",
        "In the middle",
        'Wait <break time="1s"/> here < foo> x.',
    ]
    pauses = [line.pause for line in script.lines]
    assert pauses[:4] == [HEADING_PAUSE, CHAPTER_PAUSE, HEADING_PAUSE, PARAGRAPH_PAUSE]
    assert pauses[8] == CHAPTER_PAUSE and all(line.markup for line in script.lines)
    assert texts(script.chapter(3, 3))[0] == "Two" and len(script.chapter(1, 3).lines) == 12
    with pytest.raises(ScriptError, match="chapters are numbered from 1 to 3"):
        script.chapter(3, 4)
    assert chapters(read_markdown("Text.\n\n# One\n\nA.\n\n# Two\n\nB.")) == [
        ("Beginning", "Text."),
        ("One", "One"),
        ("Two", "Two"),
    ]
    assert read_markdown("Just text.").chapters == []
    with pytest.raises(ScriptError, match="no lines"):
        read_markdown("```\ncode\n```")


CONTAINER = """<?xml version="1.0"?>
<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>"""
PACKAGE = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A Book</dc:title>
<dc:creator>A. Nobody</dc:creator></metadata><manifest>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" {nav}/>
<item id="x" href="toc.ncx" media-type="application/x-dtbncx+xml"/>
<item id="a" href="text/one%201.xhtml" media-type="application/xhtml+xml"/>
<item id="b" href="text/two.xhtml" media-type="application/xhtml+xml"/>
<item id="c" href="text/notes.xhtml" media-type="application/xhtml+xml"/>
<item id="p" href="cover.jpg" media-type="image/jpeg"/></manifest>
<spine toc="x"><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/>
<itemref idref="c" linear="no"/></spine></package>"""
NAV = """<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>
<nav epub:type="toc"><ol><li><a href="text/one%201.xhtml#start">The <i>First</i></a></li>
<li><a href="text/two.xhtml">The Second</a></li></ol></nav></body></html>"""
NCX = """<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>
First</text></navLabel><content src="text/one%201.xhtml"/></navPoint></navMap></ncx>"""
ONE = """<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head>
<title>no</title><script src="x"/></head><body><h1>Chapter&#160;I</h1><p>Once&nbsp;upon <em>a
time</em><a epub:type="noteref" href="#n">1</a>, &lt;b&gt; [pause 1s].<br/>So.</p>
<div>Loose text<p>and a paragraph</p>tail</div><img alt="a picture"/>
<aside epub:type="footnote"><p>A note.</p></aside></body></html>"""
TWO = "<html><body><h2>Two</h2><ul><li>an item</li></ul><p>***</p></body></html>"


def make_epub(path: Path, *, nav: bool = True, ncx: bool = True, **more: str) -> Path:
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": PACKAGE.format(nav='properties="nav"' if nav else ""),
        "OEBPS/nav.xhtml": NAV if nav else "<html><body/></html>",
        "OEBPS/text/one 1.xhtml": ONE,
        "OEBPS/text/two.xhtml": TWO,
        "OEBPS/text/notes.xhtml": "<html><body><p>Notes.</p></body></html>",
    }
    if ncx:
        files["OEBPS/toc.ncx"] = NCX
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, **more}.items():
            archive.writestr(name, content)
    return path


def test_books(tmp_path: Path) -> None:
    script = read_epub(make_epub(tmp_path / "a.epub"))
    assert (script.title, script.author) == ("A Book", "A. Nobody")
    assert texts(script) == [
        "Chapter I",
        "Once upon a time, <b> [pause 1s]. So.",
        "Loose text",
        "and a paragraph",
        "tail",
        "Two",
        "an item",
    ]
    assert chapters(script) == [("The First", "Chapter I"), ("The Second", "Two")]
    assert not any(line.markup for line in script.lines)
    assert script.lines[4].pause == CHAPTER_PAUSE and script.lines[0].pause == HEADING_PAUSE
    older = read_epub(make_epub(tmp_path / "b.epub", nav=False))
    assert chapters(older) == [("First", "Chapter I")]
    bare = read_epub(make_epub(tmp_path / "c.epub", nav=False, ncx=False))
    assert chapters(bare) == [("Chapter I", "Chapter I"), ("Two", "Two")]


def test_books_that_cannot_be_read(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.epub"
    wrong.write_bytes(b"no zip")
    empty = tmp_path / "empty.epub"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("a", "b")
    for path in (wrong, empty):
        with pytest.raises(ScriptError, match="is no EPUB that can be read"):
            read_script_file(path)
    locked = make_epub(
        tmp_path / "locked.epub",
        **{
            "META-INF/encryption.xml": '<encryption><CipherReference URI="OEBPS/text/two.xhtml"/>'
            "</encryption>"
        },
    )
    with pytest.raises(ScriptError, match="is protected"):
        read_epub(locked)
    bomb = (
        '<!DOCTYPE x [<!ENTITY a "&b;&b;"><!ENTITY b "secret">]>'
        "<html><body><p>&a; text</p></body></html>"
    )
    script = read_epub(make_epub(tmp_path / "bomb.epub", **{"OEBPS/text/two.xhtml": bomb}))
    assert "secret" not in " ".join(texts(script))


def test_files(tmp_path: Path) -> None:
    for name, content in (
        ("a.txt", "Anna: Hi."),
        ("a.yaml", "- {text: Hi., voice: Anna}"),
        ("a.json", '[{"text": "Hi.", "voice": "Anna"}]'),
    ):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        script = read_script_file(path, {"Anna": "slt"})
        assert script.lines == (ScriptLine(text="Hi.", voice="slt"),) and script.title == "a"
    (tmp_path / "a.md").write_text("Hi.", encoding="utf-8")
    assert texts(read_script_file(tmp_path / "a.md")) == ["Hi."]
    with pytest.raises(ScriptError, match="a script is a file that ends in"):
        read_script_file(tmp_path / "a.pdf")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ScriptError, match="is not UTF-8"):
        read_script_file(tmp_path / "b.txt")
    (tmp_path / "c.yaml").write_text("- {text: a, x: b}", encoding="utf-8")
    with pytest.raises(ScriptError, match=r"c.yaml: line 1: 'x' is no field"):
        read_script_file(tmp_path / "c.yaml")


def test_blocks_of_html_without_text_are_no_lines() -> None:
    script = read_markdown(
        '<p align="center">\n\nOne.\n\n</p>\n\n[pause 1s] <break/>\n\n[pause x]\n'
    )
    assert [line.text for line in script.lines] == ["One. [pause 1s] <break/>", "[pause x]"]
