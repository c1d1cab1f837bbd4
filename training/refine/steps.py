"""The steps of a refinement, each of which goes on where it was stopped.

    work/clips/NAME.flac        cut and levelled clips
    work/segment.jsonl          one row per recording: its clips, or why there are none
    work/measure.jsonl          one row per clip: its measures
    work/embedding.jsonl        one row per clip: who speaks, as an embedding
    work/transcribe.NAME.jsonl  one row per clip: what a recogniser heard
    work/dropped.jsonl          which filter dropped what, and why

A step appends a row when a recording or clip is done, and passes over what has one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenlm.atomic import write_text
from tokenlm.audio.io import AudioError, load_audio, save_audio
from tokenlm.text.frontend import NormalizerName, frontend
from training.data.manifest import Utterance, read_manifest, write_manifest
from training.refine.align import part_transcript
from training.refine.config import RefineConfig
from training.refine.filters import first_reason, near_duplicates, ratio_tails
from training.refine.measures import (
    Measures,
    letter_disagreement,
    measure_sound,
    word_disagreement,
)
from training.refine.recognisers import RATE, Recogniser
from training.refine.segment import normalise_level, segments
from training.refine.speakers import Embed, consistency

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
_STORED_RATE = 24_000


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A sound file, of any length, and what is known of it."""

    id: str
    audio: Path
    text: str = ""
    speaker: str = "unknown"
    source: str = ""
    """Of a clip: the recording that it was cut from."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a clip."""

    clip: Recording
    measures: Measures
    dropped_by: str = ""
    """Name of the filter; empty where the clip is kept."""
    reason: str = ""


def find_recordings(source: Path) -> list[Recording]:
    """List the recordings of a folder or a manifest.

    Args:
        source: A folder of sound files, each with its text in a `.txt` of its name or without; the
            folder that a file lies in is its speaker. Or a manifest.

    Raises:
        ValueError: If there is none.
    """
    if source.is_file():
        rows = read_manifest(source)
        if rows.bad_rows:
            print(rows.report())
        return [
            Recording(id=row.id, audio=row.audio, text=row.text, speaker=row.speaker)
            for row in rows.utterances
        ]
    found = []
    for audio in sorted(path for path in source.rglob("*") if path.suffix.lower() in SOUNDS):
        text = audio.with_suffix(".txt")
        name = audio.relative_to(source).with_suffix("").as_posix()
        found.append(
            Recording(
                id=name,
                audio=audio,
                text=text.read_text(encoding="utf-8").strip() if text.is_file() else "",
                speaker=audio.parent.name if audio.parent != source else "unknown",
            )
        )
    if not found:
        raise ValueError(f"there is no recording in {source}")
    counted = Counter(recording.id for recording in found)
    twice = next((name for name, number in counted.items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"{source / twice} is there in two formats: which one is meant?")
    return found


def spoken_words(text: str, normalizer: NormalizerName = "english") -> str:
    """A text as words in lower case with single spaces, to be compared."""
    spoken = frontend(normalizer).normalize(text).lower()
    letters = "".join(c if c.isalnum() or c in "' " else " " for c in spoken)
    return " ".join(letters.split())


def _resume(
    path: Path, items: Iterable[Any], work: Callable[[Any], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Give the row of every item, those that `path` has and those that `work` makes now."""
    done: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                row = json.loads(line)
                done[row["id"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # the end of a process that was killed; the item is done again
        write_text(
            path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in done.values())
        )
    with path.open("a", encoding="utf-8") as file:
        for item in items:
            if item.id not in done:
                done[item.id] = {"id": item.id, **work(item)}
                file.write(json.dumps(done[item.id], ensure_ascii=False) + "\n")
                file.flush()
    return {item.id: done[item.id] for item in items}


def segment_step(
    recordings: list[Recording], work: Path, config: RefineConfig
) -> tuple[list[Recording], dict[str, str]]:
    """Cut recordings into clips.

    A recording that has a text and is no longer than a clip may be stays whole. The clips of a
    longer one go on without, until `align_step` parts it.

    Returns:
        The clips, and the recordings that could not be read, with the reason.

    Raises:
        ValueError: If the folder was begun with other settings.
    """
    (work / "clips").mkdir(parents=True, exist_ok=True)
    settings = {
        "detector": config.detector,
        "pause_seconds": config.pause_seconds,
        "max_seconds": config.max_seconds,
        "level_dbfs": config.level_dbfs,
    }
    kept = work / "segment.settings.json"
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{work} was begun with other settings of {', '.join(settings)}: give the old ones, "
            "or remove the folder"
        )
    write_text(kept, json.dumps(settings))

    def cut(recording: Recording) -> dict[str, Any]:
        try:
            waveform = load_audio(recording.audio, _STORED_RATE)
        except AudioError as error:
            return {"clips": [], "problem": str(error)}
        whole = waveform.shape[0] <= config.max_seconds * _STORED_RATE
        places = [(0, waveform.shape[0])]
        if not (recording.text and whole):
            places = segments(waveform, _STORED_RATE, config)
        clips = []
        for number, (start, stop) in enumerate(places):
            name = recording.id if recording.text and whole else f"{recording.id}-{number:04d}"
            path = work / "clips" / f"{name}.flac"
            clip = normalise_level(waveform[start:stop], config.level_dbfs)
            save_audio(path, clip, _STORED_RATE)
            clips.append([name, recording.text if whole else ""])
        return {"clips": clips, "problem": ""}

    rows = _resume(work / "segment.jsonl", recordings, cut)
    speakers = {recording.id: recording.speaker for recording in recordings}
    clips = [
        Recording(
            id=name,
            audio=work / "clips" / f"{name}.flac",
            text=text,
            speaker=speakers[source],
            source=source,
        )
        for source, row in rows.items()
        for name, text in row["clips"]
    ]
    return clips, {name: row["problem"] for name, row in rows.items() if row["problem"]}


def transcribe_step(
    clips: list[Recording], work: Path, recognisers: Mapping[str, Recogniser]
) -> dict[str, dict[str, str]]:
    """Let every recogniser hear every clip; returns what it heard, by clip and recogniser."""
    heard: dict[str, dict[str, str]] = {clip.id: {} for clip in clips}
    for name, recognise in recognisers.items():
        safe = "".join(c if c.isalnum() or c in "-." else "_" for c in name)

        def hear(clip: Recording, recognise: Recogniser = recognise) -> dict[str, Any]:
            return {"text": recognise(load_audio(clip.audio, RATE))}

        for clip, row in _resume(work / f"transcribe.{safe}.jsonl", clips, hear).items():
            heard[clip][name] = row["text"]
    return heard


def align_step(
    recordings: list[Recording],
    clips: list[Recording],
    heard: Mapping[str, Mapping[str, str]],
    normalizer: NormalizerName = "english",
) -> list[Recording]:
    """Give the clips of a long recording their parts of its text.

    The first recogniser says where; how well a part agrees with what was heard is measured like
    that of any text. Without a recogniser the clips stay without text.
    """
    parts: dict[str, str] = {}
    cut: dict[str, list[Recording]] = {}
    for clip in clips:
        cut.setdefault(clip.source, []).append(clip)
    for recording in recordings:
        own = cut.get(recording.id, [])
        if not recording.text or any(clip.text for clip in own):
            continue
        own = [clip for clip in own if heard.get(clip.id)]
        if not own:
            continue
        words = recording.text.split()
        letters = [spoken_words(word, normalizer).replace(" ", "") for word in words]
        said = [spoken_words(next(iter(heard[clip.id].values())), normalizer) for clip in own]
        for clip, (start, stop) in zip(own, part_transcript(letters, said), strict=True):
            parts[clip.id] = " ".join(words[start:stop])
    return [replace(clip, text=parts.get(clip.id, clip.text)) for clip in clips]


def measure_step(
    clips: list[Recording],
    work: Path,
    heard: Mapping[str, Mapping[str, str]],
    embed: Embed | None = None,
    normalizer: NormalizerName = "english",
) -> dict[str, Measures]:
    """Measure every clip."""

    def measured(clip: Recording) -> dict[str, Any]:
        waveform = load_audio(clip.audio, RATE)
        try:
            found = measure_sound(waveform, RATE, "")
        except ValueError:
            return {"measures": None}
        if embed is not None and waveform.shape[0] >= 2 * RATE:  # half a word is no voice
            found = replace(found, speaker_consistency=consistency(waveform, embed))
        return {"measures": asdict(found)}

    # With and without an encoder are two measurements.
    name = "measure.jsonl" if embed is None else "measure.speaker.jsonl"
    rows = _resume(work / name, clips, measured)
    result = {}
    for clip in clips:
        if rows[clip.id]["measures"] is None:
            continue
        transcripts = heard.get(clip.id, {})
        texts = {name: spoken_words(text, normalizer) for name, text in transcripts.items()}
        compared = [spoken_words(clip.text, normalizer)] if clip.text else []
        result[clip.id] = replace(
            Measures(**rows[clip.id]["measures"]),
            text_length=sum(c.isalnum() for c in clip.text or next(iter(texts.values()), "")),
            disagreement=word_disagreement([*compared, *texts.values()]),
            letter_disagreement=letter_disagreement([*compared, *texts.values()]),
            transcripts=dict(transcripts),
        )
    return result


def embed_step(clips: list[Recording], work: Path, embed: Embed) -> list[Tensor]:
    """The speaker embedding (E,) of every clip."""

    def embedded(clip: Recording) -> dict[str, Any]:
        return {"embedding": embed(load_audio(clip.audio, RATE)).tolist()}

    rows = _resume(work / "embedding.jsonl", clips, embedded)
    return [torch.tensor(rows[clip.id]["embedding"]) for clip in clips]


def decide(
    clips: list[Recording], measures: Mapping[str, Measures], config: RefineConfig
) -> list[Decision]:
    """Ask the filters: first those of single clips, then those that compare clips."""
    decisions = []
    for clip in clips:
        found = measures.get(clip.id)
        if found is None:
            continue
        text = clip.text or next(iter(found.transcripts.values()), "")
        clip = replace(clip, text=text)
        dropped = first_reason(found, config)
        if dropped is None and not text.strip():
            dropped = ("text", "nobody knows what is said")
        name, reason = dropped or ("", "")
        decisions.append(Decision(clip=clip, measures=found, dropped_by=name, reason=reason))
    kept = [index for index, made in enumerate(decisions) if not made.dropped_by]
    duplicates = near_duplicates(
        [spoken_words(decisions[i].clip.text, config.normalizer) for i in kept],
        [decisions[i].measures.seconds for i in kept],
        [decisions[i].clip.speaker for i in kept],
    )
    _drop(decisions, kept, duplicates, "duplicate")
    kept = [index for index in kept if not decisions[index].dropped_by]
    tails = ratio_tails([decisions[i].measures.seconds_per_letter for i in kept], config)
    _drop(decisions, kept, tails, "length_ratio")
    return decisions


def _drop(
    decisions: list[Decision], places: list[int], reasons: list[str | None], name: str
) -> None:
    for place, reason in zip(places, reasons, strict=True):
        if reason is not None:
            decisions[place] = replace(decisions[place], dropped_by=name, reason=reason)


def write_outcome(decisions: list[Decision], work: Path, output: Path) -> int:
    """Write the manifest of the clips that are kept, and dropped.jsonl; returns their number."""
    kept = [made for made in decisions if not made.dropped_by]
    rows = [
        Utterance(
            id=made.clip.id,
            audio=made.clip.audio,
            text=made.clip.text,
            speaker=made.clip.speaker,
            duration=made.measures.seconds,
        )
        for made in kept
    ]
    write_manifest(output, rows)
    lines = [
        json.dumps({"id": made.clip.id, "filter": made.dropped_by, "reason": made.reason})
        for made in decisions
        if made.dropped_by
    ]
    write_text(work / "dropped.jsonl", "".join(line + "\n" for line in lines))
    return len(rows)
