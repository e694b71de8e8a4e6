"""Read runs from an MLflow tracking server, whose tables are out of reach: slower than SQL, and the same runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.errors import StoreError
from sweeps.urls import hide_password

__all__ = ["ServerRun", "give_up_soon", "is_server", "server_runs"]

_PAGE = 1000
_FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRun:
    """A run as the store has it; times are milliseconds since the epoch."""

    run_id: str
    name: str
    status: str
    start_ms: int | None
    end_ms: int | None
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def is_server(uri: str) -> bool:
    """Tell whether `uri` is the address of an MLflow server rather than a database."""
    return uri.startswith(("http://", "https://"))


def give_up_soon() -> None:
    """Have MLflow's client give up soon on a server that does not answer; who calls it tries again if need be.

    The environment is the only place that the client reads this from; what the user has set there stays.
    """
    for name, value in _FEW_RETRIES.items():
        os.environ.setdefault(name, value)


def server_runs(uri: str, filter_string: str) -> list[ServerRun]:
    """Return the active runs of all experiments that pass MLflow's filter.

    Raises:
        StoreError: The server does not answer, or not as MLflow does.
    """
    import logging

    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "urllib3"):  # after the import, which sets them to talk
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        give_up_soon()
        client = MlflowClient(uri)
        experiments = [str(found.experiment_id) for found in _pages(client.search_experiments)]
        runs = (
            _pages(client.search_runs, experiment_ids=experiments, filter_string=filter_string) if experiments else []
        )
    except (MlflowException, OSError, ValueError) as error:
        raise StoreError(f"The server {hide_password(uri)} {_why(error)}") from error
    return [
        ServerRun(
            run_id=run.info.run_id,
            name=run.info.run_name or "",
            status=run.info.status,
            start_ms=run.info.start_time,
            end_ms=run.info.end_time,
            tags=run.data.tags,
            metrics=run.data.metrics,
        )
        for run in runs
    ]


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
