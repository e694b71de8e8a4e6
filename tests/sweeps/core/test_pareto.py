"""The Pareto front."""

from hypothesis import given
from hypothesis import strategies as st

from sweeps.core.pareto import on_front


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [(0.9, 100.0), (0.8, 10.0), (0.8, 50.0), (0.95, 200.0), (0.9, 100.0)]
    assert on_front(points, ["maximize", "minimize"]) == [True, True, False, True, True]


def test_of_one_objective_the_front_is_the_best() -> None:
    assert on_front([(1.0,), (3.0,), (2.0,)], ["maximize"]) == [False, True, False]


@given(
    st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=30),
    st.lists(st.sampled_from(["maximize", "minimize"]), min_size=3, max_size=3),
)
def test_a_point_is_on_the_front_if_and_only_if_no_other_dominates_it(
    points: list[tuple[int, int, int]], directions: list[str]
) -> None:
    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        gains = [x - y if way == "maximize" else y - x for x, y, way in zip(a, b, directions, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert on_front(points, directions) == expected
