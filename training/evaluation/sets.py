"""Scripts: test sets of texts, each with the words that should be heard.

Two files are read: JSONL of our own (`configs/eval/plain.jsonl`, `hard.jsonl`), and the `meta.lst`
of seed-tts-eval (Anastassiou et al., 2024), whose lines are
`id|prompt text|prompt audio|text` and optionally `|recording of the text`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenlm.checkpoint.resolve import packaged_configs
from training.evaluation.error_rate import spoken_words

LONG_PROMPT = "long_prompt"
"""Category whose lines are spoken after a prompt that is much longer than they are."""


class ScriptError(ValueError):
    """A script that cannot be used; the message names file and line."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One text to be said."""

    id: str
    text: str
    """As written, which is what the system is given."""
    spoken: str
    """Lower-case words that should be heard."""
    category: str = ""
    """What makes it hard; empty where nothing is said."""
    voice: str | None = None
    """Voice of the bundle; None leaves the choice to the evaluation."""
    speaker: str | None = None
    """Speaker of the held-out recordings whose voice is to be cloned; None takes turns."""
    prompt_audio: Path | None = None
    """Recording whose voice is to be cloned."""
    prompt_text: str = ""
    """What that recording says."""
    reference_audio: Path | None = None
    """Recording of the text itself."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """A test set of texts."""

    name: str
    path: Path
    lines: list[Line]
    digest: str
    """Of what is asked for: ids, texts and spoken forms, in order."""


def find_scripts(names: Sequence[str]) -> list[Script]:
    """Read test sets by path, or by the name of one in `configs/eval`.

    Raises:
        ScriptError: there is none of a name, or it is not one.
    """
    found = []
    for name in names:
        shipped = packaged_configs() / "eval" / f"{name}.jsonl"
        path = Path(name)
        if not path.is_file() and shipped.is_file():
            path = shipped
        if not path.is_file():
            raise ScriptError(
                f"there is no test set {name!r}: give plain, hard, development, or a file."
            )
        found.append(read_script(path))
    twice = {script.name for script in found if sum(s.name == script.name for s in found) > 1}
    if twice:
        raise ScriptError(f"two test sets are called {sorted(twice)[0]!r}.")
    return found


def read_script(path: Path) -> Script:
    """Read a script, by the end of its name: `.jsonl`, or `.lst` of seed-tts-eval.

    Raises:
        ScriptError: the file cannot be read, or has a bad line; all bad lines are named.
    """
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(f"{path}: the test set cannot be read: {error}") from error
    parse: Callable[[str, Path], Line] = _parse_meta if path.suffix == ".lst" else _parse_json
    lines: list[Line] = []
    bad: list[str] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            line = parse(row, path.parent)
            if line.id in seen:
                raise ScriptError(f"the id {line.id!r} is there twice.")
        except ScriptError as error:
            bad.append(f"line {number}: {error}")
            continue
        seen.add(line.id)
        lines.append(line)
    if bad:
        raise ScriptError(f"{path}: {len(bad)} bad lines: " + " ".join(bad[:20]))
    if not lines:
        raise ScriptError(f"{path}: the test set has no lines.")
    return Script(name=path.stem, path=path, lines=lines, digest=_digest(lines))


def _digest(lines: list[Line]) -> str:
    facts = json.dumps([[line.id, line.text, line.spoken] for line in lines])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _parse_json(row: str, folder: Path) -> Line:
    try:
        data = json.loads(row)
    except json.JSONDecodeError as error:
        raise ScriptError(f"not JSON: {error.msg} at column {error.colno}.") from None
    if not isinstance(data, dict):
        raise ScriptError("not a JSON object.")
    known = set(Line.__dataclass_fields__)
    unknown = sorted(data.keys() - known)
    if unknown:
        raise ScriptError(f"unknown key {unknown[0]!r}; valid: {', '.join(sorted(known))}.")
    wrong = sorted(key for key, value in data.items() if not isinstance(value, str))
    if wrong:
        raise ScriptError(f"{wrong[0]!r} is not a string.")
    missing = [key for key in ("id", "text") if not data.get(key, "").strip()]
    if missing:
        raise ScriptError(f"{missing[0]!r} is missing or empty.")
    paths = {
        key: folder / data[key] for key in ("prompt_audio", "reference_audio") if data.get(key)
    }
    return _line(**{**data, **paths})


def _parse_meta(row: str, folder: Path) -> Line:
    columns = [column.strip() for column in row.split("|")]
    if len(columns) not in (4, 5):
        raise ScriptError(f"{len(columns)} columns between |, not 4 or 5.")
    name, prompt_text, prompt_audio, text, *reference = columns
    if not name or not prompt_audio or not text:
        raise ScriptError("an empty column: id, prompt audio and text are needed.")
    return _line(
        id=name,
        text=text,
        prompt_text=prompt_text,
        prompt_audio=folder / prompt_audio,
        reference_audio=folder / reference[0] if reference and reference[0] else None,
    )


def _line(**facts: object) -> Line:
    spoken = spoken_words(str(facts.get("spoken") or facts["text"]))
    if not spoken:
        raise ScriptError(f"the text {str(facts['text'])[:40]!r} holds no words to be heard.")
    return Line(**{**facts, "spoken": spoken})  # type: ignore[arg-type]
