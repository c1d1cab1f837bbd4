"""Parts of an imported bundle are tuned: additions to LM, flow and HiFT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_folder import graphs, imported_bundle, text_folder, tokenizer

from tokenlm.audio.io import save_audio
from tokenlm.checkpoint.adapter import read_adapter
from tokenlm.synthesis import Synthesizer
from training.data.manifest import Utterance
from training.personal import tuning
from training.personal.adapter import merge_adapter
from training.personal.tuning import tune

__all__ = ["graphs", "imported_bundle", "text_folder", "tokenizer"]

QUICK = (
    "parts.flow.optim.max_steps=2", "parts.flow.log.evaluate_every=1", "parts.flow.lora.rank=2",
    "parts.flow.optim.lr=0.01", "parts.vocoder.optim.max_steps=2", "parts.vocoder.crop_frames=8",
    "parts.vocoder.log.evaluate_every=1", "parts.vocoder.lora.rank=2",
    "parts.vocoder.lora.targets=['*']", "parts.vocoder.discriminator_optim=null",
    "parts.vocoder.discriminator={periods: [2], period_channels: [2], spectrum_channels: 2}",
    "parts.speech_lm.optim.max_steps=2", "parts.speech_lm.log.evaluate_every=1",
    "parts.speech_lm.optim.lr=0.01", "check.num_lines=1", "prompt_seconds=[0.5, 8.0]",
)  # fmt: skip


@pytest.mark.slow
def test_an_imported_bundle_is_tuned(
    imported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "find_worse", lambda *_: "")  # random models say nothing
    rows = []
    for number in range(4):
        time = torch.arange(24_000 + 2_400 * number) / 24_000
        wave = torch.sin(2 * torch.pi * (150 + 20 * number) * time)
        wave = 0.2 * (wave + wave.sign()) * (0.2 + torch.sin(9.0 * time).square())
        path = tmp_path / f"{number}.wav"
        save_audio(path, wave, 24_000)
        rows.append(
            Utterance(
                id=str(number), audio=path, text="it is", speaker="me",
                duration=time.shape[0] / 24_000,
            )
        )  # fmt: skip
    result = tune(
        rows, tmp_path / "me.voice", tmp_path / "work", bundle=imported_bundle,
        recipe="evening", overrides=QUICK, on_battery=True,
    )  # fmt: skip
    assert result.adapter is not None, result.notes
    adapter = read_adapter(result.adapter)
    for part in adapter.parts.values():
        assert part.additions and not part.values
    taken = {name for name, facts in result.report["parts"].items() if facts["taken"]}
    assert set(adapter.parts) == taken and len(taken) >= 2, result.notes
    synthesizer = Synthesizer.from_pretrained(imported_bundle)
    tuned = synthesizer.generate("is it so", voice=str(result.voice))
    assert tuned.isfinite().all() and tuned.abs().max() > 0
    streamed = torch.cat(list(synthesizer.stream("is it so", voice=str(result.voice))))
    assert streamed.shape == tuned.shape
    merge_adapter(imported_bundle, result.adapter, tmp_path / "whole")
    assert "me" in Synthesizer.from_pretrained(tmp_path / "whole").voices
