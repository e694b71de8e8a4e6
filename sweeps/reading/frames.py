"""Trials, and the histories of their metrics, as frames for notebooks.

Columns are called as in MLflow's `search_runs` (`params.KEY`, `metrics.KEY`) and Optuna's `trials_dataframe` (`number`,
`value`, `state`). Numbers are numbers, times know that they are UTC, and what a trial does not have is missing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.core.urls import default_uri
from sweeps.reading.histories import History
from sweeps.reading.queries import trial_rows
from sweeps.reading.trial_row import TrialRow

if TYPE_CHECKING:  # half a second to import
    import pandas as pd

__all__ = ["histories_to_frame", "rows_to_frame", "runs_frame"]


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
