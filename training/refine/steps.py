"""The steps of a refinement, each of which goes on where it was stopped.

    work/clips/NAME.flac        cut and levelled clips
    work/before/NAME.flac       the same before their recording was enhanced
    work/segment.jsonl          one row per recording: its clips, or why there are none
    work/measure.jsonl          one row per clip: its measures; measure.ENCODER.jsonl with voices
    work/embedding.ENCODER.jsonl  one row per clip: who speaks, as an embedding
    work/transcribe.NAME.jsonl  one row per clip: what a recogniser heard
    work/dropped.jsonl          which filter dropped what, and why

A step appends a row when a recording or clip is done, and passes over what has one. Recordings
that could not be used are tried again; texts may be corrected between two runs. `refine_recording`
makes the rows of one recording in all these files, so that recordings can be spread over machines
(`training.refine.on_cluster`); the steps then find everything done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenlm.atomic import write_text
from tokenlm.audio.io import AudioError, load_audio, recording_rate, save_audio
from tokenlm.audio.resample import resample
from tokenlm.console import track
from tokenlm.synthesis.enhancing import EnhanceError, Enhancer
from tokenlm.text.normalize import NormalizerName, frontend
from training.data.manifest import Utterance, write_manifest
from training.data.rejects import Reject, Rejects
from training.refine.align import part_transcript
from training.refine.config import RefineConfig
from training.refine.filters import first_reason, near_duplicates, ratio_tails
from training.refine.measures import (
    Measures,
    clipped_share,
    letter_disagreement,
    measure_sound,
    word_disagreement,
)
from training.refine.recognisers import RATE, Recogniser
from training.refine.recordings import Recording
from training.refine.segment import normalise_level, segments
from training.refine.speakers import Embed, consistency

_STORED_RATE = 24_000
_BEFORE = "before"
"""Folder of clips as they were recorded."""
SEGMENT_FILE = "segment.jsonl"
_ROWS = 2
"""Of segment.jsonl: changes when what they hold does."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a clip."""

    clip: Recording
    measures: Measures
    dropped_by: str = ""
    """Name of the filter; empty where the clip is kept."""
    reason: str = ""


def spoken_words(text: str, normalizer: NormalizerName = "english") -> str:
    """A text as words in lower case with single spaces, to be compared."""
    spoken = frontend(normalizer).normalize(text).lower()
    letters = "".join(c if c.isalnum() or c in "' " else " " for c in spoken)
    return " ".join(letters.split())


def _resume(
    path: Path,
    items: Iterable[Any],
    work: Callable[[Any], dict[str, Any]],
    is_valid: Callable[[Any, dict[str, Any]], bool] = lambda item, row: True,
) -> dict[str, dict[str, Any]]:
    """Give the row of every item, those that `path` has and those that `work` makes now."""
    items = list(items)
    done = read_rows(path)
    if path.exists():
        # In the order of the items, whatever order they were done in.
        done = {item.id: done[item.id] for item in items if item.id in done} | done
        write_text(path, "".join(_line(row) for row in done.values()))
    left = [item for item in items if item.id not in done or not is_valid(item, done[item.id])]
    with path.open("a", encoding="utf-8") as file:
        for item in track(left, path.stem):
            done[item.id] = {"id": item.id, **work(item)}
            file.write(_line(done[item.id]))
            file.flush()
    return {item.id: done[item.id] for item in items}


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a step by id, as far as they are whole."""
    rows: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                row = json.loads(line)
                rows[row["id"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # the end of a process that was killed; the item is done again
    return rows


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to those of a step."""
    text = "".join(map(_line, rows))
    with path.open("ab") as file:
        if file.tell():  # a torn last line must not take a whole one with it
            text = "\n" + text
        file.write(text.encode("utf-8"))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def open_work(work: Path, config: RefineConfig) -> None:
    """Make the working folder, or check that it was begun with the same settings.

    Raises:
        ValueError: If it was not.
    """
    (work / "clips").mkdir(parents=True, exist_ok=True)
    settings = {
        "detector": config.detector,
        "pause_seconds": config.pause_seconds,
        "max_seconds": config.max_seconds,
        "level_dbfs": config.level_dbfs,
        "rows": _ROWS,
        **({"enhance": config.enhance} if config.enhance else {}),
    }
    kept = work / "segment.settings.json"
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{work} was begun with other settings of {', '.join(settings)}: give the old ones, "
            "or remove the folder"
        )
    write_text(kept, json.dumps(settings))


def is_segmented(recording: Recording, row: dict[str, Any]) -> bool:
    """Whether a row of segment.jsonl is still that of a recording; bad ones are tried again."""
    return not row["problem"] and row["has_text"] == bool(recording.text)


def clips_of(recording: Recording, row: dict[str, Any], work: Path) -> list[Recording]:
    """The clips of a recording, by its row of segment.jsonl."""
    return [
        replace(
            recording,
            id=name,
            audio=work / "clips" / f"{name}.flac",
            text=recording.text if row["is_whole"] else "",
            source=recording.id,
            clipped_share=clipped,
            enhancement=row.get("enhancement", ""),
            before=work / _BEFORE / f"{name}.flac" if row.get("is_enhanced") else None,
        )
        for name, clipped in row["clips"]
    ]


def segment_step(
    recordings: list[Recording],
    work: Path,
    config: RefineConfig,
    rejects: Rejects,
    fresh: Collection[str] = (),
) -> list[Recording]:
    """Cut recordings into clips.

    A recording that has a text and is no longer than a clip may be stays whole. The clips of a
    longer one go on without, until `align_step` parts it.

    Args:
        recordings: Those to cut.
        work: Gets the clips.
        config: How they are cut and levelled.
        rejects: Takes the recordings that cannot be read, and those without speech.
        fresh: Ids of recordings that were cut just now: bad ones are not tried again.

    Raises:
        ValueError: If the folder was begun with other settings, or two clips have one name.
        TooManyRejects: If too many recordings cannot be used.
    """
    open_work(work, config)

    def count(recording: Recording, row: dict[str, Any]) -> None:
        if row["problem"]:
            rejects.reject(Reject(recording.file, recording.line, row["problem"]))
        else:
            rejects.accept()

    def cut(recording: Recording) -> dict[str, Any]:
        row = _cut(recording, work / "clips", config)
        count(recording, row)
        return row

    def is_valid(recording: Recording, row: dict[str, Any]) -> bool:
        valid = recording.id in fresh or is_segmented(recording, row)
        if valid:
            count(recording, row)
        return valid

    rows = _resume(work / SEGMENT_FILE, recordings, cut, is_valid)
    rejects.check()
    clips = [clip for one in recordings for clip in clips_of(one, rows[one.id], work)]
    sources: dict[str, str] = {}
    for clip in clips:
        if clip.id in sources:
            raise ValueError(
                f"{sources[clip.id]!r} and {clip.source!r} both have a clip {clip.id!r}: give one "
                "of these recordings another name, and remove " + str(work)
            )
        sources[clip.id] = clip.source
    return clips


def _cut(recording: Recording, folder: Path, config: RefineConfig) -> dict[str, Any]:
    """Write the clips of a recording; returns its row."""
    row: dict[str, Any] = {
        "clips": [],
        "is_whole": False,
        "has_text": bool(recording.text),
        "problem": "",
    }
    try:
        rate = native_rate(recording.audio)
        sound = load_audio(recording.audio, rate)
    except AudioError as error:
        return {**row, "problem": str(error)}
    recorded = waveform = resample(sound, rate, _STORED_RATE)
    if config.enhance:
        waveform, row["is_enhanced"], row["enhancement"] = _enhance(config.enhance, recorded)
    is_whole = bool(recording.text) and waveform.shape[0] <= config.max_seconds * _STORED_RATE
    places = [(0, waveform.shape[0])]
    if not is_whole:
        places = segments(waveform, _STORED_RATE, config)
    if not places:
        return {**row, "problem": f"no speech is heard in {recording.audio}."}
    # An id may be any path; its clips stay in the folder.
    own_id = Path(recording.id)
    stem = "/".join(part for part in own_id.parts if part not in (own_id.anchor, ".."))
    clips = []
    for number, (start, stop) in enumerate(places):
        name = stem if is_whole else f"{stem}-{number:04d}"
        clip = normalise_level(waveform[start:stop], config.level_dbfs)
        save_audio(folder / f"{name}.flac", clip, _STORED_RATE)
        if row.get("is_enhanced"):
            before = normalise_level(recorded[start:stop], config.level_dbfs)
            save_audio(folder.parent / _BEFORE / f"{name}.flac", before, _STORED_RATE)
        # Resampled, a flat top is flat no more.
        own = sound[start * rate // _STORED_RATE : stop * rate // _STORED_RATE]
        clips.append([name, clipped_share(own)])
    return {**row, "clips": clips, "is_whole": is_whole}


@cache
def _enhancer(bundle: str) -> Enhancer:
    return Enhancer.from_pretrained(bundle)


def _enhance(bundle: str, waveform: Tensor) -> tuple[Tensor, bool, str]:
    """A recording (S,) without noise, whether it was changed, and how or why not."""
    try:
        found = _enhancer(bundle).enhance(waveform, sample_rate=_STORED_RATE)
    except EnhanceError as error:
        return waveform, False, str(error)
    problems = found.condition.problems()
    if problems:
        return waveform, False, problems[0]
    if found.method is None:
        return waveform, False, f"clean: {found.condition}"
    return found.waveform, True, f"{found.method}: {found.condition}"


def native_rate(path: Path) -> int:
    """Sample rate of a sound file in Hz; where its header cannot be read, that of clips."""
    try:
        return recording_rate(path)
    except AudioError:
        return _STORED_RATE


def transcribe_step(
    clips: list[Recording], work: Path, recognisers: Mapping[str, Recogniser]
) -> dict[str, dict[str, str]]:
    """Let every recogniser hear every clip; returns what it heard, by clip and recogniser."""
    heard: dict[str, dict[str, str]] = {clip.id: {} for clip in clips}
    for name, recognise in recognisers.items():
        rows = _resume(work / transcribe_file(name), clips, partial(_transcribe, recognise))
        for clip, row in rows.items():
            heard[clip][name] = row["text"]
    return heard


def transcribe_file(recogniser: str) -> str:
    """Name of the file of what a recogniser heard."""
    safe = "".join(c if c.isalnum() or c in "-." else "_" for c in recogniser)
    return f"transcribe.{safe}.jsonl"


def _transcribe(recognise: Recogniser, clip: Recording) -> dict[str, Any]:
    return {"text": recognise(load_audio(clip.audio, RATE))}


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
    *,
    encoder: str = "speaker",
    normalizer: NormalizerName = "english",
) -> dict[str, Measures]:
    """Measure every clip.

    Args:
        clips: The clips.
        work: Keeps the measures.
        heard: What the recognisers heard, by clip and recogniser.
        embed: Finds two speakers in a clip.
        encoder: Name of what embeds: by another one the voices are measured anew.
        normalizer: Front-end that texts are compared by.
    """
    name = measure_file("" if embed is None else encoder)
    rows = _resume(work / name, clips, partial(_measure, embed))
    result = {}
    for clip in clips:
        transcripts = heard.get(clip.id, {})
        texts = {name: spoken_words(text, normalizer) for name, text in transcripts.items()}
        compared = [spoken_words(clip.text, normalizer)] if clip.text else []
        result[clip.id] = replace(
            Measures(**rows[clip.id]["measures"]),
            clipped_share=clip.clipped_share,
            text_length=sum(c.isalnum() for c in clip.text or next(iter(texts.values()), "")),
            disagreement=word_disagreement([*compared, *texts.values()]),
            letter_disagreement=letter_disagreement([*compared, *texts.values()]),
            transcripts=dict(transcripts),
        )
    return result


def measure_file(encoder: str) -> str:
    """Name of the file of measures; with and without an encoder are two measurements."""
    return f"measure.{encoder}.jsonl" if encoder else "measure.jsonl"


def _measure(embed: Embed | None, clip: Recording) -> dict[str, Any]:
    waveform = load_audio(clip.audio, _STORED_RATE)
    found = measure_sound(waveform, _STORED_RATE, "")
    if embed is not None and found.seconds >= 2:  # half a word is no voice
        alike = consistency(resample(waveform, _STORED_RATE, RATE), embed)
        found = replace(found, speaker_consistency=alike)
    return {"measures": asdict(found)}


def embed_step(
    clips: list[Recording], work: Path, embed: Embed, *, encoder: str = "speaker"
) -> list[Tensor]:
    """The speaker embedding (E,) of every clip; `encoder` names what embeds."""
    rows = _resume(work / embedding_file(encoder), clips, partial(_embedding, embed))
    return [torch.tensor(rows[clip.id]["embedding"]) for clip in clips]


def embedding_file(encoder: str) -> str:
    """Name of the file of embeddings."""
    return f"embedding.{encoder}.jsonl"


def _embedding(embed: Embed, clip: Recording) -> dict[str, Any]:
    waveform = load_audio(clip.audio, RATE)
    short = max(0, RATE // 2 - waveform.shape[0])
    return {"embedding": embed(torch.nn.functional.pad(waveform, (0, short))).tolist()}


def clip_files(
    recognisers: Iterable[str], encoder: str, *, with_embeddings: bool
) -> tuple[str, ...]:
    """Names of the files that have a row for every clip.

    Args:
        recognisers: Their names.
        encoder: Name of the speaker encoder; '' without one.
        with_embeddings: Whether speakers are named by their voices.
    """
    names = [*map(transcribe_file, recognisers), measure_file(encoder)]
    return (*names, *([embedding_file(encoder)] if with_embeddings else ()))


def refine_recording(
    recording: Recording,
    row: dict[str, Any] | None,
    missing: Mapping[str, Collection[str]] | None,
    work: Path,
    config: RefineConfig,
    recognisers: Mapping[str, Recogniser],
    embed: Embed | None,
    encoder: str,
    *,
    with_embeddings: bool,
) -> dict[str, list[dict[str, Any]]]:
    """Make the rows of one recording that the steps would make, by the name of their file.

    Args:
        recording: The recording.
        row: Its row of segment.jsonl, where it was cut before; None cuts it.
        missing: Ids of the clips that each file has no row of; None means all.
        work: Gets the clips, and nothing else.
        config: How it is cut and levelled.
        recognisers: What hears the clips, by name.
        embed: Embeds the clips.
        encoder: Name of what embeds; '' where nothing does.
        with_embeddings: Whether the embeddings are kept.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    if row is None:
        row = {"id": recording.id, **_cut(recording, work / "clips", config)}
        rows[SEGMENT_FILE] = [row]
    clips = clips_of(recording, row, work)
    steps: dict[str, Callable[[Recording], dict[str, Any]]] = {
        transcribe_file(name): partial(_transcribe, recognise)
        for name, recognise in recognisers.items()
    }
    steps[measure_file(encoder)] = partial(_measure, embed)
    if embed is not None and with_embeddings:
        steps[embedding_file(encoder)] = partial(_embedding, embed)
    for name, step in steps.items():
        todo = [clip for clip in clips if missing is None or clip.id in missing.get(name, ())]
        rows[name] = [{"id": clip.id, **step(clip)} for clip in todo]
    return rows


def decide(
    clips: list[Recording], measures: Mapping[str, Measures], config: RefineConfig
) -> list[Decision]:
    """Ask the filters: first those of single clips, then those that compare clips."""
    decisions = []
    for clip in clips:
        found = measures[clip.id]
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
            extra=made.clip.extra,
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
