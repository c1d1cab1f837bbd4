"""Which codes stand for silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tokenlm.audio.io import save_audio
from tokenlm.config import from_dict
from tokenlm.synthesis.components import GenerationConfig
from training.data.manifest import Utterance, write_manifest
from training.silence import find_silent_tokens, main, quiet_tokens


def test_quiet_by_hand() -> None:
    # Powers 1, 1e-3 (-30 dB), 1e-5 (-50 dB); the last sample belongs to no whole token.
    waveform = torch.cat([torch.full((4,), level) for level in (1.0, 10**-1.5, 10**-2.5)])
    assert quiet_tokens(torch.cat([waveform, torch.ones(1)]), 3).tolist() == [False, False, True]


def test_codes_must_nearly_always_be_quiet_and_not_be_rare() -> None:
    quiet, loud = torch.tensor([True]), torch.tensor([False])
    recordings = [([1], quiet)] * 10 + [([2], quiet)] * 8 + [([2], loud)] * 2
    recordings += [([3], quiet)] * 7 + [([3], loud)] * 3 + [([4], quiet)] * 9
    assert find_silent_tokens(recordings) == [1, 2]


def test_the_command_prints_what_a_bundle_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number in range(12):
        waveform = torch.zeros(16_000 // 25 * 4)
        waveform[: 640 * 2] = 0.3
        save_audio(tmp_path / f"{number}.wav", waveform, 16_000)
        rows.append(
            Utterance(
                id=str(number),
                audio=tmp_path / f"{number}.wav",
                text="x",
                speaker="s",
                duration=0.16,
                speech_tokens=(5, 6, 7, 7),
            )
        )
    write_manifest(tmp_path / "m.jsonl", rows)
    assert main([str(tmp_path / "m.jsonl")]) == 0
    generation = from_dict(GenerationConfig, yaml.safe_load(capsys.readouterr().out))
    assert generation.guards.silent_tokens == (7,)
    write_manifest(
        tmp_path / "n.jsonl",
        [Utterance(id="a", audio=tmp_path / "0.wav", text="x", speaker="s", duration=1.0)],
    )
    assert main([str(tmp_path / "n.jsonl")]) == 2
    assert "has no speech tokens" in capsys.readouterr().err
