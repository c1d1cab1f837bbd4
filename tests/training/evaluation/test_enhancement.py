"""The measurement of enhancement: damage, rows, floors."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from script_module import load_script
from torch import nn

from tokenlm.audio.io import save_audio
from tokenlm.synthesis.enhancing import Enhancer
from training.data.manifest import Utterance
from training.evaluation import judges
from training.evaluation.enhancement import (
    CLEAN,
    DAMAGES,
    NOISY,
    Damage,
    EnhancementJudges,
    compare_enhanced,
    damage,
    measure_enhancement,
    other_voice,
)
from training.evaluation.error_rate import clean_plainly
from training.evaluation.judges import OVRL, P808

RATE = 24_000


def sentence(number: int) -> tuple[Utterance, torch.Tensor]:
    time = torch.arange(RATE) / RATE
    voice = 0.1 * torch.sin(2 * torch.pi * (150 + 40 * number) * time)
    row = Utterance(
        id=f"s{number}", audio=Path("none.wav"), text="yes", speaker=f"p{number}", duration=1.0
    )
    return row, voice * torch.exp(-(time % 0.5) * 35) + 1e-5 * torch.randn(
        RATE, generator=torch.Generator().manual_seed(number)
    )


@pytest.mark.parametrize("what", DAMAGES, ids=lambda what: what.name)
def test_damage_is_as_said(what: Damage) -> None:
    clean, other = sentence(0)[1], sentence(1)[1]
    found = damage(clean, RATE, what, other, torch.Generator().manual_seed(0))
    assert found.shape == clean.shape
    assert torch.equal(found, clean) == (what.name == CLEAN)
    if what.noise and not what.echo_seconds:
        ratio = clean.square().mean() / (found - clean).square().mean()
        assert float(10 * ratio.log10()) == pytest.approx(what.snr_db, abs=0.1)


def test_rows_and_floors(tiny_enhancer: dict[str, nn.Module]) -> None:
    enhancer = Enhancer(tiny_enhancer["voice_isolator"])  # type: ignore[arg-type]
    chosen = [what for what in DAMAGES if what.name in (CLEAN, "pink_0", "room_800")]

    def rate(samples: np.ndarray) -> dict[str, float]:
        """The softer, the better, as this enhancer makes all softer."""
        level = float(np.square(samples).mean()) * 1e3
        return {OVRL: 4 - level, P808: 3.0}

    judges = EnhancementJudges(
        rate=rate,
        transcribe=lambda pcm: "yes no",
        cleaner=clean_plainly,
        embed=lambda samples: np.array([1.0, 0.0]),
    )
    kept: list[str] = []
    rows = measure_enhancement(
        [sentence(0), sentence(1)],
        RATE,
        enhancer,
        judges,
        methods=["isolation"],
        damages=chosen,
        keep=lambda name, sound: kept.append(name),
    )
    assert len(rows) == 2 * 3 * 2 == len(kept) == len(set(kept))
    clean = [row for row in rows if row["group"] == CLEAN]
    assert not any(row["enhanced"] for row in clean)
    noisy = [row for row in rows if row["condition"] == "pink_0" and row["system"] == "isolation"]
    assert all(row["enhanced"] and row["errors"] == 1 for row in noisy)
    floors = {
        (floor.group, floor.comparison.name): floor for floor in compare_enhanced(rows, "isolation")
    }
    quality = floors["noise", OVRL]
    assert quality.comparison.difference > 0
    assert quality.is_met == (quality.comparison.difference >= 0.5)
    assert floors["noise", "word_error_rate"].is_met  # as many as before
    assert floors["room", "similarity"].is_met and floors[CLEAN, P808].is_met
    assert "within 0.05: met" in str(floors[CLEAN, P808])
    worse = [{**row, P808: 2.9} if row["system"] != NOISY else row for row in rows]
    told = {floor.group: floor for floor in compare_enhanced(worse, "isolation")
            if floor.comparison.name == P808}  # fmt: skip
    assert not told[CLEAN].is_met and "NOT MET" in str(told[CLEAN])


def test_one_sentence_lends_its_voice_to_none(tiny_enhancer: dict[str, nn.Module]) -> None:
    enhancer = Enhancer(tiny_enhancer["voice_isolator"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two sentences"):
        measure_enhancement(
            [sentence(0)], RATE, enhancer, EnhancementJudges(), methods=["isolation"]
        )


def test_another_voice_is_of_another_speaker(tiny_enhancer: dict[str, nn.Module]) -> None:
    sorted_ones = [
        (replace(row, speaker=speaker), clean)
        for speaker, (row, clean) in zip("aabbb", map(sentence, range(5)), strict=True)
    ]
    lent = [other_voice(sorted_ones, number)[0].id for number in range(5)]
    assert lent == ["s4", "s4", "s1", "s1", "s1"]
    enhancer = Enhancer(tiny_enhancer["voice_isolator"])  # type: ignore[arg-type]
    alone = sorted_ones[:2]
    for name, is_possible in (("talker_10", False), ("room_400", True)):
        chosen = [what for what in DAMAGES if what.name == name]
        measure = partial(
            measure_enhancement, alone, RATE, enhancer, EnhancementJudges(), methods=[]
        )
        if is_possible:
            assert len(measure(damages=chosen)) == 2
        else:
            with pytest.raises(ValueError, match="all sentences are of the speaker 'a'"):
                measure(damages=chosen)


@pytest.mark.slow
def test_rows_are_there_though_cloning_fails(
    tiny_enhancer: dict[str, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("measure_enhancement")
    lines = ["no JSON"]
    for number in range(2):
        row, waveform = sentence(number)
        save_audio(tmp_path / f"{number}.wav", waveform, RATE)
        facts = {"id": row.id, "audio": f"{number}.wav", "text": "yes", "speaker": row.speaker}
        lines.append(json.dumps({**facts, "duration": 1.0}))
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    enhancer = Enhancer(tiny_enhancer["voice_isolator"])  # type: ignore[arg-type]
    monkeypatch.setattr(script, "load_enhancer", lambda bundle, components: enhancer)
    monkeypatch.setattr(judges, "load_naturalness", lambda name: lambda samples: {P808: 3.0})
    words = [str(tmp_path / "all.jsonl"), "--damage", "talker_10", "--naturalness", "toy"]
    words += ["--clone", "2", "--bundle", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["measure_enhancement", *words])
    with pytest.raises(ValueError, match="none"):
        script.main()
    assert len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) == 4
    cloned = {name: ([3.0, 3.0], [3.2, 3.4]) for name in ("street_10", "talker_10")}
    monkeypatch.setattr(script, "compare_clones", lambda *parts: cloned)
    assert script.main() == 0
    floors = json.loads((tmp_path / "out" / "floors.json").read_text())["isolation"]
    one = next(floor for floor in floors if floor["group"] == "cloned, street_10")
    assert one["is_met"] and one["second"] == pytest.approx(3.3)


def test_errors_of_pitch_by_hand() -> None:
    errors = load_script("compare_vocoders").periodic_errors
    time = torch.arange(RATE) / RATE
    tones = [torch.sin(2 * torch.pi * pitch * time) for pitch in (200.0, 200.0 * 2 ** (1 / 12))]
    same, higher = errors(tones[0], tones[0], RATE), errors(tones[1], tones[0], RATE)
    assert same == {"pitch_cents": 0.0, "periodicity": 0.0, "voicing": 0.0}
    assert higher["pitch_cents"] == pytest.approx(100.0, abs=3.0) and higher["periodicity"] < 0.05
    noise = torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    lost = errors(noise, tones[0], RATE)
    assert lost["voicing"] > 0.8 and lost["periodicity"] > 0.4
