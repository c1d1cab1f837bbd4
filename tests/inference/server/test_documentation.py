"""The page of documentation, the unit and the container file say what the server does."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from inference.server.app import EXPOSED_HEADERS, build_app
from inference.server.process import LAST_SECONDS
from inference.server.settings import Limits, ServeConfig
from inference.server.speech import MEDIA_TYPES, SpeechRequest
from inference.server.speech_stream import Provenance
from inference.server.websocket import CloseMessage, ConfigMessage, DoneMessage, TextMessage
from tokenlm.cli import build_app as build_command
from tokenlm.synthesis import Synthesizer

FOLDER = Path(__file__).resolve().parents[3] / "inference" / "server"
README = (FOLDER.parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
UNIT = (FOLDER / "tokenlm@.service").read_text(encoding="utf-8")
CONTAINERFILE = (FOLDER / "Containerfile").read_text(encoding="utf-8")


def table(first: str) -> dict[str, list[str]]:
    """Rows of the table whose first heading this is: the other cells by what the first names."""
    block = README[README.index(f"\n\n| {first} |") + 2 :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
    return {row[0].strip("`| "): row[1:] for row in rows[2:]}


def options() -> set[str]:
    """Options of `tokenlm serve`."""
    group = typer.main.get_command(build_command())
    command = group.commands["serve"]  # type: ignore[attr-defined]
    return {name for parameter in command.params for name in parameter.opts}


def test_every_setting_is_named() -> None:
    settings = table("setting")
    names = [
        f"{field.name}.…" if dataclasses.is_dataclass(field.default) else field.name
        for field in dataclasses.fields(ServeConfig)
    ]
    assert list(settings) == names and names[-1] == "limits.…"
    for name in names:
        option = f"--{name}"
        assert (option in options()) == (f"also `{option}`" in " ".join(settings.get(name, []))), (
            name
        )
    for name in ("bundle", "device", "host", "port", "voices", "api_key_env"):
        assert settings[name][0].strip("`") == str(getattr(ServeConfig(), name))


def test_every_limit_is_named_with_its_default() -> None:
    limits = table("`limits.…`")
    fields = dataclasses.fields(Limits)
    assert set(limits) == {field.name for field in fields}
    for field in fields:
        assert float(limits[field.name][0]) == field.default, field.name


def test_every_header_and_field_is_named() -> None:
    provenance = Provenance(bundle="b", voice="v", seed=0, request_id="r")
    for header in {*EXPOSED_HEADERS, *provenance.headers}:
        assert f"`{header}`" in README, header
    assert set(provenance.headers) <= set(EXPOSED_HEADERS)
    assert set(table("field")) == set(SpeechRequest.model_fields)
    for name in MEDIA_TYPES:
        assert f"`{name}`" in README, name


def test_every_message_is_named() -> None:
    told = table("from the client")
    for kind in (ConfigMessage, TextMessage, DoneMessage, CloseMessage):
        name = str(kind.model_fields["type"].default)
        if kind is not ConfigMessage:
            (name,) = kind.model_fields["type"].annotation.__args__  # type: ignore[union-attr]
        fields = set(kind.model_fields) - {"type"}
        assert set(re.findall(r"`(\w+)`", told.pop(name)[0])) >= fields, name
    assert not told
    heard = table("from the server")
    source = (FOLDER / "websocket.py").read_text(encoding="utf-8")
    assert set(heard) - {"binary"} == set(re.findall(r'"type": "([\w.]+)"', source))


def test_every_path_and_status_is_named(synthesizer: Synthesizer, tmp_path: Path) -> None:
    def nothing() -> None:
        raise AssertionError

    config = ServeConfig(voices=tmp_path / "voices")
    app = build_app(config, synthesizer, nothing, keys=())  # type: ignore[arg-type]
    found = app.openapi()["paths"]
    statuses = set()
    for path, operations in found.items():
        for method, operation in operations.items():
            shown = re.sub(r"{(voice|model)_id}", "NAME", path)
            assert f"| `{method.upper()} {shown}` |" in README, (method, path)
            statuses |= set(operation["responses"])
    assert {status for status in statuses if status >= "400"} <= set(table("status"))


def command_of(unit: str) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    return shlex.split(line)


def test_the_unit_starts_the_server() -> None:
    program, verb, *arguments = command_of(UNIT)
    assert (Path(program).name, verb) == ("tokenlm", "serve")
    assert {word for word in arguments if word.startswith("--")} <= options()
    values = dict(zip(arguments[::2], arguments[1::2], strict=True))
    state = re.search(r"^StateDirectory=(\S+)$", UNIT, re.MULTILINE)
    assert state and Path(values["--voices"]).parent == Path("/var/lib") / state[1]
    assert values["--port"].replace("%i", "1") == "8001"
    cache = re.search(r"^CacheDirectory=(\S+)$", UNIT, re.MULTILINE)
    assert cache and f"HF_HOME=/var/cache/{cache[1]}\n" in UNIT
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert stop and int(stop[1]) > Limits().drain_seconds + LAST_SECONDS


def test_the_container_starts_the_server() -> None:
    entry = re.search(r"^ENTRYPOINT (\[.+\])$", CONTAINERFILE, re.MULTILINE)
    assert entry
    program, verb, *arguments = re.findall(r'"([^"]+)"', entry[1])
    assert (program, verb) == ("tokenlm", "serve")
    assert {word for word in arguments if word.startswith("--")} <= options()
    values = dict(zip(arguments[::2], arguments[1::2], strict=True))
    # Its folder of voices is a volume, and its own; the port is that of the settings.
    assert f"VOLUME {values['--voices']}\n" in CONTAINERFILE
    assert re.search(rf"install -d -o tokenlm -g tokenlm .*{values['--voices']}\b", CONTAINERFILE)
    assert f"EXPOSE {ServeConfig().port}\n" in CONTAINERFILE
    assert f"127.0.0.1:{ServeConfig().port}/health" in CONTAINERFILE
    stop = re.search(r"podman stop --time (\d+)", CONTAINERFILE)
    assert stop and int(stop[1]) > Limits().drain_seconds + LAST_SECONDS
    root = FOLDER.parents[1]
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", CONTAINERFILE, re.MULTILINE)
              for word in line.split()]  # fmt: skip
    assert copied and all((root / name).exists() for name in copied)


@pytest.mark.parametrize("path", sorted(FOLDER.parents[1].glob("configs/serve/*.yaml")), ids=str)
def test_settings_of_the_documentation_are_there(path: Path) -> None:
    assert f"configs/serve/{path.name}" in README
