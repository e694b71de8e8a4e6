"""The run of a study in the record, parent of those of its trials: open it, tell it how trials end, close it.

What MLflow's pages say of a study and of its trials, in Markdown; all that comes from users is escaped.
"""

import json
import logging
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.config.composer import Config, flatten
from sweeps.core.messages import MetricPoint
from sweeps.core.text import brief, code_block, escaped, link, number, short_names, some_of, table
from sweeps.core.trials import TrialResult, Why
from sweeps.core.urls import store_options
from sweeps.driver.session import common_tags
from sweeps.driver.transfer import record_move
from sweeps.driver.trial_runs import InterruptedRun
from sweeps.search.study import Best, Study
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.runs import RunStore
from sweeps.tracking.ui import PARENT, Pages, RunKey, is_untouched, saved_view

__all__ = ["ENDS", "NUM_LEADERS", "ParentRun", "StudyFacts", "study_text"]

_LOG = logging.getLogger(__name__)
ENDS: Mapping[Why, str] = {
    "": "complete",
    "timeout": "complete",
    "device_hours": "complete",
    "stop": "complete",
    "failures": "failed",
    "interrupt": "interrupted",
}
"""The state of a study by why its driver came to an end."""
_STATUS = {"complete": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class ParentRun:
    """The run of a study.

    Args:
        study: What it tells of.
        recorder: Writes it.
        config: The composed configuration of the sweep.
        objectives: The metrics that the study is judged by, each with `maximize` or `minimize`.
        metrics: All metrics that its trainings log.

    Attributes:
        interrupted: The runs of trials and replicates that go on; known when it is open.
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
        best = study.best_trials if len(objectives) > 1 else study.leaders(NUM_LEADERS)
        self._leaders, self._num_front = _sorted(best, objectives)[:NUM_LEADERS], len(best)

    def open(self, overrides: Sequence[str]) -> dict[str, str]:
        """Create the run, or go on with it; end what a dead driver left running, or note where it goes on.

        Args:
            overrides: What was typed.

        Returns:
            The tags that the runs of the trials get, too.
        """
        study, recorder = self._study, self._recorder
        store = recorder.wait_until_open()
        common = common_tags("sweep", overrides, self._config["tracking"]["tags"])
        metric = study.metrics[0]
        common |= {tags.STUDY: study.name, tags.METRIC: metric, tags.DIRECTION: self._objectives[metric]}
        if not self._config["check"]:
            common[tags.CHECKED] = "false"
        if len(self._objectives) > 1:
            common[tags.OBJECTIVES] = json.dumps(self._objectives)
        own = {tags.STATE: "running", tags.SPACE: json.dumps(study.space.describe())}
        own[tags.THREADS] = str(self._threads)
        known = store.find_study(study.name)
        if known.parent is not None:
            recorder.resume(PARENT, known.parent)
            recorder.tags(PARENT, own)
            for run_id, run in known.running.items():  # the study knows how they ended, if they did
                status, run_tags = tags.ending(*(_end_of(run, study) or ("interrupted", None, "the driver died")))
                store.set_tags(run_id, run_tags)
                store.end_run(run_id, status, end_time_ms=_now_ms())
            for run_id, run in (*known.running.items(), *known.interrupted.items()):
                if _end_of(run, study) is None and run not in self.interrupted:
                    self.interrupted[run] = InterruptedRun(run_id=run_id, resume_step=store.resume_step(run_id))
            record_move(study, store, known.parent)
            found = store.trial_runs(study.name, [best.number for best in self._leaders])
            recorder.know({number: run_id for run_id, number in found.items()})
            self._describe("running")
            self._save_view(store)
            return common
        self._save_view(store)
        params = {f"search.{key}": text for key, text in study.space.describe().items()}
        for group in ("study", "sampler", "pruner", "launcher"):
            params |= {k: v for k, v in flatten({group: self._config[group]}).items() if "storage" not in k}
        recorder.start(PARENT, study.name, params=params, run_tags={**common, tags.KIND: "study", **own})
        self._describe("running")
        return common

    def tell(self, outcome: TrialResult) -> None:
        """Take note of a trial that has ended: how far the study is, and the metrics of the best trial so far."""
        study, best_before = self._study, self._leaders[:1]
        self._rank(outcome)
        points = {"trials/finished": float(study.num_finished)}
        if len(study.metrics) > 1:
            points["trials/on_front"] = float(self._num_front)
        if self._leaders:
            best = self._leaders[0]
            points |= dict(zip(study.metrics, best.objectives, strict=True))
            if self._leaders[:1] != best_before and best.number == outcome.number:
                points |= outcome.metrics
        now = _now_ms()
        self._recorder.metrics(PARENT, [MetricPoint(k, v, study.num_finished, now) for k, v in points.items()])
        self._describe("running")

    def close(self, stopped: Why | None, *, report: str | None = None) -> None:
        """End the run.

        Args:
            stopped: Why the driver came to its end; None if by an error of its own.
            report: The artifact that is the report, if there is one.
        """
        study, best = self._study, self._study.best_trials
        state = "failed" if stopped is None else ENDS[stopped]
        run_tags = {tags.STATE: state}
        if best:
            run_tags[tags.BEST_TRIAL] = ", ".join(str(trial.number) for trial in best)
            if len(study.metrics) == 1:
                run_tags[tags.VALUE] = repr(best[0].value)
        self._describe(state, report)
        self._recorder.end(PARENT, _STATUS[state], run_tags)

    def _rank(self, outcome: TrialResult) -> None:
        """Put a trial that has ended among the best, if it is one of them; without looking at all the others."""
        if outcome.state != "complete" or outcome.infeasible or not outcome.objectives:
            return
        if len(self._objectives) > 1:
            front = self._study.best_trials
            self._leaders, self._num_front = _sorted(front, self._objectives)[:NUM_LEADERS], len(front)
            return
        new = Best(number=outcome.number, objectives=tuple(outcome.objectives.values()), values=dict(outcome.values))
        self._leaders = _sorted([*self._leaders, new], self._objectives)[:NUM_LEADERS]

    def _describe(self, state: str, report: str | None = None) -> None:
        config, study = self._config, self._study
        facts = StudyFacts(
            name=study.name,
            state=state,
            objectives=self._objectives,
            keys=study.space.keys,
            searched=self._searched,
            method=" and ".join(config[group]["_target_"].rpartition(".")[2] for group in ("sampler", "pruner")),
            num_trials=config["study"]["num_trials"],
            counts=study.counts,
            num_finished=study.num_finished,
            leaders=tuple(self._leaders),
            num_front=self._num_front,
            store_dir=Path(config["store_dir"]),
            uri=config["tracking"]["uri"],
            report=report,
        )
        self._recorder.note(PARENT, lambda pages: study_text(facts, pages))

    def _save_view(self, store: RunStore) -> None:
        """Leave the view that MLflow's UI opens for the study, unless somebody has set up another.

        That it cannot be left is no reason not to search.
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


def _sorted(leaders: Iterable[Best], objectives: Mapping[str, str]) -> list[Best]:
    """Sort by the first objective, the best first; of equal ones the first trial."""
    sign = -1 if next(iter(objectives.values())) == "maximize" else 1
    return sorted(leaders, key=lambda best: (sign * best.value, best.number))


def _end_of(run: RunKey, study: Study) -> tuple[str, float | None, str] | None:
    """Return how the trial or the replicate ended that a run belongs to; None if it has not."""
    trial, _, replicate = str(run).partition("/")
    if not replicate:
        return study.end_of(int(trial))
    result = study.replicates(int(trial)).get(int(replicate))
    return None if result is None else (result.state, result.value, result.reason)


def _now_ms() -> int:
    return int(time.time() * 1000)


NUM_LEADERS = 5
_MOST_COLUMNS = 8  # parameters in the table of the best
_MOST_SEARCHED = 20
_LONGEST = 300  # characters of what is searched of one key


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What the description of a study tells.

    Attributes:
        state: running, complete, failed or interrupted.
        objectives: The metrics that it is judged by, each with `maximize` or `minimize`; the leading one first.
        keys: What is searched.
        searched: The text of the set of values, by the name that it has in the space.
        method: The sampler and the pruner, in words.
        num_trials: The total that it is to reach.
        counts: How many trials there are of each state.
        num_finished: How many of them count against the total.
        leaders: The best few, or of several objectives the first few of the Pareto front.
        num_front: How many trials the Pareto front has.
        store_dir: The store, and `uri` the record's address if it lies elsewhere.
        report: The artifact that is the report, once there is one.
    """

    name: str
    state: str
    objectives: Mapping[str, str]
    keys: tuple[str, ...]
    searched: Mapping[str, str]
    method: str
    num_trials: int
    counts: Mapping[str, int]
    num_finished: int
    leaders: tuple[Best, ...]
    num_front: int
    store_dir: Path
    uri: str | None = None
    report: str | None = None


def study_text(facts: StudyFacts, pages: Pages) -> str:
    """Describe a study: how far it is, the best trials, what is searched and by what, and what to type."""
    return "\n\n".join(
        part
        for part in (
            _progress(facts, pages),
            _links(facts, pages),
            _leaders(facts, pages),
            _searched(facts),
            _commands(facts),
        )
        if part
    )


def _progress(facts: StudyFacts, pages: Pages) -> str:
    others = [f"{facts.counts[s]} {s}" for s in ("pruned", "failed", "interrupted") if facts.counts.get(s)]
    of_them = f" ({', '.join(others)})" if others else ""
    trials = f"{facts.num_finished} of {facts.num_trials} trials{of_them}"
    state = "" if facts.state in ("running", "complete") else f"{facts.state.capitalize()}: "
    if not facts.leaders:
        return f"{state}{trials}, none of them complete{' so far' if facts.state == 'running' else ''}."
    so_far = " so far" if facts.state == "running" else ""
    if len(facts.objectives) > 1:
        return f"{state}{trials}, **{facts.num_front} on the Pareto front{so_far}**."
    best = facts.leaders[0]
    (metric,) = facts.objectives
    trial = link(f"trial {best.number}", pages.run(best.number))
    return f"{state}{trials}, **best{so_far}: {trial}, {escaped(metric)} = {number(best.value)}**."


def _links(facts: StudyFacts, pages: Pages) -> str:
    links = [
        link("All trials, best first", pages.study(facts.name)),
        link("Charts", pages.study(facts.name, is_chart=True)),
    ]
    if facts.report is not None:
        links.append(link("Report", pages.artifact(PARENT, facts.report)))
    return " · ".join(links)


def _leaders(facts: StudyFacts, pages: Pages) -> str:
    if not facts.leaders:
        return ""
    names = short_names(facts.keys)
    keys = [key for key in facts.keys if any(key in best.values for best in facts.leaders)][:_MOST_COLUMNS]
    header = ["trial", *map(escaped, facts.objectives), *(escaped(names[key]) for key in keys)]
    rows = [
        [
            link(escaped(f"#{best.number}"), pages.run(best.number)),
            *map(number, best.objectives),
            *(escaped(brief(number(best.values[key]))) if key in best.values else "" for key in keys),
        ]
        for best in facts.leaders
    ]
    return table(header, rows)


def _searched(facts: StudyFacts) -> str:
    judged = ", ".join(f"{direction} {escaped(metric)}" for metric, direction in facts.objectives.items())
    searched = [f"{escaped(key)} = {escaped(brief(text, _LONGEST))}" for key, text in facts.searched.items()]
    return f"Searched to {judged}, by {escaped(facts.method)}: {some_of(searched, _MOST_SEARCHED)}."


def _commands(facts: StudyFacts) -> str:
    where = store_options(facts.store_dir, facts.uri)
    study, best = shlex.quote(facts.name), shlex.quote(f"best:{facts.name}")
    more = "" if facts.num_finished < facts.num_trials else f" study.num_trials={2 * facts.num_trials}"
    return code_block(
        [
            f"lightsweep compare {study} --top 10{where}",
            f"lightsweep show {best}{where}",
            f"lightsweep resume {study}{store_options(facts.store_dir)}{more}",
        ]
    )
