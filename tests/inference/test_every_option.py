"""Every verb that speaks or listens, with every option that it has, and in every precision."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import soundfile
from typer.models import OptionInfo
from typer.testing import CliRunner, Result

from inference import sinks
from inference.commands import recordings, speech, voices
from tokenlm.cli import build_app, installed_verbs
from tokenlm.synthesis import Voice

VERBS = ("clone", "convert", "prepare-voice", "say", "serve", "tokens", "transcribe", "voices")
WORDS: dict[str, list[Any]] = {
    "clone": ["is it so?", "--prompt-audio", "{recording}", "-o", "{out}.wav"],
    "convert": ["{recording}", "--voice", "ann", "-o", "{out}.wav"],
    "prepare-voice": ["{recording}", "-o", "{out}.voice"],
    "say": ["is it so?", "-o", "{out}.wav"],
    "serve": ["--voices", "{out}"],
    "tokens": ["{recording}"],
    "transcribe": ["{recording}"],
    "voices": [],
}
"""What a verb is told at least; an option that is given again replaces it."""
VALUES: dict[str, list[str]] = {
    "--allow-host": ["speech.example.com"],
    "--bundle": [],  # told always
    "--config": [str(Path(__file__).parents[2] / "configs" / "serve" / "default.yaml")],
    "--consent": ["{statement}"],
    "--consent-bundle": ["mini-en"],
    "--device": ["cpu"],
    "--duration": ["2"],
    "--enhance": [],  # this bundle has no enhancer
    "--for-others": [],  # asks for a sentence; see test_consent.py
    "--guidance": ["0", "1.5"],
    "--host": ["127.0.0.1", "localhost"],
    "--instruct": [],  # this bundle follows none
    "--json": ["{out}-words.json"],
    "--lexicon": [],  # this bundle reads letters; see test_lexicon.py
    "--limit": ["1"],
    "--llm": [],  # a server that is not here
    "--name": ["me"],
    "--output": [],  # in every format, see below
    "--paragraph-gap": ["0.3"],
    "--play": [""],
    "--port": ["0"],
    "--prompt-audio": ["{recording}"],
    "--prompt-text": ["is it so?"],
    "--seed": ["7"],
    "--sentence-gap": ["0.2"],
    "--set": ["limits.max_streams=2"],
    "--solver": ["euler", "midpoint"],
    "--speed": ["0.5", "2"],
    "--srt": ["{out}-words.srt"],
    "--srt-in": ["{subtitles}"],
    "--statement": ["My voice may be used in these tests."],
    "--steps": ["1", "3"],
    "--synthetic-detector": [],  # of the sentence that is asked for
    "--text": ["is it so?"],
    "--text-file": ["{text}"],
    "--voice": ["bob", "{voice}"],
    "--voices": ["{out}"],
    "--vtt": ["{out}-words.vtt"],
    "--who": ["Ann Example"],
}
"""Values of the options that have no list of choices."""


def options(verb: str) -> dict[str, list[str]]:
    """Values of each option of a verb, as its function declares them."""
    found: dict[str, list[str]] = {}
    for hint in get_type_hints(installed_verbs()[verb].load(), include_extras=True).values():
        declared = [fact for fact in get_args(hint) if isinstance(fact, OptionInfo)]
        if declared:
            # Of a declaration within `Annotated`, the first name stands where a default would.
            names = (declared[0].default, *(declared[0].param_decls or ()))
            name = next(name for name in names if str(name).startswith("--"))
            if "/" in name:  # a flag that is on unless told otherwise
                found[name.partition("/")[2]] = [""]
            else:
                found[name] = choices(get_args(hint)[0]) or VALUES[name]
    return found


def choices(kind: Any) -> list[str]:
    """The words that a type allows; none where it allows any."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for part in get_args(kind) for word in choices(part)]


def cases() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each option by itself, in the precision that differs most, and those that work together in
    every combination: precision, context and layout."""
    for verb in VERBS:
        told = options(verb)
        together = [tuple[str, ...]()]
        for name in ("--weights", "--context", "--layout"):
            if name in told:
                together = [(*words, name, value) for words in together for value in told[name]]
        for words in together:
            yield verb, words
        smallest = ("--weights", "int8") if "--weights" in told else ()
        for name, values in told.items():
            if name in ("--weights", "--context", "--layout"):
                continue
            for value in values:
                yield verb, (name, *([value] if value else []), *smallest)
        if verb in ("clone", "convert", "say"):
            for suffix in ("flac", "ogg"):
                yield verb, ("-o", "{out}." + suffix, *smallest)


@pytest.fixture(scope="module")
def places(
    tiny_bundle: Path, recording: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("options")
    (folder / "text.txt").write_text("yes it is.", encoding="utf-8")
    statement = folder / "statement.yaml"
    statement.write_text(
        "operator: Example Ltd\nstatement: All of them agreed.\n", encoding="utf-8"
    )
    subtitles = folder / "subtitles.srt"
    subtitles.write_text("1\n00:00:00,000 --> 00:00:02,000\nIs it so?\n", encoding="utf-8")
    voice = folder / "me.voice"
    Voice.load(tiny_bundle / "voices" / "ann.voice").save(voice)
    return {
        "recording": str(recording),
        "statement": str(statement),
        "subtitles": str(subtitles),
        "text": str(folder / "text.txt"),
        "voice": str(voice),
    }


load = lru_cache(speech.load_synthesizer)
"""Models are loaded once in each precision; a call changes nothing of them."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from inference.commands import serve

    def loaded(bundle: str, device: str = "cpu", weights: Any = "float32", **options: Any) -> Any:
        return load(bundle, device, weights, **options)

    for module in (speech, voices, recordings, serve):
        monkeypatch.setattr(module, "load_synthesizer", loaded)
    program = "import sys; sys.stdin.buffer.read()"
    monkeypatch.setattr(sinks, "player_command", lambda rate: [sys.executable, "-c", program])
    monkeypatch.setattr("inference.server.process.serve_app", ask)


asked: list[str] = []


def ask(app: Any, config: Any) -> None:
    """Asks a server what there is to be asked, in place of serving until a signal."""
    from fastapi.testclient import TestClient

    with TestClient(app, base_url="http://127.0.0.1") as client:
        said = client.post("/v1/audio/speech", json={"input": "is it so?"})
        assert said.status_code == 200 and len(said.content) > 500, said.text[:200]
        told = client.get("/health")
        assert told.status_code == 200 and told.json()["status"] == "ok", told.text
    asked.append(config.weights)


def run(verb: str, words: tuple[str, ...], bundle: Path, places: dict[str, str]) -> Result:
    base = list(WORDS[verb])
    first = words[0] if words else ""
    if first in base:  # is told otherwise now
        at = base.index(first)
        del base[at : at + 2]
    if first in ("--text-file", "--srt-in"):
        base.remove("is it so?")
    if (verb, first) == ("convert", "--prompt-audio"):
        del base[base.index("--voice") :][:2]
        base = ["{recording}", "-o", "{out}.wav"]
    if (verb, first) == ("convert", "--prompt-text"):
        base = ["{recording}", "-o", "{out}.wav", "--prompt-audio", "{recording}"]
    filled = [word.format(**places) for word in (*base, *(word for word in words if word))]
    return CliRunner().invoke(build_app([verb]), [verb, *filled, "--bundle", str(bundle)])


@pytest.mark.parametrize(("verb", "words"), cases(), ids=lambda part: "".join(part))
def test_every_option(
    verb: str, words: tuple[str, ...], tiny_bundle: Path, places: dict[str, str], tmp_path: Path
) -> None:
    asked.clear()
    result = run(verb, words, tiny_bundle, places | {"out": str(tmp_path / "out")})
    assert result.exit_code == 0, result.output
    if verb in ("clone", "convert", "say"):
        (path,) = [path for path in tmp_path.iterdir() if path.stem == "out"]
        samples, rate = soundfile.read(str(path))
        assert rate == 24_000 and len(samples) > 2_000 and abs(samples).max() > 1e-3
    elif verb == "prepare-voice":
        assert len(Voice.load(tmp_path / "out.voice").prompt_tokens) > 10
    elif verb == "serve":
        expected = words[words.index("--weights") + 1] if "--weights" in words else "float32"
        assert asked == [expected]
    elif verb != "transcribe":  # random weights may hear nothing
        assert result.stdout.strip()
