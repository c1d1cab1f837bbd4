"""`scripts/prove_refinement`: damages a clean corpus, refines it, and counts what was found.

    scripts/prove_refinement MANIFEST FOLDER --recogniser pocketsphinx --speaker-encoder COMPONENT

FOLDER gets the damaged corpus, the same clips undamaged, `labels.jsonl` (id and damage of every
clip, which the refinement never sees), the refined manifest and its report. `scripts/train_refined`
goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tokenlm.audio.io import load_audio, save_audio
from tokenlm.config import load_config
from training.data.manifest import Utterance, read_manifest, write_manifest
from training.data.rejects import Rejects
from training.loop.randomness import make_generator
from training.refine import steps
from training.refine.config import RefineConfig
from training.refine.damage import KINDS, Clip, damage, damage_kinds, precision_and_recall
from training.refine.recognisers import Recogniser, make_recogniser
from training.refine.recordings import find_recordings
from training.refine.report import write_report
from training.refine.speakers import Embed, load_encoder

Table = dict[str, tuple[float, float]]
"""Precision and recall by kind of damage."""

FLOOR, AIM = 0.7, 0.9
_RATE = 24_000


def draw_rows(rows: Sequence[Utterance], skip: int, limit: int) -> list[Utterance]:
    """Draw clips from all over a corpus; draws that pass over one another share none.

    Args:
        rows: The corpus.
        skip: Clips of the shuffled corpus to pass over.
        limit: Clips to take; 0 takes all that are left.

    Raises:
        ValueError: If nothing is left.
    """
    order = torch.randperm(len(rows), generator=make_generator("draw", 0)).tolist()
    drawn = [rows[index] for index in order[skip : skip + limit if limit else None]]
    if not drawn:
        raise ValueError(f"of {len(rows)} clips none is left after the first {skip}")
    return drawn


def damage_corpus(rows: Sequence[Utterance], folder: Path, share: float, seed: int) -> list[str]:
    """Write a damaged copy of a corpus and its labels.

    Args:
        rows: Clean utterances, of at least two speakers.
        folder: Gets `damaged.jsonl`, `labels.jsonl` and the sound, and `clean.jsonl`, the same
            clips as they were.
        share: Share of clips that is damaged.
        seed: Seed.

    Returns:
        The damage of each clip, "" for none.

    Raises:
        ValueError: If there is one speaker only.
    """
    if len({row.speaker for row in rows}) < 2:
        raise ValueError("mixed speakers cannot be made of a corpus of one speaker")
    kinds = damage_kinds(len(rows), share, seed)
    made = []
    for index, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        clip = Clip(row.id, row.text, row.speaker, load_audio(row.audio, _RATE))
        if kind:
            others = (rows[(index + step) % len(rows)] for step in range(1, len(rows)))
            other = next(o for o in others if o.speaker != row.speaker and o.text != row.text)
            sound = load_audio(other.audio, _RATE)
            clip = damage(clip, kind, Clip(other.id, other.text, other.speaker, sound), _RATE, seed)
        path = folder / "damaged" / f"{index:06d}.flac"
        peak = float(clip.waveform.abs().max())
        save_audio(path, clip.waveform * min(1.0, 0.99 / max(peak, 1e-6)), _RATE)
        made.append(
            Utterance(
                id=row.id,
                audio=path,
                text=clip.text,
                speaker=row.speaker,
                duration=clip.waveform.shape[0] / _RATE,
            )
        )
    write_manifest(folder / "damaged.jsonl", made)
    write_manifest(folder / "clean.jsonl", rows)
    lines = [
        json.dumps({"id": row.id, "damage": kind}) for row, kind in zip(rows, kinds, strict=True)
    ]
    (folder / "labels.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return kinds


def prove(
    rows: Sequence[Utterance],
    folder: Path,
    config: RefineConfig,
    recognisers: Mapping[str, Recogniser],
    embed: Embed | None,
    *,
    encoder: str = "speaker",
    share: float = 0.2,
    seed: int = 0,
) -> tuple[Table, Table]:
    """Damage, refine, compare.

    Returns:
        Precision and recall by kind; the same without the tails of the length ratio, which drop a
        fixed share of any corpus, of one without damage, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = damage_corpus(rows, folder, share, seed)
    work = folder / "refined.work"
    recordings, _ = find_recordings(folder / "damaged.jsonl")
    rejects = Rejects(None, 1.0)
    clips = steps.segment_step(recordings, work, config, rejects)
    heard = steps.transcribe_step(clips, work, recognisers)
    measures = steps.measure_step(
        clips, work, heard, embed, encoder=encoder, normalizer=config.normalizer
    )
    decisions = steps.decide(clips, measures, config)
    steps.write_outcome(decisions, work, folder / "refined.jsonl")
    write_report(folder / "refined.html", decisions, rejects.found)
    without = {made.clip.id for made in decisions if made.dropped_by in ("", "length_ratio")}
    kept = {made.clip.id for made in decisions if not made.dropped_by}
    full = precision_and_recall(kinds, [row.id not in kept for row in rows])
    return full, precision_and_recall(kinds, [row.id not in without for row in rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0 if nothing is under the floor of 0.7."""
    parser = argparse.ArgumentParser(prog="prove_refinement", description=__doc__)
    parser.add_argument("manifest", type=Path, help="clean corpus of several speakers")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recogniser", action="append", default=[])
    parser.add_argument("--speaker-encoder", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0, help="clips that are drawn; 0 takes all")
    parser.add_argument("--skip", type=int, default=0, help="clips of earlier draws to pass over")
    options = parser.parse_args(arguments)
    config = load_config(RefineConfig, options.config) if options.config else RefineConfig()
    rows = read_manifest(options.manifest, strict=True).utterances
    # Too short and too long clips are dropped, whatever is wrong with them: they prove nothing.
    rows = [row for row in rows if config.min_seconds <= row.duration <= config.max_seconds]
    rows = draw_rows(rows, options.skip, options.limit)
    recognisers = {name: make_recogniser(name) for name in options.recogniser}
    chosen = options.speaker_encoder
    embed, encoder = load_encoder(chosen) if chosen else (None, "")
    table, without_tails = prove(
        rows, options.folder, config, recognisers, embed,
        encoder=encoder, share=options.share, seed=options.seed,
    )  # fmt: skip
    print_table("all filters", table)
    print_table("without the tails of the length ratio", without_tails)
    return 0 if table and min(map(min, table.values())) >= FLOOR else 1


def print_table(title: str, table: Table) -> None:
    """Print precision and recall by kind."""
    print(f"{title}\n{'damage':<16}{'precision':>10}{'recall':>8}")
    for kind in KINDS:
        if kind in table:
            precision, recall = table[kind]
            told = "" if min(table[kind]) >= AIM else f"  under the aim of {AIM:g}"
            print(f"{kind:<16}{precision:>10.3f}{recall:>8.3f}{told}")
