"""Test sets: of texts, each with the words that should be heard, and of recordings.

Texts are read from two kinds of files: JSONL (`configs/eval/plain.jsonl`, `hard.jsonl`), and the
`meta.lst` of seed-tts-eval (Anastassiou et al., 2024), whose lines are
`id|prompt text|prompt audio|text` and optionally `|recording of the text`.

Recordings are those of a manifest. What is chosen of them is a function of the manifest alone:
every voice gives one prompt; the sentences are assigned to the voices in turn; a sentence is asked
for once, never that of a prompt, and always one that its voice has read itself, so that both can be
compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenlm.checkpoint.resolve import packaged_configs
from training.data.manifest import ManifestError, Utterance, by_speaker, read_manifest
from training.evaluation.error_rate import spoken_words

DEVELOPMENT = ("hard", "plain", "development")
"""Sets that are looked at as often as one likes."""
DEVELOPMENT_NOTE = "a development set: choices were made on it"
LONG_PROMPT = "long_prompt"
"""Category whose lines are spoken after a prompt that is much longer than they are."""


class TextSetError(ValueError):
    """A set of texts that cannot be used; the message names file and line."""


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
class TextSet:
    """Texts that are spoken."""

    name: str
    path: Path
    lines: list[Line]
    digest: str
    """Of what is asked for: ids, texts and spoken forms, in order."""


def find_text_sets(names: Sequence[str]) -> list[TextSet]:
    """Read test sets by path, or by the name of one in `configs/eval`.

    Raises:
        TextSetError: there is none of a name, or it is not one.
    """
    sets = []
    for name in names:
        shipped = packaged_configs() / "eval" / f"{name}.jsonl"
        path = Path(name)
        if not path.is_file() and shipped.is_file():
            path = shipped
        if not path.is_file():
            raise TextSetError(
                f"there is no test set {name!r}: give plain, hard, development, or a file."
            )
        sets.append(read_text_set(path))
    all_names = [texts.name for texts in sets]
    twice = sorted({name for name in all_names if all_names.count(name) > 1})
    if twice:
        raise TextSetError(f"two test sets are called {twice[0]!r}.")
    return sets


def read_text_set(path: Path) -> TextSet:
    """Read a set of texts: `.jsonl`, or the `.lst` of seed-tts-eval.

    Raises:
        TextSetError: the file cannot be read, or has a bad line; all bad lines are named.
    """
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TextSetError(f"{path}: the test set cannot be read: {error}") from error
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
                raise TextSetError(f"the id {line.id!r} is there twice.")
        except TextSetError as error:
            bad.append(f"line {number}: {error}")
            continue
        seen.add(line.id)
        lines.append(line)
    if bad:
        raise TextSetError(f"{path}: {len(bad)} bad lines: " + " ".join(bad[:20]))
    if not lines:
        raise TextSetError(f"{path}: the test set has no lines.")
    return TextSet(name=path.stem, path=path, lines=lines, digest=_digest(lines))


def _digest(lines: list[Line]) -> str:
    facts = json.dumps([[line.id, line.text, line.spoken] for line in lines])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _parse_json(row: str, folder: Path) -> Line:
    try:
        data = json.loads(row)
    except json.JSONDecodeError as error:
        raise TextSetError(f"not JSON: {error.msg} at column {error.colno}.") from None
    if not isinstance(data, dict):
        raise TextSetError("not a JSON object.")
    known = set(Line.__dataclass_fields__)
    unknown = sorted(data.keys() - known)
    if unknown:
        raise TextSetError(f"unknown key {unknown[0]!r}; valid: {', '.join(sorted(known))}.")
    wrong = sorted(key for key, value in data.items() if not isinstance(value, str))
    if wrong:
        raise TextSetError(f"{wrong[0]!r} is not a string.")
    missing = [key for key in ("id", "text") if not data.get(key, "").strip()]
    if missing:
        raise TextSetError(f"{missing[0]!r} is missing or empty.")
    paths = {
        key: folder / data[key] for key in ("prompt_audio", "reference_audio") if data.get(key)
    }
    return _line(**{**data, **paths})


def _parse_meta(row: str, folder: Path) -> Line:
    columns = [column.strip() for column in row.split("|")]
    if len(columns) not in (4, 5):
        raise TextSetError(f"{len(columns)} columns between |, not 4 or 5.")
    name, prompt_text, prompt_audio, text, *reference = columns
    if not name or not prompt_audio or not text:
        raise TextSetError("an empty column: id, prompt audio and text are needed.")
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
        raise TextSetError(f"the text {str(facts['text'])[:40]!r} holds no words to be heard.")
    return Line(**{**facts, "spoken": spoken})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Item:
    """A sentence to be said."""

    index: int
    """Place in the test set, from 0; the seed of its sampling follows from it."""
    original: Utterance
    """The engine's own reading of the sentence, in the same voice."""
    prompt: Utterance
    """The recording whose voice is to be cloned; another sentence."""


@dataclass(frozen=True, kw_only=True)
class RecordingSet:
    """The items of one manifest."""

    name: str
    """Such as `heldout` or `unheard`."""
    items: list[Item]
    """In order; the first n of them are a fair smaller test set."""
    prompts: dict[str, Utterance]
    """The prompt of each voice."""
    recordings: Sequence[Utterance]
    """All rows of the manifest."""


def read_recording_set(
    name: str, path: Path, *, num_items: int, num_voices: int, prompt_seconds: float
) -> RecordingSet:
    """Choose the items of a manifest.

    Args:
        name: of the test set.
        path: the manifest.
        num_items: sentences; fewer where the manifest has no more.
        num_voices: voices, the first of the manifest by name.
        prompt_seconds: length that prompts come close to.

    Raises:
        ManifestError: the manifest cannot be read, has a bad row, or has too little in it.
    """
    recordings = read_manifest(path, strict=True).utterances
    return choose_items(
        name,
        recordings,
        num_items=num_items,
        num_voices=num_voices,
        prompt_seconds=prompt_seconds,
    )


def choose_items(
    name: str,
    recordings: Sequence[Utterance],
    *,
    num_items: int,
    num_voices: int,
    prompt_seconds: float,
) -> RecordingSet:
    """Choose the items among recordings; see `read_recording_set`."""
    groups = {
        speaker: sorted((recordings[index] for index in indices), key=lambda row: row.id)
        for speaker, indices in list(by_speaker(recordings).items())[:num_voices]
    }
    if not groups:
        raise ManifestError(f"the manifest of the test set {name!r} has no rows.")
    prompts: dict[str, Utterance] = {}
    used: set[str] = set()
    for speaker, rows in groups.items():
        free = [row for row in rows if spoken_words(row.text) not in used] or rows
        prompts[speaker] = min(free, key=lambda row: abs(row.duration - prompt_seconds))
        used.add(spoken_words(prompts[speaker].text))
    queues = {speaker: iter(rows) for speaker, rows in groups.items()}
    items: list[Item] = []
    while queues and len(items) < num_items:
        for speaker in list(queues):
            row = next((row for row in queues[speaker] if spoken_words(row.text) not in used), None)
            if row is None:
                del queues[speaker]
            elif len(items) < num_items:
                used.add(spoken_words(row.text))
                items.append(Item(index=len(items), original=row, prompt=prompts[speaker]))
    if not items:
        raise ManifestError(
            f"the test set {name!r} needs voices with at least two sentences each: one is the "
            "prompt, the others are asked for."
        )
    return RecordingSet(name=name, items=items, prompts=prompts, recordings=recordings)
