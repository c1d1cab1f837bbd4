"""The comparison of an LLM server with the LM here, on a server that is pretended."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_llm_server import FakeLLMServer
from script_module import load_script

from tokenlm.checkpoint.llm_folder import export_llm

CHECK = load_script("check_engine")


@pytest.mark.slow
def test_it_tells_whether_both_say_the_same(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(CHECK, "TEXTS", ("Is it so?",))
    folder = export_llm(tiny_bundle, tmp_path / "llm").folder
    arguments = ["--bundle", str(tiny_bundle), "--url"]
    with FakeLLMServer(folder) as server:
        assert CHECK.main([*arguments, server.url]) == 0
        told = capsys.readouterr().out
        assert told.count(" yes ") == 2 and "in pieces: Is it so?" in told
        assert server.rows.bias is not None
        server.rows.bias = server.rows.bias.flip(0) + 5.0 * server.rows.bias.abs().argsort()
        assert CHECK.main([*arguments, server.url]) == 1
        assert " NO " in capsys.readouterr().out


def test_a_server_that_does_not_start_is_told(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no vllm here\nexit 3\n")
    python.chmod(0o755)
    assert CHECK.main(["--bundle", str(tiny_bundle), "--python", str(python)]) == 1
    assert "no vllm here" in capsys.readouterr().err
