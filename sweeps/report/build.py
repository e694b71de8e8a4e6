"""`lightsweep report STUDY`: one HTML file on a study, and its plots as PNG; also left by every sweep at its end."""

import gc
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.core import paths
from sweeps.core.urls import store_options
from sweeps.report.charts import make_charts
from sweeps.report.page import Commands, next_commands
from sweeps.report.study_view import Subject
from sweeps.results.study import load_study
from sweeps.tracking.ui import PARENT

if TYPE_CHECKING:
    from sweeps.report.advice import Advice
    from sweeps.report.chart import Chart
    from sweeps.results.study import StoredStudy
    from sweeps.search.importance import Importance
    from sweeps.tracking.recorder import Recorder

__all__ = ["FinalReport", "Report", "make_report"]

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 10.0  # for a store that has not written all of a sweep at its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What there is to say of a study.

    Attributes:
        subject: The study, as the charts see it.
        charts: Those on which there is something to see.
        advice: What to make of it.
        commands: What to type next.
    """

    subject: Subject
    charts: "list[Chart]"
    advice: "list[Advice]"
    commands: Commands

    def html(self) -> str:
        """Return the page."""
        from sweeps.report.page import page

        return page(self.subject, self.charts, advice=[one.text for one in self.advice], commands=self.commands)

    def write(self, path: Path) -> None:
        """Write the page to a file."""
        paths.write_text(path, self.html())

    def write_plots(self, folder: Path) -> list[Path]:
        """Write each chart as `NAME.png`, and return the files."""
        from sweeps.report.png_renderer import png

        folder.mkdir(parents=True, exist_ok=True)
        files = []
        is_collecting = gc.isenabled()
        gc.disable()  # matplotlib's many short-lived objects have the collector run for a quarter of the time
        try:
            for chart in self.charts:
                files.append(folder / f"{chart.name}.png")
                paths.write_bytes(files[-1], png(chart))
        finally:
            if is_collecting:
                gc.enable()
        return files


def make_report(
    name: str, *, store_dir: Path, uri: str | None = None, where: str = "", state: str | None = None
) -> Report:
    """Read a study and find out what there is to say of it.

    Args:
        name: Of the study.
        store_dir: The folder with the store, and with what belongs to the study.
        uri: The store's address, if it is another.
        where: The options by which a command finds the store.
        state: What became of the study, if the store does not tell yet.

    Raises:
        StoreError: The store cannot be opened or read.
        StudyError: It has no such study; names the nearest.
    """
    study = load_study(name, store_dir=store_dir, uri=uri)
    weights, found = _insights(study)
    subject = Subject(study, weights, now_ms=int(time.time() * 1000), state=state)
    commands = next_commands(study, store_dir, where=where)
    return Report(subject=subject, charts=make_charts(subject), advice=found, commands=commands)


class FinalReport:
    """The report that a sweep leaves at its end, in its folder and on the run of the study.

    Args:
        name: Of the study.
        folder: Of the study.
        recorder: Writes to the store, from which the report is made.
        uri: The store's address; None for the one beside the folder.
        is_on: Whether there is to be one.
    """

    def __init__(self, name: str, folder: Path, recorder: "Recorder", *, uri: str | None, is_on: bool) -> None:
        self._name = name
        self._folder = folder
        self._recorder = recorder
        self._uri = uri
        self._is_on = is_on
        self._is_prepared = False

    def prepare(self) -> None:
        """Import in the background what a report needs, once: it takes a second in which trials train anyway."""
        if self._is_on and not self._is_prepared:
            self._is_prepared = True
            threading.Thread(target=_import, name="report", daemon=True).start()

    def leave(self, state: str) -> Report | None:
        """Write the report and the plots, and record them; a failure is only told of.

        Args:
            state: What became of the study: complete, failed or interrupted.

        Returns:
            What was recorded, as `paths.REPORT`; None if there is none.
        """
        if not self._is_on:
            return None
        try:
            if not self._recorder.wait_until_written(_PATIENCE_S):
                _LOG.warning("no report on %s: the tracking store has not taken all of its records yet", self._name)
                return None
            store_dir = self._folder.parent
            where = store_options(store_dir, self._uri)
            report = make_report(self._name, store_dir=store_dir, uri=self._uri, where=where, state=state)
            report.write(self._folder / paths.REPORT)
            self._recorder.artifact(PARENT, self._folder / paths.REPORT)
            paths.require_no_link(self._folder / paths.PLOTS)
            for file in report.write_plots(self._folder / paths.PLOTS):
                self._recorder.artifact(PARENT, file, paths.PLOTS)
            return report
        except KeyboardInterrupt:
            _LOG.warning("no report on %s: interrupted; `lightsweep report` makes one", self._name)
        except Exception as error:  # the sweep is what counts
            _LOG.warning("no report on %s: %s: %s", self._name, type(error).__name__, error)
        return None


def _import() -> None:
    import sweeps.search.importance  # noqa: F401
    from sweeps.report import page
    from sweeps.report import png_renderer as png

    page.load()
    png.load()


def _insights(study: "StoredStudy") -> "tuple[dict[str, Sequence[Importance]], list[Advice]]":
    from sweeps.report.advice import advice, importances

    weights: dict[str, Sequence[Importance]] = {metric: importances(study, metric) for metric in study.objectives}
    return weights, advice(study, next(iter(weights.values()), []))
