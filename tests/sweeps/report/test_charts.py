"""What the charts of a report have on them: values, not looks."""

import math

import numpy as np
import pytest
from report_studies import IMPORTANCES, START_MS, PlainStudy, trial, varied, view_of

from sweeps.report.build import CHARTS, make_charts
from sweeps.report.chart import Bars, Chart, Heat, Line, Panel, Parallel, Points
from sweeps.report.course_charts import curves_chart, timeline_chart
from sweeps.report.outcome_charts import front_chart, history_chart, importances_chart
from sweeps.report.page import table
from sweeps.report.parameter_charts import contours_chart, parallel_chart, slices_chart, smoothed

EMAS = [0.99991, 0.99992, 0.99994]
BOTH = {"val/acc": "maximize", "val/loss": "minimize"}


def points_of(chart: Chart | None, panel: int = 0) -> dict[str, list[tuple[float, float]]]:
    """The points of a panel by their role."""
    assert chart is not None
    marks = [mark for mark in chart.panels[panel].marks if isinstance(mark, Points)]
    return {mark.role: list(zip(mark.x, mark.y, strict=True)) for mark in marks}


def lines_of(chart: Chart | None) -> list[Line]:
    assert chart is not None
    return [mark for mark in chart.panels[0].marks if isinstance(mark, Line)]


def axes_of(chart: Chart | None) -> dict[str, Panel]:
    """The panels by the name of their x axis."""
    assert chart is not None
    return {panel.x.label: panel for panel in chart.panels}


def test_the_history_has_each_trial_at_its_number() -> None:
    rows = [trial(0, 0.5), trial(1, 0.4, state="pruned"), trial(2, 0.7), trial(3, 0.6, infeasible="too many")]
    chart = history_chart(view_of(PlainStudy(rows)))
    assert points_of(chart) == {
        "pruned": [(1, 0.4)],
        "infeasible": [(3, 0.6)],
        "complete": [(0, 0.5)],
        "best": [(2, 0.7)],
    }


def test_the_best_so_far_ignores_what_is_pruned_or_infeasible() -> None:
    rows = [trial(0, 0.5), trial(1, 0.9, state="pruned"), trial(2, 0.99, infeasible="no"), trial(3, 0.7), trial(4, 0.6)]
    (line,) = lines_of(history_chart(view_of(PlainStudy(rows))))
    assert (list(line.x), list(line.y)) == ([0, 3, 4, 4], [0.5, 0.7, 0.7, 0.7])


def test_the_best_so_far_of_what_is_minimised_falls() -> None:
    rows = [trial(number, value, metric="val/loss", direction="minimize", objectives={"val/loss": "minimize"},
                  values={"val/loss": value}) for number, value in enumerate([3.0, 4.0, 1.0])]  # fmt: skip
    (line,) = lines_of(history_chart(view_of(PlainStudy(rows, objectives={"val/loss": "minimize"}))))
    assert list(line.y) == [3, 3, 1, 1]


def test_values_that_are_no_number_are_not_drawn() -> None:
    rows = [trial(0, 0.5), trial(1, math.nan), trial(2, math.inf), trial(3, None, state="failed")]
    drawn = [point for points in points_of(history_chart(view_of(PlainStudy(rows)))).values() for point in points]
    assert drawn == [(0, 0.5)]


def test_the_mean_of_replicates_has_a_bar_of_its_error() -> None:
    rows = [trial(0, 0.5, metrics={"val/acc": 0.5, "val/acc_sem": 0.02}), trial(1, 0.4)]
    chart = history_chart(view_of(PlainStudy(rows)))
    assert chart is not None
    errors = {mark.role: list(mark.errors) for mark in chart.panels[0].marks if isinstance(mark, Points)}
    assert errors == {"best": [0.02], "complete": []}
    best = next(mark for mark in chart.panels[0].marks if isinstance(mark, Points) and mark.role == "best")
    assert "val/acc 0.5 ± 0.02" in best.hover[0]


def test_several_objectives_have_a_panel_each_and_no_single_best() -> None:
    rows = [trial(n, acc, objectives=BOTH, values={"val/acc": acc, "val/loss": loss}, is_on_front=n < 2)
            for n, (acc, loss) in enumerate([(0.9, 0.5), (0.8, 0.3), (0.7, 0.6)])]  # fmt: skip
    study = PlainStudy(rows, objectives=BOTH, best=[0, 1])
    chart = history_chart(view_of(study))
    assert chart is not None
    assert [panel.y.label for panel in chart.panels] == ["val/acc", "val/loss"]
    assert lines_of(chart) == []
    front = front_chart(view_of(study))
    assert points_of(front) == {"complete": [(0.7, 0.6)], "best": [(0.9, 0.5), (0.8, 0.3)]}
    (line,) = lines_of(front)
    assert (list(line.x), list(line.y)) == ([0.8, 0.9], [0.3, 0.5])


def test_one_objective_has_no_front() -> None:
    assert front_chart(view_of(varied(10))) is None


def test_three_objectives_have_a_front_for_each_pair() -> None:
    three = {**BOTH, "num_params": "minimize"}
    rows = [trial(n, 0.5, objectives=three, values={"val/acc": 0.5, "val/loss": 0.1 * n, "num_params": 10.0**n})
            for n in range(1, 4)]  # fmt: skip
    chart = front_chart(view_of(PlainStudy(rows, objectives=three, best=[1])))
    assert chart is not None
    assert [panel.x.is_log for panel in chart.panels] == [False, False, False]
    assert [panel.y.is_log for panel in chart.panels] == [False, True, True]


def test_importances_are_bars_and_grey_where_chance_may_have_brought_them() -> None:
    chart = importances_chart(view_of(varied(10), IMPORTANCES))
    assert chart is not None
    bars = {mark.role: mark for mark in chart.panels[0].marks if isinstance(mark, Bars)}
    assert list(bars["complete"].end) == [0.63, 0.21]
    assert list(bars["pruned"].end) == [0.09, 0.05]
    assert chart.panels[0].y.categories == tuple(IMPORTANCES)
    assert "optimizer.lr explains 63%" in chart.sentence
    assert importances_chart(view_of(varied(10))) is None


def test_importances_that_may_all_be_chance_name_no_parameter() -> None:
    chart = importances_chart(view_of(varied(10), {"optimizer.lr": 0.09}))
    assert chart is not None
    assert chart.sentence == "No parameter stands out: all of this may be chance."


def test_slices_come_in_the_order_of_importance_with_the_axes_of_the_space() -> None:
    panels = axes_of(slices_chart(view_of(varied(40), IMPORTANCES)))
    assert list(panels)[:4] == ["optimizer.lr", "model.depth", "optimizer", "model.activation"]
    assert panels["optimizer.lr"].x.is_log
    assert panels["model.depth"].x.is_whole
    assert panels["model.activation"].x.categories == ("relu", "tanh", "gelu")
    assert panels["data.batch_size"].x.categories == ("32", "64", "128")


def test_a_slice_of_a_conditional_parameter_has_the_trials_that_have_it() -> None:
    study = varied(40)
    chart = slices_chart(view_of(study))
    panel = axes_of(chart)["optimizer.momentum"]
    drawn = sum(len(mark.x) for mark in panel.marks if isinstance(mark, Points))
    has_it = [row for row in study.trials if "optimizer.momentum" in row.params and row.state != "failed"]
    assert drawn == len(has_it) > 0


def test_a_parameter_that_never_differs_has_no_slice() -> None:
    rows = [trial(n, 0.1 * n, params={"a": 1, "b": n}) for n in range(4)]
    assert list(axes_of(slices_chart(view_of(PlainStudy(rows))))) == ["b"]


def test_points_of_one_category_lie_beside_each_other_but_within_it() -> None:
    rows = [trial(n, 0.1 * n, params={"kind": "ab"[n % 2]}) for n in range(20)]
    (panel,) = axes_of(slices_chart(view_of(PlainStudy(rows)))).values()
    places = [x for mark in panel.marks if isinstance(mark, Points) for x in mark.x]
    assert len(set(places)) == 20
    assert all(abs(place - round(place)) < 0.2 for place in places)


def test_lists_truths_and_nothing_are_categories() -> None:
    rows = [
        trial(0, 0.1, params={"w": [64, 32], "t": True, "n": None}),
        trial(1, 0.2, params={"w": [8], "t": False, "n": 3}),
    ]
    panels = axes_of(slices_chart(view_of(PlainStudy(rows))))
    assert panels["w"].x.categories == ("[64, 32]", "[8]")
    assert panels["t"].x.categories == ("false", "true")
    assert panels["n"].x.categories == ("3", "null")


def test_elements_of_a_list_that_are_searched_are_parameters_of_their_own() -> None:
    space = {"model.width[0]": "interval(8,64)", "model.width[1]": "interval(8,64)"}
    rows = [trial(n, 0.1 * n, params={"model.width": [8.0 + n, 64.0 - n]}) for n in range(4)]
    panels = axes_of(slices_chart(view_of(PlainStudy(rows, space=space))))
    assert sorted(panels) == ["model.width[0]", "model.width[1]"]
    (points, *_) = [mark for mark in panels["model.width[1]"].marks if isinstance(mark, Points)]
    assert list(points.x) == [64.0, 63.0, 62.0]


def test_an_unknown_space_is_spread_by_ratios_where_values_are_wide_apart() -> None:
    rows = [trial(n, 0.1 * n, params={"lr": 10.0**-n, "dropout": 0.1 * n}) for n in range(5)]
    panels = axes_of(slices_chart(view_of(PlainStudy(rows))))
    assert (panels["lr"].x.is_log, panels["dropout"].x.is_log) == (True, False)


def test_a_surface_is_the_mean_of_what_is_near_and_unknown_where_nothing_is() -> None:
    x, y, values = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]), np.array([1.0, 3.0, 7.0])
    found = smoothed(x, y, values, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert found[0, 0] == pytest.approx(2)
    assert found[1, 1] == pytest.approx(7)
    assert np.isnan(found[0, 1])
    assert np.isnan(found[1, 0])


def test_contours_are_of_the_pairs_of_the_three_most_important() -> None:
    chart = contours_chart(view_of(varied(60), IMPORTANCES))
    assert chart is not None
    pairs = [(panel.x.label, panel.y.label) for panel in chart.panels]
    assert pairs == [("optimizer.lr", "model.depth"), ("optimizer.lr", "optimizer"), ("model.depth", "optimizer")]
    (heat,) = [mark for mark in chart.panels[0].marks if isinstance(mark, Heat)]
    assert list(heat.y) == [1, 2, 3, 4]
    column = int(np.argmin(np.abs(np.log10(heat.x) + 2.3)))
    assert heat.z[2][column] > heat.z[2][0]  # the best learning rate is 10 ** -2.3


def test_contours_need_five_trials() -> None:
    rows = [trial(n, 0.1 * n, params={"a": n, "b": -n}) for n in range(4)]
    assert contours_chart(view_of(PlainStudy(rows))) is None


def test_parallel_lines_end_in_the_value_and_have_gaps_for_what_is_missing() -> None:
    study = varied(30)
    chart = parallel_chart(view_of(study, IMPORTANCES))
    assert chart is not None
    (mark,) = chart.panels[0].marks
    assert isinstance(mark, Parallel)
    assert [axis.label for axis in mark.axes][0::6] == ["optimizer.lr", "val/acc"]
    complete = [row for row in study.trials if row.state == "complete"]
    assert sorted(mark.values[-1]) == sorted(row.value for row in complete if row.value is not None)
    momentum = mark.values[[axis.label for axis in mark.axes].index("optimizer.momentum")]
    assert sum(map(math.isnan, momentum)) == sum(row.params["optimizer"] == "adam" for row in complete)


def test_curves_end_in_a_cross_where_they_were_pruned() -> None:
    rows = [trial(0, 0.9), trial(1, 0.3, state="pruned")]
    chart = curves_chart(view_of(PlainStudy(rows, histories={"val/acc": {0: [0.1, 0.5, 0.9], 1: [0.2, 0.3]}})))
    assert points_of(chart) == {"pruned": [(1, 0.3)]}
    lines = {line.role: [y for y in line.y if not math.isnan(y)] for line in lines_of(chart)}
    assert lines == {"best": [0.1, 0.5, 0.9], "pruned": [0.2, 0.3]}


def test_values_that_differ_beyond_four_digits_are_told_apart() -> None:
    rows = [trial(number, 0.1 * number, params={"ema": value, "lr": 0.1}) for number, value in enumerate(EMAS)]
    view = view_of(PlainStudy(rows, space={"ema": f"choice({','.join(map(str, EMAS))})", "lr": "choice(0.1,0.2)"}))
    assert view.keys == ["ema"]
    assert table(view).shared == ["lr=0.1"]
    scale = view.scale("ema")
    assert scale.axis.categories == ("0.99991", "0.99992", "0.99994") and scale.place(0.99992) == 1


def test_a_gap_in_a_curve_stays_a_gap() -> None:
    histories = {"val/acc": {0: [0.1, math.nan, math.inf, 0.4]}}
    (line,) = lines_of(curves_chart(view_of(PlainStudy([trial(0, 0.4)], histories=histories))))
    assert [math.isnan(y) for y in line.y] == [False, True, True, False, True]


def test_a_study_that_is_judged_by_what_is_known_once_shows_what_validation_logs() -> None:
    rows = [trial(n, 10.0, metric="num_params", objectives={"num_params": "minimize"}, values={"num_params": 10.0},
                  metrics={"num_params": 10.0, "val/loss": 0.5}) for n in range(2)]  # fmt: skip
    histories = {"num_params": {0: [10.0], 1: [10.0]}, "val/loss": {0: [1.0, 0.5], 1: [1.0, 0.5]}}
    chart = curves_chart(view_of(PlainStudy(rows, histories=histories, objectives={"num_params": "minimize"})))
    assert chart is not None
    assert chart.panels[0].y.label == "val/loss"


def test_hundreds_of_long_curves_are_few_points() -> None:
    chart = curves_chart(view_of(varied(600, num_steps=1000)))
    assert chart is not None
    assert sum(len(line.x) for line in lines_of(chart)) < 12_000
    assert "The best 20 in full" in chart.sentence


def test_the_timeline_has_a_row_for_each_slot() -> None:
    rows = [
        trial(0, 0.5, slot=0),
        trial(1, 0.4, slot=1, duration_s=3.0),
        trial(2, 0.3, state="pruned", slot=0, duration_s=1.0),
    ]
    chart = timeline_chart(view_of(PlainStudy(rows)))
    assert chart is not None
    bars = {mark.role: mark for mark in chart.panels[0].marks if isinstance(mark, Bars)}
    assert (list(bars["best"].y), list(bars["best"].begin), list(bars["best"].end)) == ([0], [0], [2])
    assert (list(bars["complete"].y), list(bars["complete"].begin), list(bars["complete"].end)) == ([1], [1], [4])
    assert (list(bars["pruned"].y), list(bars["pruned"].begin), list(bars["pruned"].end)) == ([0], [2], [3])
    assert "17% of the time" in chart.sentence


def test_a_running_trial_reaches_until_now() -> None:
    chart = timeline_chart(view_of(PlainStudy([trial(0, state="running", duration_s=None, slot=0)])))
    assert chart is not None
    (bars,) = chart.panels[0].marks
    assert isinstance(bars, Bars)
    assert list(bars.end) == [pytest.approx(100 / 60)]  # minutes


def test_trials_without_a_slot_are_put_where_there_is_room() -> None:
    starts = [0, 500, 2500, 2600]
    rows = [trial(n, 0.1, slot=None, began_ms=START_MS + start) for n, start in enumerate(starts)]
    chart = timeline_chart(view_of(PlainStudy(rows)))
    assert chart is not None
    bars = [mark for mark in chart.panels[0].marks if isinstance(mark, Bars)]
    found = {hover.split()[0]: y for mark in bars for y, hover in zip(mark.y, mark.hover, strict=True)}
    assert found == {"#0": 0, "#1": 1, "#2": 0, "#3": 1}
    assert chart.panels[0].y.label == "at once"


def test_a_study_that_went_on_after_a_day_has_a_panel_for_each_session() -> None:
    day_ms = 86_400_000
    rows = [trial(0, 0.1), trial(1, 0.2), trial(2, 0.3, began_ms=START_MS + day_ms)]
    chart = timeline_chart(view_of(PlainStudy(rows)))
    assert chart is not None
    assert [len(mark.y) for panel in chart.panels for mark in panel.marks if isinstance(mark, Bars)] == [2, 1]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([], []),
        ([trial(0, None, state="failed")], ["timeline"]),
        ([trial(0, 0.5)], ["history", "timeline"]),
        ([trial(0, None, state="running", duration_s=None)], ["timeline"]),
        ([trial(0, 0.5, began_ms=None, slot=None)], ["history"]),
        ([trial(0, 0.5, state="dropped")], []),
    ],
    ids=["no trial", "one that failed", "one", "one that runs", "one without times", "one that was dropped"],
)
def test_a_study_of_next_to_nothing_has_the_charts_that_make_sense(rows: list[object], names: list[str]) -> None:
    charts = make_charts(view_of(PlainStudy(rows)))  # type: ignore[arg-type]
    assert [chart.name for chart in charts] == names


def test_a_full_study_has_all_charts_but_the_front() -> None:
    charts = make_charts(view_of(varied(60), IMPORTANCES))
    assert len(charts) == len(CHARTS) - 1
    assert all(chart.sentence and chart.panels for chart in charts)
