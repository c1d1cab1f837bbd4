"""Filters and what they compare, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from training.refine.config import RefineConfig
from training.refine.filters import FILTERS, first_reason, near_duplicates, ratio_tails
from training.refine.measures import Measures, letter_disagreement, word_disagreement

GOOD = Measures(
    seconds=4.0,
    snr_db=35.0,
    clipped_share=0.0,
    bandwidth_hz=8000.0,
    start_edge_db=-40.0,
    end_edge_db=-35.0,
    text_length=50,
    speaker_consistency=0.9,
    disagreement=0.05,
)
CONFIG = RefineConfig()


def test_a_good_clip_is_kept_by_all() -> None:
    assert first_reason(GOOD, CONFIG) is None
    assert first_reason(replace(GOOD, speaker_consistency=None, disagreement=None), CONFIG) is None


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("duration", {"seconds": 0.9}, "0.90 s is shorter than 1 s"),
        ("duration", {"seconds": 21.0}, "longer than 20 s"),
        ("noise", {"snr_db": 9.0}, "9.0 dB, under 10"),
        ("clipping", {"clipped_share": 0.02}, "2.00% of the samples"),
        ("bandwidth", {"bandwidth_hz": 2500.0}, "above 2500 Hz"),
        ("truncation", {"start_edge_db": -3.0}, "cut at the start"),
        ("truncation", {"end_edge_db": -3.0}, "cut at the end"),
        ("speaker", {"speaker_consistency": 0.2}, "two speakers"),
        ("agreement", {"disagreement": 0.16}, "differ by 16% of the words"),
    ],
)
def test_each_filter_drops_its_own(name: str, change: dict[str, float], reason: str) -> None:
    bad = replace(GOOD, **change)  # type: ignore[arg-type]
    found = first_reason(bad, CONFIG)
    assert found is not None and found[0] == name and reason in found[1]
    others = [other for other, function in FILTERS.items() if function(bad, CONFIG)]
    assert others == [name]


def test_letters_are_compared_where_the_config_says_so() -> None:
    # "nite" for "night": 2 edits (g, h out; e in is a third) of the 9 letters of "goodnight".
    assert letter_disagreement(["good night", "goodnite"]) == pytest.approx(3 / 9)
    assert letter_disagreement(["a"]) is None
    bad = replace(GOOD, disagreement=0.9, letter_disagreement=0.4)
    config = RefineConfig(max_disagreement=1.0, max_letter_disagreement=0.32)
    found = first_reason(bad, config)
    assert found == ("agreement", "text and recognisers differ by 40% of the letters")
    assert first_reason(replace(bad, letter_disagreement=0.3), config) is None
    with pytest.raises(ValueError, match="max_letter_disagreement must be in"):
        RefineConfig(max_letter_disagreement=1.5)


def test_disagreement_is_the_mean_over_pairs() -> None:
    # one/two: 1 of 4 words; one/three: 2 of 4; two/three: 1 substitution and 1 deletion of 4 …
    one, two, three = "a b c d", "a b c x", "a b"
    assert word_disagreement([one, two]) == 0.25
    assert word_disagreement([one, three]) == 0.5
    assert word_disagreement([one, two, three]) == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    assert word_disagreement([one]) is None
    assert word_disagreement(["", ""]) == 0.0 and word_disagreement(["", "a"]) == 1.0


def test_tails_of_a_hundred() -> None:
    ratios: list[float | None] = [0.05 + 0.001 * index for index in range(100)]
    reasons = ratio_tails([*ratios, None], CONFIG)
    dropped = [index for index, reason in enumerate(reasons) if reason is not None]
    assert dropped == [0, 95, 96, 97, 98, 99]
    assert "not spoken" in (reasons[0] or "") and "not in the text" in (reasons[99] or "")
    assert ratio_tails([0.1, 0.2], CONFIG) == [None, None], "a small corpus loses none"


def test_duplicates_are_of_one_speaker_and_one_length() -> None:
    texts = ["yes", "yes", "yes", "yes", "no", "", ""]
    seconds = [1.0, 1.01, 1.5, 1.0, 1.0, 1.0, 1.0]
    speakers = ["a", "a", "a", "b", "a", "a", "a"]
    reasons = near_duplicates(texts, seconds, speakers)
    assert [reason is not None for reason in reasons] == [False, True, *[False] * 5]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="less than max_seconds"):
        RefineConfig(min_seconds=5.0, max_seconds=4.0)
    with pytest.raises(ValueError, match="longest_share"):
        RefineConfig(longest_share=0.7)
