"""Read runs from an MLflow tracking server, whose tables are out of reach: slower than SQL, and the same runs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sweeps.errors import StoreError
from sweeps.urls import hide_password

__all__ = ["ServerRun", "few_retries", "is_server", "server_runs"]

_PAGE = 1000
_FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}  # for a person who waits


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


@contextmanager
def few_retries() -> Iterator[None]:
    """Have MLflow's client give up soon on a server that does not answer: it reads this from nowhere else."""
    added = [name for name in _FEW_RETRIES if name not in os.environ]
    os.environ.update({name: _FEW_RETRIES[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


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
        with few_retries():
            client = MlflowClient(uri)
            experiments = [str(found.experiment_id) for found in _pages(client.search_experiments)]
            runs = (
                _pages(client.search_runs, experiment_ids=experiments, filter_string=filter_string)
                if experiments
                else []
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
