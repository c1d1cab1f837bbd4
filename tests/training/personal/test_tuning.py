"""Tuning at toy size: takes in, a voice and its adapter out, stopped and gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from verb_runner import run_verb

from inference.commands.bundle import inspect
from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import finalize_bundle, resolve
from tokenlm.checkpoint import read_manifest as read_bundle
from tokenlm.checkpoint.adapter import (
    AdapterBase,
    AdapterConfig,
    AdapterError,
    PartChange,
    bundle_fingerprint,
    read_adapter,
    save_adapter,
)
from tokenlm.checkpoint.component import read_state
from tokenlm.checkpoint.registry import load_model
from tokenlm.config import from_dict, load_config
from tokenlm.synthesis import Synthesizer, Voice, VoiceError
from training.commands import merge
from training.config import BatchConfig
from training.data.manifest import Utterance, write_manifest
from training.personal import tuning
from training.personal.adapter import merge_adapter
from training.personal.commands import tune as tune_verb
from training.personal.config import SpokenCheckConfig, TuneConfig
from training.personal.memory import fit_batch
from training.personal.spoken_check import Spoken, find_worse, spread
from training.personal.tuning import (
    TuneError,
    TuneProgress,
    TuningStopped,
    Waiting,
    _PartObserver,
    recipe_path,
    tune,
)
from training.stages.lora import LoraSettings, add_lora, changes_of

TEXT = "the quick brown fox jumps over the dog"
QUICK = (
    "parts.flow.optim.max_steps=4", "parts.flow.log.evaluate_every=2",
    "parts.flow.log.save_every=1", "parts.flow.optim.lr=0.01", "parts.flow.lora.rank=2",
    "parts.vocoder.optim.max_steps=2", "parts.vocoder.log.evaluate_every=1",
    "parts.vocoder.log.save_every=1", "parts.vocoder.crop_frames=8",
    "parts.vocoder.discriminator={periods: [2], period_channels: [2], spectrum_channels: 2}",
    "parts.vocoder.discriminator_start_step=1", "parts.vocoder.adversarial_start_step=1",
    "parts.vocoder.resolutions=[[256, 64]]",
    "parts.speech_lm.optim.max_steps=2", "parts.speech_lm.log.evaluate_every=1",
    "parts.speech_lm.log.save_every=1", "parts.speech_lm.optim.lr=0.01",
    "check.num_lines=2", "prompt_seconds=[0.5, 8.0]",
)  # fmt: skip


def hum(pitch: float, seconds: float) -> torch.Tensor:
    """Something like a voice (S,) at 24 kHz."""
    time = torch.arange(int(seconds * 24_000)) / 24_000
    waves = [torch.sin(2 * torch.pi * pitch * time * n) / n for n in range(1, 9)]
    return 0.2 * torch.stack(waves).sum(dim=0) * (0.2 + torch.sin(9.0 * time).square())


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Five recordings of one person."""
    folder = tmp_path_factory.mktemp("takes")
    rows = []
    for number in range(5):
        path = folder / f"{number}.wav"
        save_audio(path, hum(150.0 + 5 * number, 1.0 + 0.1 * number), 24_000)
        seconds = 1.0 + 0.1 * number
        text = TEXT[: 30 + number]
        rows.append(
            Utterance(id=str(number), audio=path, text=text, speaker="me", duration=seconds)
        )
    return rows


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, with blocks as short as its text is long."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    path = folder / "speech_lm" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("block_speech_tokens: 15", "block_speech_tokens: 2"))
    finalize_bundle(folder, read_bundle(folder))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models say nothing that could become worse."""
    monkeypatch.setattr(tuning, "find_worse", lambda *_: "")
    # Batches follow the memory there is, and what is learned follows the batches.
    monkeypatch.setattr(tuning, "free_memory", lambda device: 8e9)


@pytest.mark.slow
def test_a_voice_is_tuned_spoken_and_merged(
    bundle: Path, takes: list[Utterance], tmp_path: Path
) -> None:
    manifest = tmp_path / "me.jsonl"
    write_manifest(manifest, takes)
    result = run_verb(
        tune_verb, manifest, "--bundle", bundle, "--recipe", "evening", "--on-battery", *QUICK
    )
    assert result.exit_code == 0, result.output
    adapter = tmp_path / "me.adapter"
    found = read_adapter(adapter)
    assert set(found.parts) <= {"flow", "vocoder", "speech_lm"} and "flow" in found.parts
    assert found.parts["flow"].additions and not found.parts["flow"].values
    voice = Voice.load(tmp_path / "me.voice")
    assert voice.adapter == str(adapter)
    synthesizer = Synthesizer.from_pretrained(bundle)
    tuned = synthesizer.generate(TEXT, voice=voice)
    plain = synthesizer.generate(TEXT, voice=replace(voice, adapter=""))
    assert tuned.shape != plain.shape or not torch.equal(tuned, plain)
    shown = run_verb(inspect, adapter)
    assert shown.exit_code == 0 and "additions of rank 2" in shown.output
    assert "base         tiny (" in shown.output
    assert run_verb(merge, bundle, adapter, tmp_path / "whole").exit_code == 0
    whole = Synthesizer.from_pretrained(tmp_path / "whole")
    assert "me" in whole.voices
    # Of the same tokens: rounded to 16 bits, the LM may draw another one.
    tokens = [[1, 5, 9, 2] * 5]
    rendered = synthesizer.render(tokens, voice=voice)
    torch.testing.assert_close(whole.render(tokens, voice="me"), rendered, atol=0.02, rtol=0)


@pytest.mark.slow
def test_a_stopped_tuning_goes_on_to_the_same_bit(
    bundle: Path, takes: list[Utterance], tmp_path: Path
) -> None:
    def run(name: str, should_stop: Callable[[], bool] = lambda: False) -> list[float]:
        seen: list[float] = []

        def show(progress: TuneProgress) -> None:
            if progress.part in ("flow", "vocoder", "speech_lm"):
                seen.append(progress.share)

        tune(
            takes, tmp_path / f"{name}.voice", tmp_path / name, bundle=bundle,
            recipe="evening", overrides=QUICK, on_progress=show, should_stop=should_stop,
            on_battery=True,
        )  # fmt: skip
        return seen

    whole = run("whole")
    assert whole == [0.25, 0.5, 0.75, 1.0, 0.5, 1.0, 0.5, 1.0]
    countdown = iter([False] * 4 + [True] * 99)
    with pytest.raises(TuningStopped):
        run("parts", lambda: next(countdown))
    run("parts")
    names = ("adapter.safetensors",)
    for name in names:
        first = (tmp_path / "whole.adapter" / name).read_bytes()
        assert (tmp_path / "parts.adapter" / name).read_bytes() == first
    kept = Voice.load(tmp_path / "whole.voice"), Voice.load(tmp_path / "parts.voice")
    assert torch.equal(kept[0].speaker_embedding, kept[1].speaker_embedding)
    with pytest.raises(TuneError, match="begun with another seed"):
        tune(
            takes, tmp_path / "x.voice", tmp_path / "whole", bundle=bundle, seed=1,
            recipe="evening", overrides=QUICK, on_battery=True,
        )  # fmt: skip


@pytest.mark.slow
def test_what_makes_anything_worse_is_not_taken(
    bundle: Path, takes: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Iterator[str] = iter(["words were lost", "", ""])
    monkeypatch.setattr(tuning, "find_worse", lambda *_: next(asked, ""))
    only = [one for one in QUICK if "flow" in one or "check" in one or "prompt" in one]
    first = tune(
        takes, tmp_path / "a.voice", tmp_path / "a", bundle=bundle, recipe="short",
        overrides=only, on_battery=True,
    )  # fmt: skip
    steps = first.report["parts"]["flow"]
    assert steps["refused"] and list(steps["refused"].values())[0] == ["words were lost"]
    monkeypatch.setattr(tuning, "find_worse", lambda *_: "words were lost")
    second = tune(
        takes[:1], tmp_path / "b.voice", tmp_path / "b", bundle=bundle, recipe="short",
        overrides=only, on_battery=True,
    )  # fmt: skip
    assert second.adapter is None and "prompt alone" in second.notes[-1]
    again = tune(
        takes[:1], tmp_path / "b.voice", tmp_path / "b", bundle=bundle, recipe="short",
        overrides=only, on_battery=True,
    )  # fmt: skip
    assert "too few takes" in second.notes[0] and again.notes == second.notes
    assert Voice.load(tmp_path / "b.voice").adapter == ""


def test_takes_that_cannot_be_tuned_on(takes: list[Utterance], tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(TuneError, match="no take"):
        tune([], tmp_path / "a.voice", work)
    other = replace(takes[0], speaker="you")
    with pytest.raises(TuneError, match="several people: me, you"):
        tune([takes[0], other], tmp_path / "a.voice", work)
    with pytest.raises(TuneError, match=r"ends in \.voice"):
        tune(takes, tmp_path / "a.wav", work)
    with pytest.raises(TuneError, match="'my voice' is not a name of a voice"):
        tune(takes, tmp_path / "my voice.voice", work)
    (tmp_path / "b.adapter").mkdir()
    (tmp_path / "b.adapter" / "letter.txt").write_text("mine")
    with pytest.raises(AdapterError, match="more than an adapter"):
        tune(takes, tmp_path / "b.voice", work)
    with pytest.raises(TuneError, match=r"no recipe 'x'; there are .*evening.*short"):
        tune(takes, tmp_path / "a.voice", work, recipe="x")
    assert not work.exists()


@pytest.mark.slow
def test_an_adapter_of_mini_en_is_small(tmp_path: Path) -> None:
    bundle = resolve("mini-en")
    recipe = load_config(TuneConfig, recipe_path("evening"))
    parts = {}
    for part, settings in recipe.parts.items():
        model = load_model(bundle / part, nn.Module).requires_grad_(True)
        if "lora" in settings:
            add_lora(model, from_dict(LoraSettings, settings["lora"], where="evening"))
        parts[part] = changes_of(model)
    manifest = read_bundle(bundle)
    base = AdapterBase(name=manifest.name, fingerprint=bundle_fingerprint(manifest))
    save_adapter(tmp_path / "me.adapter", AdapterConfig(name="me", base=base), parts)
    size = sum(path.stat().st_size for path in (tmp_path / "me.adapter").iterdir())
    assert 5e6 < size <= 12e6
    assert set(read_adapter(tmp_path / "me.adapter").parts) == {"flow", "vocoder", "speech_lm"}


def test_worse_is_beyond_the_interval() -> None:
    config = SpokenCheckConfig()
    before = Spoken((0.1,) * 8, (2.0,) * 8, (0.8,) * 8)
    assert find_worse(before, before, config) == ""
    more = replace(before, errors=(0.3, 0.2, 0.25, 0.3, 0.2, 0.25, 0.3, 0.2))
    assert "rose from 0.100 to 0.250" in find_worse(before, more, config)
    ten = Spoken((0.1,) * 10, (2.0,) * 10, (0.8,) * 10)
    two = replace(ten, errors=(0.9, 0.9, *(0.1,) * 8))
    assert "2 lines failed, 0 before" in find_worse(ten, two, config)
    assert find_worse(two, two, config) == find_worse(two, ten, config) == ""
    # One line of eight may be chance.
    assert find_worse(before, replace(before, errors=(0.9, *(0.1,) * 7)), config) == ""
    slow = replace(before, rates=(2.6,) * 8)
    assert "+30 %" in find_worse(before, slow, config)
    assert find_worse(before, slow, config, takes_rate=2.5) == ""  # as the person speaks
    assert "-50 %" in find_worse(before, replace(before, rates=(1.0,) * 8), config, takes_rate=2.5)
    away = replace(before, likeness=(0.7,) * 8)
    assert "from 0.800 to 0.700" in find_worse(before, away, config)
    must = SpokenCheckConfig(must_gain=True)
    assert "likeness" in find_worse(before, before, must)
    assert find_worse(before, replace(before, likeness=(0.85,) * 8), must) == ""
    assert spread(["a", "b", "c", "d"], 2) == ["a", "c"] and spread(["a"], 3) == ["a"]


def test_nothing_drifts_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "find_worse", find_worse)
    one = object.__new__(tuning._Tuning)
    one.config = load_config(TuneConfig, recipe_path("evening"))
    before, best, now = (Spoken((), (rate,) * 8, ()) for rate in (2.0, 2.25, 2.5))
    assert one._worse((before,), best, "ann") == one._worse((best,), now, "ann") == ""
    assert "+25 %" in one._worse((best, before), now, "ann")


def test_a_part_that_has_converged_is_known_again(tmp_path: Path) -> None:
    config = load_config(TuneConfig, recipe_path("evening"), ["patience=2"])
    waiting = Waiting(pause_file=tmp_path / "pause")
    observer = _PartObserver("flow", tmp_path, config, 9, waiting, lambda progress: None)
    assert not observer.begins(0)
    for step, value in ((0, 1.0), (1, 0.5), (2, 0.6), (3, 0.7)):
        assert observer.evaluated(step, {"velocity": value}, {"flow": nn.Module()}) == (step == 3)
    assert observer.begins(3)  # after a signal in this step, or a loss of power after it
    assert not observer.begins(2) and max(observer.history()) == 2


def test_a_voice_is_merged_once(tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = read_bundle(tiny_bundle)
    base = AdapterBase(name=manifest.name, fingerprint=bundle_fingerprint(manifest))
    state = read_state(tiny_bundle / "vocoder" / "model.safetensors")
    name = next(iter(state))
    parts = {"vocoder": PartChange({name: state[name]}, {})}
    ann = Voice.load(tiny_bundle / "voices" / "ann.voice")
    for own in ("ann", "new"):
        folder = tmp_path / f"{own}.adapter"
        save_adapter(folder, AdapterConfig(name=own, base=base), parts)
        replace(ann, adapter=str(folder)).save(tmp_path / f"{own}.voice")
    with pytest.raises(AdapterError, match="has a voice 'ann' of its own"):
        merge_adapter(tiny_bundle, tmp_path / "ann.adapter", tmp_path / "whole")
    (tmp_path / "new.voice").write_bytes(b"x")
    with pytest.raises(VoiceError, match="is damaged"):
        merge_adapter(tiny_bundle, tmp_path / "new.adapter", tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_batches_fit_the_memory() -> None:
    batch = BatchConfig(max_seconds_per_batch=40.0, accumulation=1)
    assert fit_batch(batch, 8.0, 1e6, 80e6 + 1) == batch
    half = fit_batch(batch, 8.0, 1e6, 40e6)
    assert (half.max_seconds_per_batch, half.accumulation) == (20.0, 2)
    few = BatchConfig(max_seconds_per_batch=40.0, accumulation=1, max_items=3)
    assert fit_batch(few, 8.0, 1e6, 24e6).accumulation == 2  # of 24 s at most
    assert fit_batch(few, 8.0, 1e6, 50e6).accumulation == 1
    assert fit_batch(replace(few, pack_seconds=9.0), 8.0, 1e6, 24e6).accumulation == 4
    least = fit_batch(batch, 8.0, 1e6, 0.0)  # the longest take goes in whatever there is
    assert 8.0 < least.max_seconds_per_batch < 8.1 and least.accumulation == 5


def test_tuning_waits_while_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = tmp_path / "pause"
    waiting = Waiting(pause_file=pause, on_battery=True)
    assert waiting.reason() == "" and waiting.wait() < 1.0
    pause.touch()
    assert "pause is there" in waiting.reason()
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            pause.unlink()

    monkeypatch.setattr(tuning.time, "sleep", nap)
    waiting.wait()
    assert len(naps) == 3
    pause.touch()
    with pytest.raises(TuningStopped):
        waiting.wait(lambda: True)

    class Battery:
        power_plugged = False

    monkeypatch.setattr(tuning.psutil, "sensors_battery", Battery, raising=False)
    assert "battery" in Waiting(pause_file=tmp_path / "x").reason()
    assert Waiting(pause_file=tmp_path / "x", on_battery=True).reason() == ""
