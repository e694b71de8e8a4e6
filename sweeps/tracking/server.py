"""Read runs from an MLflow tracking server, whose tables cannot be reached by SQL: slower, with the same results."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sweeps.core.errors import StoreError
from sweeps.core.urls import hide_password
from sweeps.tracking import tags
from sweeps.tracking.names import looked_up_name, shown_metrics, shown_name, shown_tags
from sweeps.tracking.runs import Artifact, ServerRun, StoredRun

__all__ = ["Point", "ServerReader", "give_up_soon", "server_runs"]

Point = tuple[int, int, float]

_PAGE = 1000
_FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


def give_up_soon() -> None:
    """Have MLflow's client give up soon on a server that does not respond; who calls it tries again if need be.

    The environment is the only place that the client reads this from; what the user has set there stays.
    """
    for name, value in _FEW_RETRIES.items():
        os.environ.setdefault(name, value)


def server_runs(uri: str, filter_string: str) -> list[ServerRun]:
    """Return the active runs of all experiments that pass MLflow's filter.

    Raises:
        StoreError: The server does not respond, or not as MLflow does.
    """
    with _client(uri) as client:
        return _search(client, filter_string)


class ServerReader:
    """Reads single runs from a server; as `run_reader.SqlReader` does from a database."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def studies(self) -> set[str]:
        """Return the names of all studies."""
        runs = server_runs(self._uri, f"tags.`{tags.KIND}` = 'study'")
        return {run.tags[tags.STUDY] for run in runs if tags.STUDY in run.tags}

    def ids_from(self, prefix: str) -> list[str]:
        """Return the ids of the active runs that begin with hexadecimal digits."""
        return sorted(run.run_id for run in server_runs(self._uri, f"attributes.run_id like '{prefix}%'"))

    def runs_with(self, run_tags: Mapping[str, str], *, with_metrics: bool = False) -> list[ServerRun]:
        """Return the active runs that have these tags, the oldest first; their metrics always come with them."""
        # MLflow's filters know no escape for a quote, so that it stands as any character and is compared here.
        clauses = (f"tags.`{key}` like '{_pattern(value)}'" for key, value in run_tags.items())
        found = server_runs(self._uri, " and ".join(clauses))
        same = [run for run in found if all(run.tags.get(key) == value for key, value in run_tags.items())]
        return sorted(same, key=lambda run: (run.start_ms or 0, run.run_id))

    def run(self, run_id: str) -> StoredRun:
        """Return a run with its tags, params and last metrics."""
        with _client(self._uri) as client:
            found = client.get_run(run_id)
        plain = _plain(found)
        return StoredRun(
            **{name: getattr(plain, name) for name in ServerRun.__slots__},
            params={shown_name(key): value for key, value in found.data.params.items()},
            artifact_uri=found.info.artifact_uri,
        )

    def points(self, run_id: str, metrics: Sequence[str]) -> dict[str, list[Point]]:
        """Return the points of metrics of a run, by one request each.

        A point is a step, a time in milliseconds and a value.
        """
        with _client(self._uri) as client:
            return {metric: _points(client, run_id, metric) for metric in metrics}

    def artifacts(self, run: StoredRun) -> list[Artifact]:
        """List the artifacts of a run."""
        from sweeps.tracking.artifacts import list_artifacts

        return list_artifacts(run, self._uri)

    def read_artifact(self, run: StoredRun, name: str) -> bytes | None:
        """Return the content of an artifact that lies directly below the run's; None if there is none."""
        from sweeps.tracking.artifacts import read_artifact

        return read_artifact(run, name, self._uri)


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    import logging

    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "urllib3"):  # after the import, which sets them to talk
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        give_up_soon()
        yield MlflowClient(uri)
    except (MlflowException, OSError, ValueError) as error:
        raise StoreError(f"The server {hide_password(uri)} {_why(error)}") from error


def _search(client: Any, filter_string: str) -> list[ServerRun]:
    experiments = [str(found.experiment_id) for found in _pages(client.search_experiments)]
    if not experiments:
        return []
    runs = _pages(client.search_runs, experiment_ids=experiments, filter_string=filter_string)
    return [_plain(run) for run in runs]


def _plain(run: Any) -> ServerRun:
    return ServerRun(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        status=run.info.status,
        start_ms=run.info.start_time,
        end_ms=run.info.end_time,
        tags=shown_tags(run.data.tags),
        metrics=shown_metrics(run.data.metrics),
    )


def _points(client: Any, run_id: str, metric: str) -> list[Point]:
    history = client.get_metric_history(run_id, looked_up_name(metric))
    return [(point.step, point.timestamp, point.value) for point in history]


def _pattern(value: str) -> str:
    return re.sub(r"['\\]", "_", value)


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Max retries exceeded" in text:
        return "does not answer. Check that it runs, and its address."
    return f"does not answer as MLflow does: {text[:200]}"


def _pages(search: Any, **arguments: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = search(**arguments, max_results=_PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
