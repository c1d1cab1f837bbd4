"""Speak a planned corpus with several processes; a killed build goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import soundfile

from tokenlm.config import from_dict
from tokenlm.console import ProgressBar
from training.loop.workers import end_with_parent
from training.recipes.corpus.config import CorpusConfig
from training.recipes.corpus.engines import EngineError, Request, check_voice, speak
from training.recipes.corpus.finish import finish
from training.recipes.corpus.kokoro import Kokoro
from training.recipes.corpus.plan import Shard, all_speakers, plan_corpus
from training.rl.texts.grammar import load_grammar

logger = logging.getLogger(__name__)

Row = dict[str, Any]
PLAN = "shards/plan.jsonl"
"""File of a corpus that says what all of its shards are to hold."""
UNPLANNED = ("teacher", "documents", "word_lists", "refresh_every")
"""Settings that a plan, once made, does not depend on."""
MAX_FAILED_SHARE = 0.02
"""Share of a shard's utterances that an engine may fail at before the build stops."""


def build_corpus(config: CorpusConfig, folder: Path, *, jobs: int = 1) -> dict[str, int]:
    """Make a corpus, or what is missing of it.

    Args:
        config: what to make.
        folder: where audio, shards and manifests go.
        jobs: processes that speak.

    Returns:
        Rows of every manifest.

    Raises:
        EngineError: an engine or voice is missing, or fails too often.
        ValueError: the folder holds shards of a different corpus.
    """
    for engine, voice in sorted({(s.engine, s.voice) for s in all_speakers(config)}):
        if engine == "kokoro":
            _teacher(config).style(voice)
        else:
            check_voice(engine, voice)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    shards = read_plan(folder, config)
    begun = shards is not None
    if shards is None:
        shards = plan_corpus(config, load_grammar(config.word_lists, config.documents))
    rows: dict[str, list[Row]] = {}
    todo = []
    for shard in shards:
        done = read_shard(shard, folder)
        if done is None:
            todo.append(shard)
        else:
            rows[shard.name] = done
    if not begun:  # only now: what was spoken before may belong to another plan
        header = {"config": config_digest(config)}
        _write_lines(folder / PLAN, [header, *map(asdict, shards)])
    order = [(shard.name, shard.manifest) for shard in shards]
    written = sum(len(done) for done in rows.values())
    fresh = 0
    total = max(sum(len(shard.utterances) for shard in shards), 1)
    with ProgressBar("corpus") as progress:
        progress.update(written / total)
        write_manifests(order, rows, folder)
        for name, made in _speak_all(todo, config, folder, jobs):
            rows[name] = made
            written += len(made)
            progress.update(written / total)
            fresh += len(made)
            if fresh >= config.refresh_every:
                counts = write_manifests(order, rows, folder)
                logger.info("manifests written: %s", counts)
                fresh = 0
    return write_manifests(order, rows, folder)


def read_plan(folder: Path, config: CorpusConfig) -> list[Shard] | None:
    """The plan of a corpus as it was written when the corpus was begun, if it is of this config.

    What is to be read depends on what the machine has to read: word lists, documentation, sentences
    of its packages. Those change whenever something is installed, so a corpus keeps its plan.

    Args:
        folder: the corpus.
        config: what to make.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    with path.open(encoding="utf-8") as file:
        header, *lines = map(json.loads, file)
    if header["config"] != config_digest(config):
        return None
    return [from_dict(Shard, line, where=path) for line in lines]


def config_digest(config: CorpusConfig) -> str:
    """Hash of what a configuration asks for, wherever its files lie."""
    facts = {name: value for name, value in asdict(config).items() if name not in UNPLANNED}
    data = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(data.encode()).hexdigest()[:16]


def _speak_all(
    shards: Sequence[Shard], config: CorpusConfig, folder: Path, jobs: int
) -> Iterable[tuple[str, list[Row]]]:
    if jobs == 1:
        for shard in shards:
            yield shard.name, speak_shard(shard, config, folder)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=end_with_parent) as pool:
        names: dict[Future[list[Row]], str] = {
            pool.submit(speak_shard, shard, config, folder): shard.name for shard in shards
        }
        try:
            for future in as_completed(names):
                yield names[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def speak_shard(shard: Shard, config: CorpusConfig, folder: Path) -> list[Row]:
    """Speak a shard: audio first, then its record, so that a record means whole audio.

    Args:
        shard: what to say.
        config: rates and levels.
        folder: the corpus.

    Returns:
        Manifest rows of what was spoken.

    Raises:
        EngineError: an engine failed at too many of the utterances.
    """
    audio = Path("audio") / shard.name
    if (folder / audio).exists():
        shutil.rmtree(folder / audio)
    (folder / audio).mkdir(parents=True)
    rows: dict[str, Row] = {}
    failures = []
    engines = sorted({utterance.speaker.engine for utterance in shard.utterances})
    for engine in engines:
        lines = [u for u in shard.utterances if u.speaker.engine == engine]
        requests = [
            Request(
                text=line.text,
                voice=line.speaker.voice,
                pitch=line.speaker.engine_pitch,
                stretch=line.speaker.engine_stretch * line.stretch,
            )
            for line in lines
        ]
        spoken = (
            map(_teacher(config).attempt, requests)
            if engine == "kokoro"
            else speak(engine, requests)
        )
        for line, speech in zip(lines, spoken, strict=True):
            speaker = line.speaker
            try:
                if isinstance(speech, EngineError):
                    raise speech
                waveform, phones = finish(speech, speaker.formant, config, speaker.timbre)
            except EngineError as error:
                failures.append(f"{line.id} ({speaker.name}, {line.text!r}): {error}")
                continue
            path = audio / f"{line.id}.{config.audio_format}"
            soundfile.write(folder / path, waveform, config.sample_rate, subtype="PCM_16")
            row: Row = {
                "id": line.id,
                "audio": str(path),
                "text": line.text,
                "speaker": speaker.name,
                "duration": round(len(waveform) / config.sample_rate, 4),
                "person": speaker.person,
                "engine": engine,
                "formant": speaker.formant,
                "pitch": speaker.pitch,
                "rate": round(1 / line.stretch, 3),
            }
            if phones:
                row["phones"] = phones
            rows[line.id] = row
    if len(failures) > max(1, MAX_FAILED_SHARE * len(shard.utterances)):
        raise EngineError(f"{len(failures)} utterances failed, the first: {failures[0]}")
    ordered = [rows[u.id] for u in shard.utterances if u.id in rows]
    header = {"shard": shard.name, "fingerprint": shard.fingerprint(), "failures": failures}
    _write_lines(folder / "shards" / f"{shard.name}.jsonl", [header, *ordered])
    return ordered


def _teacher(config: CorpusConfig) -> Kokoro:
    assert config.teacher is not None  # CorpusConfig sees to it
    return _load_teacher(config.teacher)


@lru_cache(maxsize=1)
def _load_teacher(folder: Path) -> Kokoro:
    return Kokoro(folder)


def read_shard(shard: Shard, folder: Path) -> list[Row] | None:
    """Rows of a finished shard, or None when it is yet to be spoken.

    Raises:
        ValueError: the recorded shard says something else than the planned one.
    """
    path = folder / "shards" / f"{shard.name}.jsonl"
    if not path.exists():
        return None
    with path.open(encoding="utf-8") as file:
        header, *rows = map(json.loads, file)
    if header["fingerprint"] != shard.fingerprint():
        raise ValueError(
            f"{folder} holds a corpus of another configuration or text ({path.name} differs); "
            "choose a new folder or remove this one"
        )
    return rows


def write_manifests(
    order: Sequence[tuple[str, str]], rows: Mapping[str, list[Row]], folder: Path
) -> dict[str, int]:
    """Write every manifest from the shards spoken so far, each in one piece.

    Args:
        order: (shard name, manifest) of all shards.
        rows: rows of the finished shards by name.
        folder: the corpus.

    Returns:
        Rows of every manifest.
    """
    counts = {}
    for manifest in dict.fromkeys(name for _, name in order):
        lines = [row for shard, name in order if name == manifest for row in rows.get(shard, [])]
        _write_lines(folder / f"{manifest}.jsonl", lines)
        counts[manifest] = len(lines)
    return counts


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    partial.replace(path)
