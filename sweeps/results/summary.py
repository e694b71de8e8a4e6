"""The summary of a study: plain data, filled from the store or by the driver, and the commands to run next.

The end of a sweep in the terminal, the study's page in MLflow and the report all read a `StudySummary`. So they name
the same best trial, count alike and offer the same commands.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sweeps.core import paths
from sweeps.core.text import whole
from sweeps.core.trials import SEM, num_finished
from sweeps.core.urls import store_options
from sweeps.tracking import tags

if TYPE_CHECKING:
    from sweeps.results.rows import TrialRow
    from sweeps.results.run import RunDetail
    from sweeps.results.study import StoredStudy

__all__ = [
    "NO_BEST",
    "BestTrial",
    "NextCommand",
    "StudySummary",
    "next_commands",
    "resume_command",
    "run_commands",
    "summarize",
]

NO_BEST = "There is no best trial: none is complete and satisfies the constraints."


@dataclass(frozen=True, slots=True, kw_only=True)
class BestTrial:
    """One of the best trials of a study.

    Attributes:
        number: The number of the trial.
        objectives: The value of each objective, the leading one first.
        params: The values of the searched keys.
        error: The standard error of the leading objective; 0 for a trial without replicates.
    """

    number: int
    objectives: Mapping[str, float]
    params: Mapping[str, Any]
    error: float = 0.0

    @property
    def value(self) -> float:
        """The leading objective."""
        return next(iter(self.objectives.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """How far a study is, what it has found, and where it is stored.

    Attributes:
        name: The study's name.
        state: running, complete, failed or interrupted; empty if the store does not say.
        objectives: Each metric with `maximize` or `minimize`, the leading one first.
        counts: The number of trials in each state.
        num_infeasible: How many of the complete trials violate a constraint, if known.
        num_trials: The total that the study is to reach; 0 if unknown.
        leaders: The best few trials, the best first; of several objectives the whole Pareto front.
        store_dir: The folder of the store.
        uri: The address of MLflow's store if it is not in that folder.
        is_resumable: Whether this machine has what `lightsweep resume` needs.
    """

    name: str
    state: str
    objectives: Mapping[str, str]
    counts: Mapping[str, int]
    num_infeasible: int = 0
    num_trials: int
    leaders: tuple[BestTrial, ...]
    store_dir: Path
    uri: str | None = None
    is_resumable: bool = True

    @property
    def best(self) -> tuple[BestTrial, ...]:
        """The best trial, or the Pareto front of several objectives; empty if there is none."""
        return self.leaders if len(self.objectives) > 1 else self.leaders[:1]

    @property
    def best_name(self) -> str:
        """What the first of the best trials is called in a sentence."""
        return "The best trial" if len(self.best) == 1 else f"#{self.best[0].number} (first of the front)"

    @property
    def num_finished(self) -> int:
        """How many trials count against the total."""
        return num_finished(self.counts)

    @property
    def has_all(self) -> bool:
        """Whether the study has reached its total."""
        return self.num_finished >= self.num_trials


def summarize(
    study: "StoredStudy", store_dir: Path, *, uri: str | None = None, state: str | None = None
) -> StudySummary:
    """Summarize a study from its store.

    Args:
        study: The study as it was read.
        store_dir: The folder of the store.
        uri: The address of MLflow's store if it is not in that folder.
        state: The state of the study if the store does not have it yet.
    """
    rows = [row for row in study.trials if row.state != "dropped"]
    states = [row.state for row in rows]
    return StudySummary(
        name=study.name,
        state=study.parent.tags.get(tags.STATE, "") if state is None else state,
        objectives=study.objectives,
        counts={state: states.count(state) for state in dict.fromkeys(states)},
        num_infeasible=sum(row.state == "complete" and bool(row.infeasible) for row in rows),
        num_trials=whole(study.parent.params.get("study.num_trials")) or 0,
        leaders=tuple(_best_trial(row, study.objectives) for row in study.best),
        store_dir=store_dir,
        uri=uri,
        is_resumable=(paths.study_dir(store_dir, study.name) / paths.STUDY).is_file(),
    )


def _best_trial(row: "TrialRow", objectives: Mapping[str, str]) -> BestTrial:
    error = row.metrics.get(f"{next(iter(objectives), '')}{SEM}", 0.0)
    return BestTrial(
        number=row.trial or 0,
        objectives={metric: math.nan if (value := row.value_of(metric)) is None else value for metric in objectives},
        params=row.params,
        error=error if math.isfinite(error) else 0.0,
    )


# --- what to type next


class NextCommand(NamedTuple):
    """A command to offer, and what it is for."""

    kind: Literal["compare", "show", "reproduce", "train", "resume", "diff", "ui"]
    purpose: str
    text: str


def next_commands(summary: StudySummary, *, train: NextCommand | None = None) -> list[NextCommand]:
    """Return the commands that make sense for a study as it is, each with the options that find its store.

    Args:
        summary: The study.
        train: The command for its best trial as a single training run, if there is one.
    """
    best, where = shlex.quote(f"best:{summary.name}"), store_options(summary.store_dir, summary.uri)
    found = [_compare(summary.name, where)]
    if summary.best:
        name = summary.best_name
        proof = f"{name} retrained, and the result verified bit for bit"
        found.append(NextCommand("show", f"{name} in detail", f"lightsweep show {best}{where}"))
        found.append(NextCommand("reproduce", proof, f"lightsweep reproduce {best}{where}"))
        found += [] if train is None else [train]
    if summary.is_resumable:
        more = ", up to a larger total" if summary.has_all else ""
        found.append(NextCommand("resume", f"The study resumed{more}", resume_command(summary)))
    return [*found, *_ui(summary.name, where, summary.uri)]


def run_commands(run: "RunDetail", store_dir: Path, uri: str | None, *, is_best: bool) -> list[NextCommand]:
    """Return the commands that make sense for a run; `is_best` unless another trial of its study is the best."""
    where = store_options(store_dir, uri)
    found = [] if run.study is None else [_compare(run.study, where)]
    if run.kind == "trial" and not is_best:
        names = f"{shlex.quote(f'best:{run.study}')} {shlex.quote(run.label)}"
        found.append(NextCommand("diff", "Compared with the best trial", f"lightsweep diff {names}{where}"))
    return [*found, *_ui(run.study, where, uri)]


def resume_command(summary: StudySummary, overrides: Sequence[str] = (), *, migrates: bool = False) -> str:
    """Return the command that resumes a study.

    Args:
        summary: The study.
        overrides: What to change; none for a total twice as large if the study has reached its own.
        migrates: Whether they change the search space.
    """
    if not overrides and summary.has_all:
        overrides = [f"study.num_trials={2 * max(summary.num_trials, summary.num_finished, 1)}"]
    options = f"{store_options(summary.store_dir)}{' --migrate' if migrates else ''}"
    return " ".join([f"lightsweep resume {shlex.quote(summary.name)}{options}", *map(shlex.quote, overrides)])


def _compare(study: str, where: str) -> NextCommand:
    return NextCommand("compare", "All trials, best first", f"lightsweep compare {shlex.quote(study)} --top 10{where}")


def _ui(study: str | None, where: str, uri: str | None) -> list[NextCommand]:
    if (uri or "").startswith("http"):  # a server shows its own pages
        return []
    if study is None:
        return [NextCommand("ui", "All runs in MLflow's UI", f"lightsweep ui{where}")]
    return [NextCommand("ui", "The study in MLflow's UI", f"lightsweep ui {shlex.quote(study)}{where}")]
