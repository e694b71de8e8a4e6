"""The view of a study in MLflow's UI: which columns, which runs in which order, which charts.

MLflow's pages keep a view that somebody shares as a tag of the experiment, and list it by its name; a page whose
address names the tag shows it. This writes such a tag. Its format is that of `savedViewEnvelope.ts` and
`ExperimentPageUIState.tsx` in MLflow's front end; a test opens it in a browser.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.tracking import tags
from sweeps.tracking.names import shown_name, stored_name
from sweeps.tracking.pages import view_key

__all__ = ["VIEW", "is_untouched", "saved_view"]

VIEW = "mlflow.sharedViewState."
"""what the tag of an experiment that holds a view begins with"""
_OWN = "lightsweep"  # what a view has beside what MLflow reads
_MANY = 100  # runs, above which the charts become slow: then they show the best twenty
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
    """Return the tag of the experiment, key and value, that is the view of a study.

    Args:
        study: Its name, which the view has, too.
        objectives: The metrics that it is judged by, each with `maximize` or `minimize`; the leading one first.
        params: The searched keys, and whether every trial has a value of it.
        metrics: All metrics that trainings log.
        num_trials: How many trials there will be.
        created_ms: When the view was made, in milliseconds since the epoch.
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
    """Tell whether a view is as `saved_view` gave it; MLflow's *Override saved view* writes another."""
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
            # A run that lacks one of them would be left out
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
        "isAccordionReordered": True,  # else it is sorted by name
    }


def _by_interest(objectives: Mapping[str, str]) -> Any:
    """Sort the objectives first, then what is validated, then the rest."""
    names = list(objectives)
    return lambda name: (
        names.index(name) if name in objectives else len(names),
        not name.startswith("val/"),
        name,
    )


def _filter(study: str) -> str:
    """Return MLflow's filter for the trials of a study.

    MLflow's filters know no escape for a quote, so that it stands as any character; so does what LIKE takes for more.
    """
    if re.search(r"['\\]", study):
        pattern = re.sub(r"['\\%]", "_", study)
        return f"tags.`{tags.STUDY}` LIKE '{pattern}' AND tags.`{tags.KIND}` = 'trial'"
    return f"tags.`{tags.STUDY}` = '{study}' AND tags.`{tags.KIND}` = 'trial'"
