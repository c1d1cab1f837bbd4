"""An imported bundle gets a recogniser for its tokens: from the published folder to its uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from published_folder import SIZES, graphs, text_folder, tokenizer, write_folder
from tiny_recognizer import tiny_recognizer

from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import read_component, read_manifest, read_state, validate_bundle
from tokenlm.checkpoint.bundle import BundleError
from tokenlm.checkpoint.cosyvoice.importer import import_cosyvoice
from tokenlm.checkpoint.registry import KINDS
from tokenlm.models.lm import GuardConfig
from tokenlm.synthesis import Synthesizer
from training.bundle import exchange
from training.data.commands import precompute
from training.run import main as train

__all__ = ["graphs", "text_folder", "tokenizer"]

ROOT = Path(__file__).resolve().parents[3]
TEXTS = ["今天是2号。", "你好吗？[breath]我们走吧！", "“OK” 吗？"]
SMALL = ["optim.warmup_steps=1", "log.save_every=0", "optim.lr=1e-3", "batch.max_items=3"]


@pytest.fixture
def bundle(tmp_path: Path, graphs: dict[str, bytes], text_folder: Path) -> Path:
    """What `tokenlm import cosyvoice2` makes, with the torch tokenizer."""
    write_folder(tmp_path / "published", 2, graphs, text_folder)
    import_cosyvoice(
        tmp_path / "published", tmp_path / "two", version=2, tokenizer="torch", head_dims=SIZES
    )
    return tmp_path / "two"


def write_data(folder: Path) -> None:
    """Noise of several lengths with Chinese texts, six to train on and three to validate on."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 6), ("validation", 3)):
        rows = []
        for number in range(count):
            seconds = 1.0 + 0.2 * number
            sound = 0.1 * torch.randn(round(seconds * 16_000), generator=generator)
            save_audio(folder / f"{split}{number}.wav", sound, 16_000)
            rows.append(
                {
                    "id": f"{split}{number}",
                    "audio": f"{split}{number}.wav",
                    "text": TEXTS[number % 3],
                    "speaker": "ann",
                    "duration": seconds,
                }
            )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


@pytest.mark.slow
def test_from_the_published_folder_to_a_reward(
    bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = Synthesizer.from_pretrained(bundle)
    voice = deaf.prepare_voice(recording, "你好。")
    guards = GuardConfig(num_candidates=2)
    for attempt in (
        lambda: deaf.transcribe(recording),
        lambda: deaf.generate("你好。", voice=voice, guards=guards),
    ):
        with pytest.raises(BundleError, match="The stage token_recognizer trains one"):
            attempt()

    write_data(tmp_path)
    names = {split: tmp_path / f"{split}.tokens.jsonl" for split in ("train", "validation")}
    for split, tokens in names.items():
        precompute(tmp_path / f"{split}.jsonl", tokens, tokenizer=bundle / "speech_tokenizer")
    data = [f"data.train={names['train']}", f"data.valid={names['validation']}"]

    recipe = ["--config", str(ROOT / "configs/train/toy/token_recognizer.yaml")]
    parts = [
        f"speech_tokenizer={bundle}/speech_tokenizer",
        f"text_tokenizer={bundle}/text_tokenizer",
    ]
    more = [f"run={tmp_path}/reader", "collect_alphabet=true", "optim.max_steps=3"]
    assert train([*recipe, *parts, *data, *SMALL, *more, "log.evaluate_every=3"]) == 0
    reader = tmp_path / "reader" / "export" / "token_recognizer"
    facts = read_component(reader)
    assert facts.config["levels"] == [3, 3, 3]
    assert facts.config["alphabet"] == " 2ko今们你号吗吧天好我是走"
    assert facts.extra["tokenizer"] == deaf.components.fingerprint

    heard = tmp_path / "hearing"
    exchange(bundle, heard, {"token_recognizer": reader})
    assert not validate_bundle(heard, KINDS)
    manifest = read_manifest(heard)
    assert manifest.components["token_recognizer"] == "token_recognizer"
    assert manifest.provenance["exchanged"] == ["token_recognizer"]

    hearing = Synthesizer.from_pretrained(heard)
    assert set(hearing.transcribe(recording)) <= set(facts.config["alphabet"])
    chosen = hearing.generate("你好吗？", voice=voice, guards=guards)
    assert chosen.shape[0] > 0 and bool(chosen.isfinite().all())
    # Nothing else has changed.
    plain = hearing.generate("你好吗？", voice=voice)
    assert torch.equal(plain, deaf.generate("你好吗？", voice=voice))

    before = read_state(bundle / "speech_lm" / "model.safetensors")
    recipe = ["--config", str(ROOT / "configs/train/toy/token_reward.yaml")]
    parts = [f"initial.speech_lm={heard}/speech_lm", f"model={heard}/speech_lm/config.yaml"]
    parts += [
        f"text_tokenizer={heard}/text_tokenizer",
        f"token_recognizer={heard}/token_recognizer",
    ]
    more = [f"run={tmp_path}/rewarded", "optim.max_steps=1", "regression.num_texts=0"]
    # At random most classes end the speech, and lengths are those of noise.
    more += ["model.any_special_ends=false", "model.max_speech_per_text=60", "prompt_share=0"]
    more += ["model.min_speech_per_text=1", "model.block_text_tokens=1", "optim.ema_decay=0"]
    more += ["model.block_speech_tokens=1", "log.evaluate_every=0"]
    assert train([*recipe, *parts, *data, *SMALL, *more]) == 0, capsys.readouterr().err
    row = json.loads((tmp_path / "rewarded" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["skipped_steps"] == 0 and row["reward/failed_share"] == 0
    assert row["token_reward/ctc"] > 0 and 0 <= row["reward/token_asr"] <= 1
    after = read_state(tmp_path / "rewarded" / "export" / "speech_lm" / "model.safetensors")
    assert any(not torch.equal(before[name].half(), after[name].half()) for name in before)

    # Nor does the sound of the chain need one: what another recogniser hears may reward, too.
    voice.save(tmp_path / "me.voice")
    recipe = ["--config", str(ROOT / "configs/train/toy/grpo.yaml")]
    parts = [part for part in parts if not part.startswith("token_recognizer=")]
    more[0] = f"run={tmp_path}/heard"
    more += ["token_recognizer=null", "rewards.token_asr=0", "rewards.waveform_asr=1"]
    more += [f"rewards.bundle={bundle}", "group=2"]
    more += [f"rewards.recognizer=transformers:{tiny_recognizer(tmp_path / 'ears')}"]
    assert train([*recipe, *parts, *data, *SMALL, *more]) == 1
    assert "give it as rewards.voice=FILE.voice" in capsys.readouterr().err
    more += [f"rewards.voice={tmp_path}/me.voice"]
    assert train([*recipe, *parts, *data, *SMALL, *more]) == 0, capsys.readouterr().err
    row = json.loads((tmp_path / "heard" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["reward/failed_share"] == 0 and row["reward/waveform_asr"] == 0
    exported = read_component(tmp_path / "heard" / "export" / "speech_lm")
    assert exported.extra["rewards"] == [f"transformers:{tmp_path / 'ears'}"]
