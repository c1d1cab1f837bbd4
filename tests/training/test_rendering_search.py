from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import save_audio
from tokenlm.synthesis.synthesizer import Synthesizer
from training import rendering_search
from training.data.manifest import Utterance, write_manifest
from training.rendering_search import Renderer


@pytest.fixture
def rows(tmp_path: Path) -> list[Utterance]:
    torch.manual_seed(0)
    found = []
    for name in ("a", "b"):
        time = torch.arange(2 * 16_000) / 16_000
        sound = sum((0.1 * torch.sin(2 * torch.pi * 150 * k * time) for k in range(1, 6)), time * 0)
        save_audio(tmp_path / f"{name}.wav", sound + 0.01 * torch.randn(32_000), 16_000)
        found.append(
            Utterance(id=name, audio=tmp_path / f"{name}.wav", text="hi", speaker="x", duration=2.0)
        )
    return found


def test_recordings_are_their_own_best_and_silence_is_told_apart(
    tiny_bundle: Path, rows: list[Utterance]
) -> None:
    synthesizer = Synthesizer.from_pretrained(str(tiny_bundle))
    renderer = Renderer(synthesizer, [(rows[0], rows[1])])
    recorded = renderer.score(None)
    assert recorded.similarity == pytest.approx(1.0, abs=1e-5)
    noise = renderer.score(lambda target, voice, number: 0.1 * torch.randn(48_000))
    assert noise.similarity < recorded.similarity
    assert noise.char_error_rate >= 0


def test_every_setting_is_tried(
    tiny_bundle: Path,
    tmp_path: Path,
    rows: list[Utterance],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_manifest(tmp_path / "valid.jsonl", rows)
    arguments = ["--bundle", str(tiny_bundle), "--manifest", str(tmp_path / "valid.jsonl")]
    arguments += ["--steps", "1", "2", "--guidance", "0", "1.5"]
    assert rendering_search.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:22].strip() for line in lines[1:]] == [
        "recorded",
        "1 steps, guidance 0.0",
        "1 steps, guidance 1.5",
        "2 steps, guidance 0.0",
        "2 steps, guidance 1.5",
    ]
    write_manifest(tmp_path / "valid.jsonl", rows[:1])
    assert rendering_search.main(arguments) == 1
    assert "no speaker with two utterances" in capsys.readouterr().err
