"""Sets of texts, such as `hard` and `plain`: who speaks their lines, and what is measured.

The section is called `script`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tokenlm.modules.exact import mix
from training.data.manifest import Utterance, by_speaker, read_manifest
from training.evaluation.error_rate import FAULTS
from training.evaluation.prompts import JOIN_SECONDS, Prompt, join
from training.evaluation.sets import (
    DEVELOPMENT,
    DEVELOPMENT_NOTE,
    LONG_PROMPT,
    Line,
    TextSet,
    TextSetError,
)
from training.evaluation.snapshot import Snapshot
from training.evaluation.statistics import (
    Comparison,
    Figure,
    compare_means,
    compare_ratios,
    correct_p_values,
    mean_figure,
    ratio_figure,
    resampled_interval,
    share_figure,
)
from training.evaluation.suite import SOUND, Request, Row, Suite
from training.evaluation.systems import Cloning

SECTION = "script"
MAX_SHORT_WORDS = 3
"""Words of a line that counts as short."""
LONG_SECONDS = 9.0
"""Recordings of a speaker are joined to about this length for lines of the long-prompt kind."""
NOT_COMPARABLE = (
    "cosine to the prompt by resemblyzer; not comparable with published tables, whose judge is "
    "another (a WavLM with an ECAPA head)"
)


class LinePrompts:
    """Chooses the prompt of a line: the one that it names, or the next one in turn."""

    def __init__(
        self,
        system: Cloning,
        heldout: Path | None = None,
        *,
        num_voices: int = 6,
        prompt_seconds: float = 4.0,
    ) -> None:
        """Choose the voices.

        Args:
            system: whose sample rate the prompts have, and whose bundle may have voices.
            heldout: manifest whose speakers give the prompts; None takes the bundle's voices.
            num_voices: speakers of the manifest, the first by name.
            prompt_seconds: length that prompts come close to.

        Raises:
            ManifestError: the manifest cannot be read.
        """
        self._system = system
        self._prompts: dict[str, Prompt] = {}
        self._speakers: dict[str, tuple[list[Utterance], list[Utterance]]] = {}
        if heldout is not None:
            rows = read_manifest(heldout, strict=True).utterances
            for name, indices in list(by_speaker(rows).items())[:num_voices]:
                own = sorted((rows[index] for index in indices), key=lambda row: row.id)
                short = min(own, key=lambda row: abs(row.duration - prompt_seconds))
                self._speakers[name] = ([short], longest(own, LONG_SECONDS))

    @property
    def speakers(self) -> list[str]:
        """Names of the speakers whose recordings give the prompts; none where the bundle does."""
        return list(self._speakers)

    def find(self, number: int, line: Line) -> Prompt:
        """The prompt of line `number` of a set.

        Raises:
            TextSetError: there is no voice for it.
        """
        if line.prompt_audio is not None:
            key = str(line.prompt_audio)
            if key not in self._prompts:
                self._prompts[key] = Prompt(
                    name=line.prompt_audio.stem, text=line.prompt_text, path=line.prompt_audio
                )
            return self._prompts[key]
        if line.voice is not None or (not self._speakers and line.speaker is None):
            names = self._system.synthesizer.voices
            if line.voice is None and not names:
                raise TextSetError(
                    f"the line {line.id!r} needs a voice: give a bundle that has some, or a "
                    "manifest of recordings with --heldout."
                )
            name = line.voice or names[number % len(names)]
            if name not in self._prompts:
                self._prompts[name] = self._system.voice_prompt(name)
            return self._prompts[name]
        name = self._speaker(number, line)
        short, long = self._speakers[name]
        rows = long if line.category == LONG_PROMPT else short
        key = f"{name} {'+'.join(row.id for row in rows)}"
        if key not in self._prompts:
            self._prompts[key] = join_recordings(name, rows, self._system.sample_rate)
        return self._prompts[key]

    def _speaker(self, number: int, line: Line) -> str:
        """The speaker in whose voice a line is spoken."""
        if line.speaker is None:
            return self.speakers[number % len(self._speakers)]
        if line.speaker not in self._speakers:
            there = (
                f"--heldout gives {', '.join(self._speakers)}"
                if self._speakers
                else ("no recordings are given: --heldout")
            )
            raise TextSetError(
                f"the line {line.id!r} asks for the voice of {line.speaker!r}, but {there}."
            )
        return line.speaker


def join_recordings(name: str, rows: Sequence[Utterance], sample_rate: int) -> Prompt:
    """Join recordings, as they are, into one prompt.

    Raises:
        AudioError: one cannot be read.
    """
    pieces = [Prompt(name=row.id, text=None, path=row.audio).samples(sample_rate) for row in rows]
    return Prompt(
        name=name,
        text=" ".join(row.text for row in rows),
        waveform=join(pieces, sample_rate),
        sample_rate=sample_rate,
    )


def longest(rows: Sequence[Utterance], seconds: float) -> list[Utterance]:
    """Recordings, the longest first, that together come close to `seconds` and not above."""
    chosen: list[Utterance] = []
    total = -JOIN_SECONDS
    for row in sorted(rows, key=lambda row: (-row.duration, row.id)):
        if total + JOIN_SECONDS + row.duration <= seconds:
            chosen.append(row)
            total += JOIN_SECONDS + row.duration
    return chosen or [min(rows, key=lambda row: row.duration)]


def text_suite(
    texts: TextSet,
    snapshot: Snapshot | None,
    prompts: LinePrompts,
    *,
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
) -> Suite:
    """The lines of a set, each spoken once with each seed.

    Args:
        texts: the set.
        snapshot: leaves out lines, and says how engines read the others.
        prompts: of the lines.
        seeds: of sampling; what a line draws follows from its number in the set, too.
        limit: lines that are spoken, spread evenly over the set; None takes all.

    Raises:
        TextSetError: there is no voice for a line.
    """
    readings = {} if snapshot is None else snapshot.readings
    requests = [
        Request(
            id=line.id,
            text=line.text,
            spoken=line.spoken,
            prompt=prompts.find(number, line),
            seed=mix(seed, number),
            reference=line.reference_audio,
            baseline=readings[line.id].count if line.id in readings else None,
            file=f"{line.id}-{seed}",
            columns={
                "seed": seed,
                "category": line.category,
                "spoken": line.spoken,
                **({"original": line.id} if line.reference_audio else {}),
            },
        )
        for seed in seeds
        for number, line in chosen_lines(texts, snapshot, limit)
    ]
    return Suite(section=SECTION, group=texts.name, requests=requests)


def chosen_lines(
    texts: TextSet, snapshot: Snapshot | None, limit: int | None = None
) -> list[tuple[int, Line]]:
    """Lines that are judged, with their number in the set."""
    excluded = set() if snapshot is None else snapshot.excluded
    kept = [(n, line) for n, line in enumerate(texts.lines) if line.id not in excluded]
    if limit is None or limit >= len(kept):
        return kept
    return [kept[index * len(kept) // limit] for index in range(limit)]


def by_item(rows: Sequence[Row], key: str) -> dict[str, float]:
    """Mean of a value over the seeds of each item, which are not independent of one another."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(key) is not None:
            values.setdefault(row["item"], []).append(float(row[key]))
    return {item: float(np.mean(own)) for item, own in values.items()}


def with_faults(rows: Sequence[Row]) -> list[Row]:
    """Rows with one number for each kind of failure, and for any wrong word."""
    return [
        {
            **row,
            "wrong": row["errors"] > 0,
            **{f"fault_{kind}": kind in row["faults"] for kind in FAULTS},
        }
        for row in rows
    ]


def text_figures(rows: Sequence[Row], seed: int = 0) -> list[Figure]:
    """Figures of the rows of one set; intervals are over items, by the voice of their prompts."""
    rows = with_faults(rows)
    group = str(rows[0]["group"])
    num_seeds = len({row["seed"] for row in rows})
    many = f"{num_seeds} seeds each" if num_seeds > 1 else ""
    remark = DEVELOPMENT_NOTE if group in DEVELOPMENT else ""

    def notes(note: str) -> str:
        return "; ".join(part for part in (note, many, remark) if part)

    def mean(name: str, key: str, note: str = "") -> list[Figure]:
        values = by_item(rows, key)
        if not values:
            return []
        voices = item_voices(rows, values)
        numbers = list(values.values())
        return [mean_figure(SECTION, group, name, numbers, voices, seed=seed, note=notes(note))]

    def share(name: str, key: str, note: str, of: Sequence[Row] = rows) -> list[Figure]:
        values = by_item(of, key)
        if not values:
            return []
        voices = item_voices(of, values)
        return [share_figure(SECTION, group, name, [*values.values()], voices, note=notes(note))]

    def ratio(name: str, above: str, below: str, note: str = "") -> Figure:
        first, second = by_item(rows, above), by_item(rows, below)
        numerators, denominators = list(first.values()), [second[item] for item in first]
        voices = item_voices(rows, first)
        return ratio_figure(
            SECTION, group, name, numerators, denominators, voices, seed=seed, note=notes(note)
        )

    figures = [
        ratio("word_error_rate", "errors", "words", "all wrong words over all words"),
        *mean("mean_word_error_rate", "word_error_rate", "mean over utterances"),
        ratio("char_error_rate", "char_errors", "characters"),
        *share(
            "catastrophic_failure_rate",
            "catastrophic",
            "word error rate above 0.5 and 0.5 above the engine's own",
        ),
        *share(
            "lost_or_doubled_rate", "lost_or_doubled", "lines with a word missing or said twice"
        ),
        *share(
            "short_line_failure_rate",
            "wrong",
            f"lines of up to {MAX_SHORT_WORDS} words with a wrong word, or more than asked",
            [row for row in rows if len(row["spoken"].split()) <= MAX_SHORT_WORDS],
        ),
    ]
    for kind in FAULTS:
        figures += share(f"{kind}_rate", f"fault_{kind}", "share of utterances, by alignment")
    figures += mean("speaker_similarity", "similarity", NOT_COMPARABLE)
    for name, note in SOUND.items():
        figures += mean(name, name, note)
    figures += mean("speaking_rate", "speaking_rate", "characters per second of speech")
    if by_item(rows, "work_seconds"):
        figures.append(ratio("real_time_factor", "work_seconds", "seconds"))
    first_audio = by_item(rows, "first_audio_seconds")
    if first_audio:
        array = np.array(list(first_audio.values()))
        voices = item_voices(rows, first_audio)
        low, high = resampled_interval(
            len(array), lambda drawn: float(np.median(array[drawn])), voices, seed=seed
        )
        figures.append(
            Figure(
                section=SECTION,
                group=group,
                name="time_to_first_audio",
                value=float(np.median(array)),
                low=low,
                high=high,
                num_items=len(array),
                note=notes("seconds, median"),
            )
        )
    return figures


def item_voices(rows: Sequence[Row], items: Iterable[str]) -> list[str]:
    """The prompt of each item, the first one where seeds have their own."""
    prompts: dict[str, str] = {}
    for row in rows:
        prompts.setdefault(row["item"], str(row["prompt"]))
    return [prompts[item] for item in items]


def other_prompts(first: Sequence[Row], second: Sequence[Row]) -> list[str]:
    """Items that both have spoken, but not to the same prompts; what is compared there is both."""
    prompts: list[dict[str, set[str]]] = [{}, {}]
    for names, rows in zip(prompts, (first, second), strict=True):
        for row in rows:
            names.setdefault(row["item"], set()).add(row["prompt"])
    one, two = prompts
    return sorted(item for item in one.keys() & two.keys() if one[item] != two[item])


def compare_rows(first: Sequence[Row], second: Sequence[Row], *, seed: int = 0) -> list[Comparison]:
    """Compare two systems on the items of one set that both have spoken.

    The p-values are corrected for the number of metrics.

    Raises:
        ValueError: they have no item in common.
    """
    items = sorted({row["item"] for row in first} & {row["item"] for row in second})
    if not items:
        raise ValueError("the two systems have no item in common: nothing can be compared.")
    kept = set(items)
    one = with_faults([row for row in first if row["item"] in kept])
    two = with_faults([row for row in second if row["item"] in kept])

    def values(rows: Sequence[Row], key: str, names: list[str]) -> np.ndarray:
        by_name = by_item(rows, key)
        return np.array([by_name[item] for item in names])

    sizes = values(one, "words", items)
    voices = item_voices(one, items)
    compared = [
        compare_ratios(
            "word_error_rate",
            values(one, "errors", items),
            values(two, "errors", items),
            sizes,
            voices,
            seed=seed,
        )
    ]
    names = {
        "word_error_rate": "mean_word_error_rate",
        "catastrophic": "catastrophic_failure_rate",
        "lost_or_doubled": "lost_or_doubled_rate",
        **{f"fault_{kind}": f"{kind}_rate" for kind in FAULTS},
        "similarity": "speaker_similarity",
        **{name: name for name in SOUND},
        "speaking_rate": "speaking_rate",
        "work_seconds": "work_seconds",
    }
    for key, name in names.items():
        both = sorted(by_item(one, key).keys() & by_item(two, key).keys())
        if both:
            compared.append(
                compare_means(
                    name,
                    values(one, key, both),
                    values(two, key, both),
                    item_voices(one, both),
                    seed=seed,
                )
            )
    return correct_p_values(compared)
