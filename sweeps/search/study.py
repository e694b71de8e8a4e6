"""A study as its driver sees it: ask for trials, report their values, and tell their results."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

import optuna
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import StudyError
from sweeps.core.messages import Cause, PruneDecision
from sweeps.core.trials import EndState, Search, Suggestion, TrialResult, num_finished
from sweeps.search.objectives import violations, why_infeasible
from sweeps.search.optuna_private import (
    CONSTRAINT,
    CONSTRAINTS,
    FIXED_PARAMS,
    BruteForce,
    ReportedOnly,
    pareto_front,
    reseed,
)
from sweeps.search.pruners import default_test, why_hopeless, why_pruned
from sweeps.search.replicates import REPLICATES, best_mean, stored_results, stored_values, with_result
from sweeps.search.samplers import AskTellStudy, Grid, propose
from sweeps.search.space.space import Space
from sweeps.search.states import DROPPED, Tally, state_of
from sweeps.search.storage import storage_errors
from sweeps.search.terms import StudyTerms, create_or_check, require_judgeable
from sweeps.search.trial_memory import TrialMemory

__all__ = ["Best", "Study"]

_log = logging.getLogger(__name__)
_DEFAULT_TERMS = StudyTerms.of()


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """A best trial: its number, its objectives, and the values of its parameters."""

    number: int
    objectives: tuple[float, ...]
    values: dict[str, Any]

    @property
    def value(self) -> float:
        """The first objective, usually the only one."""
        return self.objectives[0]


class Study(Search):
    """A study, asked and told by one driver.

    **Durability**
    A trial is in the database when `ask` returns, and its result when `tell` returns, even if the machine then
    loses power. Reports of running trials are written within `flush_interval_s`.

    **Randomness**
    With a seed, the sampler's random numbers for a trial come from the seed and the trial's number: a resumed study
    does not repeat its first trials, and does not depend on when it was stopped.

    **One writer**
    Trials that another program enqueues, such as a dashboard, are found by the next `ask`. If a second driver starts
    trials in the same study, both raise an error.

    **Failures of the database**
    A failed write is retried for some seconds, then StoreError is raised; nothing is lost, since the next write
    includes it.
    """

    def __init__(
        self,
        name: str,
        storage: RDBStorage,
        study_id: int,
        *,
        space: Space,
        terms: StudyTerms,
        sampler: BaseSampler,
        pruner: BasePruner,
        seed: int | None,
        flush_interval_s: float,
    ) -> None:
        """Load all trials. Call `create_or_load` instead, which checks the space and the terms."""
        self.name = name
        self.space = space
        self.metrics = tuple(terms.metrics)
        self._terms = terms
        self._paired = pruner if isinstance(pruner, WilcoxonPruner) else default_test()
        self._seed = seed
        self._storage = storage
        self._study_id = study_id
        directions = list(terms.objectives.values())
        self._memory = TrialMemory(name, storage, study_id, directions, flush_interval_s)
        memory, is_single = self._memory.optuna, len(directions) == 1
        # A sampler asks Hyperband for its brackets, which it has for one objective only
        self.optuna = AskTellStudy(name, memory, sampler, pruner if is_single else optuna.pruners.NopPruner())
        reported = terms.reported[1]
        self.optuna.only_direction = directions[0] if is_single else reported
        self._judged = self.optuna if is_single else optuna.Study(name, ReportedOnly(memory, reported), pruner=pruner)
        self._tally = Tally(self._memory.__getitem__, state_of)
        if isinstance(sampler, BruteForce):
            self.optuna.is_stopped = sampler.is_done(self.optuna)
        self._has_imported = self.counts["imported"] > 0

    @classmethod
    def create_or_load(
        cls,
        name: str,
        storage: RDBStorage,
        *,
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner | None = None,
        terms: StudyTerms = _DEFAULT_TERMS,
        seed: int | None = None,
        flush_interval_s: float = 1.0,
    ) -> "Study":
        """Create the study, or resume the one of this name.

        Args:
            name: The study's name, unique in the storage.
            storage: From `open_storage`.
            space: The search space.
            sampler: Proposes values; from `build_sampler`.
            pruner: Stops trials early; None stops none.
            terms: How trials are judged, and how often each is trained; by default the highest `val/acc` wins.
            seed: The seed of the sampler; None draws different random numbers each time.
            flush_interval_s: How long a report may wait to be written, in seconds.

        Raises:
            StudyError: A study of this name has another space or other terms; one line for each.
            ConfigError: The pruner cannot judge the reported metric.
        """
        require_judgeable(pruner, terms)
        with storage_errors(storage):
            study_id = create_or_check(storage, name, space=space, terms=terms)
            return cls(
                name,
                storage,
                study_id,
                space=space,
                terms=terms,
                sampler=sampler,
                pruner=pruner or optuna.pruners.NopPruner(),
                seed=seed,
                flush_interval_s=flush_interval_s,
            )

    # --- asking and telling

    def ask(self) -> Suggestion:
        """Start a trial: an interrupted or enqueued one if there is any, else one that the sampler proposes.

        Raises:
            StudyError: The grid is exhausted, or another program started trials in this study.
            StoreError: The database does not respond.
        """
        self._memory.load_new()
        if self.is_exhausted:
            raise StudyError(f"Study {self.name!r} has tried every point of its space. Widen the space.")
        if self._seed is not None:
            reseed(self.optuna.sampler, f"{self._seed}/{self._memory.next_number}")
        try:
            trial = propose(self.optuna, self.space, self._seed)
        except Exception as exc:
            self._memory.suspend_half_asked(f"the sampler raised {type(exc).__name__}: {exc}")
            raise
        self._memory.running.add(trial.number)
        frozen = self._memory[trial.number]
        self._memory.save(trial.number)
        used = frozen.user_attrs.get("used", {"s": 0.0, "device_s": 0.0})
        return Suggestion(
            number=trial.number,
            values=self.space.decode(frozen.params),
            is_enqueued=FIXED_PARAMS in frozen.system_attrs,
            elapsed_s=used["s"],
            device_s=used["device_s"],
        )

    def report(self, number: int, value: float, step: int) -> PruneDecision:
        """Store an intermediate value of a running trial, and decide whether to prune it.

        A step that has been reported already keeps its first value.
        """
        if number not in self._memory.running:
            return PruneDecision(prune=True, reason=f"trial {number} is closed already")
        self._memory.add_report(number, step, float(value))
        pruner = self._judged.pruner
        if pruner is self._paired:
            return PruneDecision(prune=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")  # numpy's word for a trial that diverged
            prune = bool(pruner.prune(self._judged, self._memory[number]))
        reason = why_pruned(pruner, self._judged, self._memory[number]) if prune else ""  # with the rung just reached
        self._memory.flush(is_due=False)
        return PruneDecision(prune=prune, reason=reason)

    def begin_replicates(self, number: int, *, restart: bool) -> dict[int, TrialResult]:
        """Return the results that a replicated trial has already; a restart deletes them."""
        if restart and self.replicates(number):
            self._memory.set_attr(number, REPLICATES, {})
            self._memory.save(number, is_durable=True)
        return self.replicates(number)

    def replicates(self, number: int) -> dict[int, TrialResult]:
        """Return the results of the complete replicates of a trial, by index."""
        if number not in self._memory:
            return {}
        return stored_results(self._memory[number].user_attrs)

    def add_replicate(self, number: int, replicate: int, result: TrialResult) -> PruneDecision:
        """Store the result of a replicate, and decide whether to prune the trial, by a paired test against the best.

        The result is in the database when this returns.
        """
        self._memory.set_attr(number, REPLICATES, with_result(self._memory[number].user_attrs, replicate, result))
        self._memory.save(number, is_durable=True)
        best = best_mean(self._memory, self._terms.reported[1])
        if best is None or isinstance(self._judged.pruner, optuna.pruners.NopPruner):
            return PruneDecision(prune=False)
        own, others = stored_values(self._memory[number].user_attrs), stored_values(best.user_attrs)
        reason = why_hopeless(self._paired, self._terms.reported[1], own, others, best.number)
        return PruneDecision(prune=bool(reason), reason=reason)

    def flush(self) -> None:
        """Write pending reports, if the database responds."""
        self._memory.flush()

    def admit(self, metrics: Mapping[str, float]) -> PruneDecision:
        """Decide by the constraints whether to prune a trial before it trains, such as by its number of parameters."""
        reason = why_infeasible(self._terms.constraints, metrics)
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

        A trial that diverged or ran out of memory is pruned, with a violated constraint, so that samplers avoid
        similar ones. A trial that violates `study.constraints` cannot become the best.

        Args:
            number: The trial's number.
            state: How it ended. An `interrupted` trial does not count; it waits, and the next `ask` returns it again.
            value: The best value of the reported metric, or all objectives. A pruned trial has its last report.
            reason: Why it did not complete, stored with the trial.
            metrics: Its other metrics, for the other objectives and the constraints.
            cause: Why it failed.

        Returns:
            The result as it is stored.

        Raises:
            StudyError: The trial is not running.
            StoreError: The database does not respond; the result is kept in memory for the next write.
        """
        if number not in self._memory or self._memory[number].state != TrialState.RUNNING:
            raise StudyError(f"Trial {number} of study {self.name!r} does not run, so it cannot end as {state}.")
        if state == "interrupted":
            self._memory.suspend(number, reason)
            self._memory.save(number, is_durable=True)
            return TrialResult(state=state, reason=reason)
        result = TrialResult(state=state, reason=reason, cause=cause)
        if state == "complete":
            result = self._terms.judge(value, metrics, reason)
        violated = violations(self._terms.constraints, metrics)
        result = replace(result, infeasible=why_infeasible(self._terms.constraints, metrics))
        if result.cause in ("diverged", "memory"):
            violated[result.cause] = 1.0
            result = replace(result, state="pruned", infeasible=result.reason)
        self._end(number, result, violated)
        self._memory.save(number, is_durable=True)
        return result

    def note(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of a running trial, as plain data; the next write includes it."""
        self._memory.set_attr(number, key, value)

    def reuse(self, number: int, source: int) -> TrialResult:
        """End a running trial with the reports and the result of `source`, a complete or pruned one.

        Raises:
            StudyError: The trial is not running.
            StoreError: As for `tell`.
        """
        twin = self._memory[source]
        state: EndState = "pruned" if twin.state == TrialState.PRUNED else "complete"
        reason = f"same configuration as trial {source}"
        if state == "pruned":
            reason += f", which was pruned: {twin.user_attrs.get('reason', '')}"
        for step, value in twin.intermediate_values.items():
            self._memory.add_report(number, step, value)
        for key, attr in twin.system_attrs.items():
            if key.startswith(CONSTRAINTS):
                self._memory.set_system_attr(number, key, attr)
        self.note(number, "reused_from", source)
        metrics = twin.user_attrs.get("metrics", {})
        told = self.tell(number, state, twin.values if state == "complete" else None, reason, metrics=metrics)
        return replace(told, value=self._first_objective(twin), metrics=metrics)

    def enqueue(self, values: Mapping[str, Any], request: str = "") -> int:
        """Queue a trial with these values; the sampler chooses those that are missing.

        Args:
            values: The values to try.
            request: A name that makes the call idempotent: calls with the same name enqueue one trial.

        Returns:
            The trial's number.

        Raises:
            SpaceError: A key or a value is not in the space.
        """
        self._memory.load_new()
        known = (trial.number for trial in self._memory if request and trial.user_attrs.get("request") == request)
        found = next(known, None)
        if found is not None:
            return found
        self.optuna.enqueue_trial(self.space.encode(values), user_attrs={"request": request} if request else None)
        number = len(self._memory) - 1
        self._memory.save(number, is_durable=True)
        return number

    def close_stale(self) -> list[int]:
        """Mark the trials that a dead driver left running as interrupted, so that they are resumed.

        Call it before the first `ask`, when no other driver works on the study.

        Returns:
            The numbers of these trials.
        """
        self._memory.load_new()
        running = [trial.number for trial in self._memory if trial.state == TrialState.RUNNING]
        stale = [number for number in running if number not in self._memory.running]
        for number in stale:
            self._memory.suspend(number, "the driver died")
        if stale:  # in one transaction: a crash leaves all of it or nothing
            self._memory.save(*stale, is_durable=True)
        return stale

    def user_attr(self, key: str) -> Any:
        """Return an attribute of the study; None if it is not set."""
        with storage_errors(self._storage):
            return self._storage.get_study_user_attrs(self._study_id).get(key)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set an attribute of the study, as plain data; it is in the database when this returns."""
        with storage_errors(self._storage):
            self._storage.set_study_user_attr(self._study_id, key, value)

    # --- reading

    @property
    def best(self) -> Best | None:
        """The best complete trial that violates no constraint and was not imported; None before the first.

        Raises:
            StudyError: The study has several objectives.
        """
        if len(self.optuna.directions) > 1:
            raise StudyError("A study of several objectives has no single best trial. Read `best_trials`.")
        if self._has_imported:
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
        front = self._own_front() if self._has_imported else self.optuna.best_trials
        return [self._best(trial) for trial in front]

    def leaders(self, most: int) -> list[Best]:
        """Return up to `most` of the best trials by the only objective, under the same conditions as `best`."""
        own = [trial for trial in self._memory if state_of(trial) == "complete"]
        feasible = [trial for trial in own if all(violation <= 0 for violation in trial.constraints.values())]
        is_up = self.optuna.directions[0] == StudyDirection.MAXIMIZE
        feasible.sort(key=lambda trial: trial.values[0], reverse=is_up)
        return [self._best(trial) for trial in feasible[:most]]

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are complete, pruned, failed, interrupted, running and waiting; dropped and imported."""
        states = dict.fromkeys((*get_args(EndState), "running", "waiting", "dropped", "imported"), 0)
        return states | self._tally.counts(len(self._memory))

    def end_of(self, number: int) -> tuple[str, float | None, str] | None:
        """Return state, objective and reason of a trial that has ended; None if it is unknown or has not."""
        if number not in self._memory or not self._memory[number].state.is_finished():
            return None
        trial = self._memory[number]
        state = state_of(trial)
        value = self._first_objective(trial) if state in ("complete", "pruned") else None
        return state, value, str(trial.user_attrs.get(DROPPED) or trial.user_attrs.get("reason", ""))

    @property
    def dropped(self) -> dict[int, str]:
        """Why each dropped trial does not fit the space that the study was migrated to, by number."""
        return {t.number: str(t.user_attrs[DROPPED]) for t in self._memory if DROPPED in t.user_attrs}

    def values_of(self, number: int) -> dict[str, Any]:
        """Return the values of a trial by key, of the parameters that have one already."""
        return self.space.decode(self._memory[number].params)

    @property
    def num_finished(self) -> int:
        """How many trials count towards `study.num_trials`: those that are complete, pruned or failed."""
        return num_finished(self.counts)

    @property
    def is_new(self) -> bool:
        """Whether the study has no trials except imported ones and those from `study.enqueue`."""
        own = [trial for trial in self._memory if state_of(trial) != "imported"]
        return all(
            trial.state == TrialState.WAITING and str(trial.user_attrs.get("request", "")).startswith("study.enqueue")
            for trial in own
        )

    @property
    def twins(self) -> dict[str, int]:
        """The first trial of each configuration that has a result to give, by the `fingerprint` noted with it."""
        found: dict[str, int] = {}
        for trial in self._memory:
            own = trial.user_attrs.get("fingerprint")
            if own is not None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                found.setdefault(own, trial.number)
        return found

    @property
    def device_s(self) -> float:
        """The device time of all trials, in seconds."""
        return sum(float(trial.user_attrs.get("used", {}).get("device_s", 0.0)) for trial in self._memory)

    @property
    def is_exhausted(self) -> bool:
        """Whether no trial waits and the sampler has nothing left to propose."""
        if self._memory.has_waiting:
            return False
        sampler = self.optuna.sampler
        return sampler.is_done(self.optuna) if isinstance(sampler, Grid) else self.optuna.is_stopped

    # --- inside

    def _own_front(self) -> list[FrozenTrial]:
        """Return the Pareto front of the trials that were not imported."""
        own = [trial for trial in self._memory if state_of(trial) == "complete"]
        return pareto_front(own, self.optuna.directions)

    def _best(self, trial: FrozenTrial) -> Best:
        return Best(number=trial.number, objectives=tuple(trial.values), values=self.space.decode(trial.params))

    def _first_objective(self, trial: FrozenTrial) -> float | None:
        """Return it if it is known; of a pruned trial it is the last report, if that is the same metric."""
        if trial.state == TrialState.PRUNED and self._terms.reported[0] != self.metrics[0]:
            found: float | None = trial.user_attrs.get("metrics", {}).get(self.metrics[0])
            return found
        return trial.values[0] if trial.values else None

    def _end(self, number: int, result: TrialResult, violated: Mapping[str, float]) -> None:
        if result.state != "failed":
            for constraint, violation in violated.items():
                # As Trial.set_constraint does, which a trial that another driver began has no handle for
                self._memory.set_system_attr(number, f"{CONSTRAINT}{constraint}", violation)
        if result.reason:
            self._memory.set_attr(number, "reason", result.reason)
        self._memory.running.discard(number)
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        values = list(result.objectives.values()) or None
        try:
            with warnings.catch_warnings():  # CMA-ES says each time that it takes no notice of constraints
                warnings.filterwarnings("ignore", "Constraints have been set")
                self.optuna.tell(number, values, state=ends.get(result.state, TrialState.FAIL))
        except Exception:  # the end is in memory all the same; a sampler's bookkeeping must not lose it
            if not self._memory[number].state.is_finished():
                raise
            _log.warning("trial %d: the sampler could not take note of its end", number, exc_info=True)
