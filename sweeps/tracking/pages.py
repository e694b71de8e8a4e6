"""Where MLflow's pages show what a recorder has written: relative addresses, good on whatever host serves them."""

import hashlib
from collections.abc import Mapping
from urllib.parse import quote

__all__ = ["PARENT", "Pages", "RunKey", "runs_page", "view_key"]

RunKey = str | int
"""A run as the driver calls it: `study`, the number of a trial, or `TRIAL/REPLICATE`."""
PARENT: RunKey = "study"
"""the run of a study"""

_TRAINING = "workflowType=machine_learning"  # else MLflow shows its pages for language models


class Pages:
    """The pages of the runs of one experiment.

    Args:
        experiment_id: The experiment.
        run_ids: The runs that are in the store, by what the driver calls them.
    """

    def __init__(self, experiment_id: str, run_ids: Mapping[RunKey, str]) -> None:
        self._experiment_id = experiment_id
        self._run_ids = run_ids

    def run(self, run: RunKey) -> str | None:
        """Return the page of a run; None if it is not in the store."""
        if run not in self._run_ids:
            return None
        return f"#/experiments/{self._experiment_id}/runs/{self._run_ids[run]}?{_TRAINING}"

    def artifact(self, run: RunKey, path: str) -> str | None:
        """Return the page that shows an artifact of a run."""
        if run not in self._run_ids:
            return None
        page = f"#/experiments/{self._experiment_id}/runs/{self._run_ids[run]}/artifacts/{quote(path)}"
        return f"{page}?{_TRAINING}"

    def study(self, name: str, *, is_chart: bool = False) -> str:
        """Return the page of the trials of a study, in the view that was saved for it."""
        return runs_page(self._experiment_id, view_key(name), is_chart=is_chart)


def runs_page(experiment_id: str, key: str | None = None, *, is_chart: bool = False) -> str:
    """Return the page of the runs of an experiment, in the saved view of this key."""
    options = [_TRAINING]
    if key is not None:
        options.append(f"viewStateShareKey={key}")
    if is_chart:
        options.append("compareRunsMode=CHART")
    return f"#/experiments/{experiment_id}/runs?{'&'.join(options)}"


def view_key(study: str) -> str:
    """Return the key of the view that is saved for a study."""
    return f"lightsweep-{hashlib.sha256(study.encode()).hexdigest()[:16]}"
