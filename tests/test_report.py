"""Pages, plots and tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenlm.audio.io import save_audio
from tokenlm.report import (
    Html,
    heading,
    linked_sound,
    markdown_table,
    new_plot,
    paragraph,
    picture,
    save_plot,
    sound,
    table,
    write_page,
)


def test_a_page_escapes_what_is_no_html_and_fetches_nothing(tmp_path: Path) -> None:
    save_audio(tmp_path / "a.wav", torch.zeros(800), 16_000)
    plot, axes = new_plot(1, 2, (4, 2))
    axes[1].plot([1, 2])
    body = [
        heading("<b>"),
        paragraph("a & b"),
        picture("plot", plot),
        sound(tmp_path / "a.wav"),
        sound(tmp_path / "gone.wav"),
        linked_sound(tmp_path / "b c.wav", tmp_path / "out"),
    ]
    page = write_page(tmp_path / "out" / "page.html", "1 < 2", body).read_text()
    assert "<h1>1 &lt; 2</h1>" in page and "<h2>&lt;b&gt;</h2>" in page and "a &amp; b" in page
    assert page.count("data:image/png;base64,") == page.count("data:audio/flac;base64,") == 1
    assert "not kept" in page and 'src="../b%20c.wav"' in page and "http" not in page


def test_tables() -> None:
    found = table(("name", "n"), [(Html("<b>x</b>"), "1"), ("<y>", "2")], numbers=(1,))
    assert "<td><b>x</b>" in found and "<td>&lt;y&gt;" in found and 'class="number">2' in found
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3)])
def test_plots_have_their_axes_and_are_written(tmp_path: Path, rows: int, columns: int) -> None:
    plot, axes = new_plot(rows, columns, (3, 2))
    assert len(axes) == rows * columns
    save_plot(tmp_path / "plot.png", plot)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
