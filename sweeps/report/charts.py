"""The charts of a report, in its order: a new one is a function and a word here."""

from collections.abc import Callable

from sweeps.report.chart import Chart
from sweeps.report.course_charts import curves_chart, timeline_chart
from sweeps.report.outcome_charts import front_chart, history_chart, importances_chart
from sweeps.report.parameter_charts import contours_chart, parallel_chart, slices_chart
from sweeps.report.study_view import Subject

__all__ = ["CHARTS", "make_charts"]

CHARTS: tuple[Callable[[Subject], Chart | None], ...] = (
    history_chart,
    front_chart,
    importances_chart,
    slices_chart,
    contours_chart,
    parallel_chart,
    curves_chart,
    timeline_chart,
)
"""Each says None where the study has nothing for it to show."""


def make_charts(subject: Subject) -> list[Chart]:
    """Return the charts that there is something to see on."""
    return [chart for make in CHARTS if (chart := make(subject)) is not None]
