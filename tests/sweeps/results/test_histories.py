"""Histories of metrics in few points, and drawn in a line."""

import math

import pytest

from sweeps.results.histories import NUM_POINTS, sparkline, thinned


def test_short_history_stays_as_it_is() -> None:
    curve = thinned([(2, 0, 0.5), (0, 0, 1.0), (1, 9, math.nan)])

    assert curve.means[0::2] == (1.0, 0.5) and math.isnan(curve.means[1])
    assert (curve.num_points, curve.first_step, curve.last_step) == (3, 0, 2)
    assert (curve.lowest, curve.highest) == (0.5, 1.0)


def test_long_history_is_joined_to_means_of_equally_many_points() -> None:
    curve = thinned((step, 0, float(step)) for step in range(NUM_POINTS * 100))

    assert len(curve.means) == NUM_POINTS
    assert curve.means[0] == 49.5 and curve.means[-1] == NUM_POINTS * 100 - 50.5
    assert (curve.lowest, curve.highest) == (0.0, NUM_POINTS * 100 - 1.0)


def test_infinity_is_the_greatest_value_and_in_no_mean() -> None:
    curve = thinned([(0, 0, 1.0), (1, 0, 1.7976931348623157e308)])

    assert curve.highest == math.inf and curve.means[0] == 1.0 and math.isnan(curve.means[1])


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 60, "▁▂▃▄▅▆▇█"),
        ([1.0, 1.0], 60, "▁▁"),
        ([0.0, math.nan, 1.0], 60, "▁×█"),
        ([math.nan, math.inf], 60, "××"),
        ([0, 0, 4, 4, 8, 8], 3, "▁▅█"),
        ([0.0, math.nan, math.nan, math.nan], 2, "▁×"),
        ([-1.7e308, 1.7e308], 60, "▁█"),
        ([], 60, ""),
    ],
)
def test_line_of_characters(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width=width) == drawn


def test_lines_of_one_scale_can_be_compared() -> None:
    assert sparkline([4, 8], low=0, high=8) == "▅█" and sparkline([0, 4], low=0, high=8) == "▁▅"


def test_terminal_without_block_characters_gets_others() -> None:
    assert sparkline([0, math.nan, 1], is_unicode=False) == "_x@"
