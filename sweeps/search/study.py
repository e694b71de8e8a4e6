"""A study that one driver asks and tells."""

import logging
import math
import statistics
import time
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

import optuna
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._constrained_optimization import _is_constrained_optimization
from optuna.study._multi_objective import _get_pareto_front_trials_by_trials
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import StoreError, StudyError
from sweeps.core.messages import Cause, PruneDecision
from sweeps.core.trials import EndState, Search, Suggestion, TrialResult
from sweeps.search.identity import create_or_check
from sweeps.search.objectives import (
    Constraint,
    ReportedOnly,
    parse_objectives,
    require_judgeable,
    violations,
    why_infeasible,
)
from sweeps.search.pruners import default_test, why_hopeless, why_pruned
from sweeps.search.replicates import Replication
from sweeps.search.samplers import BruteForce, Grid, propose
from sweeps.search.space.space import Space
from sweeps.search.states import DROPPED, INTERRUPTED, Tally, state_of
from sweeps.search.storage import storage_errors
from sweeps.search.storage_writer import Record

__all__ = ["Best", "Study"]

_log = logging.getLogger(__name__)
_ONE_TRAINING = Replication()
_REPLICATES = "replicates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """A best trial: its number, its objectives and what it searched."""

    number: int
    objectives: tuple[float, ...]
    values: dict[str, Any]

    @property
    def value(self) -> float:
        """The first objective, which is the only one as a rule."""
        return self.objectives[0]


class _AskTellStudy(optuna.Study):
    """An Optuna study whose samplers may say stop although no `optimize` loop runs.

    Of several objectives, `direction` is that of the reported one: TPE ranks pruned trials by it.
    """

    is_stopped = False
    only_direction: StudyDirection

    @property
    def direction(self) -> StudyDirection:
        """The direction of the only objective, or of what is reported if there are several."""
        return self.only_direction

    def stop(self) -> None:
        """Remember that the sampler has nothing left to try."""
        self.is_stopped = True


class Study(Search):
    """A study, asked and told by one driver.

    **Durability**
    A trial is in the database when `ask` returns, and its end when `tell` returns, even if the machine
    loses power then. Reports of running trials reach it within `flush_interval_s`.

    **Randomness**
    With a seed, the sampler's random numbers for a trial come from the seed and the trial's number: a study
    that was stopped and goes on neither repeats its first trials nor depends on when it was stopped.

    **One writer**
    Trials that others enqueue meanwhile, a dashboard for instance, are found by the next `ask`. A second
    driver that starts trials in the same study is an error which both notice.

    **Failures of the database**
    A write that fails is tried again for some seconds, then StoreError is raised; nothing is forgotten, and
    the next write brings it along.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: RDBStorage,
        study_id: int,
        objectives: Mapping[str, StudyDirection],
        reported: tuple[str, StudyDirection],
        constraints: Sequence[Constraint] = (),
        replication: Replication = _ONE_TRAINING,
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner,
        seed: int | None = None,
        flush_interval_s: float = 1.0,
    ) -> None:
        """Load all trials; use `create_or_load`, which checks that the study is the same."""
        self.name = name
        self.space = space
        self.metrics = tuple(objectives)
        self._reported, self._direction = reported
        self._constraints = tuple(constraints)
        self._replication = replication
        self._paired = pruner if isinstance(pruner, WilcoxonPruner) else default_test()
        self._seed = seed
        self._storage = storage
        self._study_id = study_id
        self._record = Record(storage, study_id)
        self._memory = InMemoryStorage()
        self._memory_id = self._memory.create_new_study(list(objectives.values()), name)
        for key, value in self._record.attrs.items():
            self._memory.set_study_system_attr(self._memory_id, key, value)
        is_single = len(objectives) == 1
        # A sampler asks Hyperband for its brackets, which it has for one objective only
        self.optuna = _AskTellStudy(name, self._memory, sampler, pruner if is_single else optuna.pruners.NopPruner())
        self.optuna.only_direction = next(iter(objectives.values())) if is_single else self._direction
        self._judged = (
            self.optuna if is_single else optuna.Study(name, ReportedOnly(self._memory, self._direction), pruner=pruner)
        )
        self._tally = Tally(self._frozen, state_of)
        self._running: dict[int, optuna.Trial] = {}
        self._unwritten: set[int] = set()  # trials whose last change is not in the database
        self._flush_interval_s = flush_interval_s
        self._flushed_at_s = time.monotonic()
        self._learn_of_new_trials()
        if isinstance(sampler, BruteForce):
            self.optuna.is_stopped = sampler.is_done(self.optuna)
        self._has_borrowed = self.counts["borrowed"] > 0

    @classmethod
    def create_or_load(
        cls,
        name: str,
        storage: RDBStorage,
        *,
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner | None = None,
        metric: str | Sequence[str] = "val/acc",
        direction: str | Sequence[str] = "maximize",
        reported: tuple[str, str] | None = None,
        constraints: Sequence[Constraint] = (),
        replication: Replication = _ONE_TRAINING,
        seed: int | None = None,
        flush_interval_s: float = 1.0,
    ) -> "Study":
        """Create the study, or go on with the one of this name.

        Args:
            name: The study's name, unique in the storage.
            storage: From `open_storage`.
            space: What is searched.
            sampler: Which values to try; from `build_sampler`.
            pruner: Which trials to stop early; None stops none.
            metric: The objective, or several.
            direction: `maximize` or `minimize`, one for each metric.
            reported: The metric whose values `report` and `tell` get, with its direction; by default the first one.
            constraints: What a trial must satisfy to be the best.
            replication: How often each trial is trained.
            seed: Of the sampler; None takes other random numbers each time.
            flush_interval_s: How long a report may wait to be written, in seconds.

        Raises:
            StudyError: A study of this name has another space, direction or metric; one line for each.
            ConfigError: A direction is neither `maximize` nor `minimize`, or the pruner cannot judge what is reported.
        """
        objectives = parse_objectives(metric, direction)
        metrics, directions = list(objectives), list(objectives.values())
        reported = reported or (metrics[0], directions[0].name.lower())
        judged = (reported[0], parse_objectives(*reported)[reported[0]])
        require_judgeable(pruner, objectives, reported, replication)
        with storage_errors(storage):
            return cls(
                name=name,
                storage=storage,
                study_id=create_or_check(
                    storage,
                    name,
                    directions=directions,
                    space=space,
                    metrics=metrics,
                    constraints=[str(constraint) for constraint in constraints],
                    replication=str(replication),
                    reported=" ".join(reversed(reported)),
                ),
                objectives=objectives,
                reported=judged,
                constraints=constraints,
                replication=replication,
                space=space,
                sampler=sampler,
                pruner=pruner or optuna.pruners.NopPruner(),
                seed=seed,
                flush_interval_s=flush_interval_s,
            )

    # --- asking and telling

    def ask(self) -> Suggestion:
        """Start a trial: one that was interrupted or enqueued, or else one that the sampler proposes.

        Raises:
            StudyError: The grid is exhausted, or another program started trials in this study.
            StoreError: The database does not answer.
        """
        self._sync()
        if self.is_exhausted:
            raise StudyError(f"Study {self.name!r} has tried every point of its space. Widen the space.")
        if self._seed is not None:
            _reseed(self.optuna.sampler, f"{self._seed}/{self._next_number()}")
        try:
            trial = propose(self.optuna, self.space, self._seed)
        except Exception as exc:
            self._close_half_asked(exc)
            raise
        self._running[trial.number] = trial
        frozen = self._frozen(trial.number)
        self._save(trial.number)
        used = frozen.user_attrs.get("used", {"s": 0.0, "device_s": 0.0})
        return Suggestion(
            number=trial.number,
            values=self.space.decode(frozen.params),
            is_enqueued="fixed_params" in frozen.system_attrs,
            elapsed_s=used["s"],
            device_s=used["device_s"],
        )

    def report(self, number: int, value: float, step: int) -> PruneDecision:
        """Take an intermediate value of a running trial and judge it.

        A step that was reported before keeps its first value.
        """
        if number not in self._running:
            return PruneDecision(prune=True, reason=f"trial {number} is closed already")
        if step not in self._frozen(number).intermediate_values:
            self._memory.set_trial_intermediate_value(self._frozen(number)._trial_id, step, float(value))
        pruner = self._judged.pruner
        if pruner is self._paired:
            return PruneDecision(prune=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")  # numpy's word for a trial that diverged
            prune = bool(pruner.prune(self._judged, self._frozen(number)))
        reason = why_pruned(pruner, self._judged, self._frozen(number)) if prune else ""
        if time.monotonic() - self._flushed_at_s >= self._flush_interval_s:
            try:
                self._save(is_patient=False)
            except StoreError as exc:  # reports can wait, and the trials go on meanwhile
                _log.warning("%s", exc)
                self._flushed_at_s = time.monotonic()
        return PruneDecision(prune=prune, reason=reason)

    def begin_replicates(self, number: int, *, restart: bool) -> dict[int, TrialResult]:
        """Return the results that a trial of several trainings has already; forget them at a restart."""
        if restart and self.replicates(number):
            self._memory.set_trial_user_attr(self._frozen(number)._trial_id, _REPLICATES, {})
            self._save(number, is_durable=True)
        return self.replicates(number)

    def replicates(self, number: int) -> dict[int, TrialResult]:
        """Return the results of the trainings of a trial that are complete, by their index."""
        if not 0 <= number < self._num_trials():
            return {}
        stored = self._frozen(number).user_attrs.get(_REPLICATES, {})
        return {
            int(index): TrialResult(state="complete", value=result["value"], metrics=result["metrics"])
            for index, result in stored.items()
        }

    def add_replicate(self, number: int, replicate: int, result: TrialResult) -> PruneDecision:
        """Keep the result of one of several trainings, and judge the trial against the best one, in pairs.

        The result is in the database when this returns.
        """
        stored = dict(self._frozen(number).user_attrs.get(_REPLICATES, {}))
        stored[str(replicate)] = {"value": result.value, "metrics": dict(result.metrics)}
        self._memory.set_trial_user_attr(self._frozen(number)._trial_id, _REPLICATES, stored)
        self._save(number, is_durable=True)
        best = self._best_reported()
        if best is None or isinstance(self._judged.pruner, optuna.pruners.NopPruner):
            return PruneDecision(prune=False)
        reason = why_hopeless(
            self._paired, self._direction, self._values(number), self._values(best.number), best.number
        )
        return PruneDecision(prune=bool(reason), reason=reason)

    def flush(self) -> None:
        """Write the reports that wait to be written, if the database answers."""
        try:
            self._save(is_patient=False)
        except StoreError as exc:
            _log.warning("%s", exc)

    def admit(self, metrics: Mapping[str, float]) -> PruneDecision:
        """Judge by the constraints what is known of a trial before it trains, such as its number of parameters."""
        reason = why_infeasible(self._constraints, metrics)
        return PruneDecision(prune=bool(reason), reason=reason)

    def tell(
        self,
        number: int,
        state: EndState,
        value: float | Sequence[float] | None = None,
        reason: str = "",
        *,
        metrics: Mapping[str, float] = MappingProxyType({}),
        cause: Cause | None = None,
    ) -> TrialResult:
        """End a trial.

        A trial that diverged or ran out of memory is pruned, with a violated constraint, so that samplers avoid its
        like. One that violates `study.constraints` cannot become the best.

        Args:
            number: The trial's number.
            state: An `interrupted` trial does not count; it waits, and the next `ask` returns it again.
            value: The reported metric at its best; or all objectives. A pruned trial has its last report.
            reason: Why it did not complete, kept with the trial.
            metrics: What else is known of the trial, for the other objectives and the constraints.
            cause: Why it failed.

        Returns:
            What was recorded.

        Raises:
            StudyError: The trial does not run.
            StoreError: The database does not answer; the end is kept in memory for the next write.
        """
        if number >= self._num_trials() or self._frozen(number).state != TrialState.RUNNING:
            raise StudyError(f"Trial {number} of study {self.name!r} does not run, so it cannot end as {state}.")
        values: list[float] | None = None
        if state == "complete":
            state, values, reason, cause = self._judge(value, metrics, reason)
        if state == "interrupted":
            self._suspend(number, reason)
            self._save(number, is_durable=True)
            return TrialResult(state=state, reason=reason)
        violated = violations(self._constraints, metrics)
        infeasible = why_infeasible(self._constraints, metrics)
        if cause == "diverged" or cause == "memory":
            state, infeasible = "pruned", reason
            violated[cause] = 1.0
        if state != "failed":
            for constraint, violation in violated.items():
                self._constrain(number, constraint, violation)
        self._end(number, state, values, reason)
        self._save(number, is_durable=True)
        return TrialResult(
            state=state,
            reason=reason,
            objectives={} if values is None else dict(zip(self.metrics, values, strict=True)),
            infeasible=infeasible,
        )

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep a fact about a running trial with it, as plain data; it is written with what is written next."""
        self._memory.set_trial_user_attr(self._frozen(number)._trial_id, key, value)

    def reuse(self, number: int, source: int) -> TrialResult:
        """End a running trial with the reports and the result of `source`, a complete or pruned one.

        Raises:
            StudyError: The trial does not run.
            StoreError: As for `tell`.
        """
        twin, trial = self._frozen(source), self._frozen(number)
        state: EndState = "pruned" if twin.state == TrialState.PRUNED else "complete"
        reason = f"same configuration as trial {source}"
        if state == "pruned":
            reason += f", which was pruned: {twin.user_attrs.get('reason', '')}"
        for step, value in twin.intermediate_values.items():
            if step not in trial.intermediate_values:
                self._memory.set_trial_intermediate_value(trial._trial_id, step, value)
        for key, attr in twin.system_attrs.items():
            if key.startswith("constraints"):
                self._memory.set_trial_system_attr(trial._trial_id, key, attr)
        self.note(number, "reused_from", source)
        metrics = twin.user_attrs.get("metrics", {})
        told = self.tell(number, state, twin.values if state == "complete" else None, reason, metrics=metrics)
        return replace(told, value=self._first_objective(twin), metrics=metrics)

    def enqueue(self, values: Mapping[str, Any], request: str = "") -> int:
        """Queue a trial with these values; the sampler chooses those that are missing.

        Args:
            values: What the trial is to try.
            request: The name of the request, if it has one: it is carried out once, however often it is made.

        Returns:
            The trial's number.

        Raises:
            SpaceError: A key or a value is not in the space.
        """
        self._sync()
        known = (trial.number for trial in self._trials() if request and trial.user_attrs.get("request") == request)
        found = next(known, None)
        if found is not None:
            return found
        self.optuna.enqueue_trial(self.space.encode(values), user_attrs={"request": request} if request else None)
        number = self._num_trials() - 1
        self._save(number, is_durable=True)
        return number

    def close_stale(self) -> list[int]:
        """Let the trials that a dead driver left running wait to go on.

        To be called before the first `ask`, when no other driver works on the study.

        Returns:
            The numbers of these trials.
        """
        self._sync()
        stale = [t.number for t in self._trials() if t.state == TrialState.RUNNING and t.number not in self._running]
        for number in stale:
            self._suspend(number, "the driver died")
        if stale:  # in one transaction: a crash leaves all of it or nothing
            self._save(*stale, is_durable=True)
        return stale

    # --- reading

    @property
    def best(self) -> Best | None:
        """The best complete trial of the study's own that violates no constraint; None before the first.

        Raises:
            StudyError: The study has several objectives.
        """
        if len(self.optuna.directions) > 1:
            raise StudyError("A study of several objectives has no single best trial. Read `best_trials`.")
        if self._has_borrowed:
            return next(map(self._best, self._own_front()), None)
        try:
            return self._best(self.optuna.best_trial)
        except ValueError:
            return None

    @property
    def best_trials(self) -> list[Best]:
        """The best complete trial, or the Pareto front of several objectives."""
        if len(self.optuna.directions) == 1:
            return [] if self.best is None else [self.best]
        front = self._own_front() if self._has_borrowed else self.optuna.best_trials
        return [self._best(trial) for trial in front]

    def leaders(self, most: int) -> list[Best]:
        """Return the best few trials by the only objective, of those that `best` is chosen from."""
        own = [trial for trial in self._trials() if state_of(trial) == "complete"]
        feasible = [trial for trial in own if all(violation <= 0 for violation in trial.constraints.values())]
        is_up = self.optuna.directions[0] == StudyDirection.MAXIMIZE
        feasible.sort(key=lambda trial: trial.values[0], reverse=is_up)
        return [self._best(trial) for trial in feasible[:most]]

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are complete, pruned, failed, interrupted, running and waiting; dropped and borrowed."""
        states = dict.fromkeys((*get_args(EndState), "running", "waiting", "dropped", "borrowed"), 0)
        return states | self._tally.counts(self._num_trials())

    def end_of(self, number: int) -> tuple[str, float | None, str] | None:
        """Return how a trial ended, with its objective and the reason; None if it is unknown or has not ended."""
        if not 0 <= number < self._num_trials() or not self._frozen(number).state.is_finished():
            return None
        trial = self._frozen(number)
        state = state_of(trial)
        value = self._first_objective(trial) if state in ("complete", "pruned") else None
        return state, value, str(trial.user_attrs.get(DROPPED) or trial.user_attrs.get("reason", ""))

    @property
    def dropped(self) -> dict[int, str]:
        """Why trials do not fit the space that the study was moved to, by number."""
        return {t.number: str(t.user_attrs[DROPPED]) for t in self._trials() if DROPPED in t.user_attrs}

    def values_of(self, number: int) -> dict[str, Any]:
        """Return what each searched key has in a trial, as far as that is settled."""
        return self.space.decode(self._frozen(number).params)

    @property
    def num_finished(self) -> int:
        """How many trials count against `study.num_trials`: its own that ended, if neither interrupted nor dropped."""
        counts = self.counts
        return counts["complete"] + counts["pruned"] + counts["failed"]

    @property
    def is_new(self) -> bool:
        """Whether nothing has been tried or asked for yet, but by the configuration."""
        own = [trial for trial in self._trials() if state_of(trial) != "borrowed"]
        return all(
            trial.state == TrialState.WAITING and str(trial.user_attrs.get("request", "")).startswith("study.enqueue")
            for trial in own
        )

    @property
    def twins(self) -> dict[str, int]:
        """The first trial of each configuration that has a result to give, by the `fingerprint` noted with it."""
        found: dict[str, int] = {}
        for trial in self._trials():
            own = trial.user_attrs.get("fingerprint")
            if own is not None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                found.setdefault(own, trial.number)
        return found

    @property
    def device_s(self) -> float:
        """Seconds of devices that all trials have used, as noted with them."""
        return sum(float(trial.user_attrs.get("used", {}).get("device_s", 0.0)) for trial in self._trials())

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left to ask for: no trial waits and the sampler has tried all it can."""
        if self._memory.get_all_trials(self._memory_id, deepcopy=False, states=(TrialState.WAITING,)):
            return False
        sampler = self.optuna.sampler
        return sampler.is_done(self.optuna) if isinstance(sampler, Grid) else self.optuna.is_stopped

    # --- inside

    def _trials(self) -> list[FrozenTrial]:
        return self._memory.get_all_trials(self._memory_id, deepcopy=False)

    def _num_trials(self) -> int:
        return self._memory.get_n_trials(self._memory_id)

    def _next_number(self) -> int:
        """Return the number of the trial that the next `ask` returns: the first that waits, or else a new one."""
        waiting = self._memory.get_all_trials(self._memory_id, deepcopy=False, states=(TrialState.WAITING,))
        return min((trial.number for trial in waiting), default=self._num_trials())

    def _frozen(self, number: int) -> FrozenTrial:
        return self._memory.get_trial(self._memory.get_trial_id_from_study_id_trial_number(self._memory_id, number))

    def _own_front(self) -> list[FrozenTrial]:
        """Return what Optuna calls the best trials, of the study's own."""
        own = [trial for trial in self._trials() if state_of(trial) == "complete"]
        return _get_pareto_front_trials_by_trials(own, self.optuna.directions, _is_constrained_optimization(own))

    def _best(self, trial: FrozenTrial) -> Best:
        return Best(number=trial.number, objectives=tuple(trial.values), values=self.space.decode(trial.params))

    def _sync(self) -> None:
        with storage_errors(self._storage):
            self._learn_of_new_trials()

    def _learn_of_new_trials(self) -> None:
        for trial in self._record.new_trials(self._num_trials()):
            self._memory.create_new_trial(self._memory_id, trial)
            number = self._num_trials() - 1
            if number != trial.number:
                raise StudyError(
                    f"Trial {trial.number} of study {self.name!r} should be number {number}: trials were "
                    f"deleted from its storage. Start a study with another study.name."
                )

    def _values(self, number: int) -> dict[int, float]:
        return {index: result.value for index, result in self.replicates(number).items() if result.value is not None}

    def _best_reported(self) -> FrozenTrial | None:
        """Return the trial with the best mean of what is reported, of those that violate no constraint."""
        complete = [t for t in self._trials() if t.state == TrialState.COMPLETE and self._values(t.number)]
        feasible = [t for t in complete if all(violation <= 0 for violation in t.constraints.values())]
        sign = 1.0 if self._direction == StudyDirection.MAXIMIZE else -1.0
        return max(feasible, key=lambda t: sign * statistics.fmean(self._values(t.number).values()), default=None)

    def _judge(
        self, value: float | Sequence[float] | None, metrics: Mapping[str, float], reason: str
    ) -> tuple[EndState, list[float] | None, str, Cause | None]:
        """Say how a trial ended that trained to its end: it must have all objectives, and they must be finite."""
        many = list(value) if isinstance(value, Sequence) else self._objectives(value, metrics)
        known = {constraint.metric for constraint in self._constraints} & metrics.keys()
        for constraint in self._constraints:
            if constraint.metric not in known:
                return "failed", None, f"the trial has no {constraint.metric!r}, which study.constraints names", None
        try:
            values = [float(number) for number in many]  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return "failed", None, f"the objective must be a number, but is {_one(many)!r}", None
        if len(values) != len(self.metrics):
            text = f"the study has {len(self.metrics)} objectives, but got {len(values)} values"
            return "failed", None, text, None
        for number in values:
            if not math.isfinite(number):
                return "pruned", None, f"diverged: the objective must be finite, but is {number}", "diverged"
        for metric in sorted(known):
            if math.isnan(metrics[metric]):
                return "pruned", None, f"diverged: {metric} is nan, and study.constraints names it", "diverged"
        return "complete", values, reason, None

    def _objectives(self, value: float | None, metrics: Mapping[str, float]) -> list[float | None]:
        return [value if metric == self._reported else metrics.get(metric) for metric in self.metrics]

    def _first_objective(self, trial: FrozenTrial) -> float | None:
        """Return it as far as it is known: a pruned trial has its last report in its place, if that is the same."""
        if trial.state == TrialState.PRUNED and self._reported != self.metrics[0]:
            found: float | None = trial.user_attrs.get("metrics", {}).get(self.metrics[0])
            return found
        return trial.values[0] if trial.values else None

    def _constrain(self, number: int, constraint: str, violation: float) -> None:
        # As Trial.set_constraint does, which a trial that another driver began has no handle for
        key = f"constraints:{constraint}"
        self._memory.set_trial_system_attr(self._frozen(number)._trial_id, key, violation)

    def _end(self, number: int, state: EndState, values: list[float] | None, reason: str) -> None:
        trial_id = self._frozen(number)._trial_id
        if reason:
            self._memory.set_trial_user_attr(trial_id, "reason", reason)
        self._running.pop(number, None)
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        try:
            with warnings.catch_warnings():  # CMA-ES says each time that it takes no notice of constraints
                warnings.filterwarnings("ignore", "Constraints have been set")
                self.optuna.tell(number, values, state=ends.get(state, TrialState.FAIL))
        except Exception:  # the end is in memory all the same; a sampler's bookkeeping must not lose it
            if not self._frozen(number).state.is_finished():
                raise
            _log.warning("trial %d: the sampler could not take note of its end", number, exc_info=True)

    def _suspend(self, number: int, reason: str) -> None:
        """Let a trial wait, with its number, values and reports, until it is asked for again."""
        trial_id = self._frozen(number)._trial_id
        self._memory.set_trial_user_attr(trial_id, INTERRUPTED, reason)
        self._memory.set_trial_state_values(trial_id, TrialState.WAITING)
        # Optuna looks for waiting trials only behind those that it has seen waiting no more
        first = self._memory._prev_waiting_trial_number
        first[self._memory_id] = min(first[self._memory_id], number)
        self._running.pop(number, None)

    def _close_half_asked(self, exc: Exception) -> None:
        """End the trial that Optuna had begun when its sampler raised, so that it does not run for ever."""
        half = [
            trial.number
            for trial in self._trials()
            if trial.state == TrialState.RUNNING and self._record.state(trial.number) != TrialState.RUNNING
        ]
        for number in half:
            self._suspend(number, f"the sampler raised {type(exc).__name__}: {exc}")
        if half:
            self._save(*half)

    def _save(self, *numbers: int, is_durable: bool = False, is_patient: bool = True) -> None:
        """Write what is new: of the trials named, of the running ones, and the study's own attributes."""
        self._unwritten.update(numbers)
        with storage_errors(self._storage):
            trials = [self._frozen(number) for number in sorted({*self._unwritten, *self._running})]
            self._record.write(trials, is_durable=is_durable, is_patient=is_patient)
            self._record.write_attrs(self._memory.get_study_system_attrs(self._memory_id))
        self._unwritten.clear()
        self._flushed_at_s = time.monotonic()


def _one(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _reseed(sampler: BaseSampler, source: str) -> None:
    """Set every random state of the sampler, and of the samplers inside it, from `source`."""
    for key, value in vars(sampler).items():
        if isinstance(value, LazyRandomState):
            value.rng.seed(zlib.crc32(f"{source}/{key}".encode()))
        elif isinstance(value, BaseSampler):
            _reseed(value, f"{source}/{key}")
