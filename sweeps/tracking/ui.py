"""MLflow's pages of a study: their addresses, and the saved view that they open.

`Pages` has the addresses of runs that the recorder knows; `study_pages` reads those of a study from the store. All are
relative to the address of the server.

`saved_view` returns the view of a study: its columns, the order of its runs, its charts. MLflow stores a shared view as
a tag of the experiment, lists it by its name, and shows it on a page whose address names the tag. The format of the tag
is that of `savedViewEnvelope.ts` and `ExperimentPageUIState.tsx` in MLflow's front end; a test opens it in a browser.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from sweeps.core.errors import StudyError, did_you_mean
from sweeps.tracking import tags
from sweeps.tracking.database import RUNS, TAGS, connected
from sweeps.tracking.names import shown_name, stored_name

__all__ = [
    "PARENT",
    "VIEW",
    "Pages",
    "RunKey",
    "StudyPages",
    "is_untouched",
    "runs_page",
    "saved_view",
    "study_pages",
    "view_key",
]

RunKey = str | int
"""The driver's name of a run: `study`, the number of a trial, or `TRIAL/REPLICATE`."""
PARENT: RunKey = "study"
"""the run of a study"""

_TRAINING = "workflowType=machine_learning"  # else MLflow shows the pages for language models


class Pages:
    """The pages of the runs of one experiment.

    Args:
        experiment_id: The experiment.
        run_ids: The ids of the runs in the store, by the driver's names.
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
        """Return the page of the trials of a study, in its saved view."""
        return runs_page(self._experiment_id, view_key(name), is_chart=is_chart)


def runs_page(experiment_id: str, key: str | None = None, *, is_chart: bool = False) -> str:
    """Return the page of the runs of an experiment, in the saved view with this key."""
    options = [_TRAINING]
    if key is not None:
        options.append(f"viewStateShareKey={key}")
    if is_chart:
        options.append("compareRunsMode=CHART")
    return f"#/experiments/{experiment_id}/runs?{'&'.join(options)}"


def view_key(study: str) -> str:
    """Return the key of the saved view of a study."""
    return f"lightsweep-{hashlib.sha256(study.encode()).hexdigest()[:16]}"


# --- the pages of a study in a store

_EXPERIMENT = sa.table("runs", sa.column("run_uuid"), sa.column("experiment_id")).alias("experiment_of")
_EXPERIMENT_TAGS = sa.table("experiment_tags", sa.column("experiment_id"), sa.column("key"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPages:
    """The pages of a study, relative to the address of the server.

    Attributes:
        study: The name of the study; None for the page of all studies.
        front: The page of the study, or of all studies.
        trials: The page of its trials, best first.
        charts: The page of their charts.
    """

    study: str | None
    front: str
    trials: str | None = None
    charts: str | None = None


def study_pages(uri: str, study: str | None = None) -> StudyPages:
    """Find the pages of a study.

    Args:
        uri: The address of MLflow's database.
        study: The name of the study; None for the one that was driven last, or for no study if the store has none.

    Raises:
        StoreError: The store cannot be opened, or it is not a store of MLflow.
        StudyError: There is no such study; the message names the nearest.
    """
    kind, name = TAGS.alias("kind"), TAGS.alias("study")
    query = (
        sa.select(RUNS.c.run_uuid, name.c.value, _EXPERIMENT.c.experiment_id)
        .join(kind, sa.and_(kind.c.run_uuid == RUNS.c.run_uuid, kind.c.key == tags.KIND, kind.c.value == "study"))
        .join(name, sa.and_(name.c.run_uuid == RUNS.c.run_uuid, name.c.key == tags.STUDY))
        .join(_EXPERIMENT, _EXPERIMENT.c.run_uuid == RUNS.c.run_uuid)
        .where(RUNS.c.lifecycle_stage == "active")
        .order_by(RUNS.c.status == "RUNNING", sa.func.coalesce(RUNS.c.end_time, RUNS.c.start_time))
    )
    with connected(uri) as connection:
        found = connection.execute(query).all()
        chosen = [row for row in found if study is None or row[1] == study]
        if not chosen:
            if study is None:
                return StudyPages(study=None, front="#/experiments")
            hint = did_you_mean(study, {row[1] for row in found}) or "The store holds no study yet."
            raise StudyError(f"There is no study {study!r}. {hint}")
        run_id, found_name, experiment = chosen[-1]
        has_view = connection.scalar(
            sa.select(sa.func.count())
            .select_from(_EXPERIMENT_TAGS)
            .where(
                _EXPERIMENT_TAGS.c.experiment_id == experiment, _EXPERIMENT_TAGS.c.key == VIEW + view_key(found_name)
            )
        )
    pages = Pages(str(experiment), {PARENT: run_id})
    front = pages.run(PARENT)
    assert front is not None
    if not has_view:  # a study of an older Lightsweep, or somebody has deleted it
        return StudyPages(study=found_name, front=front, trials=runs_page(str(experiment)))
    return StudyPages(
        study=found_name,
        front=front,
        trials=pages.study(found_name),
        charts=pages.study(found_name, is_chart=True),
    )


# --- the saved view

VIEW = "mlflow.sharedViewState."
"""the prefix of the tags of an experiment that hold a view"""
_OWN = "lightsweep"  # the key of our digest, which MLflow ignores
_MANY = 100  # runs above which the charts become slow, so that they show only the best twenty
_MOST_PARAMS = 12  # in the charts
_MOST_COLUMNS = 40
_MOST_CURVES = 9


def saved_view(
    study: str,
    *,
    objectives: Mapping[str, str],
    params: Mapping[str, bool],
    metrics: Sequence[str],
    num_trials: int,
    created_ms: int,
) -> tuple[str, str]:
    """Return the key and the value of the tag that holds the view of a study.

    Args:
        study: The name of the study and of the view.
        objectives: The metrics that the study is judged by, each with `maximize` or `minimize`; the leading one first.
        params: The searched keys, and whether every trial has a value for the key.
        metrics: All metrics that training runs log.
        num_trials: The total number of trials.
        created_ms: The time of creation, in milliseconds since 1970.
    """
    objectives = {stored_name(name): way for name, way in objectives.items()}
    params = {stored_name(key): is_everywhere for key, is_everywhere in params.items()}
    metrics = list(map(stored_name, metrics))
    leading, direction = next(iter(objectives.items()))
    shown = [*objectives, *(name for name in metrics if name not in objectives and not name.startswith("train/"))]
    columns = [
        *(f"metrics.`{name}`" for name in shown),
        *(f"params.`{key}`" for key in params),
        f"tags.`{tags.STATE}`",
    ]
    state: dict[str, Any] = {
        "searchFilter": _filter(study),
        "orderByKey": f"metrics.`{leading}`",
        "orderByAsc": direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns[:_MOST_COLUMNS],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL" if num_trials <= _MANY else "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        **_charts(objectives, params, metrics),
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    envelope = {"name": f"study {study}"[:100], "createdAt": created_ms, "state": f"deflate;{packed}"}
    return VIEW + view_key(study), json.dumps({**envelope, _OWN: _digest(envelope)})


def is_untouched(value: str) -> bool:
    """Tell whether a view is still as `saved_view` made it; MLflow's *Override saved view* writes another."""
    try:
        envelope = json.loads(value)
        return isinstance(envelope, dict) and envelope.get(_OWN) == _digest(envelope)
    except (ValueError, KeyError, RecursionError):
        return False


def _digest(envelope: Mapping[str, Any]) -> str:
    return hashlib.blake2b(str(envelope["state"]).encode(), digest_size=8).hexdigest()


def _charts(objectives: Mapping[str, str], params: Mapping[str, bool], metrics: Sequence[str]) -> dict[str, Any]:
    leading = next(iter(objectives))
    curves = sorted((name for name in metrics if not name.startswith("test")), key=_by_interest(objectives))
    sections: list[dict[str, Any]] = [
        {"uuid": "all", "name": "Parallel coordinates", "columns": 1, "cardHeight": 400},
        {"uuid": "each", "name": f"{shown_name(leading)} by each parameter"},
        {"uuid": "curves", "name": "Learning curves"},
    ]
    cards: list[dict[str, Any]] = [
        {
            "type": "PARALLEL",
            "uuid": "parallel",
            "metricSectionId": "all",
            # A run without one of them would be left out
            "selectedParams": [key for key, is_everywhere in params.items() if is_everywhere][:_MOST_PARAMS],
            "selectedMetrics": list(objectives)[::-1],  # its colour is that of the last
            "showAllRuns": True,
        }
    ]
    for index, key in enumerate(list(params)[:_MOST_PARAMS]):
        cards.append(
            {
                "type": "SCATTER",
                "uuid": f"param{index}",
                "metricSectionId": "each",
                "xaxis": {"key": key, "type": "PARAM"},
                "yaxis": {"key": leading, "type": "METRIC"},
            }
        )
    for index, name in enumerate(curves[:_MOST_CURVES]):
        cards.append(
            {
                "type": "LINE",
                "uuid": f"curve{index}",
                "metricSectionId": "curves",
                "displayName": shown_name(name),
                "metricKey": name,
                "selectedMetricKeys": [name],
                "xAxisKey": "step",
                "scaleType": "linear",
                "yAxisKey": "metric",
                "yAxisExpressions": [],
                "useGlobalXaxisKey": True,
                "useGlobalLineSmoothing": True,
            }
        )
    common: dict[str, Any] = {"deleted": False, "isGenerated": False}
    return {
        "compareRunSections": [{"display": True, "isReordered": False, **common, **section} for section in sections],
        "compareRunCharts": [{"runsCountToCompare": 1000, **common, **card} for card in cards],
        "isAccordionReordered": True,  # else MLflow sorts it by name
    }


def _by_interest(objectives: Mapping[str, str]) -> Any:
    """Return a sort key: the objectives first, then the metrics of validation, then the rest."""
    names = list(objectives)
    return lambda name: (
        names.index(name) if name in objectives else len(names),
        not name.startswith("val/"),
        name,
    )


def _filter(study: str) -> str:
    """Return MLflow's filter for the trials of a study.

    MLflow's filters have no escape for a quote, so that it becomes a wildcard for one character, as do the characters
    that LIKE interprets.
    """
    if re.search(r"['\\]", study):
        pattern = re.sub(r"['\\%]", "_", study)
        return f"tags.`{tags.STUDY}` LIKE '{pattern}' AND tags.`{tags.KIND}` = 'trial'"
    return f"tags.`{tags.STUDY}` = '{study}' AND tags.`{tags.KIND}` = 'trial'"
