"""One run in detail, read from the store and from its folder."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.text import whole
from sweeps.results.histories import Curve
from sweeps.results.reader import RunReader, open_reader
from sweeps.results.rows import TrialRow, is_loss, plain_mapping, row_of
from sweeps.results.run_names import Found, find_run, label
from sweeps.tracking import tags
from sweeps.tracking.names import MAX_PARAM, is_shortened
from sweeps.tracking.runs import Artifact, StoredRun

__all__ = ["MetricDetail", "RunDetail", "read_runs", "run_folder"]

_COUNTERS = {"epoch", "num_params"}  # have no best value


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDetail:
    """A metric of a run.

    Attributes:
        last: Its last value.
        best: Its least or greatest value, by `direction`; None for what only counts, and for means of trainings.
        best_step: The first step that has it.
        direction: `maximize` or `minimize`.
        curve: Its history; None if the store has none.
    """

    last: float
    best: float | None
    best_step: int | None
    direction: str
    curve: Curve | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        curve = self.curve
        return {
            "last": self.last,
            "best": self.best,
            "best_step": self.best_step,
            "direction": self.direction,
            "num_points": curve.num_points if curve else 0,
            "steps": [curve.first_step, curve.last_step] if curve else None,
            "curve": list(curve.means) if curve else [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """A run.

    Attributes:
        label: The shortest name by which it is found.
        note: What there is to say of how it was found.
        row: State, values, searched parameters and times.
        run: As the store has it.
        kind: study, trial, replicate or train; empty for a run that Lightsweep has not made.
        study: The study that it belongs to.
        config: Its configuration, by dotted keys.
        metrics: By name.
        artifacts: The files recorded with it.
        artifacts_problem: Why they cannot be listed, if so.
        folder: Where its log and checkpoints are; None if there is no such folder on this machine.
    """

    label: str
    note: str
    row: TrialRow
    run: StoredRun
    kind: str
    study: str | None
    config: dict[str, str]
    metrics: dict[str, MetricDetail]
    artifacts: list[Artifact]
    artifacts_problem: str
    folder: Path | None

    @property
    def searched(self) -> dict[str, Any]:
        """The searched parameters, with their types."""
        return self.row.params

    @property
    def began(self) -> datetime | None:
        """When it began."""
        return _moment(self.run.start_ms)

    @property
    def ended(self) -> datetime | None:
        """When it ended."""
        return _moment(self.run.end_ms)

    @property
    def origin(self) -> dict[str, str]:
        """Return where it comes from: the command, the code, and what brought it about, in words."""
        return dict(_origin(self.run.tags))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        row = self.row
        return {
            "run_id": self.run.run_id,
            "name": self.label,
            "run_name": self.run.name,
            "kind": self.kind,
            "study": self.study,
            "trial": row.trial if row.trial is not None else whole(self.run.tags.get(tags.TRIAL)),
            "replicate": whole(self.run.tags.get(tags.REPLICATE)),
            "state": row.state,
            "reason": row.reason,
            "infeasible": row.infeasible,
            "objectives": {name: way for name, way in row.objectives.items() if name},
            "values": {name: value for name, value in row.values.items() if name},
            "value": row.value,
            "began": self.began.isoformat() if self.began else None,
            "ended": self.ended.isoformat() if self.ended else None,
            "duration_s": row.duration_s,
            "origin": self.origin,
            "tags": dict(sorted(self.run.tags.items())),
            "params": self.searched,
            "config": self.config,
            "metrics": {key: metric.as_dict() for key, metric in self.metrics.items()},
            "artifacts": [{"path": file.path, "size": file.size} for file in self.artifacts],
            "folder": None if self.folder is None else str(self.folder),
        }


def read_runs(uri: str, names: Sequence[str], store_dir: Path, *, lists_artifacts: bool = True) -> list[RunDetail]:
    """Read the runs that are called so; see `run_names`.

    Args:
        uri: The store's address.
        names: As typed.
        store_dir: The folder with those of the studies.
        lists_artifacts: Whether to list the artifacts, which takes time where they are far away.

    Raises:
        StoreError: The store cannot be opened or read.
        UsageError: A name fits no run, or several.
    """
    with open_reader(uri) as reader:
        found = [find_run(reader, uri, name) for name in names]  # all of them, before the first is read
        return [_detail(reader, one, store_dir, lists_artifacts) for one in found]


def _detail(reader: RunReader, found: Found, store_dir: Path, lists_artifacts: bool) -> RunDetail:
    run = reader.run(found.run_id)
    row = row_of(run)
    curves = reader.curves(run.run_id)
    folder = run_folder(run, store_dir)
    problem, artifacts = "", []
    try:
        artifacts = reader.artifacts(run) if lists_artifacts else []
    except StoreError as error:
        problem = str(error)
    return RunDetail(
        label=label(reader, run),
        note=found.note,
        row=row,
        run=run,
        kind=run.tags.get(tags.KIND, ""),
        study=run.tags.get(tags.STUDY),
        config=_config(run, folder),
        metrics={key: _metric(key, last, curves.get(key), row) for key, last in row.metrics.items()},
        artifacts=artifacts,
        artifacts_problem=problem,
        folder=folder,
    )


def _metric(key: str, last: float, curve: Curve | None, row: TrialRow) -> MetricDetail:
    direction = row.objectives.get(key, "minimize" if is_loss(key) else "maximize")
    best, step = None, None
    is_mean = f"{key}_sem" in row.metrics or key.endswith("_sem")  # over more and more trainings: no value is the best
    if curve is not None and not is_mean and (key not in _COUNTERS or key in row.objectives):
        is_highest = direction == "maximize"
        best, step = (curve.highest, curve.highest_step) if is_highest else (curve.lowest, curve.lowest_step)
    return MetricDetail(last=last, best=best, best_step=step, direction=direction, curve=curve)


def run_folder(run: StoredRun, store_dir: Path) -> Path | None:
    """Return the folder of a run below the store, if it is there."""
    name, study, kind = run.tags.get(tags.FOLDER, ""), run.tags.get(tags.STUDY), run.tags.get(tags.KIND)
    if not re.fullmatch(r"\w*", name, re.ASCII):  # `../..` and the like: a tag that this program has not written
        return None
    if kind in ("train", "reproduction"):
        folder = store_dir / ("train" if kind == "train" else paths.REPRODUCTIONS) / name
    elif study is None:
        return None
    else:
        folder = paths.study_dir(store_dir, study) / ("" if kind == "study" else name)
    replicate = whole(run.tags.get(tags.REPLICATE))
    if kind == "replicate" and replicate is not None:
        folder = paths.replicate_dir(folder, replicate)
    return folder if (name or kind == "study") and folder.is_dir() else None


def _config(run: StoredRun, folder: Path | None) -> dict[str, str]:
    """Return the params of a run, those that are too long for MLflow as its config.yaml has them, if it is here."""
    config = dict(sorted(run.params.items())) or _frozen(run, folder)
    cut = [key for key, text in config.items() if is_shortened(text, MAX_PARAM)]
    whole = {**plain_mapping(run.tags.get(tags.PARAMS)), **(_frozen(run, folder) if cut else {})}
    return config | {key: str(whole[key]) for key in cut if key in whole}


def _frozen(run: StoredRun, folder: Path | None) -> dict[str, str]:
    """Read the config that a run of no params left in its folder or among its artifacts."""
    from sweeps.tracking.artifacts import local_artifacts

    try:
        places = [folder, local_artifacts(run)]
    except StoreError:  # the record names a folder that is not a run's
        places = [folder]
    for place in filter(None, places):
        file = place / paths.CONFIG
        if file.is_file() and not file.is_symlink():
            from sweeps.core.safe_yaml import read_yaml
            from sweeps.core.tree import flatten

            try:
                tree = read_yaml(file)
            except (OSError, StoreError):  # half written, or not ours
                continue
            return {key: str(value) for key, value in sorted(flatten(tree).items())} if isinstance(tree, dict) else {}
    return {}


def _origin(run_tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    command = run_tags.get("mlflow.source.name", "")
    overrides = run_tags.get(tags.OVERRIDES, "")
    if command or overrides:
        yield "command", f"{command} {overrides}".strip()
    commit = run_tags.get("mlflow.source.git.commit")
    if commit:
        is_dirty = run_tags.get("lightsweep.git.dirty") == "true"
        yield "code", f"commit {commit}" + (", with changes that were not committed" if is_dirty else "")
    if tags.ENQUEUED in run_tags:
        yield "enqueued", "somebody asked for these values"
    if tags.REUSED_FROM in run_tags:
        study, number = run_tags.get(tags.STUDY, ""), run_tags[tags.REUSED_FROM]
        yield "reused", f"the result is that of {study}#{number}, which has the same configuration"
    if tags.BACKUP in run_tags:
        yield "migrated", f"Optuna's study {shlex.quote(run_tags[tags.BACKUP])} holds it as it was before"
    if tags.RESUME_STEP in run_tags and run_tags.get(tags.STATE) in ("running", "interrupted"):
        yield "goes on", f"from step {run_tags[tags.RESUME_STEP]}"
    if tags.REPRODUCES in run_tags:
        yield "reproduces", f"run {run_tags[tags.REPRODUCES]}"
    if tags.REPRODUCED in run_tags:
        yield "reproduced", run_tags[tags.REPRODUCED]
    if tags.PROMOTED in run_tags:
        yield "promoted", f"registered as {run_tags[tags.PROMOTED]}"
    if "mlflow.user" in run_tags:
        yield "user", run_tags["mlflow.user"]


def _moment(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC)
