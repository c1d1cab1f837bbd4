"""The root command: finding verbs, telling errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tokenlm import __version__, cli, installation


class FakeEntry:
    """An entry point that gives a function or fails."""

    def __init__(self, name: str, found: Callable[..., Any] | Exception) -> None:
        self.name = name
        self.found = found

    def load(self) -> Callable[..., Any]:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def run(
    monkeypatch: pytest.MonkeyPatch, verbs: dict[str, Callable[..., Any] | Exception], *words: str
) -> Result:
    entries = [FakeEntry(name, found) for name, found in verbs.items()]
    monkeypatch.setattr(cli, "installed_verbs", lambda: {entry.name: entry for entry in entries})
    return CliRunner().invoke(cli.build_app(), words)


def hello(name: str = "you") -> None:
    """Say hello."""
    typer.echo(f"hello {name}")


def raising(error: BaseException) -> Callable[[], None]:
    def verb() -> None:
        raise error

    return verb


def test_verbs_are_found_and_get_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, {"hello": hello}, "hello", "--name", "world")
    assert (result.exit_code, result.stdout) == (0, "hello world\n")
    assert "Say hello." in run(monkeypatch, {"hello": hello}, "--help").stdout


def test_verbs_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'ghost'", name="ghost")
    verbs: dict[str, Callable[..., Any] | Exception] = {
        "hello": hello, "data.greet": hello, "data.haunt": missing,
    }  # fmt: skip
    result = run(monkeypatch, verbs, "data", "greet", "--name", "world")
    assert (result.exit_code, result.stdout) == (0, "hello world\n")
    listed = run(monkeypatch, verbs, "data", "--help").stdout
    assert "greet" in listed and "haunt" not in listed
    assert "Corpora" in run(monkeypatch, verbs, "--help").stdout
    result = run(monkeypatch, verbs, "data", "haunt")
    assert result.exit_code == 2 and "haunt cannot be used: this needs ghost" in result.stderr


def test_only_what_is_asked_for_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    class Counted(FakeEntry):
        def load(self) -> Callable[..., Any]:
            loaded.append(self.name)
            return super().load()

    names = ("say", "import", "data.import", "data.validate")
    monkeypatch.setattr(cli, "installed_verbs", lambda: {n: Counted(n, hello) for n in names})
    for words, expected in (
        (["say", "data"], ["say"]),
        (["import"], ["import"]),
        (["data", "import", "x"], ["data.import"]),
        (["-v", "data", "--help"], ["data.import", "data.validate"]),
        (["data", "impotr"], ["data.import", "data.validate"]),
        (["--help"], sorted(names)),
    ):
        loaded.clear()
        cli.build_app(words)
        assert loaded == expected, words


def test_a_group_whose_verb_need_not_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def put(output: str, parts: list[str], bundle: str = "") -> None:
        """Put together."""
        typer.echo(f"{output} {parts} {bundle}")

    def write(bundle: str) -> None:
        """Write elsewhere."""
        typer.echo(f"wrote {bundle}")

    entries = [FakeEntry("export.bundle", put), FakeEntry("export.llm", write)]
    monkeypatch.setattr(cli, "installed_verbs", lambda: {entry.name: entry for entry in entries})

    def says(*words: str) -> str:
        result = CliRunner().invoke(cli.build_app(words), words)
        assert result.exit_code == 0, result.output
        return result.stdout

    expected = "out ['flow=a', 'vocoder=b'] base\n"
    assert says("export", "out", "--bundle", "base", "flow=a", "vocoder=b") == expected
    assert says("export", "--bundle", "base", "out", "flow=a", "vocoder=b") == expected
    assert says("export", "bundle", "out", "--bundle", "base", "flow=a", "vocoder=b") == expected
    assert says("-v", "export", "llm", "mini-en") == "wrote mini-en\n"
    for words in (("export", "--help"), ("export",)):
        listed = CliRunner().invoke(cli.build_app(words), words).output
        assert "Put together." in listed and "Write elsewhere." in listed


def test_verbs_that_moved_into_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which they are installed."""
    names = ("import", "data.import", "data.check", "model.check", "say")
    for order in (names, names[::-1], sorted(names)):
        entries = {name: FakeEntry(name, hello) for name in order}
        monkeypatch.setattr(cli, "installed_verbs", lambda entries=entries: entries)
        for word, told in (
            ("import-data", "it is `tokenlm data import`"),
            ("check", "it is `tokenlm data check` or `tokenlm model check`"),
            ("sya", "No such command"),
        ):
            result = CliRunner().invoke(cli.build_app([word]), [word, "--any"])
            assert result.exit_code == 2 and told in result.output, (order, word)


def test_ctrl_c_has_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    verbs: dict[str, Callable[..., Any] | Exception] = {
        "wait": raising(KeyboardInterrupt()), "read": raising(KeyboardInterrupt("2 of 3 lines.")),
    }  # fmt: skip
    result = run(monkeypatch, verbs, "wait")
    assert (result.exit_code, result.output) == (130, "")
    result = run(monkeypatch, verbs, "read")
    assert (result.exit_code, result.stderr) == (130, "interrupted: 2 of 3 lines.\n")


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, {"hello": hello}, "--version")
    assert (result.exit_code, result.stdout) == (0, f"tokenlm {__version__}\n")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("the pitch is too high."), "error: the pitch is too high.\n"),
        (PermissionError(13, "Permission denied", "a.wav"), "error: a.wav: Permission denied\n"),
        (
            ModuleNotFoundError("No module named 'jiwer'", name="jiwer"),
            "error: this needs jiwer, which is not installed: pip install -e '.[train]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'ghost.body'", name="ghost.body"),
            "error: this needs ghost, which is not installed: pip install ghost\n",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        installation, "requires", lambda name: ["jiwer>=3.0; extra == 'train'", "numpy"]
    )
    result = run(monkeypatch, {"err": raising(error)}, "err")
    assert (result.exit_code, result.stderr) == (2, told)


def test_verbose_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("the pitch is too high.")
    result = run(monkeypatch, {"err": raising(error)}, "--verbose", "err")
    assert result.exception is error


def test_other_errors_are_ours_and_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    error = AssertionError("impossible")
    assert run(monkeypatch, {"err": raising(error)}, "err").exception is error


def test_a_missing_extra_hides_only_its_own_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "requires", lambda name: ["uvicorn>=0.30; extra == 'serve'"])
    missing = ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
    verbs: dict[str, Callable[..., Any] | Exception] = {"hello": hello, "serve": missing}
    listed = run(monkeypatch, verbs, "--help").stdout
    assert "hello" in listed and "serve" not in listed
    assert run(monkeypatch, verbs, "hello").exit_code == 0
    result = run(monkeypatch, verbs, "serve", "--port", "80", "more")
    assert result.exit_code == 2
    assert "serve cannot be used: this needs uvicorn" in result.stderr
    assert "pip install -e '.[serve]'" in result.stderr
    assert run(monkeypatch, verbs, "--verbose", "serve").exception is missing


def test_every_installed_verb_loads() -> None:
    found = cli.installed_verbs()
    assert {
        "say", "clone", "convert", "prepare-voice", "voices", "transcribe", "tokens", "compare",
        "train", "data.import", "data.validate", "data.refine", "data.precompute", "data.merge",
        "data.text-tokenizer", "evaluate", "import", "inspect", "serve", "export.bundle",
        "export.llm", "export.cosyvoice2", "export.cosyvoice3",
    } <= set(found)  # fmt: skip
    for entry in found.values():
        assert isinstance(entry, EntryPoint)
        assert (entry.load().__doc__ or "").strip(), f"{entry.name} has no help"


def test_help_comes_without_loading_models(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from tokenlm.cli import build_app\n"
        "result = CliRunner().invoke(build_app(), ['clone', '--help'])\n"
        "assert result.exit_code == 0 and '--prompt-audio' in result.stdout, result.output\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


LISTED = (
    "import json, sys\n"
    "from typer.testing import CliRunner\n"
    "from tokenlm.cli import build_app\n"
    "told = []\n"
    "for words in json.loads(sys.argv[1]):\n"
    "    result = CliRunner().invoke(build_app(words), words)\n"
    "    told.append([result.exit_code, result.output])\n"
    "print(json.dumps([told, sorted(sys.modules)]))\n"
)


def runs(*commands: Sequence[object], cwd: Path) -> tuple[list[tuple[int, str]], set[str]]:
    """Status and output of commands in one new process, and the modules that it imported."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", LISTED, words], check=True, cwd=cwd, capture_output=True, text=True
    )
    told, modules = json.loads(done.stdout.splitlines()[-1])
    return [(status, output) for status, output in told], set(modules)


def test_errors_of_usage_import_no_torch(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = ("--bundle", tiny_bundle)
    sound = tmp_path / "page.mp3"
    sound.write_text("<html>not found</html>")
    commands: list[tuple[Sequence[object], str]] = [
        (("say", "yes", "--loud"), "No such option"),
        (("say", "yes", "--speed", "9"), "than or equal to 4"),
        (("say", "", *bundle), "empty"),
        (("say", "...", *bundle), "nothing that can be said"),
        (("say", "yes", "--text-file", "gone.txt"), "either an argument or"),
        (("say", "--text-file", "gone.txt"), "gone.txt: No such file"),
        (("say", "yes", "--voice", "nobody", *bundle), "there is no voice 'nobody'"),
        (("say", "yes", "--voice", "me.wav", *bundle), "is a recording"),
        (("say", "yes", "--bundle", "nothing"), "neither a folder nor the name"),
        (("say", "yes", "--device", "gpu", *bundle), "devices are"),
        (("say", "yes", "-o", "out.xyz", *bundle), ".wav, .flac"),
        (("clone", "yes", "--prompt-audio", "gone.wav", *bundle), "no such audio file"),
        (("clone", "yes", "--prompt-audio", sound, *bundle), "it is a web page"),
        (("convert", "gone.wav", "--voice", "ann", *bundle), "no such audio file"),
        (("prepare-voice", "gone.wav"), "no such audio file"),
        (("transcribe", "gone.wav"), "no such audio file"),
        (("tokens", "gone.jsonl", "--bundle", "nothing"), "neither a folder nor the name"),
        (("lexicon", "check", "gone.txt", *bundle), "the lexicon gone.txt cannot be read: no such"),
        (("lexicon", "check", sound, "--text-file", "gone.txt"), "gone.txt: No such file"),
        (("say", "yes", "--lexicon", "gone.txt", *bundle), "gone.txt cannot be read: no such file"),
        (("voices", "--bundle", "nothing"), "neither a folder nor the name"),
        (("inspect", "nothing"), "neither a folder nor the name"),
        (("import", "cosyvoice2", "gone", "new"), "gone is no folder"),
        (("train", "nothing"), "nor a config of that name; there are directedness, dpo"),
        (("export", "new", "flow", "a=b"), "not of the form COMPONENT=FOLDER"),
        (("export", "bundle", "new", "flow"), "not of the form COMPONENT=FOLDER"),
        (("export", "nosuch"), "`tokenlm export` has no verb 'nosuch'; it has bundle, cosyvoice2"),
        (("export", "lllm", "mini-en", "new", "--any"), "has no verb 'lllm'; it has bundle"),
        (("export-llm", "mini-en", "new"), "it is `tokenlm export llm`"),
        (("data", "validate", "gone.jsonl"), "gone.jsonl: the manifest cannot be read"),
        (("data", "text-tokenizer", "pieces", "gone.jsonl", "new"), "need --vocab-size"),
        (("data", "sya"), "`tokenlm data` has no verb 'sya'; it has import, merge"),
        (("validate", "gone.jsonl", "--any", "thing"), "it is `tokenlm data validate`"),
        (("import-data", "ljspeech"), "it is `tokenlm data import`"),
        (("sya", "yes"), "No such command"),
        (("--help",), "say"),
        (("say", "--help"), "--voice"),
    ]
    told, modules = runs(*(words for words, _ in commands), cwd=tmp_path)
    for (words, part), (status, output) in zip(commands, told, strict=True):
        assert (status == 0) == (words[-1] == "--help"), output
        assert part in output, (words, output)
    slow = {"torch", "transformers", "matplotlib", "scipy", "soxr", "huggingface_hub", "fastapi"}
    assert not slow & modules


@pytest.mark.slow
def test_speaking_imports_what_it_needs_and_nothing_else(tiny_bundle: Path, tmp_path: Path) -> None:
    told, modules = runs(
        ("say", "Yes, it is.", "-o", "out.wav", "--bundle", tiny_bundle), cwd=tmp_path
    )
    assert told[0][0] == 0 and (tmp_path / "out.wav").exists(), told
    assert "torch" in modules
    slow = {
        "transformers", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy",
        "vector_quantize_pytorch", "scipy", "matplotlib", "huggingface_hub", "fastapi",
        "accelerate", "torchdiffeq", "onnxruntime", "av", "rich.progress",
    }  # fmt: skip
    assert not slow & modules
    assert not {name for name in modules if name.partition(".")[0] == "training"}


def test_output_holds_what_its_encoding_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where a pipe has the encoding of the region."""
    pipe = io.BytesIO()
    stream = io.TextIOWrapper(pipe, encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    cli.accept_all_characters()
    print("GIF /d\u0292\u026af/, caf\u00e9", file=stream, flush=True)
    assert pipe.getvalue() == b"GIF /d\\u0292\\u026af/, caf\xe9" + os.linesep.encode()
