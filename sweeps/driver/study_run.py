"""The run of a study in MLflow, parent of the runs of its trials, and the Markdown that its page shows.

`StudyRun` opens the run, logs how trials end and closes it; `study_text` writes the page. All text that comes from
users is escaped.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sweeps.config.composer import Config
from sweeps.core.messages import MetricPoint
from sweeps.core.text import brief, code_block, escaped, link, number, short_names, some_of, table
from sweeps.core.tree import flatten
from sweeps.core.trials import TrialResult, Why, counts_text
from sweeps.driver.session import common_tags
from sweeps.driver.transfer import record_move
from sweeps.driver.trial_runs import InterruptedRun
from sweeps.results.summary import BestTrial, StudySummary, next_commands
from sweeps.search.study import Study
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import RunStore
from sweeps.tracking.ui import PARENT, Pages, RunKey, is_untouched, saved_view

__all__ = ["ENDS", "NUM_LEADERS", "StudyRun", "study_text"]

_LOG = logging.getLogger(__name__)

ENDS: Mapping[Why, str] = {
    "": "complete",
    "timeout": "complete",
    "device_hours": "complete",
    "stop": "complete",
    "failures": "failed",
    "interrupt": "interrupted",
}
"""The state of a study by the reason for which its driver ended."""
_STATUS = {"complete": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

NUM_LEADERS = 5
_MOST_COLUMNS = 8  # parameters in the table of the best trials
_MOST_SEARCHED = 20
_LONGEST = 300  # characters of one key's search expression


class StudyRun:
    """The run of a study.

    Args:
        study: The study.
        recorder: Writes the run.
        config: The composed configuration of the sweep.
        objectives: The metrics that the study is judged by, each with `maximize` or `minimize`.
        metrics: All metrics that its training runs log.
        threads: The number of threads of a slot.

    Attributes:
        interrupted: The runs of trials and replicates that are resumed; known after `open`.
    """

    def __init__(
        self,
        study: Study,
        recorder: Recorder,
        *,
        config: Config,
        objectives: Mapping[str, str],
        metrics: Sequence[str] = (),
        threads: int = 1,
    ) -> None:
        self.interrupted: dict[RunKey, InterruptedRun] = {}
        self._study = study
        self._recorder = recorder
        self._config = config
        self._objectives = objectives
        self._metrics = metrics
        self._threads = threads
        self._searched = study.space.describe()
        self._leaders = self._all_leaders()

    @property
    def best(self) -> tuple[BestTrial, ...]:
        """The best trial so far, or the Pareto front of several objectives."""
        return self._summary("running").best

    def open(self, overrides: Sequence[str]) -> dict[str, str]:
        """Create the run or resume it, and end the runs of trials that a dead driver left running.

        Args:
            overrides: The overrides of the command line.

        Returns:
            The tags that the runs of the trials get as well.
        """
        study, recorder = self._study, self._recorder
        store = recorder.wait_until_open()
        common = self._common_tags(overrides)
        own = {
            tags.STATE: "running",
            tags.SPACE: json.dumps(study.space.describe()),
            tags.THREADS: str(self._threads),
        }
        known = store.find_study(study.name)
        if known.parent is not None:
            recorder.resume(PARENT, known.parent)
            recorder.tags(PARENT, own)
            self._adopt(store, known.running, known.interrupted)
            record_move(study, store, known.parent)
            found = store.trial_runs(study.name, [best.number for best in self._leaders[:NUM_LEADERS]])
            recorder.know({number: run_id for run_id, number in found.items()})
        self._save_view(store)
        if known.parent is None:
            params = {f"search.{key}": text for key, text in study.space.describe().items()}
            for group in ("study", "sampler", "pruner", "launcher"):
                params |= {k: v for k, v in flatten({group: self._config[group]}).items() if "storage" not in k}
            recorder.start(PARENT, study.name, params=params, run_tags={**common, tags.KIND: "study", **own})
        self._describe("running")
        return common

    def add(self, outcome: TrialResult) -> None:
        """Log that a trial has ended: the progress of the study, and the metrics of the best trial so far."""
        study, best_before = self._study, self._leaders[:1]
        self._rank(outcome)
        points = {"trials/finished": float(study.num_finished)}
        if len(self._objectives) > 1:
            points["trials/on_front"] = float(len(self._leaders))
        if self._leaders:
            best = self._leaders[0]
            points |= best.objectives
            if self._leaders[:1] != best_before and best.number == outcome.number:
                points |= outcome.metrics
        now = _now_ms()
        self._recorder.metrics(PARENT, [MetricPoint(k, v, study.num_finished, now) for k, v in points.items()])
        self._describe("running")

    def summary(self, stopped: Why | None) -> StudySummary:
        """Summarize the study.

        Args:
            stopped: The reason for which the driver ended; None for an error of its own.
        """
        return self._summary(_state(stopped))

    def close(self, stopped: Why | None, *, report: str | None = None) -> None:
        """End the run.

        Args:
            stopped: The reason for which the driver ended; None for an error of its own.
            report: The artifact that is the report, if there is one.
        """
        self._leaders = self._all_leaders()
        state = _state(stopped)
        best = self._summary(state).best
        run_tags = {tags.STATE: state}
        if best:
            run_tags[tags.BEST_TRIAL] = ", ".join(str(trial.number) for trial in best)
            if len(self._objectives) == 1:
                run_tags[tags.VALUE] = repr(best[0].value)
        self._describe(state, report)
        self._recorder.end(PARENT, _STATUS[state], run_tags)

    def _common_tags(self, overrides: Sequence[str]) -> dict[str, str]:
        metric = self._study.metrics[0]
        common = common_tags("sweep", overrides, self._config["tracking"]["tags"])
        common |= {tags.STUDY: self._study.name, tags.METRIC: metric, tags.DIRECTION: self._objectives[metric]}
        if not self._config["check"]:
            common[tags.CHECKED] = "false"
        if len(self._objectives) > 1:
            common[tags.OBJECTIVES] = json.dumps(self._objectives)
        return common

    def _adopt(self, store: RunStore, running: Mapping[str, RunKey], interrupted: Mapping[str, RunKey]) -> None:
        """End the runs that a dead driver left running, and note those that will be resumed."""
        for run_id, run in running.items():  # the study knows how they ended, if they did
            status, run_tags = tags.ending(*(_end_of(run, self._study) or ("interrupted", None, "the driver died")))
            store.set_tags(run_id, run_tags)
            store.end_run(run_id, status, end_time_ms=_now_ms())
        for run_id, run in (*running.items(), *interrupted.items()):
            if _end_of(run, self._study) is None and run not in self.interrupted:
                self.interrupted[run] = InterruptedRun(run_id=run_id, resume_step=store.resume_step(run_id))

    def _all_leaders(self) -> list[BestTrial]:
        """Return the best few trials, or the whole front of several objectives, by looking at all trials."""
        study = self._study
        found = study.best_trials if len(self._objectives) > 1 else study.leaders(NUM_LEADERS)
        leaders = [
            BestTrial(
                number=best.number,
                objectives=dict(zip(study.metrics, best.objectives, strict=True)),
                params=best.values,
            )
            for best in found
        ]
        return _sorted(leaders, self._objectives)

    def _rank(self, outcome: TrialResult) -> None:
        """Put a trial that has ended among the leaders if it is one; of one objective without looking at the others."""
        if outcome.state != "complete" or outcome.infeasible or not outcome.objectives:
            return
        if len(self._objectives) > 1:
            self._leaders = self._all_leaders()
            return
        new = BestTrial(number=outcome.number, objectives=dict(outcome.objectives), params=dict(outcome.values))
        self._leaders = _sorted([*self._leaders, new], self._objectives)[:NUM_LEADERS]

    def _summary(self, state: str) -> StudySummary:
        config, study = self._config, self._study
        return StudySummary(
            name=study.name,
            state=state,
            objectives=self._objectives,
            counts=study.counts,
            num_trials=config["study"]["num_trials"],
            leaders=tuple(self._leaders),
            store_dir=Path(config["store_dir"]),
            uri=config["tracking"]["uri"],
        )

    def _describe(self, state: str, report: str | None = None) -> None:
        config, summary = self._config, self._summary(state)
        method = " and ".join(config[group]["_target_"].rpartition(".")[2] for group in ("sampler", "pruner"))
        keys, searched = self._study.space.keys, self._searched
        self._recorder.note(
            PARENT,
            lambda pages: study_text(summary, pages, keys=keys, searched=searched, method=method, report=report),
        )

    def _save_view(self, store: RunStore) -> None:
        """Save the view that MLflow's UI opens for the study, unless somebody has changed it.

        The sweep continues if that fails.
        """
        space = self._study.space
        corners = list(space.corners())
        key, value = saved_view(
            self._study.name,
            objectives=self._objectives,
            params={key: all(key in corner for corner in corners) for key in space.keys},
            metrics=self._metrics,
            num_trials=self._config["study"]["num_trials"],
            created_ms=_now_ms(),
        )
        try:
            before = store.experiment_tag(key)
            if before is None or is_untouched(before):
                store.tag_experiment(key, value)
        except Exception as error:  # whatever the store's client raises
            _LOG.warning("the view of study %s could not be saved: %s", self._study.name, error)


def _sorted(leaders: Iterable[BestTrial], objectives: Mapping[str, str]) -> list[BestTrial]:
    """Sort by the first objective, the best first; of equal ones the first trial."""
    sign = -1 if next(iter(objectives.values())) == "maximize" else 1
    return sorted(leaders, key=lambda best: (sign * best.value, best.number))


def _end_of(run: RunKey, study: Study) -> tuple[str, float | None, str] | None:
    """Return how the trial or the replicate of a run ended; None if it has not."""
    trial, _, replicate = str(run).partition("/")
    if not replicate:
        return study.end_of(int(trial))
    result = study.replicates(int(trial)).get(int(replicate))
    return None if result is None else (result.state, result.value, result.reason)


def _state(stopped: Why | None) -> str:
    return "failed" if stopped is None else ENDS[stopped]


def _now_ms() -> int:
    return int(time.time() * 1000)


# --- the page


def study_text(
    summary: StudySummary,
    pages: Pages,
    *,
    keys: Sequence[str],
    searched: Mapping[str, str],
    method: str,
    report: str | None = None,
) -> str:
    """Describe a study in Markdown: its progress, the best trials, the search space, and what to type next.

    Args:
        summary: The study.
        pages: The addresses of MLflow's pages.
        keys: The searched keys.
        searched: The search expression of each parameter of the space.
        method: The sampler and the pruner, in words.
        report: The artifact that is the report, once there is one.
    """
    parts = [
        _progress(summary, pages),
        _links(summary, pages, report),
        _leaders(summary, pages, keys),
        _searched(summary, searched, method),
        code_block([one.text for one in next_commands(summary) if one.kind in ("compare", "show", "resume")]),
    ]
    return "\n\n".join(part for part in parts if part)


def _progress(summary: StudySummary, pages: Pages) -> str:
    others = counts_text(
        {state: count for state, count in summary.counts.items() if state not in ("complete", "running")}
    )
    of_them = f" ({others})" if others else ""
    trials = f"{summary.num_finished} of {summary.num_trials} trials{of_them}"
    state = "" if summary.state in ("running", "complete") else f"{summary.state.capitalize()}: "
    so_far = " so far" if summary.state == "running" else ""
    if not summary.best:
        return f"{state}{trials}, none of them complete{so_far}."
    if len(summary.objectives) > 1:
        return f"{state}{trials}, **{len(summary.best)} on the Pareto front{so_far}**."
    best = summary.best[0]
    (metric,) = summary.objectives
    trial = link(f"trial {best.number}", pages.run(best.number))
    return f"{state}{trials}, **best{so_far}: {trial}, {escaped(metric)} = {number(best.value)}**."


def _links(summary: StudySummary, pages: Pages, report: str | None) -> str:
    links = [
        link("All trials, best first", pages.study(summary.name)),
        link("Charts", pages.study(summary.name, is_chart=True)),
    ]
    if report is not None:
        links.append(link("Report", pages.artifact(PARENT, report)))
    return " · ".join(links)


def _leaders(summary: StudySummary, pages: Pages, searched_keys: Sequence[str]) -> str:
    leaders = summary.leaders[:NUM_LEADERS]
    if not leaders:
        return ""
    names = short_names(searched_keys)
    keys = [key for key in searched_keys if any(key in best.params for best in leaders)][:_MOST_COLUMNS]
    header = ["trial", *map(escaped, summary.objectives), *(escaped(names[key]) for key in keys)]
    rows = [
        [
            link(escaped(f"#{best.number}"), pages.run(best.number)),
            *map(number, best.objectives.values()),
            *(escaped(brief(number(best.params[key]))) if key in best.params else "" for key in keys),
        ]
        for best in leaders
    ]
    return table(header, rows)


def _searched(summary: StudySummary, searched: Mapping[str, str], method: str) -> str:
    judged = ", ".join(f"{direction} {escaped(metric)}" for metric, direction in summary.objectives.items())
    texts = [f"{escaped(key)} = {escaped(brief(text, _LONGEST))}" for key, text in searched.items()]
    return f"Searched to {judged}, by {escaped(method)}: {some_of(texts, _MOST_SEARCHED)}."
