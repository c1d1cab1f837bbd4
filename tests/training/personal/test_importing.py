"""Recordings that exist: sliced, transcribed, corrected in a `.list`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from verb_runner import run_verb

from tokenlm.audio.io import load_audio, read_recording, save_audio
from tokenlm.checkpoint.resolve import resolve
from training.data.importers import IMPORTERS, import_rows, write_gpt_sovits
from training.data.manifest import Utterance, read_manifest
from training.data.rejects import Rejects
from training.personal import commands, importing
from training.personal.checks import TakeChecker
from training.personal.config import TakeConfig
from training.personal.importing import Imported, import_files, slices
from training.personal.project import Project, ProjectError
from training.refine.config import RefineConfig
from training.refine.segment import segments

CHECKER = TakeChecker(config=TakeConfig(detector="level"))
CUT = RefineConfig(detector="level")


@pytest.fixture(scope="module")
def long() -> tuple[Tensor, int]:
    """Three sentences with pauses of a second (S,)."""
    waveform, rate = read_recording(resolve("mini-en") / "demo_prompt.wav")
    sentence = pad(waveform[: 5 * rate // 4], (rate // 2, rate // 2))
    whole = torch.cat([sentence, 0.8 * sentence, 0.6 * sentence])
    noise = torch.randn(whole.shape, generator=torch.Generator().manual_seed(0))
    return whole + 1e-4 * noise, rate


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "me", [], name="ann", checker=CHECKER)


@pytest.fixture
def recording(tmp_path: Path, long: tuple[Tensor, int]) -> Path:
    save_audio(tmp_path / "my talk.wav", *long)
    return tmp_path / "my talk.wav"


class Recogniser:
    """Says which call it is, and stops at one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        self.count, self.stop_at = 0, stop_at

    def __call__(self, waveform: Tensor) -> str:
        self.count += 1
        if self.count == self.stop_at:
            raise KeyboardInterrupt
        return f"sentence {self.count}"


def test_a_long_recording_is_cut_in_pieces_as_it_is_whole(
    recording: Path, long: tuple[Tensor, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform, rate = long
    whole = segments(load_audio(recording, rate), rate, CUT)
    assert len(whole) == 3
    for seconds in (100.0, 3.1, 2.5):  # the ends of pieces fall into sentences and pauses
        monkeypatch.setattr(importing, "PIECE_SECONDS", seconds)
        parts = list(slices(recording, CUT))
        assert len(parts) == 3, seconds
        for (first, part, part_rate), (start, stop) in zip(parts, whole, strict=True):
            assert part_rate == rate
            # The grid of windows begins elsewhere in each piece.
            assert abs(first - start) <= 0.1 * rate and abs(first + len(part) - stop) <= 0.1 * rate
            expected = load_audio(recording, rate)[first : first + len(part)]
            assert torch.equal(part, expected)


def test_an_import_goes_on_where_it_was_stopped(project: Project, recording: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        import_files(project, [recording], Recogniser(stop_at=3), CUT)
    assert project.state.num_imported == 2
    recognise = Recogniser()
    result = import_files(project, [recording], recognise, CUT)
    assert (result.num_kept, result.num_known, recognise.count) == (1, 2, 1)
    texts = [row.text for row in project.utterances()]
    assert texts == ["sentence 1", "sentence 2", "sentence 1"]
    entry = project.entries()[1]
    assert entry.id.startswith("my-talk-") and entry.source == "my talk.wav"
    assert entry.take is not None and entry.take.start == pytest.approx(2.65, abs=0.2)
    assert project.next_prompt() is None and project.state.num_prompts == 0


def test_files_that_cannot_be_used_are_named_and_the_others_taken(
    project: Project, recording: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("not a sound at all")
    save_audio(tmp_path / "quiet.wav", torch.zeros(32_000), 16_000)
    files = [tmp_path / "bad.wav", tmp_path / "quiet.wav", recording]
    result = import_files(project, files, Recogniser(), CUT)
    assert result.num_kept == 3
    told = [str(reject) for reject in result.rejects]
    assert "bad.wav cannot be read as audio" in told[0] and "no speech" in told[-1]
    silent = import_files(project, [recording], lambda _: "", RefineConfig(pause_seconds=0.2))
    assert isinstance(silent, Imported) and silent.num_kept == 0


def test_two_recordings_of_one_name(project: Project, recording: Path, tmp_path: Path) -> None:
    import_files(project, [recording], Recogniser(), CUT)
    other = tmp_path / "my-talk.wav"
    other.write_bytes(recording.read_bytes())
    with pytest.raises(ProjectError, match="already of my talk.wav: give the file another name"):
        import_files(project, [other], Recogniser(), CUT)


def test_texts_are_corrected_in_a_list(project: Project, recording: Path, tmp_path: Path) -> None:
    import_files(project, [recording], Recogniser(), CUT)
    listed = tmp_path / "texts.list"
    assert project.export(listed) == 3
    lines = listed.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("me/takes/my-talk-") and lines[0].endswith("|ann|EN|sentence 1")
    lines[1] = lines[1].replace("sentence 2", "What I said, really.")
    lines[2] = lines[2].replace("sentence 3", "")
    listed.write_text("\n".join([*lines, "no row"]) + "\n", encoding="utf-8")
    result = import_files(project, [listed], Recogniser(), CUT)
    assert (result.num_corrected, result.num_known, result.num_kept) == (1, 1, 0)
    assert [reject.line for reject in result.rejects] == [3, 4]
    texts = [row.text for row in project.utterances()]
    assert texts == ["sentence 1", "What I said, really.", "sentence 3"]


def test_a_list_of_another_program(
    project: Project, long: tuple[Tensor, int], tmp_path: Path
) -> None:
    waveform, rate = long
    save_audio(tmp_path / "out" / "one.wav", waveform[: 9 * rate // 4], rate)
    save_audio(tmp_path / "out" / "long.wav", waveform.repeat(10), rate)
    listed = tmp_path / "out" / "sliced.list"
    listed.write_text(
        "out\\two.wav|me|EN|Gone.\n"
        "one.wav|me|EN|Hello there.\nnone.wav|me|EN|Gone.\nlong.wav|me|EN|Too long.\n",
        encoding="utf-8",
    )
    result = import_files(project, [listed], Recogniser(), CUT)
    assert [row.text for row in project.utterances()] == ["Hello there."]
    assert result.num_kept == 1
    assert [reject.line for reject in result.rejects] == [1, 3, 4]
    assert "longer than 60 s" in result.rejects[-1].reason
    again = import_files(project, [listed], Recogniser(), CUT)
    assert (again.num_kept, again.num_known) == (0, 1)


def test_lists_are_read_as_they_were_written(recording: Path, tmp_path: Path) -> None:
    row = Utterance(id="a", audio=recording, text="Oh, yes!", speaker="ann", duration=7.0)
    write_gpt_sovits(tmp_path / "x" / "a.list", [row], "en")
    assert (tmp_path / "x" / "a.list").read_text() == "../my talk.wav|ann|EN|Oh, yes!\n"
    (read,) = IMPORTERS["gpt-sovits"](str(tmp_path / "x" / "a.list"), "")
    assert (read.text, read.speaker, read.extra) == ("Oh, yes!", "ann", {"language": "en"})
    output = tmp_path / "m.jsonl"
    rows = list(import_rows("gpt-sovits", str(tmp_path / "x" / "a.list"), output, Rejects(None, 0)))
    assert [one.text for one in rows] == ["Oh, yes!"]
    for text in ("a|b", "a\nb"):
        bad = Utterance(id="a", audio=recording, text=text, speaker="ann", duration=7.0)
        with pytest.raises(ValueError, match="a: .* cannot stand in a .list file"):
            write_gpt_sovits(tmp_path / "b.list", [bad], "en")
    assert not (tmp_path / "b.list").exists()


def test_the_verb(
    project: Project, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_checker", lambda bundle, recogniser, settings: CHECKER)
    monkeypatch.setattr("training.refine.recognisers.make_recogniser", lambda name: Recogniser())
    cut = tmp_path / "cut.yaml"
    cut.write_text("detector: level\n")
    words = (project.folder, recording, "--slicing", cut)
    result = run_verb(commands.import_recordings, *words)
    assert result.exit_code == 0, result.output
    assert "3 parts are new, 0 were there already" in result.stdout
    result = run_verb(commands.export, project.folder, tmp_path / "m.jsonl")
    rows = read_manifest(tmp_path / "m.jsonl", strict=True).utterances
    assert [row.text for row in rows] == ["sentence 1", "sentence 2", "sentence 3"]
