"""One HTML file about a refinement: plots, and what each filter dropped, to be heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenlm.report import (
    Html,
    heading,
    html,
    linked_sound,
    new_plot,
    paragraph,
    picture,
    table,
    write_page,
)
from training.data.rejects import Reject
from training.refine.measures import Measures
from training.refine.steps import Decision

_EXAMPLES = 5
_PLOTS: Mapping[str, Callable[[Measures], float | None]] = {
    "duration (s)": lambda found: found.seconds,
    "signal to noise (dB)": lambda found: found.snr_db,
    "bandwidth (Hz)": lambda found: found.bandwidth_hz,
    "speech rate (letters/s)": lambda found: found.text_length / found.seconds,
    "disagreement (share of words)": lambda found: found.disagreement,
    "disagreement (share of letters)": lambda found: found.letter_disagreement,
}


def write_report(path: Path, decisions: list[Decision], rejects: Sequence[Reject]) -> None:
    """Write the report; sounds are linked, not copied.

    Args:
        path: The HTML file.
        decisions: Of all clips.
        rejects: Recordings of which there are no clips.
    """
    kept = [made for made in decisions if not made.dropped_by]
    counts = Counter(made.dropped_by for made in decisions if made.dropped_by)
    hours = sum(made.measures.seconds for made in kept) / 3600
    body = [
        paragraph(
            f"{len(kept)} of {len(decisions)} clips are kept, {hours:.2f} hours; "
            f"{len(rejects)} recordings could not be used."
        ),
        picture("distributions", _plot(decisions)),
        heading("What was dropped"),
        table(("filter", "clips"), [(name, str(count)) for name, count in counts.most_common()]),
    ]
    for name in counts:
        body.append(heading(name, 3))
        for made in [made for made in decisions if made.dropped_by == name][:_EXAMPLES]:
            body.append(
                Html(
                    f"<p><b>{html(made.clip.id)}</b>: {html(made.reason)}<br>"
                    f"<i>{html(made.clip.text)}</i><br>"
                    f"{linked_sound(made.clip.audio, path.parent)}</p>"
                )
            )
    body += _enhancements(path, decisions)
    if rejects:
        body.append(heading("Recordings that could not be used"))
        body += [paragraph(str(reject)) for reject in rejects]
    write_page(path, "Refinement", body)


def _enhancements(path: Path, decisions: list[Decision]) -> list[Html]:
    """What was enhanced, before and after, and why other recordings were not."""
    clips = [made.clip for made in decisions if made.clip.enhancement]
    if not clips:
        return []
    enhanced = [clip for clip in clips if clip.before is not None]
    body = [
        heading("Enhancement"),
        paragraph(f"{len(enhanced)} of {len(clips)} clips are of recordings that were enhanced."),
    ]
    for clip in enhanced[:_EXAMPLES]:
        assert clip.before is not None
        body.append(
            Html(
                f"<p><b>{html(clip.id)}</b>: {html(clip.enhancement)}<br>"
                f"before {linked_sound(clip.before, path.parent)} "
                f"after {linked_sound(clip.audio, path.parent)}</p>"
            )
        )
    left = Counter(clip.enhancement.partition(":")[0] for clip in clips if clip.before is None)
    if left:
        rows = [(name, str(count)) for name, count in left.most_common()]
        body.append(table(("left as it was", "clips"), rows))
    return body


def _plot(decisions: list[Decision]) -> Any:
    from numpy import histogram_bin_edges

    plot, grid = new_plot(2, 3, (12, 6))
    for axes, (title, value) in zip(grid, _PLOTS.items(), strict=True):
        values = [(value(made.measures), not made.dropped_by) for made in decisions]
        series = [
            [number for number, is_kept in values if number is not None and is_kept == wanted]
            for wanted in (True, False)
        ]
        # Bins of their own would make a bar of each mean something else.
        bins = histogram_bin_edges([*series[0], *series[1]] or [0.0], 30)
        axes.hist(series, bins=bins, stacked=True, label=("kept", "dropped"))
        axes.set_title(title)
    grid[0].legend()
    return plot
