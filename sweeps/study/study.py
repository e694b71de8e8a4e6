"""A study that one driver asks and tells."""

import logging
import math
import time
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.errors import ConfigError, StoreError, StudyError, did_you_mean
from sweeps.search import Ask, EndState, Told, Verdict
from sweeps.space import Space
from sweeps.study.grid import Grid
from sweeps.study.identity import create_or_check
from sweeps.study.proposing import propose
from sweeps.study.reasons import why_pruned
from sweeps.study.record import Record
from sweeps.study.storage import storage_errors
from sweeps.study.tally import Tally

__all__ = ["Best", "Study"]

_log = logging.getLogger(__name__)

Direction = Literal["maximize", "minimize"]


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
    """An Optuna study whose samplers may say stop although no `optimize` loop runs."""

    is_stopped = False

    def stop(self) -> None:
        """Remember that the sampler has nothing left to try."""
        self.is_stopped = True


class Study:
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
        directions: Sequence[StudyDirection],
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner,
        seed: int | None = None,
        flush_interval_s: float = 1.0,
    ) -> None:
        """Load all trials; use `create_or_load`, which checks that the study is the same."""
        self.name = name
        self.space = space
        self._seed = seed
        self._storage = storage
        self._record = Record(storage, study_id)
        self._memory = InMemoryStorage()
        self._memory_id = self._memory.create_new_study(list(directions), name)
        for key, value in self._record.attrs.items():
            self._memory.set_study_system_attr(self._memory_id, key, value)
        self.optuna = _AskTellStudy(name, self._memory, sampler, pruner)
        self._tally = Tally(self._frozen, _state)
        self._running: dict[int, optuna.Trial] = {}
        self._unwritten: set[int] = set()  # trials whose last change is not in the database
        self._flush_interval_s = flush_interval_s
        self._flushed_at_s = time.monotonic()
        self._learn_of_new_trials()

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
            seed: Of the sampler; None takes other random numbers each time.
            flush_interval_s: How long a report may wait to be written, in seconds.

        Raises:
            StudyError: A study of this name has another space, direction or metric; one line for each.
            ConfigError: A direction is neither `maximize` nor `minimize`.
        """
        directions = _directions(direction)
        metrics = [metric] if isinstance(metric, str) else list(metric)
        if len(metrics) != len(directions):
            raise ConfigError(
                f"study.direction: one direction for each metric, but got {len(directions)} for {metrics}."
            )
        with storage_errors(storage):
            return cls(
                name=name,
                storage=storage,
                study_id=create_or_check(storage, name, directions=directions, space=space, metrics=metrics),
                directions=directions,
                space=space,
                sampler=sampler,
                pruner=pruner or optuna.pruners.NopPruner(),
                seed=seed,
                flush_interval_s=flush_interval_s,
            )

    # --- asking and telling

    def ask(self) -> Ask:
        """Start a trial: one that was interrupted or enqueued, or else one that the sampler proposes.

        Raises:
            StudyError: The grid is exhausted, or another program started trials in this study.
            StoreError: The database does not answer.
        """
        self._sync()
        if self.is_exhausted:
            raise StudyError(f"Study {self.name!r} has tried every point of its space. Widen the space.")
        if self._seed is not None:
            _reseed(self.optuna.sampler, f"{self._seed}/{self._num_trials()}")
        try:
            trial = propose(self.optuna, self.space, self._seed)
        except Exception as exc:
            self._close_half_asked(exc)
            raise
        self._running[trial.number] = trial
        frozen = self._frozen(trial.number)
        self._save(trial.number)
        return Ask(number=trial.number, values=self.space.decode(frozen.params))

    def report(self, number: int, value: float, step: int) -> Verdict:
        """Take an intermediate value of a running trial and judge it.

        A step that was reported before keeps its first value.
        """
        trial = self._running.get(number)
        if trial is None:
            return Verdict(prune=True, reason=f"trial {number} is closed already")
        if len(self.optuna.directions) > 1:
            return Verdict(prune=False, reason="a study of several objectives prunes nothing")
        if step not in self._frozen(number).intermediate_values:
            trial.report(float(value), step)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")  # numpy's word for a trial that diverged
            prune = bool(trial.should_prune())
        reason = why_pruned(self.optuna.pruner, self.optuna, self._frozen(number)) if prune else ""
        if time.monotonic() - self._flushed_at_s >= self._flush_interval_s:
            try:
                self._save(is_patient=False)
            except StoreError as exc:  # reports can wait, and the trials go on meanwhile
                _log.warning("%s", exc)
                self._flushed_at_s = time.monotonic()
        return Verdict(prune=prune, reason=reason)

    def flush(self) -> None:
        """Write the reports that wait to be written, if the database answers."""
        try:
            self._save(is_patient=False)
        except StoreError as exc:
            _log.warning("%s", exc)

    def tell(
        self, number: int, state: EndState, value: float | Sequence[float] | None = None, reason: str = ""
    ) -> Told:
        """End a trial.

        Args:
            number: The trial's number.
            state: An `interrupted` trial does not count; it waits, and the next `ask` returns it again.
            value: The objective, or several; only for `complete`. A pruned trial has its last report.
            reason: Why it did not complete, kept with the trial.

        Returns:
            What was recorded: `complete` becomes `failed` if a value is missing or not finite.

        Raises:
            StudyError: The trial does not run.
            StoreError: The database does not answer; the end is kept in memory for the next write.
        """
        if number >= self._num_trials() or self._frozen(number).state != TrialState.RUNNING:
            raise StudyError(f"Trial {number} of study {self.name!r} does not run, so it cannot end as {state}.")
        values: list[float] | None = None
        if state == "complete":
            values, wrong = self._finite(value)
            if wrong:
                state, values, reason = "failed", None, wrong
        if state == "interrupted":
            self._suspend(number, reason)
        else:
            self._end(number, state, values, reason)
        self._save(number, is_durable=True)
        return Told(state=state, reason=reason)

    def enqueue(self, values: Mapping[str, Any]) -> int:
        """Queue a trial with these values; the sampler chooses those that are missing.

        Returns:
            The trial's number.

        Raises:
            SpaceError: A key or a value is not in the space.
        """
        self._sync()
        self.optuna.enqueue_trial(self.space.encode(values))
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
        """The best complete trial; None before the first.

        Raises:
            StudyError: The study has several objectives.
        """
        if len(self.optuna.directions) > 1:
            raise StudyError("A study of several objectives has no single best trial. Read `best_trials`.")
        try:
            return self._best(self.optuna.best_trial)
        except ValueError:
            return None

    @property
    def best_trials(self) -> list[Best]:
        """The best complete trial, or the Pareto front of several objectives."""
        if len(self.optuna.directions) == 1:
            return [] if self.best is None else [self.best]
        return [self._best(trial) for trial in self.optuna.best_trials]

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are complete, pruned, failed, interrupted, running and waiting."""
        states = dict.fromkeys((*get_args(EndState), "running", "waiting"), 0)
        return states | self._tally.counts(self._num_trials())

    def end_of(self, number: int) -> tuple[EndState, float | None, str] | None:
        """Return how a trial ended, with its objective and the reason; None if it is unknown or has not ended."""
        if not 0 <= number < self._num_trials() or not self._frozen(number).state.is_finished():
            return None
        trial = self._frozen(number)
        state: EndState = _state(trial)  # type: ignore[assignment]
        value = trial.value if state in ("complete", "pruned") else None
        return state, value, str(trial.user_attrs.get("reason", ""))

    @property
    def num_finished(self) -> int:
        """How many trials count against `study.num_trials`: all that ended, but for interrupted ones."""
        counts = self.counts
        return counts["complete"] + counts["pruned"] + counts["failed"]

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

    def _frozen(self, number: int) -> FrozenTrial:
        return self._memory.get_trial(self._memory.get_trial_id_from_study_id_trial_number(self._memory_id, number))

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

    def _finite(self, value: float | Sequence[float] | None) -> tuple[list[float] | None, str]:
        many = [value] if not isinstance(value, Sequence) else list(value)
        try:
            values = [float(number) for number in many]  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None, f"the objective must be a number, but is {value!r}"
        if len(values) != len(self.optuna.directions):
            return (
                None,
                f"the study has {len(self.optuna.directions)} objectives, but got {len(values)} values",
            )
        wrong = [number for number in values if not math.isfinite(number)]
        return values, f"the objective must be finite, but is {wrong[0]}" if wrong else ""

    def _end(self, number: int, state: EndState, values: list[float] | None, reason: str) -> None:
        trial_id = self._frozen(number)._trial_id
        if reason:
            self._memory.set_trial_user_attr(trial_id, "reason", reason)
        self._running.pop(number, None)
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        try:
            self.optuna.tell(number, values, state=ends.get(state, TrialState.FAIL))
        except Exception:  # the end is in memory all the same; a sampler's bookkeeping must not lose it
            if not self._frozen(number).state.is_finished():
                raise
            _log.warning("trial %d: the sampler could not take note of its end", number, exc_info=True)

    def _suspend(self, number: int, reason: str) -> None:
        """Let a trial wait, with its number, values and reports, until it is asked for again."""
        trial_id = self._frozen(number)._trial_id
        self._memory.set_trial_user_attr(trial_id, "interrupted", reason)
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


def _directions(direction: str | Sequence[str]) -> list[StudyDirection]:
    names = [direction] if isinstance(direction, str) else list(direction)
    for name in names:
        if name not in get_args(Direction):
            raise ConfigError(f"study.direction: {name!r} is none. {did_you_mean(name, get_args(Direction))}")
    return [StudyDirection[name.upper()] for name in names]


def _reseed(sampler: BaseSampler, source: str) -> None:
    """Set every random state of the sampler, and of the samplers inside it, from `source`."""
    for key, value in vars(sampler).items():
        if isinstance(value, LazyRandomState):
            value.rng.seed(zlib.crc32(f"{source}/{key}".encode()))
        elif isinstance(value, BaseSampler):
            _reseed(value, f"{source}/{key}")


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.WAITING and "interrupted" in trial.user_attrs:
        return "interrupted"
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
