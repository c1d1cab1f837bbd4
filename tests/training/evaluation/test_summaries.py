"""Figures beside those of the recordings of the same sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from training.data.manifest import read_manifest
from training.evaluation.cloning import cloning_figures
from training.evaluation.conditions import likeness_of_persons
from training.evaluation.statistics import Figure, mean_figure
from training.evaluation.suite import Judges, Row, sound_figures, summarise_beside, voices_of


def row(item: int, errors: int, **more: object) -> Row:
    return {
        "section": "cloned", "group": "heldout", "item": item, "prompt": "p", "speaker": "ann",
        "original": f"r{item}", "errors": errors, "words": 10, "similarity": 0.5, "nearest": "ann",
        "num_candidates": 3, "original_errors": 1, "catastrophic": False,
        "similarity_to_original": 0.4, **more,
    }  # fmt: skip


def test_every_figure_has_that_of_the_recordings_beside_it() -> None:
    rows = [row(1, 3, dnsmos_p808=3.0), row(2, 1, dnsmos_p808=3.2)]
    recorded = {
        "r1": row(1, 0, similarity=0.9, dnsmos_p808=4.0, section="originals"),
        "r2": row(2, 1, similarity=0.7, dnsmos_p808=3.8, section="originals"),
        "r3": row(3, 9, similarity=0.0, dnsmos_p808=1.0, section="originals"),
    }
    found = {one.name: one for one in summarise_beside(cloning_figures, rows, recorded)}
    assert (found["word_error_rate"].value, found["word_error_rate"].original) == (0.2, 0.05)
    assert found["speaker_similarity"].original == pytest.approx(0.8)
    assert found["dnsmos_p808"].original == pytest.approx(3.9)
    assert {one.section for one in found.values()} == {"cloned"}
    # What compares speech with recordings has none of its own.
    for name in ("word_errors_over_original", "similarity_to_original"):
        assert found[name].original is None
    missing = summarise_beside(cloning_figures, rows, {"r1": recorded["r1"]})
    assert all(one.original is None for one in missing)


@pytest.mark.parametrize("name", ["slope", "time_to_first_audio", "real_time_factor", "x_over_y"])
def test_what_is_of_the_system_alone_has_nothing_beside_it(name: str) -> None:
    def summarise(rows: Sequence[Row], seed: int) -> list[Figure]:
        return [mean_figure("cloned", "heldout", one, [1.0]) for one in (name, "word_error_rate")]

    found = summarise_beside(summarise, [row(1, 0)], {"r1": row(1, 0)})
    assert [figure.original for figure in found] == [None, 1.0]


def test_a_score_counts_where_all_rows_have_it() -> None:
    rows = [row(1, 0, dnsmos_p808=3.0, high_band_db=-20.0), row(2, 0, dnsmos_p808=4.0)]
    assert [figure.name for figure in sound_figures(rows, "x_")] == ["x_dnsmos_p808"]
    assert voices_of(rows) == ["ann", "ann"]


def test_persons_are_as_like_as_two_recordings_of_one(heldout: Path) -> None:
    rows = read_manifest(heldout).utterances

    def embed(samples: np.ndarray) -> np.ndarray:
        return np.array([1.0, len(samples) / 16_000])

    judges = Judges(lambda samples: pytest.fail("no words"), embed)
    found = likeness_of_persons(rows, judges)
    # 0.40, 0.48 and 0.56 s of each of three speakers.
    vectors = [np.array([1.0, seconds]) for seconds in (0.40, 0.48, 0.56)]
    unit = [vector / np.linalg.norm(vector) for vector in vectors]
    pairs = [unit[0] @ unit[1], unit[0] @ unit[2], unit[1] @ unit[2]]
    assert found == pytest.approx(np.mean(pairs), abs=1e-6)
    one_each = [row for row in rows if row.id.endswith("-0")]
    assert likeness_of_persons(one_each, judges) is None
