"""A project survives whatever interrupts it, and says what is wrong in a sentence."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import types
import wave
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from verb_runner import run_verb

from tokenlm import atomic
from tokenlm.audio.io import AudioError, load_audio, read_recording, save_audio
from tokenlm.checkpoint.resolve import resolve
from training.data.manifest import read_manifest, validate
from training.data.precompute import Precompute, build_shards
from training.personal import commands
from training.personal.checks import TakeChecker
from training.personal.config import TakeConfig
from training.personal.project import TAKES_FOLDER, Project, ProjectError
from training.personal.prompts import Prompt, kind_of

TEXTS = ["We walked along the beach.", "Is it late?", "How lovely!"]
PROMPTS = [
    Prompt(id=f"p{number:04d}", text=text, kind=kind_of(text), block=0)
    for number, text in enumerate(TEXTS, start=1)
]
CHECKER = TakeChecker(config=TakeConfig(detector="level"))


@pytest.fixture(scope="module")
def recorded() -> tuple[Tensor, int]:
    """A take that is fine (S,), and its rate."""
    waveform, rate = read_recording(resolve("mini-en") / "demo_prompt.wav")
    waveform = pad(waveform[: 3 * rate // 2], (rate // 2, rate // 2))
    noise = torch.randn(waveform.shape, generator=torch.Generator().manual_seed(1))
    return waveform + 1e-4 * noise, rate


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "me", PROMPTS, name="ann", checker=CHECKER)


def take(project: Project, recorded: tuple[Tensor, int], gain: float = 1.0, **more: Any) -> str:
    waveform, rate = recorded
    return project.add_take(gain * waveform, sample_rate=rate, **more).outcome


def test_takes_are_recorded_skipped_and_resumed(
    project: Project, recorded: tuple[Tensor, int]
) -> None:
    assert project.next_prompt() == PROMPTS[0]
    assert take(project, recorded) == "fine"
    assert project.skip() == PROMPTS[2]
    again = Project.open(project.folder, checker=CHECKER)  # on another day
    assert again.next_prompt() == PROMPTS[2] and again.prompts == tuple(PROMPTS)
    state = again.state
    assert (state.num_recorded, state.num_skipped, state.num_rejected) == (1, 1, 0)
    assert state.seconds == pytest.approx(recorded[0].shape[0] / recorded[1])
    assert take(again, recorded, prompt="p0002") == "fine", "a skipped one may be read after all"
    assert take(again, recorded) == "fine"
    assert again.next_prompt() is None and again.state.num_skipped == 0
    with pytest.raises(ProjectError, match="all 3 prompts .* are recorded or skipped"):
        take(again, recorded)
    with pytest.raises(ProjectError, match="no prompt 'p9'"):
        take(again, recorded, prompt="p9")
    with pytest.raises(ProjectError, match="no id of a prompt"):
        take(again, recorded, prompt="../p0001")


def test_a_take_that_is_done_again_takes_the_place_and_a_bad_one_does_not(
    project: Project, recorded: tuple[Tensor, int]
) -> None:
    take(project, recorded, 1.0)
    assert take(project, recorded, 0.5, prompt="p0001") == "fine"
    assert take(project, (torch.zeros(2 * recorded[1]), recorded[1]), prompt="p0001") == "again"
    (row,) = project.utterances()
    torch.testing.assert_close(
        load_audio(row.audio, recorded[1]), 0.5 * recorded[0], atol=1e-4, rtol=0
    )
    entry = project.entry("p0001")
    assert entry is not None and [one.is_kept for one in entry.takes] == [True, True, False]
    assert all(project.audio_path(one).is_file() for one in entry.takes), "nothing is thrown away"


def test_a_silent_take_is_asked_for_again_unless_it_is_wanted(
    project: Project, recorded: tuple[Tensor, int]
) -> None:
    silence = torch.zeros(2 * recorded[1]), recorded[1]
    assert take(project, silence) == "again"
    assert project.next_prompt() == PROMPTS[0] and project.state.num_rejected == 1
    assert project.utterances() == []
    assert take(project, silence, keep=True) == "again"
    assert project.next_prompt() == PROMPTS[1] and len(project.utterances()) == 1


def test_a_change_of_the_sample_rate_is_noticed(
    project: Project, recorded: tuple[Tensor, int]
) -> None:
    waveform, rate = recorded
    take(project, recorded)
    other = torch.nn.functional.interpolate(waveform[None, None], scale_factor=2)[0, 0]
    report = project.add_take(other, sample_rate=2 * rate)
    assert report.outcome == "again"
    assert f"recorded at {2 * rate} Hz, the other takes at {rate} Hz" in str(report)
    assert project.next_prompt() == PROMPTS[1], "and the take is in the folder"
    assert load_audio(project.folder / TAKES_FOLDER / "p0002-1.flac", rate).numel()


def test_a_recording_of_three_hours_is_refused_before_it_is_read(
    project: Project, tmp_path: Path
) -> None:
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))
    size = 3 * 3600 * 8000 * 2
    with path.open("r+b") as file:  # a hole: silence that takes no room
        file.truncate(44 + size)
        for place, length in ((4, 36 + size), (40, size)):
            file.seek(place)
            file.write(length.to_bytes(4, "little"))
    with pytest.raises(AudioError, match=r"longer than 60 s.*Nothing was stored.*personal import"):
        project.add_take(path)
    assert list((project.folder / TAKES_FOLDER).iterdir()) == []
    assert project.next_prompt() == PROMPTS[0]


@pytest.mark.parametrize(
    ("samples", "rate", "why"),
    [
        (torch.zeros(0), 16_000, "shape"),
        (torch.zeros(2, 9), 16_000, "shape"),
        (torch.full((9,), torch.nan), 16_000, "not finite"),
        (torch.zeros(9), None, "sample_rate"),
        (torch.zeros(9), 0, "sample_rate"),
    ],
)
def test_samples_that_are_no_take(
    project: Project, samples: Tensor, rate: int | None, why: str
) -> None:
    with pytest.raises(ProjectError, match=why):
        project.add_take(samples, sample_rate=rate)
    assert list((project.folder / TAKES_FOLDER).iterdir()) == []


class PowerLoss(BaseException):
    """The machine stops here."""


def interrupted(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Stops at the step `number` on the way to the disk; gives how many there were."""
    count = 0
    done = {name: getattr(atomic, name) for name in ("replace", "sync_to_disk")}

    def step(name: str) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            nonlocal count
            count += 1
            if count == number:
                raise PowerLoss
            done[name](*arguments)

        return run

    for name in done:
        monkeypatch.setattr(atomic, name, step(name))
    # Nobody tidies up when the power is gone.
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    return lambda: count


def test_power_may_be_lost_at_any_moment(
    project: Project, recorded: tuple[Tensor, int], tmp_path: Path
) -> None:
    take(project, recorded)
    before = project.entries()
    number, outcomes = 0, []
    while True:
        number += 1
        copy = tmp_path / f"copy{number}"
        shutil.copytree(project.folder, copy)
        torn = Project.open(copy, checker=CHECKER)
        with pytest.MonkeyPatch.context() as patch:
            count = interrupted(patch, number)
            try:
                take(torn, recorded, 0.5, prompt="p0001")
                assert count() < number
                break  # it was stored before the power went
            except PowerLoss:
                pass
        after = Project.open(copy, checker=CHECKER)
        entries = after.entries()
        assert entries[1:] == before[1:] and entries[0].takes[:1] == before[0].takes
        assert len(entries[0].takes) in (1, 2)
        outcomes.append(len(entries[0].takes))
        for row in after.utterances():
            assert load_audio(row.audio, recorded[1]).shape == recorded[0].shape
        assert take(after, recorded, 0.7, prompt="p0001") == "fine", "and it goes on"
        assert validate_rows(after)
    assert outcomes == sorted(outcomes) and set(outcomes) == {1, 2}, "before and after the rename"


def validate_rows(project: Project) -> bool:
    path = project.folder / "out.jsonl"
    project.export(path)
    return not validate(path).bad_rows


def test_power_lost_while_a_project_is_made(tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        folder = tmp_path / f"new{number}"
        with pytest.MonkeyPatch.context() as patch:
            count = interrupted(patch, number)
            try:
                Project.create(folder, PROMPTS, name="ann")
                assert count() < number
                break
            except PowerLoss:
                pass
        try:
            assert Project.open(folder).prompts == tuple(PROMPTS), "whole or none"
        except ProjectError as error:
            assert "is no project" in str(error)
    assert number > 4


@pytest.mark.parametrize("number", range(1, 5))
def test_a_full_disk_is_a_sentence(
    project: Project,
    recorded: tuple[Tensor, int],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    take(project, recorded)
    real, count = atomic.sync_to_disk, 0

    def full(path: Path) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path)

    monkeypatch.setattr(atomic, "sync_to_disk", full)
    with pytest.raises(ProjectError, match=r"the disk of .* is full: .*stored before is safe"):
        take(project, recorded)
    assert project.state.num_recorded >= 1 and validate_rows(project)
    assert take(project, recorded, prompt="p0002") == "fine", "room was made"


def test_a_sound_file_that_finds_no_room(
    project: Project, recorded: tuple[Tensor, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """libsndfile says only that it failed."""

    def fail(*_: Any, **__: Any) -> None:
        raise AudioError("p.flac cannot be written: System error.")

    monkeypatch.setattr("training.personal.project.save_audio", fail)
    with pytest.raises(AudioError, match="System error"):
        take(project, recorded)
    usage = types.SimpleNamespace(free=0)
    monkeypatch.setattr("training.personal.project.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ProjectError, match="is full"):
        take(project, recorded)


def test_folders_that_are_no_project(tmp_path: Path, project: Project) -> None:
    with pytest.raises(ProjectError, match="is no project: .*personal new"):
        Project.open(tmp_path)
    with pytest.raises(ProjectError, match="holds a project already"):
        Project.create(project.folder, PROMPTS, name="ann")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("")
    with pytest.raises(ProjectError, match="is there already"):
        Project.create(tmp_path / "other", PROMPTS, name="ann")
    with pytest.raises(ProjectError, match="name must begin"):
        Project.create(tmp_path / "new", PROMPTS, name="../ann")
    (project.folder / TAKES_FOLDER / "p0001.json").write_text("{")
    with pytest.raises(ProjectError, match=r"p0001.json cannot be read .*record the prompt again"):
        _ = project.state


def test_what_is_exported_is_read_by_training(
    project: Project, recorded: tuple[Tensor, int], tmp_path: Path
) -> None:
    with pytest.raises(ProjectError, match="no take yet"):
        project.export(tmp_path / "out.jsonl")
    take(project, recorded)
    take(project, recorded, 0.03)
    assert project.export(tmp_path / "data" / "out.jsonl") == 2
    rows = validate(tmp_path / "data" / "out.jsonl")
    assert not rows.bad_rows
    assert [(row.id, row.text, row.speaker, row.extra["quality"]) for row in rows.utterances] == [
        ("ann-p0001", TEXTS[0], "ann", "fine"),
        ("ann-p0002", TEXTS[1], "ann", "enhance"),
    ]
    work = Precompute(audio_rate=24_000)
    manifest = read_manifest(tmp_path / "data" / "out.jsonl", strict=True)
    assert not build_shards(manifest, tmp_path / "shards", work).num_bad
    project.correct("p0002", "Is it very  late?")
    assert [row.text for row in project.utterances()][1] == "Is it very late?"
    for name, text, why in (("p9", "a", "no take 'p9'"), ("p0001", " ", "is empty")):
        with pytest.raises(ProjectError, match=why):
            project.correct(name, text)


def test_embeddings_of_the_takes_are_compared(
    project: Project, recorded: tuple[Tensor, int]
) -> None:
    voice = torch.tensor([1.0, 0.0])
    config = replace(CHECKER.config, num_known_takes=2)
    project = replace(
        project, checker=replace(CHECKER, embed=lambda _: voice, encoder="e", config=config)
    )
    take(project, recorded)
    take(project, recorded)
    voice = torch.tensor([0.0, 1.0])
    report = project.add_take(recorded[0], sample_rate=recorded[1])
    assert [problem.check for problem in report.problems] == ["person"]
    stored = json.loads((project.folder / TAKES_FOLDER / "p0001.json").read_text())
    assert stored["takes"][0]["report"]["embedding"] == [1.0, 0.0]
    other = replace(project, checker=replace(project.checker, encoder="another"))
    report = other.add_take(recorded[0], sample_rate=recorded[1])
    assert report.outcome == "fine", "embeddings of another encoder say nothing"


@pytest.fixture
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs check what needs no model."""
    monkeypatch.setattr(
        commands, "_checker", lambda bundle, recogniser, settings: TakeChecker(config=settings)
    )


@pytest.mark.usefixtures("without_models")
def test_the_verbs(tmp_path: Path, recorded: tuple[Tensor, int]) -> None:
    folder, prompts = tmp_path / "me", tmp_path / "p.txt"
    prompts.write_text("\n".join(TEXTS))
    config = tmp_path / "checks.yaml"
    config.write_text("detector: level\n")
    result = run_verb(commands.new, folder, "--name", "ann", "--prompts", prompts)
    assert result.exit_code == 0 and "next, p0001: We walked" in result.stdout, result.output
    save_audio(tmp_path / "a.wav", *recorded)
    save_audio(tmp_path / "p0003.wav", *recorded)
    save_audio(tmp_path / "b.wav", torch.zeros(recorded[1]), recorded[1])
    words = (folder, tmp_path / "a.wav", tmp_path / "p0003.wav", "--config", config)
    result = run_verb(commands.add, *words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["p0001: fine", "p0003: fine", "next, p0002: Is it late?"]
    result = run_verb(commands.add, folder, tmp_path / "b.wav", "--config", config)
    assert result.exit_code == 1 and "record again" in result.stdout
    result = run_verb(commands.status, folder, "--plot", tmp_path / "c.png")
    assert result.exit_code == 0, result.output
    assert "2 of 3 prompts are recorded, 0 skipped, 1 to be recorded again" in result.stdout
    assert "% of the phones" in result.stdout and "p0002: record again: no speech" in result.stdout
    assert (tmp_path / "c.png").is_file()
    assert "All sentences" in run_verb(commands.skip, folder).stdout
    result = run_verb(commands.export, folder, tmp_path / "out.jsonl")
    assert "2 takes" in result.stdout
    assert len(read_manifest(tmp_path / "out.jsonl", strict=True).utterances) == 2
    result = run_verb(commands.add, folder, tmp_path / "none.wav", "--config", config)
    assert result.exit_code == 2 and "all 3 prompts" in result.stderr
    result = run_verb(commands.status, tmp_path)
    assert result.exit_code == 2 and "is no project" in result.stderr


class FakeStream:
    """Gives a recording in blocks as soon as it is opened for a take."""

    sounds: Iterator[Tensor]

    def __init__(self, callback: Callable[..., None], **_: Any) -> None:
        self.callback = callback

    def start(self) -> None:
        pass

    stop = close = start

    def play(self) -> None:
        for block in next(self.sounds).split(1024):
            self.callback(block.numpy()[:, None], len(block), None, None)


@pytest.mark.usefixtures("without_models")
def test_the_microphone(
    project: Project, recorded: tuple[Tensor, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform, rate = recorded
    streams: list[FakeStream] = []

    def opened(**options: Any) -> FakeStream:
        streams.append(FakeStream(**options))
        return streams[-1]

    module = types.ModuleType("sounddevice")
    module.__dict__.update(
        query_devices=lambda device, kind: {"default_samplerate": float(rate)},
        InputStream=opened,
        PortAudioError=RuntimeError,
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    silence = torch.zeros(2 * rate)
    FakeStream.sounds = iter([silence, waveform, 0.5 * waveform, silence])
    # Silence is asked for again; the first is repeated; the second kept as it is; then stopped.
    answers = iter(["", "stop", "", "", "stop", "r", "", "stop", "", "stop", "k", "q"])

    def answer(question: str) -> str:
        word = next(answers)
        if word == "stop":
            streams[-1].play()
            return ""
        return word

    monkeypatch.setattr("builtins.input", answer)
    config = project.folder.parent / "checks.yaml"
    config.write_text("detector: level\n")
    result = run_verb(commands.record, project.folder, "--config", config)
    assert result.exit_code == 0, result.output
    entry = project.entry("p0001")
    assert entry is not None and [one.is_kept for one in entry.takes] == [False, True, True]
    torch.testing.assert_close(
        load_audio(project.audio_path(entry.takes[1]), rate), waveform, atol=1e-4, rtol=0
    )
    entry = project.entry("p0002")
    assert entry is not None and [one.is_kept for one in entry.takes] == [False, True]
    assert project.next_prompt() == PROMPTS[2]
    assert "2 of 3 prompts are recorded" in result.stdout


@pytest.mark.usefixtures("without_models")
def test_no_microphone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run_verb(commands.record, project.folder)
    assert result.exit_code == 2 and "sounddevice" in result.stderr

    def no_device(device: object, kind: str) -> None:
        raise ValueError("No input device matching 'x'")

    module = types.ModuleType("sounddevice")
    module.__dict__.update(query_devices=no_device, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    result = run_verb(commands.record, project.folder, "--device", "x")
    assert result.exit_code == 2
    assert "the microphone cannot be used: No input device" in result.stderr
    assert "personal add" in result.stderr
