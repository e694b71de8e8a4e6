"""Optuna's dashboard over a study's storage, as an application for a web server."""

from collections.abc import Callable, Iterable
from typing import Any

from sweeps.core.errors import UsageError
from sweeps.study.storage import open_storage

__all__ = ["dashboard"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def dashboard(storage_url: str, study: str | None = None) -> tuple[Application, str]:
    """Return the dashboard, and the path of its page of a study.

    Raises:
        UsageError: The package is not installed.
        StoreError: The storage cannot be opened.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UsageError(
            f"--optuna needs Optuna's dashboard, which is not installed ({error}): pip install 'lightsweep[dashboard]'."
        ) from error
    storage = open_storage(storage_url)
    numbers = {found.study_name: found._study_id for found in storage.get_all_studies()}
    page = f"/dashboard/studies/{numbers[study]}" if study in numbers else "/dashboard"
    application: Application = wsgi(storage)
    return application, page
