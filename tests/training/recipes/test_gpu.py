"""Parts of the natural voice, packed, trained and joined as on a GPU, on the CPU at toy size."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.distributed.toy import make_corpus, stage_settings
from tokenlm.checkpoint.component import read_component
from training.data.manifest import read_manifest
from training.recipes import gpu
from training.recipes.gpu import PARTS, GpuError, join, pack, train
from training.run import load_task

EMPTY = Path("there/is/no/bundle")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder, num_train=8, num_valid=3)
    return folder


@pytest.fixture
def runs(corpus: Path, tmp_path: Path) -> Path:
    """The folder of a recipe whose first stages are done."""
    folder = tmp_path / "runs"
    manifests = {
        "train.jsonl": "train.jsonl",
        "validation.jsonl": "valid.jsonl",
        "train.tokens.jsonl": "train_tokens.jsonl",
        "validation.tokens.jsonl": "valid_tokens.jsonl",
    }
    (folder / "corpora").mkdir(parents=True)
    (folder / "corpora/audio").symlink_to(corpus / "audio")
    for name, source in manifests.items():
        shutil.copy(corpus / source, folder / "corpora" / name)
    (folder / "corpus").symlink_to(folder / "corpora")
    for stage, component in (("speaker_encoder",) * 2, ("vocoder", "speech_lm")):
        shutil.copytree(corpus / component, folder / stage / "export" / stage)
    return folder


def test_every_part_has_its_config_and_knows_its_keys(tmp_path: Path) -> None:
    for name, part in PARTS.items():
        settings = [f"{key}={tmp_path}" for key in part.components if key != "model"]
        config, _ = load_task(gpu.CONFIGS / f"{name}.yaml", [*settings, *part.settings])
        assert config.stage == name.partition(".")[0]


@pytest.mark.slow
def test_an_archive_holds_what_fits(runs: Path, tmp_path: Path) -> None:
    counts = pack("speaker_encoder", tmp_path / "a.tar", runs=runs, bundle=EMPTY)
    assert counts["utterances"] == 8
    assert counts["bytes"] == (tmp_path / "a.tar").stat().st_size
    components = sum(
        path.stat().st_size for path in (runs / "speaker_encoder").rglob("*") if path.is_file()
    )
    drawn = {}
    for seed in (0, 0, 1):
        path = tmp_path / f"part{len(drawn)}.tar"
        few = pack(
            "speaker_encoder",
            path,
            runs=runs,
            bundle=EMPTY,
            seed=seed,
            max_bytes=components + 30_000,
        )
        assert few["bytes"] < components + 30_000
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / path.stem, filter="data")
        rows = read_manifest(tmp_path / path.stem / "train.jsonl", strict=True).utterances
        assert all(row.audio.is_file() and row.audio.suffix == ".opus" for row in rows)
        drawn[path.stem] = [row.id for row in rows]
    first, again, other = drawn.values()
    assert first == again and first != other and 0 < len(first) < 8
    with pytest.raises(GpuError, match="too few"):
        pack("speaker_encoder", tmp_path / "b.tar", runs=runs, bundle=EMPTY, max_bytes=components)
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.slow
def test_what_is_missing_is_named(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(GpuError, match=r"text_tokenizer.*there is no .*bundle"):
        pack("speech_lm", tmp_path / "a.tar", runs=runs, bundle=EMPTY)
    shutil.rmtree(runs / "speaker_encoder")
    (runs / "corpora/validation.jsonl").unlink()
    with pytest.raises(GpuError, match=r"speaker_encoder.*nor"):
        pack("speaker_encoder", tmp_path / "a.tar", runs=runs, bundle=EMPTY)
    with pytest.raises(GpuError, match=r"vocoder needs .*validation\.jsonl"):
        pack("vocoder", tmp_path / "a.tar", runs=runs, bundle=EMPTY)
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(GpuError, match="not an archive of --pack"):
        train("vocoder", tmp_path / "noise", tmp_path / "out")


@pytest.mark.slow
def test_a_part_trains_and_comes_back(
    runs: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs"
    configs.mkdir()
    settings = stage_settings(corpus, "flow")
    settings |= {"stage": "flow", "infill_share": 0.3, "optim": {"warmup_steps": 1}}
    (configs / "flow.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(gpu, "CONFIGS", configs)
    monkeypatch.setattr(gpu, "PROBE_STEPS", 4)
    monkeypatch.setattr(gpu, "PIECE_BYTES", 100_000)
    # The flow's own vocoder is optional in its stage; the toy has none.
    plan = PARTS["flow"]
    components = {key: value for key, value in plan.components.items() if key != "vocoder"}
    monkeypatch.setitem(PARTS, "flow", gpu.replace(plan, components=components))
    archive, output = tmp_path / "in.tar", tmp_path / "out"
    pack("flow", archive, runs=runs, bundle=EMPTY)
    with pytest.raises(GpuError, match="too few"):
        train("flow", archive, output, minutes=0.01)
    with pytest.raises(GpuError, match="packed for flow, not for vocoder"):
        train("vocoder", archive, output)
    summary = train("flow", archive, output, overrides=["optim.max_steps=3"])
    assert summary["steps"] == 3
    assert json.loads((output / "weights.json").read_text()) == summary
    pieces = sorted(path for path in output.glob("weights.?"))
    assert len(pieces) > 1 and max(path.stat().st_size for path in pieces) <= 100_000
    whole = pieces[1].read_bytes()
    pieces[1].write_bytes(whole[:-1])
    with pytest.raises(GpuError, match=r"weights\.1 is missing or not whole"):
        join("flow", output, runs=runs)
    assert not (runs / "flow/export/flow").exists()
    pieces[1].write_bytes(whole)
    assert join("flow", output, runs=runs) == [runs / "flow/export/flow"]
    assert read_component(runs / "flow/export/flow").kind == "flow"
    # The next call goes on from there.
    pack("flow", tmp_path / "again.tar", runs=runs, bundle=EMPTY, seed=1)
    with tarfile.open(tmp_path / "again.tar") as tar:
        call = json.load(tar.extractfile("call.json"))  # type: ignore[arg-type]
    assert call["keys"]["initial.flow"] == "components/flow/flow"
