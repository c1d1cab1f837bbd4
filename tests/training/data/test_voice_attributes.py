"""Attributes of voices, measured and labelled, and the voice space of a bundle."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from script_module import load_script
from torch import Tensor
from verb_runner import run_verb

from inference.commands.voices import design_voice
from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import validate_bundle
from tokenlm.synthesis import Synthesizer, Voice
from training.data.commands import voice_space
from training.data.manifest import Utterance
from training.data.voice_attributes import labels, measure

RATE = 16_000


def hum(pitch: float, seconds: float, rate: int) -> Tensor:
    """Harmonics of a moving pitch (S,), in syllables."""
    time = torch.arange(int(seconds * rate)) / rate
    phase = 2 * math.pi * pitch * (time + 0.02 * torch.sin(2 * math.pi * 0.7 * time))
    wave = torch.stack([torch.sin(n * phase) / n for n in range(1, 12)]).sum(dim=0)
    return 0.2 * wave * (0.15 + torch.sin(math.pi * 3.0 * time).square())


def row(**extra: object) -> Utterance:
    return Utterance(
        id="a", audio=Path("a.wav"), text="x", duration=1.0,
        speaker=str(extra.pop("speaker", "ann")), extra=extra,
    )  # fmt: skip


@pytest.mark.parametrize("pitch", [90.0, 200.0])
def test_measures_are_those_of_the_sound(pitch: float) -> None:
    found = measure(hum(pitch, 2.0, RATE), RATE)
    assert found.pitch == pytest.approx(12 * math.log2(pitch / 100), abs=0.5)
    assert 0.05 < found.liveliness < 2.5
    time = torch.arange(2 * RATE) / RATE
    low, high = torch.sin(2 * math.pi * 300 * time), torch.sin(2 * math.pi * 4000 * time)
    # A tenth of the amplitude is 20 dB.
    assert measure(low + 0.1 * high, RATE).brightness == pytest.approx(-20, abs=0.5)
    assert measure(low + high, RATE).brightness == pytest.approx(0, abs=0.5)
    noise = torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert math.isnan(measure(noise, RATE).pitch)
    assert math.isnan(measure(noise[:100], RATE).brightness)


def test_labels_are_read_from_rows() -> None:
    assert labels(row(gender="Female", age="60")) == {"sex": 1.0, "age": 60.0}
    assert labels(row(sex="m", age="elderly")) == {"sex": -1.0, "age": 75.0}
    assert labels(row()) == {}
    assert labels(row(engine="kokoro", speaker="af_sky-f1000")) == {"sex": 1.0}
    blend = labels(row(engine="kokoro", speaker="af_sky:0.75+bm_lewis:0.25-f1060"))
    assert blend == {"sex": 0.5}
    assert labels(row(engine="kokoro", speaker="someone")) == {}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a voice space out of a manifest of humming voices."""
    folder = tmp_path_factory.mktemp("space")
    shutil.copytree(tiny_bundle, folder / "tiny")
    rows = []
    for number in range(6):
        for take in range(3):
            path = folder / f"{number}-{take}.wav"
            sex = "f" if number % 2 else "m"
            save_audio(path, hum(90.0 + 30 * number + take, 0.8, RATE), RATE)
            rows.append({"id": path.stem, "audio": path.name, "text": "mm", "speaker": str(number),
                         "duration": 0.8, "sex": sex})  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    result = run_verb(voice_space, folder / "train.jsonl", folder / "tiny", "--per-speaker", 2)
    assert result.exit_code == 0, result.output
    told = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "6 of 6 voices" in told["pitch"] and "semitones over 100 Hz" in told["pitch"]
    assert "age" not in told
    return folder / "tiny"


def test_the_bundle_is_whole_and_designs_voices(bundle: Path, tmp_path: Path) -> None:
    assert validate_bundle(bundle) == []
    space = Synthesizer.from_pretrained(bundle).voice_space
    assert space.names == ["pitch", "brightness", "liveliness", "sex"]
    path = tmp_path / "deep.voice"
    words = ("--describe", "a deep man", "--set", "liveliness=-0.5", "--seed", 3)
    result = run_verb(design_voice, *words, "-o", path, "--bundle", bundle)
    assert result.exit_code == 0, result.output
    first = Voice.load(path)
    assert first.name == "deep" and first.description == "designed: a deep man"
    run_verb(design_voice, *words, "-o", path, "--bundle", bundle)
    assert Voice.load(path).digest == first.digest
    result = run_verb(design_voice, "--base", "ann+bob", "-o", path, "--bundle", bundle)
    assert result.exit_code == 0 and Voice.load(path).digest != first.digest
    for wrong, reason in (
        (("--set", "pitch"), "takes an attribute and a number"),
        (("--set", "colour=1"), "no attribute 'colour'"),
        (("--base", "zoe"), "no voice 'zoe'"),
        ((), "say what voice it is to be"),
    ):
        result = run_verb(design_voice, *wrong, "-o", path, "--bundle", bundle)
        assert result.exit_code == 2 and reason in result.stderr, result.output
    result = run_verb(design_voice, "--set", "pitch=1", "-o", tmp_path / "x.wav")
    assert result.exit_code == 2 and "ends in .voice" in result.stderr


@pytest.mark.slow
def test_descriptions_are_scored(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("measure_descriptions")
    output = tmp_path / "shares.json"
    assert script.main([str(bundle), "--num", "2", "--output", str(output)]) == 0
    told = json.loads(output.read_text(encoding="utf-8"))
    assert len(told["rows"]) == 2 and 0 <= told["shares"]["all"] <= 1
    assert "all " in capsys.readouterr().out
    assert script.is_right(-1.0, -0.1) and not script.is_right(1.0, float("nan"))
    rows = [{"right": {"pitch": True, "sex": False}}, {"right": {"pitch": True}}]
    assert script.shares(rows) == {"pitch": 1.0, "sex": 0.0, "all": 2 / 3}
    assert script.main(["no-such-bundle"]) == 2
