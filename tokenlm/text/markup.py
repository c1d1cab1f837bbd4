"""What is written for the eye only: tags, Markdown, emoticons, bullets, blank lines."""

from __future__ import annotations

import re

_TAG = re.compile(
    r"</?[A-Za-z][A-Za-z0-9]{0,15}(?:\s[^<>=]{1,100}=[^<>]{0,300})?\s?/?>|<!--[^<>]{0,300}-->"
)
_LINE_TAG = re.compile(
    r"</?(?:p|div|br|h[1-6]|li|ul|ol|tr|table)(?:\s[^<>]{0,300})?/?>", re.IGNORECASE
)
_LINK = re.compile(r"!?\[([^\[\]\n]{1,300})\]\((?:https?://|/|#|\.)[^()\s]{0,300}\)")
_HEADING = re.compile(r"(?m)^[ ]{0,3}#{1,6} +")
_RULE = re.compile(r"(?m)^[ ]*(?:[-*_=~#][ ]?){3,200}$")
_QUOTED_LINE = re.compile(r"(?m)^(?:[ ]?>){1,9} ?(?![-.][0-9])(?=[^=\s0-9$£€]|[0-9]{1,3}[.)] )")
_BULLET = re.compile(r"(?m)^[ ]*(?:[-*+–—][ ]+|•[ •]*)(?=\S)([^\n]*)$")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9*])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![A-Za-z0-9*])")
_STRIKE = re.compile(r"~~")
_EMOTICON = re.compile(
    r"(?<!\S)(?:[:;=][-'^]?[()\[\]DPpOo3|/\\*]{1,3}|[xX]D+|<3(?! ?%| (?:ms|seconds?|secs?|minutes?|"
    r"mins?|hours?|hrs?|days?|weeks?|months?|years?|km|kg|cm|mm|m|g|miles?|percent|times|points?|"
    r"people)\b)|</3|\^_\^|-_-|[oO]_[oO]|T_T|"
    r"\(:|\):|:'\()(?![^\s.,!?])"
)
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_CLOSED = re.compile(r"[.,?!;:][\s\"')\]]*$")


def strip_markup(text: str) -> str:
    """Drop tags and Markdown marks of folded text, and end list items as sentences."""
    if "<" in text:
        text = _TAG.sub(" ", _LINE_TAG.sub("\n\n", text))
    if "](" in text:
        text = _LINK.sub(r"\1", text)
    text = _RULE.sub("\n", text)
    text = _HEADING.sub("", text)
    text = _QUOTED_LINE.sub("", text)
    text = _BULLET.sub(_end_item, text)
    text = _STRIKE.sub("", _EMPHASIS.sub("", text))
    return _EMOTICON.sub(" ", text)


def _end_item(match: re.Match[str]) -> str:
    item = match.group(1).rstrip()
    return item if _CLOSED.search(item[-20:]) else f"{item}."


def split_paragraphs(text: str) -> list[str]:
    """Cut at blank lines; the other line ends become spaces. Empty paragraphs are left out."""
    paragraphs = (part.replace("\n", " ").strip() for part in _PARAGRAPH.split(text))
    return [part for part in paragraphs if part]
