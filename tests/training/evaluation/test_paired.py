"""Two systems on the same items, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.statistics import (
    Comparison,
    compare_means,
    compare_ratios,
    correct_p_values,
    sign_flip_p_value,
)


def test_p_value_of_few_differences_is_exact() -> None:
    # Of the 8 patterns of signs only + + + and - - - reach a sum of 6.
    assert sign_flip_p_value(np.array([1.0, 2.0, 3.0])) == 2 / 8
    # |1 + 2 - 3| = 0: every pattern reaches it.
    assert sign_flip_p_value(np.array([1.0, 2.0, -3.0])) == 1.0
    # A sum of 4 is reached by +++, ++- with signs turned for 3 and 1 … : 4 of 8 patterns.
    assert sign_flip_p_value(np.array([-1.0, 2.0, 3.0])) == 4 / 8
    assert sign_flip_p_value(np.zeros(5)) == 1.0
    # Differences of 0 say nothing.
    assert sign_flip_p_value(np.array([1.0, 0.0, 2.0, 3.0, 0.0])) == 2 / 8


def test_p_value_of_many_differences() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=200)
    assert sign_flip_p_value(noise - noise.mean()) > 0.9
    assert sign_flip_p_value(noise + 0.5) == pytest.approx(1 / 10_001)
    assert sign_flip_p_value(noise + 0.5, seed=3) == sign_flip_p_value(noise + 0.5, seed=3)


def test_means_by_hand() -> None:
    found = compare_means("x", np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0]))
    assert (found.first, found.second, found.difference, found.ratio) == (0.5, 0.75, 0.25, 1.5)
    assert (found.low, found.num_items, found.p_value) == (0.0, 4, 1.0)
    assert not found.is_significant


def test_a_constant_difference_has_no_width() -> None:
    first = np.arange(20.0)
    found = compare_means("x", first, first - 2)
    assert (found.low, found.high) == (-2.0, -2.0)
    assert found.is_significant and found.p_value < 0.001


def test_ratios_weigh_items_by_their_size() -> None:
    sizes = np.array([10.0, 90.0])
    found = compare_ratios("x", np.array([10.0, 0.0]), np.array([0.0, 9.0]), sizes)
    assert (found.first, found.second) == (0.1, 0.09)
    # Draws are of both items, of the first alone (-1), or of the second alone (0.1).
    assert found.low == -1.0 and found.high == pytest.approx(0.1)


def test_no_errors_at_all_give_no_ratio() -> None:
    found = compare_means("x", np.zeros(3), np.ones(3))
    assert np.isnan(found.ratio) and found.difference == 1.0


def test_values_of_other_items_are_refused() -> None:
    some, more, none = np.ones(2), np.ones(3), np.ones(0)
    for first, second in ((some, more), (none, none), (some, none)):
        with pytest.raises(ValueError, match="errors: values of the same items are needed"):
            compare_means("errors", first, second)
    for sizes in (more, none):
        with pytest.raises(ValueError, match="rate: values of the same items are needed"):
            compare_ratios("rate", some, some, sizes)


def test_many_metrics_are_corrected_by_holm() -> None:
    def one(name: str, p_value: float) -> Comparison:
        return Comparison(name=name, first=0, second=0, low=0, high=0, p_value=p_value, num_items=9)

    found = correct_p_values([one("a", 0.02), one("b", 0.012), one("c", 0.9), one("d", 0.01)])
    assert [c.name for c in found] == ["a", "b", "c", "d"]
    assert [c.holm_p_value for c in found] == pytest.approx([0.04, 0.04, 0.9, 0.04])
    assert [c.is_significant for c in found] == [True, True, False, True]
    assert one("a", 0.02).is_significant
    many = correct_p_values([one(str(number), 0.02) for number in range(20)])
    assert not any(c.is_significant for c in many)
    assert max(c.holm_p_value or 0 for c in many) <= 1.0
    assert correct_p_values([]) == []


def test_the_interval_of_a_difference_is_by_voice() -> None:
    first = np.zeros(40)
    second = np.array([1.0] * 10 + [0.0] * 30)
    voices = [name for name in "abcd" for _ in range(10)]
    wide = compare_means("x", first, second, voices)
    narrow = compare_means("x", first, second)
    assert wide.low == 0.0 < narrow.low and wide.high > narrow.high
    assert wide.p_value == narrow.p_value
