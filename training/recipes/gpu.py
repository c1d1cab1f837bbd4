"""Parts of the natural voice on one GPU, each in a call of a few minutes: `scripts/train_on_gpu`.

    scripts/train_on_gpu PART --pack  --runs RUNS --input FILE     where the corpora are
    scripts/train_on_gpu PART         --input FILE --output FOLDER where the GPU is
    scripts/train_on_gpu PART --join  --runs RUNS --output FOLDER  where the corpora are, again

A GPU that is lent for minutes, or rented far from the corpora, is reached by small files. `--pack`
puts the recordings of a part (or their tokens), the components that it starts from and the names
of its files into one archive of at most 25 MB. The call on the GPU measures a step, sets the
schedule to what the minutes allow, trains, and writes the components in float16, in pieces of at
most 15 MB. `--join` puts these into the run of the part, where the next part finds them. The parts,
in their order, are the keys of `PARTS`; each may be called again with another `--seed`, which
draws other recordings and goes on from what was joined before.

RUNS is the folder that `scripts/run_all` makes of two corpora: RUNS/corpus is the first of them,
RUNS/corpora has the manifests of both, RUNS/PART/export the components of each part. After
speech_tokenizer, `tokenlm data precompute` writes the new codes beside the manifests, as the recipe
does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import soundfile

from tokenlm.atomic import atomic_folder, atomic_path
from tokenlm.console import show_logs
from training.data.manifest import Manifest, Utterance, read_manifest, row_of, write_manifest
from training.loop.checkpoints import latest_checkpoint
from training.loop.trainer import Trainer, TrainingError
from training.run import load_task, require_extra

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train" / "natural"
INPUT_BYTES = 25_000_000
PIECE_BYTES = 15_000_000
VALID_UTTERANCES = 64
PROBE_STEPS = 60
OPUS_LEVEL = 0.928
"""Of libsndfile's 0 to 1; about 25 kbit/s at 24 kHz in one channel."""
CALL, WEIGHTS = "call.json", "weights.json"

Sound = Literal["opus", "flac", "none"]


class GpuError(ValueError):
    """A part cannot be packed, trained or joined; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One training stage as a call on a GPU."""

    train: str
    """Manifest of the training split, under RUNS."""
    valid: str
    """Manifest that is evaluated on."""
    sound: Sound
    """How the recordings travel; "none" where their tokens are enough."""
    components: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What is given under each key of the training config: the first of these that exists, out of
    RUNS or, with `bundle/` before it, of the bundle that the recipe began with."""
    optional: frozenset[str] = frozenset()
    """Keys that may have no component; the stage then begins at random."""
    seconds_per_batch: float = 200.0
    """Padded seconds of a micro-batch on the GPU."""
    max_items: int = 128
    """Most items of a micro-batch."""
    max_steps: int = 20_000
    """The schedule is never longer."""
    settings: tuple[str, ...] = ()
    """Further keys of the config, as `key=value`."""


def _own(stage: str, component: str) -> str:
    return f"{stage}/export/{component}"


_TEXT_TOKENIZER = ("bundle/text_tokenizer",)
_READER = (_own("token_recognizer.phones", "token_recognizer"),)
_TOKENS = "corpora/train_words.tokens.jsonl"

PARTS: dict[str, Part] = {
    "speech_tokenizer": Part(
        train="corpora/train.jsonl",
        valid="corpora/validation.jsonl",
        sound="opus",
        components={
            f"initial.{name}": (_own("speech_tokenizer", name), f"bundle/{name}")
            for name in ("speech_tokenizer", "token_recognizer")
        },
        seconds_per_batch=400.0,
        settings=("initial_partial=true",),
    ),
    "speaker_encoder": Part(
        train="corpora/train.jsonl",
        valid="corpora/validation.jsonl",
        sound="opus",
        components={
            "initial.speaker_encoder": (
                _own("speaker_encoder", "speaker_encoder"),
                "bundle/speaker_encoder",
            )
        },
        seconds_per_batch=400.0,
        settings=("initial_partial=true",),
    ),
    "vocoder": Part(
        train="corpus/train.jsonl",
        valid="corpora/validation.jsonl",
        sound="flac",
        components={"initial.vocoder": (_own("vocoder", "vocoder"),)},
        optional=frozenset({"initial.vocoder"}),
        seconds_per_batch=41.0,
        max_items=64,
    ),
    "flow": Part(
        train="corpora/train.tokens.jsonl",
        valid="corpora/validation.tokens.jsonl",
        sound="opus",
        components={
            "initial.flow": (_own("flow", "flow"),),
            "speaker_encoder": (_own("speaker_encoder", "speaker_encoder"),),
            "vocoder": (_own("vocoder", "vocoder"),),
        },
        optional=frozenset({"initial.flow"}),
    ),
    "token_recognizer.phones": Part(
        train=_TOKENS,
        valid="corpora/validation.tokens.jsonl",
        sound="none",
        components={
            "speech_tokenizer": (_own("speech_tokenizer", "speech_tokenizer"),),
            "text_tokenizer": _TEXT_TOKENIZER,
            "initial.token_recognizer": (_own("speech_tokenizer", "token_recognizer"),),
            "model": (_own("speech_tokenizer", "token_recognizer"),),
        },
        seconds_per_batch=400.0,
    ),
    "speech_lm.short": Part(
        train=_TOKENS,
        valid="corpora/validation.tokens.jsonl",
        sound="none",
        components={"text_tokenizer": _TEXT_TOKENIZER, "token_recognizer": _READER},
        seconds_per_batch=220.0,
    ),
    "speech_lm": Part(
        train=_TOKENS,
        valid="corpora/validation.tokens.jsonl",
        sound="none",
        components={
            "text_tokenizer": _TEXT_TOKENIZER,
            "token_recognizer": _READER,
            "initial.speech_lm": (
                _own("speech_lm", "speech_lm"),
                _own("speech_lm.short", "speech_lm"),
            ),
        },
    ),
}
"""The parts by their stage, in the order of training."""


# -- packing -----------------------------------------------------------------------------------


def pack(
    part: str,
    archive: Path,
    *,
    runs: Path,
    bundle: Path,
    seed: int = 0,
    max_bytes: int = INPUT_BYTES,
) -> dict[str, float]:
    """Write the archive that a part is trained from.

    Recordings are drawn at random, by the seed, until the archive is full or all are in it; the
    rows keep the order of the manifest.

    Args:
        part: A key of `PARTS`.
        archive: The file to write.
        runs: Folder of the recipe.
        bundle: The bundle that the recipe began with.
        seed: Which recordings are drawn.
        max_bytes: Most bytes of the archive.

    Returns:
        How many training utterances, hours of them, and bytes are in it.

    Raises:
        GpuError: A manifest or a component is missing, or too little fits.
    """
    plan = PARTS[part]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        keys: dict[str, str] = {}
        for key, places in plan.components.items():
            folder = _component(part, key, places, runs, bundle)
            if folder is not None:
                keys[key] = f"components/{folder.parent.parent.name}/{folder.name}"
                shutil.copytree(folder, work / keys[key], dirs_exist_ok=True)
        (work / CALL).write_text(json.dumps({"part": part, "seed": seed, "keys": keys}))
        left = max_bytes - sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        chosen: list[Utterance] = []
        for split, name in (("valid", plan.valid), ("train", plan.train)):
            path = runs / name
            if not path.is_file():
                raise GpuError(f"{part} needs {path}, which the recipe writes before it")
            manifest = read_manifest(path)
            most = VALID_UTTERANCES if split == "valid" else len(manifest.utterances)
            chosen, left = _choose(manifest, work / split, plan.sound, most, seed, left)
            if not chosen:
                raise GpuError(f"{max_bytes:,} bytes are too few for {part}")
            write_manifest(work / f"{split}.jsonl", chosen)
        archive.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(archive) as target, tarfile.open(target, "w:gz") as tar:
            for path in sorted(work.iterdir()):
                tar.add(path, path.name)
    return {
        "utterances": len(chosen),
        "hours": sum(utterance.duration for utterance in chosen) / 3600,
        "bytes": archive.stat().st_size,
    }


def _component(
    part: str, key: str, places: tuple[str, ...], runs: Path, bundle: Path
) -> Path | None:
    """The folder that is given under a key, or None where none is needed."""
    paths = [
        bundle / place.removeprefix("bundle/") if place.startswith("bundle/") else runs / place
        for place in places
    ]
    for path in paths:
        if path.is_dir():
            return path
    if key in PARTS[part].optional:
        return None
    raise GpuError(
        f"{part} needs a component for {key}: there is no {' nor '.join(map(str, paths))}"
    )


def _choose(
    manifest: Manifest, folder: Path, sound: Sound, most: int, seed: int, left: int
) -> tuple[list[Utterance], int]:
    """Draw utterances and write their sound to a folder, while bytes are left.

    Rows are counted as they stand; compression leaves a margin for what the archive adds.
    """
    order = list(range(len(manifest.utterances)))
    random.Random(f"gpu {seed}").shuffle(order)
    drawn: dict[int, Utterance] = {}
    folder.mkdir()
    for index in order:
        if len(drawn) == most:
            break
        utterance = manifest.utterances[index]
        copy = folder / f"{index:06d}.{'opus' if sound == 'opus' else 'flac'}"
        size = len(json.dumps(row_of(utterance, folder)))
        if sound != "none":
            size += _write_sound(utterance.audio, copy, sound)
        if size > left:
            copy.unlink(missing_ok=True)
            break
        left -= size
        drawn[index] = replace(utterance, audio=copy)
    return [drawn[index] for index in sorted(drawn)], left


def _write_sound(source: Path, copy: Path, sound: Sound) -> int:
    samples, rate = soundfile.read(source, dtype="float32", always_2d=False)
    if sound == "opus":
        soundfile.write(
            copy, samples, rate, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL
        )
    else:
        soundfile.write(copy, samples, rate, format="FLAC", subtype="PCM_16")
    return copy.stat().st_size


# -- training ----------------------------------------------------------------------------------


def train(
    part: str,
    archive: Path,
    output: Path,
    *,
    minutes: float = 7.0,
    overrides: Sequence[str] = (),
) -> dict[str, object]:
    """Train a part from its archive and write the weights in pieces.

    Args:
        part: A key of `PARTS`.
        archive: What `pack` wrote for it.
        output: Folder of the pieces.
        minutes: All that the call may take, from its start to the last piece.
        overrides: Keys of the training config, as `key=value`.

    Returns:
        What is written to weights.json: part, steps, seconds, files, the last evaluation.

    Raises:
        GpuError: The archive is of another part, or the minutes are too few.
        ValueError: A key of the config is not known.
    """
    began = time.monotonic()
    require_extra()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        settings = [*_settings(part, archive, work), *overrides]
        rate, start = _probe(part, [*settings, f"run={work / 'probe'}"])
        # Reading, evaluating, exporting and compressing are not steps of the schedule.
        reserve = 2 * start + 20
        seconds = minutes * 60 - (time.monotonic() - began) - reserve
        if seconds <= 0:
            raise GpuError(
                f"{minutes:g} minutes are too few: starting alone takes {start:.0f} s, and "
                f"{reserve:.0f} s are kept for the end"
            )
        limit = PARTS[part].max_steps
        steps = max(1, min(limit, int(seconds * rate)))
        run = work / "run"
        schedule = [] if _is_set("optim.max_steps", overrides) else [f"optim.max_steps={steps}"]
        evaluations = f"log.evaluate_every={max(1, steps // 4)}"
        config, task = load_task(
            CONFIGS / f"{part}.yaml",
            [
                *settings,
                *schedule,
                evaluations,
                "log.save_every=0",
                "log.sample_every=0",
                f"max_minutes={(seconds + start) / 60:.3f}",
                f"run={run}",
            ],
        )
        Trainer(task, config).run()
        newest = latest_checkpoint(run)
        summary: dict[str, object] = {
            "part": part,
            "steps": 0 if newest is None else int(newest.name.rpartition("-")[2]),
            "steps_per_second": round(rate, 3),
            "valid": _last_evaluation(run / "metrics.jsonl"),
        }
        shutil.copy(run / "metrics.jsonl", output / "metrics.jsonl")
        summary["pieces"] = _write_pieces(run / "export", work, output)
    summary["seconds"] = round(time.monotonic() - began, 1)
    (output / WEIGHTS).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _settings(part: str, archive: Path, work: Path) -> list[str]:
    """Unpack the archive; return the keys of the config that point into it."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
        call = json.loads((work / CALL).read_text())
    except (OSError, tarfile.TarError, json.JSONDecodeError) as error:
        raise GpuError(f"{archive} is not an archive of --pack: {error}") from error
    if call["part"] != part:
        raise GpuError(f"{archive} was packed for {call['part']}, not for {part}")
    plan = PARTS[part]
    keys = {
        key: work / folder / "config.yaml" if key == "model" else work / folder
        for key, folder in call["keys"].items()
    }
    return [
        f"data.train={work / 'train.jsonl'}",
        f"data.valid={work / 'valid.jsonl'}",
        f"seed={call['seed']}",
        f"batch.max_seconds_per_batch={plan.seconds_per_batch}",
        f"batch.max_items={plan.max_items}",
        *plan.settings,
        *(f"{key}={path}" for key, path in keys.items()),
    ]


def _is_set(key: str, overrides: Sequence[str]) -> bool:
    return any(override.startswith(f"{key}=") for override in overrides)


def _probe(part: str, settings: Sequence[str]) -> tuple[float, float]:
    """Return steps per second, and the seconds that a run takes besides its steps."""
    began = time.monotonic()
    # After the first steps: those wait for kernels to be chosen and compiled.
    config, task = load_task(
        CONFIGS / f"{part}.yaml",
        [
            *settings,
            f"optim.max_steps={PROBE_STEPS}",
            f"log.log_every={PROBE_STEPS // 2}",
            "log.evaluate_every=0",
            "log.save_every=0",
            "log.sample_every=0",
        ],
    )
    trainer = Trainer(task, config)
    trainer.run()
    lines = (trainer.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rate = float(json.loads(lines[-1])["steps_per_second"])
    return rate, max(0.0, time.monotonic() - began - PROBE_STEPS / rate)


def _last_evaluation(metrics: Path) -> dict[str, float]:
    last: dict[str, float] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("kind") == "valid":
            last = {key: value for key, value in row.items() if key not in ("kind", "time")}
    return last


def _write_pieces(export: Path, work: Path, output: Path) -> list[dict[str, object]]:
    """Write the exported components, which are in float16, as pieces of one archive."""
    whole = work / "export.tar"
    with tarfile.open(whole, "w") as tar:
        for path in sorted(export.iterdir()):
            tar.add(path, path.name)
    pieces: list[dict[str, object]] = []
    with whole.open("rb") as file:
        while data := file.read(PIECE_BYTES):
            name = f"weights.{len(pieces)}"
            (output / name).write_bytes(data)
            pieces.append({"name": name, "sha256": hashlib.sha256(data).hexdigest()})
    return pieces


# -- joining -----------------------------------------------------------------------------------


def join(part: str, output: Path, *, runs: Path) -> list[Path]:
    """Put the components of a call into the run of its part, in place of those that are there.

    Args:
        part: A key of `PARTS`.
        output: Folder that `train` wrote.
        runs: Folder of the recipe.

    Returns:
        The folders of the components.

    Raises:
        GpuError: A piece is missing or changed, or they are of another part. Nothing is replaced.
    """
    try:
        summary = json.loads((output / WEIGHTS).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise GpuError(f"{output} has no readable {WEIGHTS} of a call: {error}") from error
    if summary["part"] != part:
        raise GpuError(f"{output} holds weights of {summary['part']}, not of {part}")
    folder = runs / part / "export"
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "export.tar"
        with whole.open("wb") as file:
            for piece in summary["pieces"]:
                path = output / piece["name"]
                data = path.read_bytes() if path.is_file() else b""
                if hashlib.sha256(data).hexdigest() != piece["sha256"]:
                    raise GpuError(f"{path} is missing or not whole; fetch it again")
                file.write(data)
        unpacked = Path(temporary) / "export"
        with tarfile.open(whole) as tar:
            tar.extractall(unpacked, filter="data")
        names = sorted(path.name for path in unpacked.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            with atomic_folder(folder / name) as target:
                shutil.copytree(unpacked / name, target, dirs_exist_ok=True)
    shutil.copy(output / "metrics.jsonl", folder.parent / "metrics.gpu.jsonl")
    return [folder / name for name in names]


# -- command line ------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/train_on_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--pack", action="store_true", help="write the archive, train nothing")
    action.add_argument("--join", action="store_true", help="put the weights into the run")
    parser.add_argument("--runs", type=Path, help="folder of the recipe (--pack, --join)")
    parser.add_argument("--input", type=Path, help="the archive (--pack, training)")
    parser.add_argument("--output", type=Path, help="folder of the weights (training, --join)")
    parser.add_argument(
        "--bundle",
        type=Path,
        default=Path("checkpoints/mini-en"),
        help="what the recipe starts from",
    )
    parser.add_argument("--seed", type=int, default=0, help="which recordings are drawn (--pack)")
    parser.add_argument(
        "--megabytes", type=float, default=INPUT_BYTES / 1e6, help="most of the archive (--pack)"
    )
    parser.add_argument("--minutes", type=float, default=7.0, help="all that training may take")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optim.lr=3e-4")
    options = parser.parse_intermixed_args(arguments)
    needed = ["runs" if options.pack or options.join else "input"]
    needed.append("input" if options.pack else "output")
    for name in needed:
        if getattr(options, name) is None:
            parser.error(f"--{name} is needed here")
    show_logs()
    try:
        if options.pack:
            counts = pack(
                options.part,
                options.input,
                runs=options.runs,
                bundle=options.bundle,
                seed=options.seed,
                max_bytes=int(options.megabytes * 1e6),
            )
            print(
                f"{options.input}: {counts['utterances']:.0f} utterances, "
                f"{counts['hours']:.2f} h, {counts['bytes'] / 1e6:.1f} MB"
            )
        elif options.join:
            for path in join(options.part, options.output, runs=options.runs):
                print(path)
        else:
            print(
                json.dumps(
                    train(
                        options.part,
                        options.input,
                        options.output,
                        minutes=options.minutes,
                        overrides=options.overrides,
                    )
                )
            )
    except (ValueError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
