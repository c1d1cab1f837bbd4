"""The same sentences with other prompts: shorter, damaged, slower, or recordings of real persons.

Within a section only the prompt differs, so the word errors of two conditions are compared sentence
by sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokenlm.atomic import write_text
from tokenlm.audio.io import load_audio
from tokenlm.modules.exact import mix
from tokenlm.report import markdown_table, new_plot, save_plot
from training.data.manifest import ManifestError, Utterance, read_manifest
from training.evaluation.cloning import Prompts, item_columns
from training.evaluation.formants import Curve, slope_figure
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.prompts import (
    CLEAN,
    DAMAGES,
    damage_prompt,
    join_up_to,
    read_prompt,
    stretch,
)
from training.evaluation.sets import Item, RecordingSet
from training.evaluation.statistics import Figure, mean_figure, ratio_figure
from training.evaluation.suite import (
    Judges,
    Request,
    Row,
    Suite,
    similarity,
    sound_figures,
    voices_of,
)

PROMPT_LENGTHS = "prompt_lengths"
DAMAGED_PROMPTS = "damaged_prompts"
SPEAKING_RATE = "speaking_rate"
RECORDINGS = "recordings"
TABLE_FILE = "prompt_lengths.md"
PLOT_FILE = "prompt_lengths.png"
MANIFEST_FILE = "manifest.jsonl"
MIN_SECONDS = 1.0
"""Of a recording that serves as a prompt; a shorter one says too little about a voice."""
MAX_SECONDS = 10.0
"""A longer one would be cut, and its text with it."""
_RATE = "_word_error_rate"
_SIMILARITY = "_speaker_similarity"


def first_items(recordings: RecordingSet, num_items: int) -> RecordingSet:
    """The first items of a set, and the prompts of their voices."""
    items = recordings.items[:num_items]
    speakers = {item.prompt.speaker for item in items}
    prompts = {name: row for name, row in recordings.prompts.items() if name in speakers}
    return replace(recordings, items=items, prompts=prompts)


def condition_suite(
    section: str,
    recordings: RecordingSet,
    prompts: Mapping[str, Prompts],
    targets: Prompts,
    seed: int,
) -> Suite:
    """The sentences of a set, each once under each condition.

    Args:
        section: what is measured.
        recordings: the set.
        prompts: by condition and speaker.
        targets: by speaker, the prompt that the voice should be similar to.
        seed: which the seed of each sentence follows from, the same under all conditions.
    """
    requests = [
        Request(
            id=item.index,
            text=item.original.text,
            prompt=voices[item.prompt.speaker],
            target=targets[item.prompt.speaker],
            seed=mix(seed, item.index),
            file=f"{condition}/{item.index:03d}",
            columns={**item_columns(item), "condition": condition},
        )
        for condition, voices in prompts.items()
        for item in recordings.items
    ]
    return Suite(section=section, group=recordings.name, requests=requests, folder=section)


def prompt_length_suite(
    recordings: RecordingSet, lengths: Sequence[float], sample_rate: int, seed: int
) -> Suite:
    """The sentences of a set after prompts of several lengths.

    The target is the longest prompt for all: the embedding of one second is no sure measure of a
    voice.

    Args:
        recordings: the set.
        lengths: seconds, rising.
        sample_rate: of the prompts, in hertz.
        seed: of the sentences.

    Raises:
        AudioError: a recording cannot be read.
        ManifestError: a voice has too few of them.
    """
    prompts = length_prompts(recordings, lengths, sample_rate)
    targets = list(prompts.values())[-1]
    return condition_suite(PROMPT_LENGTHS, recordings, prompts, targets, seed)


def length_prompts(
    recordings: RecordingSet, lengths: Sequence[float], sample_rate: int
) -> dict[str, Prompts]:
    """Prompts by length and speaker, each the start of the next longer one.

    The recordings of a voice are joined: its prompt first, then those of sentences that are not
    asked for. See `prompt_length_suite`.
    """
    asked = {item.original.id for item in recordings.items}
    rows: dict[str, list[Utterance]] = {}
    for name, prompt in recordings.prompts.items():
        others = [
            row
            for row in recordings.recordings
            if row.speaker == name and row.id != prompt.id and row.id not in asked
        ]
        rows[name] = [prompt, *sorted(others, key=lambda row: row.id)]
    return {
        f"{seconds:g}s": {name: join_up_to(own, seconds, sample_rate) for name, own in rows.items()}
        for seconds in lengths
    }


def damaged_prompt_suite(recordings: RecordingSet, seed: int) -> Suite:
    """The sentences of a set after the clean prompt and after it is damaged in each way.

    Args:
        recordings: the set.
        seed: of the damages and the sentences.

    Raises:
        AudioError: a prompt cannot be read.
    """
    clean = {name: read_prompt(row) for name, row in recordings.prompts.items()}
    prompts = {CLEAN: clean}
    for number, damage in enumerate(DAMAGES):
        prompts[damage] = {
            name: damage_prompt(prompt, damage, mix(seed, number, place))
            for place, (name, prompt) in enumerate(clean.items())
        }
    return condition_suite(DAMAGED_PROMPTS, recordings, prompts, clean, seed)


def recording_suite(
    recordings: RecordingSet, prompts: Sequence[Utterance], num_each: int, seed: int
) -> Suite:
    """The sentences of a set in the voices of real recordings.

    Args:
        recordings: whose sentences are said.
        prompts: of `read_recordings`.
        num_each: sentences that are said with each, the next ones of the set.
        seed: of the sentences.

    Raises:
        AudioError: a recording cannot be read.
    """
    sentences = recordings.items
    requests = []
    for place, row in enumerate(prompts):
        prompt = read_prompt(row)
        for number in range(place * num_each, (place + 1) * num_each):
            original = sentences[number % len(sentences)].original
            item = Item(index=number, original=original, prompt=row)
            requests.append(
                Request(
                    id=number,
                    text=original.text,
                    prompt=prompt,
                    seed=mix(seed, number),
                    file=f"{number:03d}",
                    columns=item_columns(item),
                )
            )
    return Suite(section=RECORDINGS, group=recordings.name, requests=requests, folder=RECORDINGS)


def read_recordings(path: Path, num: int) -> list[Utterance]:
    """Recordings that serve as prompts, evenly over their manifest.

    Args:
        path: a manifest, or the folder of its `manifest.jsonl`.
        num: recordings at most.

    Raises:
        ManifestError: there is no manifest, it has a bad row or none, or a recording does not
            have one to ten seconds.
        AudioError: a recording cannot be read.
    """
    path = _manifest_path(path)
    rows = read_manifest(path, strict=True).utterances
    if not rows:
        raise ManifestError(f"{path}: the manifest has no rows.")
    chosen = [rows[index * len(rows) // num] for index in range(num)] if len(rows) > num else rows
    for row in chosen:
        seconds = load_audio(row.audio, SAMPLE_RATE).shape[0] / SAMPLE_RATE
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise ManifestError(
                f"{path}: the recording {row.id!r} has {seconds:.2f} s; prompts have "
                f"{MIN_SECONDS:g} to {MAX_SECONDS:g} s."
            )
    return list(chosen)


def recordings_of_persons(
    path: Path, prompts: Sequence[Utterance], num_each: int = 10
) -> list[Utterance]:
    """The first recordings of each person whose recordings serve as prompts; see `read_recordings`.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    chosen: dict[str, list[Utterance]] = {row.speaker: [] for row in prompts}
    for row in read_manifest(_manifest_path(path), strict=True).utterances:
        own = chosen.get(row.speaker)
        if own is not None and len(own) < num_each and row.duration >= MIN_SECONDS:
            own.append(row)
    return [row for own in chosen.values() for row in own]


def _manifest_path(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / MANIFEST_FILE).is_file():
        raise ManifestError(
            f"{path} has no {MANIFEST_FILE}: one line for each recording, with id, audio, "
            "text, speaker and duration."
        )
    return path / MANIFEST_FILE


def prompt_length_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Word errors and similarity for each length, beside those of the longest."""
    longest = rows[-1]["condition"]
    return _figures_by_condition(
        rows,
        longest,
        reference=f"the prompt of {longest.removesuffix('s')} s",
        notes={},
        note="prompt without its text; the same sentences and seeds",
        seed=seed,
    )


def damaged_prompt_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Word errors and similarity to the clean prompt, for each damage."""
    return _figures_by_condition(
        rows,
        CLEAN,
        reference="the clean prompt",
        notes={name: f"{what}; " for name, (_, what) in DAMAGES.items()},
        note="the same sentences and seeds",
        seed=seed,
    )


def recording_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Word errors of sentences in the voices of recordings, and similarity to these."""
    return word_and_voice_figures(rows, seed=seed, reference="the recording")


def likeness_of_persons(recordings: Sequence[Utterance], judges: Judges) -> float | None:
    """How similar two recordings of one person are: more than that no clone can be expected to be.

    Args:
        recordings: of one or more persons.
        judges: of speakers.

    Returns:
        The mean over all pairs of recordings of one speaker; None where there is no pair.

    Raises:
        AudioError: a recording cannot be read.
    """
    embeddings: dict[str, list] = {}
    for row in recordings:
        samples = load_audio(row.audio, SAMPLE_RATE).numpy()
        embeddings.setdefault(row.speaker, []).append(judges.embed(samples))
    cosines = [
        similarity(first, second)
        for own in embeddings.values()
        for place, first in enumerate(own)
        for second in own[:place]
    ]
    return sum(cosines) / len(cosines) if cosines else None


def _figures_by_condition(
    rows: Sequence[Row],
    base: str,
    *,
    reference: str,
    notes: Mapping[str, str],
    note: str,
    seed: int,
) -> list[Figure]:
    by_condition: dict[str, list[Row]] = {}
    for row in rows:
        by_condition.setdefault(row["condition"], []).append(row)
    figures: list[Figure] = []
    for condition, own in by_condition.items():
        figures += word_and_voice_figures(own, f"{condition}_", seed=seed, reference=reference)
        if condition != base:
            figures.append(
                error_ratio_figure(
                    f"{condition}_word_errors_over_{base}",
                    own,
                    by_condition[base],
                    seed=seed,
                    note=notes.get(condition, "") + note,
                )
            )
    return figures


def word_and_voice_figures(
    rows: Sequence[Row], prefix: str = "", *, seed: int = 0, reference: str = "the prompt"
) -> list[Figure]:
    """Word error rate and similarity of rows of one section and condition.

    Args:
        rows: of a suite.
        prefix: of the names of the figures.
        seed: of the intervals.
        reference: what the similarity is to.
    """
    section, group, voices = rows[0]["section"], rows[0]["group"], voices_of(rows)
    errors = [float(row["errors"]) for row in rows]
    words = [float(row["words"]) for row in rows]
    return [
        ratio_figure(
            section,
            group,
            f"{prefix}word_error_rate",
            errors,
            words,
            voices,
            seed=seed,
            note=f"{sum(errors):.0f} of {sum(words):.0f} words wrong",
        ),
        mean_figure(
            section,
            group,
            f"{prefix}speaker_similarity",
            [float(row["similarity"]) for row in rows],
            voices,
            seed=seed,
            note=f"cosine to {reference} by resemblyzer, not comparable with published tables",
        ),
        *sound_figures(rows, prefix, seed=seed),
    ]


def error_ratio_figure(
    name: str, rows: Sequence[Row], plain: Sequence[Row], *, seed: int = 0, note: str
) -> Figure:
    """Word errors under a condition over those under another, the same sentences in pairs.

    Raises:
        ValueError: the rows are not of the same sentences.
    """
    if [row["item"] for row in rows] != [row["item"] for row in plain]:
        raise ValueError(f"{name}: the rows of the two conditions are not of the same sentences.")
    return ratio_figure(
        rows[0]["section"],
        rows[0]["group"],
        name,
        [float(row["errors"]) for row in rows],
        [float(row["errors"]) for row in plain],
        voices_of(rows),
        seed=seed,
        note=note,
    )


def write_prompt_lengths(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Write a table and a plot of the figures over the length of the prompt.

    Args:
        folder: created if missing.
        figures: of an evaluation; those of other sections are left out.

    Returns:
        The files that were written; none where the section was not measured.
    """
    own = {figure.name: figure for figure in figures if figure.section == PROMPT_LENGTHS}
    conditions = [name.removesuffix(_RATE) for name in own if name.endswith(_RATE)]
    if not conditions:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    longest = conditions[-1]
    rows = []
    for condition in conditions:
        cells = [condition.removesuffix("s") + " s"]
        for name in (_RATE, f"_word_errors_over_{longest}", _SIMILARITY):
            figure = own.get(condition + name)
            cells += ["1", ""] if figure is None else _cells(figure)
        rows.append(cells)
    head = ["prompt", "word errors", "95 %", f"over {longest}", "95 %", "similarity", "95 %"]
    write_text(folder / TABLE_FILE, markdown_table(head, rows) + "\n")
    _draw(folder / PLOT_FILE, conditions, own)
    return [folder / TABLE_FILE, folder / PLOT_FILE]


def _cells(figure: Figure) -> list[str]:
    scale, unit = (100.0, " %") if figure.name.endswith(_RATE) else (1.0, "")
    digits = 1 if unit else 3
    row = figure.row()
    if row["value"] is None:
        return ["-", ""]
    value = f"{scale * row['value']:.{digits}f}{unit}"
    if row["low"] is None or row["high"] is None:
        return [value, ""]
    return [value, f"{scale * row['low']:.{digits}f} to {scale * row['high']:.{digits}f}"]


def _draw(path: Path, conditions: Sequence[str], own: dict[str, Figure]) -> None:
    plot, both = new_plot(1, 2, (10, 3.6))
    seconds = [float(condition.removesuffix("s")) for condition in conditions]
    for axes, name, scale, label in zip(
        both,
        (_RATE, _SIMILARITY),
        (100.0, 1.0),
        ("words wrong (%)", "similarity to the longest prompt"),
        strict=True,
    ):
        figures = [own[condition + name] for condition in conditions]
        axes.plot(seconds, [scale * figure.value for figure in figures], marker="o")
        lows, highs = (
            [scale * (figure.value if end is None else end) for figure, end in ends]
            for ends in (
                [(figure, figure.low) for figure in figures],
                [(figure, figure.high) for figure in figures],
            )
        )
        axes.fill_between(seconds, lows, highs, alpha=0.2, label="95 %")
        axes.set_xscale("log", base=2)
        axes.set_xticks(seconds, [f"{value:g}" for value in seconds])
        axes.set(xlabel="seconds of the prompt", ylabel=label)
        axes.legend()
    save_plot(path, plot)


def speaking_rate_suite(recordings: RecordingSet, factors: Sequence[float], seed: int) -> Suite:
    """The sentences of a set after their prompts are said slower and faster.

    Only the rate of a prompt is changed, its pitch and words stay: nothing else moves the speech.

    Args:
        recordings: the set.
        factors: of the speaking rate of the prompts.
        seed: of the sentences.

    Raises:
        AudioError: a prompt cannot be read.
    """
    plain = {name: read_prompt(row) for name, row in recordings.prompts.items()}
    prompts = {
        f"{factor:g}": {name: stretch(prompt, factor) for name, prompt in plain.items()}
        for factor in factors
    }
    return condition_suite(SPEAKING_RATE, recordings, prompts, plain, seed)


def speaking_rate_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Whether the speech is as fast as its prompt: 1 follows it all the way, 0 not at all."""
    curves: dict[str | int, Curve] = {}
    for row in rows:
        curve = curves.setdefault(row["item"], Curve(speaker=row["speaker"], warps={}))
        curve.warps[float(row["condition"])] = row["speaking_rate"]
    factors = sorted({float(row["condition"]) for row in rows})
    note = (
        "of ln characters per second on ln speaking rate of the prompt, "
        f"{factors[0]:g} to {factors[-1]:g} of its own"
    )
    group = rows[0]["group"]
    return [
        slope_figure(SPEAKING_RATE, "slope", group, list(curves.values()), seed, note),
        *word_and_voice_figures(rows, seed=seed),
    ]
