"""One HTML file about a refinement: plots, and what each filter dropped, to be heard."""

from __future__ import annotations

import base64
import html
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tokenlm.atomic import write_text
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
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Refinement</title>",
        "<style>body{font-family:sans-serif;max-width:60em;margin:auto}</style>",
        f"<h1>Refinement</h1><p>{len(kept)} of {len(decisions)} clips are kept, {hours:.2f} hours; "
        f"{len(rejects)} recordings could not be used.</p>",
        f"<img alt='distributions' src='data:image/png;base64,{_plots(decisions)}'>",
        "<h2>What was dropped</h2><table>",
        *(f"<tr><td>{name}</td><td>{number}</td></tr>" for name, number in counts.most_common()),
        "</table>",
    ]
    for name in counts:
        parts.append(f"<h3>{html.escape(name)}</h3>")
        examples = [made for made in decisions if made.dropped_by == name][:_EXAMPLES]
        for made in examples:
            sound = Path(os.path.relpath(made.clip.audio.absolute(), path.parent.absolute()))
            parts.append(
                f"<p><b>{html.escape(made.clip.id)}</b>: {html.escape(made.reason)}<br>"
                f"<i>{html.escape(made.clip.text)}</i><br>"
                f"<audio controls preload='none' src='{quote(sound.as_posix())}'></audio></p>"
            )
    if rejects:
        parts.append("<h2>Recordings that could not be used</h2>")
        parts += [f"<p>{html.escape(str(reject))}</p>" for reject in rejects]
    write_text(path, "\n".join(parts) + "\n")


def _plots(decisions: list[Decision]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from numpy import histogram_bin_edges

    figure, grid = pyplot.subplots(2, 3, figsize=(12, 6))
    for axis, (title, value) in zip(grid.flat, _PLOTS.items(), strict=True):
        found = [(value(made.measures), not made.dropped_by) for made in decisions]
        series = [
            [number for number, is_kept in found if number is not None and is_kept == wanted]
            for wanted in (True, False)
        ]
        # Bins of their own would make a bar of each mean something else.
        bins = histogram_bin_edges([*series[0], *series[1]] or [0.0], 30)
        axis.hist(series, bins=bins, stacked=True, label=("kept", "dropped"))
        axis.set_title(title)
    grid.flat[0].legend()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    pyplot.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
