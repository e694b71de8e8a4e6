"""Build the report of a study: one HTML file, and its charts as PNG.

`make_report` is `lightsweep report STUDY`; `FinalReport` is what every sweep writes at its end.
"""

import gc
import logging
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.core import paths
from sweeps.core.errors import LightsweepError
from sweeps.report.chart import Chart
from sweeps.report.course_charts import curves_chart, timeline_chart
from sweeps.report.outcome_charts import front_chart, history_chart, importances_chart
from sweeps.report.parameter_charts import contours_chart, parallel_chart, slices_chart
from sweeps.report.study_view import StudyView
from sweeps.results.study import load_study
from sweeps.results.summary import NextCommand, StudySummary, next_commands, summarize
from sweeps.tracking import tags
from sweeps.tracking.ui import PARENT

if TYPE_CHECKING:
    from sweeps.report.advice import Advice
    from sweeps.results.study import StoredStudy
    from sweeps.search.importance import Importance
    from sweeps.tracking.recorder import Recorder

__all__ = ["CHARTS", "FinalReport", "Report", "make_charts", "make_report"]

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 10.0  # for a store that has not written all of a sweep at its end

CHARTS: tuple[Callable[[StudyView], Chart | None], ...] = (
    history_chart,
    front_chart,
    importances_chart,
    slices_chart,
    contours_chart,
    parallel_chart,
    curves_chart,
    timeline_chart,
)
"""The charts of a report, in its order; each returns None if it has nothing to show of a study."""


def make_charts(view: StudyView) -> list[Chart]:
    """Return the charts that have something to show."""
    return [chart for make in CHARTS if (chart := make(view)) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The content of a report.

    Attributes:
        summary: The study in short.
        view: The study as the charts see it.
        charts: The charts that have something to show.
        advice: What to make of the study.
        commands: What to type next.
    """

    summary: StudySummary
    view: StudyView
    charts: list[Chart]
    advice: "list[Advice]"
    commands: list[NextCommand]

    def html(self) -> str:
        """Return the page."""
        from sweeps.report.page import page

        sentences = [one.text for one in self.advice]
        return page(self.view, self.summary, self.charts, advice=sentences, commands=self.commands)

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


def make_report(name: str, *, store_dir: Path, uri: str | None = None, state: str | None = None) -> Report:
    """Read a study from its store and make the report on it.

    Args:
        name: The name of the study.
        store_dir: The folder of the store, with the folder of the study.
        uri: The address of MLflow's store if it is not in that folder.
        state: The state of the study if the store does not have it yet.

    Raises:
        StoreError: The store cannot be opened or read.
        StudyError: The store has no such study; the message names the nearest.
    """
    study = load_study(name, store_dir=store_dir, uri=uri)
    summary = summarize(study, store_dir, uri=uri, state=state)
    weights, found = _insights(study)
    view = StudyView(study, weights, now_ms=int(time.time() * 1000))
    commands = next_commands(summary, train=_train_command(study, summary))
    return Report(summary=summary, view=view, charts=make_charts(view), advice=found, commands=commands)


class FinalReport:
    """The report that a sweep writes at its end, into the folder of the study and onto its run.

    Args:
        name: The name of the study.
        folder: The folder of the study.
        recorder: Writes to the store from which the report is made.
        uri: The address of the store; None for the one beside the folder.
        is_on: Whether to write a report.
    """

    def __init__(self, name: str, folder: Path, recorder: "Recorder", *, uri: str | None, is_on: bool) -> None:
        self._name = name
        self._folder = folder
        self._recorder = recorder
        self._uri = uri
        self._is_on = is_on
        self._is_prepared = False

    def prepare(self) -> None:
        """Import once, in the background, what a report needs: that takes a second, and trials train meanwhile."""
        if self._is_on and not self._is_prepared:
            self._is_prepared = True
            threading.Thread(target=_import, name="report", daemon=True).start()

    def leave(self, state: str) -> Report | None:
        """Write the report and the plots, and record them; a failure is logged and raises nothing.

        Args:
            state: The state of the study: complete, failed or interrupted.

        Returns:
            The report that was recorded as `paths.REPORT`; None if there is none.
        """
        if not self._is_on:
            return None
        try:
            if not self._recorder.wait_until_written(_PATIENCE_S):
                _LOG.warning("no report on %s: the tracking store has not taken all of its records yet", self._name)
                return None
            report = make_report(self._name, store_dir=self._folder.parent, uri=self._uri, state=state)
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
    from sweeps.report import page, png_renderer

    page.load()
    png_renderer.load()


def _insights(study: "StoredStudy") -> "tuple[dict[str, Sequence[Importance]], list[Advice]]":
    from sweeps.report.advice import advice, importances

    weights: dict[str, Sequence[Importance]] = {metric: importances(study, metric) for metric in study.objectives}
    return weights, advice(study, next(iter(weights.values()), []))


# --- the command that trains the best trial again

_IRRELEVANT = ("study.name", "study.storage", "study.num_trials", "study.timeout_s", "study.device_hours", "store_dir")


def _train_command(study: "StoredStudy", summary: StudySummary) -> NextCommand | None:
    """Return the command that trains the configuration of the best trial, for a user who wants to change it.

    It has the overrides of the sweep, the values and the seed of the trial, and the number of threads of its slot: on
    another number, sums are rounded differently. Of a trial with replicates it trains the first one.

    Returns:
        None if there is no best trial, or its folder is not on this machine.
    """
    from sweeps.config.study_file import read_record
    from sweeps.core.safe_yaml import read_config

    if not study.best:
        return None
    folder = paths.trial_dir(paths.study_dir(summary.store_dir, study.name), study.best[0].trial or 0)
    first = paths.replicate_dir(folder, 0)
    try:
        record = read_record(study.name, summary.store_dir)
        config = read_config((first if first.is_dir() else folder) / paths.CONFIG)
        words = _train_words(study, record, config, summary.store_dir)
    except (LightsweepError, OSError, KeyError, TypeError):
        return None
    which = " of its first replicate" if first.is_dir() else ""
    purpose = f"{summary.best_name} as a single training run{which}, to change it"
    return NextCommand("train", purpose, shlex.join(words))


def _train_words(
    study: "StoredStudy", record: Mapping[str, Any], config: Mapping[str, Any], store_dir: Path
) -> list[str]:
    from sweeps.config.quoting import quote, verbatim
    from sweeps.search.space.declare import key_of, split_overrides
    from sweeps.search.space.typed_secrets import hide_typed

    params = study.best[0].params
    plain, _ = split_overrides(record["overrides"])
    own = {"seed": config["seed"]}
    if (config["data"] or {}).get("num_folds") is not None:
        own |= {"data.num_folds": config["data"]["num_folds"], "data.fold": config["data"]["fold"]}
    kept = [text for text in plain if key_of(text) not in {*_IRRELEVANT, *own} and hide_typed(text) == text]
    space = study.space
    if space is not None and params.keys() <= set(space.keys):
        searched = list(space.overrides(params))
    else:
        searched = [f"{key}={quote(value)}" for key, value in params.items()]
    words = ["lightsweep", "train", "--config-name", record["config_name"]]
    words += ["--config-dir", record["config_dir"]] if record["config_dir"] else []
    words += [*kept, *searched, *(f"{key}={quote(value)}" for key, value in own.items() if key not in params)]
    threads = study.parent.tags.get(tags.THREADS)
    if threads is not None and not any(key_of(text) == "launcher.threads" for text in kept):
        words.append(f"launcher.threads={threads}")
    if store_dir != Path("mlruns"):
        words.append(f"store_dir={verbatim(str(store_dir))}")
    return words
