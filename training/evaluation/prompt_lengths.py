"""How much of a voice is needed: prompts cut to several lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenlm.atomic import atomic_path, write_text
from tokenlm.audio.resample import resample
from training.data.manifest import Utterance
from training.evaluation.conditions import (
    Bars,
    Row,
    Says,
    error_ratio_figure,
    judge_conditions,
    word_and_voice_figures,
)
from training.evaluation.figure import Figure
from training.evaluation.judges import SAMPLE_RATE
from training.evaluation.prompts import Prompt, join_up_to
from training.evaluation.speech import Jury
from training.evaluation.testset import TestSet

SECTION = "prompt_lengths"
TABLE_FILE = "prompt_lengths.md"
PLOT_FILE = "prompt_lengths.png"


def length_prompts(
    test_set: TestSet, lengths: Sequence[float], sample_rate: int
) -> dict[str, dict[str, Prompt]]:
    """Prompts by length and speaker, each the start of the next longer one.

    The recordings of a voice are joined: its prompt first, then those of sentences that are not
    asked for.

    Args:
        test_set: the items.
        lengths: seconds.
        sample_rate: of the prompts, in hertz.

    Raises:
        AudioError: a recording cannot be read.
        ManifestError: a voice has too few of them.
    """
    asked = {item.original.id for item in test_set.items}
    rows: dict[str, list[Utterance]] = {}
    for name, prompt in test_set.prompts.items():
        others = [
            row
            for row in test_set.recordings
            if row.speaker == name and row.id != prompt.id and row.id not in asked
        ]
        rows[name] = [prompt, *sorted(others, key=lambda row: row.id)]
    return {
        f"{seconds:g}s": {name: join_up_to(own, seconds, sample_rate) for name, own in rows.items()}
        for seconds in lengths
    }


def measure_prompt_lengths(
    test_set: TestSet,
    prompts: dict[str, dict[str, Prompt]],
    jury: Jury,
    speaker: Says,
    bars: Bars,
) -> tuple[list[Figure], list[Row]]:
    """Word errors and similarity for each length.

    Args:
        test_set: the items.
        prompts: of `length_prompts`; the last length is what the others are compared with.
        jury: the judges.
        speaker: what is judged.
        bars: shows how far it is.
    """
    longest = list(prompts)[-1]
    # Of the longest prompt for all: the embedding of one second is no sure measure of a voice.
    references = {
        name: jury.embed(resample(prompt.waveform, prompt.sample_rate, SAMPLE_RATE).numpy())
        for name, prompt in prompts[longest].items()
    }
    rows = judge_conditions(SECTION, test_set, prompts, references, jury, speaker, bars)
    figures: list[Figure] = []
    for condition, own in rows.items():
        figures += word_and_voice_figures(
            own,
            f"{condition}_",
            seed=jury.seed,
            reference=f"the prompt of {longest.removesuffix('s')} s",
        )
        if condition != longest:
            figures.append(
                error_ratio_figure(
                    f"{condition}_word_errors_over_{longest}",
                    own,
                    rows[longest],
                    seed=jury.seed,
                    note="prompt without its text; the same sentences and seeds",
                )
            )
    return figures, [row for own in rows.values() for row in own]


def write_prompt_lengths(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Write a table and a plot of the figures over the length of the prompt.

    Args:
        folder: made where there is none.
        figures: of an evaluation; those of other sections are left out.

    Returns:
        The files that were written; none where the section was not measured.
    """
    own = {figure.name: figure for figure in figures if figure.section == SECTION}
    conditions = [name.removesuffix(_RATE) for name in own if name.endswith(_RATE)]
    if not conditions:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    longest = conditions[-1]
    lines = [
        f"| prompt | word errors | 95 % | over {longest} | 95 % | similarity | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for condition in conditions:
        cells = [condition.removesuffix("s") + " s"]
        for name in (_RATE, f"_word_errors_over_{longest}", _SIMILARITY):
            figure = own.get(condition + name)
            cells += ["1", ""] if figure is None else _cells(figure)
        lines.append(f"| {' | '.join(cells)} |")
    write_text(folder / TABLE_FILE, "\n".join(lines) + "\n")
    _draw(folder / PLOT_FILE, conditions, own)
    return [folder / TABLE_FILE, folder / PLOT_FILE]


_RATE = "_word_error_rate"
_SIMILARITY = "_speaker_similarity"


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    plot = Plot(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(plot)
    seconds = [float(condition.removesuffix("s")) for condition in conditions]
    for axes, name, scale, label in zip(
        plot.subplots(1, 2),
        (_RATE, _SIMILARITY),
        (100.0, 1.0),
        ("words wrong (%)", "similarity to the longest prompt"),
        strict=True,
    ):
        found = [own[condition + name] for condition in conditions]
        values = [scale * figure.value for figure in found]
        axes.plot(seconds, values, marker="o")
        lows = [
            scale * (figure.low if figure.low is not None else figure.value) for figure in found
        ]
        highs = [
            scale * (figure.high if figure.high is not None else figure.value) for figure in found
        ]
        axes.fill_between(seconds, lows, highs, alpha=0.2, label="95 %")
        axes.set_xscale("log", base=2)
        axes.set_xticks(seconds, [f"{value:g}" for value in seconds])
        axes.set(xlabel="seconds of the prompt", ylabel=label)
        axes.legend()
    with atomic_path(path) as temporary:
        plot.savefig(temporary, dpi=110, format="png")
