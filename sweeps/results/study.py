"""A recorded study for notebooks: its trials, search space, best trial, and frames of trials and metric histories.

It is read from MLflow's tables or a server. Optuna's database is not needed, so a study of another machine can be read
with the address of the store alone. Columns of frames are named as in MLflow's `search_runs` (`params.KEY`,
`metrics.KEY`) and Optuna's `trials_dataframe` (`number`, `value`, `state`). Times are in UTC, and absent values are
missing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.core.errors import LightsweepError, StudyError, UsageError, did_you_mean
from sweeps.core.text import whole
from sweeps.core.urls import default_uri
from sweeps.results.histories import History, mean_history
from sweeps.results.queries import trial_rows
from sweeps.results.reader import RunReader, open_reader
from sweeps.results.rows import TrialRow, best_rows, current_rows, to_rows
from sweeps.tracking import tags
from sweeps.tracking.runs import ServerRun, StoredRun

if TYPE_CHECKING:  # pandas and Hydra's parser take time to import
    import pandas as pd

    from sweeps.search.space.space import Space
if TYPE_CHECKING:  # half a second to import
    import pandas as pd

__all__ = ["StoredStudy", "histories_to_frame", "load_study", "rows_to_frame", "runs_frame"]

_SEARCH = "search."
_NOT_SEARCHED = "not searched"  # what `earlier.record_move` says of a key that the space has no more


def load_study(name: str, *, store_dir: Path | str = "mlruns", uri: str | None = None) -> "StoredStudy":
    """Read a study.

    Args:
        name: As `study.name` was.
        store_dir: The folder with the store, unless `uri` is given.
        uri: The address of the store: of a database, or of an MLflow server.

    Raises:
        StoreError: The store cannot be opened or read.
        StudyError: It has no such study, or not the study's own run; names the nearest.
    """
    uri = uri or default_uri(Path(store_dir))
    with open_reader(uri) as reader:
        runs = reader.runs_with({tags.STUDY: name}, with_metrics=True)
        parents = [run for run in runs if run.tags.get(tags.KIND) == "study"]
        if not parents:
            raise _missing(name, reader, bool(runs))
        parent = reader.run(parents[-1].run_id)
        trials = [run for run in runs if run.tags.get(tags.KIND) == "trial"]
        rows = to_rows(trials)
    return StoredStudy(uri=uri, name=name, parent=parent, rows=rows, replicates=_replicates(runs))


class StoredStudy:
    """A study as it was when it was read; the histories of metrics are read when they are asked for.

    Attributes:
        uri: The store's address.
        name: The study's.
        parent: Its own run.
        trials: By number. Of a trial that was begun anew, the run that is in force; what a migration has dropped is
            among them, with the state `dropped`.
        objectives: Metric to `maximize` or `minimize`; the leading one first.
    """

    def __init__(
        self,
        *,
        uri: str,
        name: str,
        parent: StoredRun,
        rows: Sequence[TrialRow],
        replicates: Mapping[int, Sequence[str]],
    ) -> None:
        self.uri = uri
        self.name = name
        self.parent = parent
        self.trials = current_rows(rows)
        self.objectives = _objectives(parent, self.trials)
        self._replicates = replicates

    def __repr__(self) -> str:
        return f"StoredStudy({self.name!r}, {len(self.trials)} trials)"

    @cached_property
    def space(self) -> "Space | None":
        """What is searched, after the last migration; None if the store does not tell, or not in full."""
        from sweeps.search.space.declare import parse_space

        try:
            space = parse_space(_expressions(self.parent))
        except LightsweepError:
            return None
        # MLflow's names of params lack the marks of `optimizer.lr@sgd` and `model.width[0]`
        searched = {key for row in self.trials if row.state != "dropped" for key in row.params}
        return space if len(space) and searched <= set(space.keys) else None

    @cached_property
    def best(self) -> list[TrialRow]:
        """The best trial, the earliest of equals; of several objectives the Pareto front, by the leading one.

        Only trials that are complete and satisfy the constraints; empty if there is none.
        """
        return best_rows(self.trials, self.objectives)

    def histories(self, metric: str) -> dict[int, History]:
        """Return the history of a metric by the trial's number; trials that have none are left out.

        Of a trial that is trained several times, the mean over its trainings at each step that one of them has.

        Raises:
            StoreError: The store cannot be read any more.
        """
        return self._histories([metric])[metric]

    def trials_frame(self) -> "pd.DataFrame":
        """Return a row for each trial, by number.

        | column | what it is |
        |---|---|
        | `number`, `state` | as in `trials`; the state `dropped` is among them |
        | `value` | the study's metric at the best checkpoint; NaN until the trial has ended |
        | `values.METRIC`, `is_on_front` | of several objectives: each at the best checkpoint; the Pareto front |
        | `began`, `duration_s` | a time in UTC, and seconds; missing while it runs |
        | `slot` | the slot it ran in; missing for a trial of several trainings |
        | `params.KEY` | the searched parameters with their types; missing where a trial does not have one |
        | `metrics.KEY` | the last value of each metric |
        | `reason`, `infeasible` | why it ended early, and which constraints it violates; empty if nothing of the kind |
        | `name`, `run_id` | of MLflow's run |
        """
        from sweeps.results.study import rows_to_frame

        return rows_to_frame(self.trials).drop(columns=["study", "metric", "direction"])

    def histories_frame(self, metrics: Sequence[str] | str = ()) -> "pd.DataFrame":
        """Return a row for each point of metrics: `trial`, `metric`, `step`, `value`, and `time` in UTC.

        They come by trial, then by metric in the order given, then by step. Of trials that are trained several times
        see `histories`.

        Args:
            metrics: Names; none for all that the trials have.

        Raises:
            StoreError: The store cannot be read any more.
            UsageError: No trial has such a metric; names the nearest.
        """
        from sweeps.results.study import histories_to_frame

        known = sorted({key for row in self.trials for key in row.metrics})
        names = [metrics] if isinstance(metrics, str) else list(metrics)
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known) or "The study has no metrics yet."
                raise UsageError(f"No trial of {self.name!r} has a metric {name!r}. {hint}")
        return histories_to_frame(self._histories(names or known))

    def _histories(self, metrics: Sequence[str]) -> dict[str, dict[int, History]]:
        sources = {row.trial: [row.run_id] for row in self.trials if row.trial is not None}
        replicated = {number: list(self._replicates.get(number, ())) for number in sources}
        run_ids = [run_id for number in sources for run_id in (*sources[number], *replicated[number])]
        with open_reader(self.uri) as reader:
            found = reader.histories(run_ids, metrics)
        return {metric: _by_trial(found.get(metric, {}), sources, replicated) for metric in metrics}


def _by_trial(
    of_runs: Mapping[str, History], own: Mapping[int, Sequence[str]], replicates: Mapping[int, Sequence[str]]
) -> dict[int, History]:
    """Return the histories of trials; the run of one with replicates has only the means of their ends."""
    found = {}
    for number in own:
        parts = [of_runs[run_id] for run_id in replicates[number] if run_id in of_runs]
        parts = parts or [of_runs[run_id] for run_id in own[number] if run_id in of_runs]
        if parts:
            found[number] = mean_history(parts)
    return found


def _missing(name: str, reader: RunReader, has_runs: bool) -> StudyError:
    if has_runs:
        return StudyError(
            f"The study {name!r} has trials, but its own run is not there: restore it in MLflow, where it was deleted, "
            f"or let `lightsweep resume {name}` make another."
        )
    hint = did_you_mean(name, reader.studies()) or "The store holds no study yet."
    return StudyError(f"There is no study {name!r}. {hint}")


def _replicates(runs: Iterable[ServerRun]) -> dict[int, list[str]]:
    """Return the newest run of each replicate by the number of its trial; the runs are the oldest first."""
    found: dict[int, dict[str, str]] = {}
    for run in runs:
        number = whole(run.tags.get(tags.TRIAL))
        if run.tags.get(tags.KIND) == "replicate" and number is not None and tags.REPLICATE in run.tags:
            found.setdefault(number, {})[run.tags[tags.REPLICATE]] = run.run_id
    return {number: list(of.values()) for number, of in found.items()}


def _objectives(parent: StoredRun, trials: Sequence[TrialRow]) -> dict[str, str]:
    several = _mapping(parent.tags.get(tags.OBJECTIVES))
    if several:
        return several
    metric = parent.tags.get(tags.METRIC)
    if metric:
        return {metric: parent.tags.get(tags.DIRECTION, "maximize")}
    return trials[-1].objectives if trials else {}


def _expressions(parent: StoredRun) -> dict[str, str]:
    """Return what `Space.describe` gave when the study began or was moved."""
    exact = _mapping(parent.tags.get(tags.SPACE))
    if exact:
        return exact
    found = {
        key.removeprefix(_SEARCH): text
        for key, text in {**parent.params, **parent.tags}.items()
        if key.startswith(_SEARCH)
    }
    return {key: text for key, text in found.items() if text != _NOT_SEARCHED}


def _mapping(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):  # cut at the store's limit, or not ours
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def runs_frame(
    studies: Sequence[str] = (), *, store_dir: Path | str = "mlruns", uri: str | None = None
) -> "pd.DataFrame":
    """Return the trials of several studies, or of all with every `train`, in the order in which they began.

    The columns are those of `StoredStudy.trials_frame`, `study`, and `metric` and `direction`, by which each is judged;
    a `train` has no study and no number. Runs that were begun anew are all there.

    Args:
        studies: Names; none for all.
        store_dir: The folder with the store, unless `uri` is given.
        uri: The address of the store: of a database, or of an MLflow server.

    Raises:
        StoreError: The store cannot be opened or read.
        StudyError: There is no such study; names the nearest.
    """
    names = [studies] if isinstance(studies, str) else studies
    return rows_to_frame(trial_rows(uri or default_uri(Path(store_dir)), names))


def rows_to_frame(rows: Sequence[TrialRow]) -> "pd.DataFrame":
    """Return a row for each trial; see `StoredStudy.trials_frame` for the columns."""
    import pandas as pd

    objectives = list(dict.fromkeys(key for row in rows if len(row.objectives) > 1 for key in row.objectives))
    params = list(dict.fromkeys(key for row in rows for key in row.params))
    metrics = sorted({key for row in rows for key in row.metrics})
    columns: dict[str, Any] = {
        "study": _texts([row.study for row in rows]),
        "number": _column([row.trial for row in rows], "Int64"),
        "state": _texts([row.state for row in rows]),
        "metric": _texts([row.metric for row in rows]),
        "direction": _texts([row.direction for row in rows]),
        "value": pd.Series([row.value for row in rows], dtype="float64"),
    }
    for key in objectives:
        columns[f"values.{key}"] = pd.Series([row.values.get(key) for row in rows], dtype="float64")
    if objectives:
        columns["is_on_front"] = pd.Series([row.is_on_front for row in rows], dtype="bool")
    began_ms = pd.Series([row.began_ms for row in rows], dtype="Int64")
    columns |= {
        "began": pd.to_datetime(began_ms, unit="ms", utc=True),
        "duration_s": pd.Series([row.duration_s for row in rows], dtype="float64"),
        "slot": _column([row.slot for row in rows], "Int64"),
    }
    for key in params:
        columns[f"params.{key}"] = _column([row.params.get(key) for row in rows])
    for key in metrics:
        columns[f"metrics.{key}"] = pd.Series([row.metrics.get(key) for row in rows], dtype="float64")
    for key in ("reason", "infeasible", "name", "run_id"):
        columns[key] = _texts([getattr(row, key) for row in rows])
    return pd.DataFrame(columns)


def histories_to_frame(histories: Mapping[str, Mapping[int, History]]) -> "pd.DataFrame":
    """Return a row for each point of histories by metric and trial; see `StoredStudy.histories_frame`."""
    import numpy as np
    import pandas as pd

    parts = [(number, metric, history) for metric, of in histories.items() for number, history in of.items()]
    parts.sort(key=lambda part: part[0])
    lengths = [len(history) for _, _, history in parts]

    def joined(arrays: list[Any], dtype: str) -> Any:
        return np.concatenate(arrays) if arrays else np.array([], dtype=dtype)

    times_ms = joined([history.times_s * 1000 for _, _, history in parts], "float64").round().astype("int64")
    codes = {metric: code for code, metric in enumerate(histories)}
    metrics = np.repeat([codes[metric] for _, metric, _ in parts] or [0], lengths or [0])
    return pd.DataFrame(
        {
            "trial": np.repeat(np.array([number for number, _, _ in parts], dtype="int64"), lengths),
            "metric": pd.Categorical.from_codes(metrics, categories=list(histories)),
            "step": joined([history.steps for _, _, history in parts], "int64"),
            "value": joined([history.values for _, _, history in parts], "float64"),
            "time": pd.to_datetime(times_ms, unit="ms", utc=True),
        }
    )


def _texts(values: Sequence[str | None]) -> "pd.Series[Any]":
    import pandas as pd

    return pd.Series(values, dtype="object" if pd.__version__.startswith("2.") else "str")


def _column(values: Sequence[Any], dtype: str = "") -> "pd.Series[Any]":
    """Return values as what they all are: whole numbers, numbers, truths, texts, or just objects; None is missing."""
    import pandas as pd

    kinds = set(map(type, values)) - {type(None)}
    has_gaps = any(value is None for value in values)
    if kinds == {bool}:
        dtype = "boolean" if has_gaps else "bool"
    elif kinds == {int} or dtype == "Int64":
        dtype = "Int64" if has_gaps or not kinds else "int64"
    elif kinds and kinds <= {int, float}:
        dtype = "float64"
    elif kinds == {str}:
        return _texts(values)
    else:
        dtype = "object"
    try:
        return pd.Series(values, dtype=dtype)
    except OverflowError:  # a whole number that is none in 64 bits
        return pd.Series(values, dtype="object")
