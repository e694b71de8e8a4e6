"""Where MLflow's UI shows a study: read from the store, which says under which numbers it is kept there."""

from dataclasses import dataclass

import sqlalchemy as sa

from sweeps.core.errors import StudyError, did_you_mean
from sweeps.reading.database import connected
from sweeps.reading.mlflow_tables import RUNS, TAGS
from sweeps.tracking import tags
from sweeps.tracking.pages import PARENT, Pages, runs_page, view_key
from sweeps.tracking.saved_view import VIEW

__all__ = ["StudyPages", "study_pages"]

_EXPERIMENT = sa.table("runs", sa.column("run_uuid"), sa.column("experiment_id")).alias("experiment_of")
_EXPERIMENT_TAGS = sa.table("experiment_tags", sa.column("experiment_id"), sa.column("key"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPages:
    """The pages of a study, relative to the address of the server.

    Attributes:
        study: Its name; None for the page of all studies.
        front: The study's own page, or that of all studies.
        trials: Its trials, best first.
        charts: Their charts.
    """

    study: str | None
    front: str
    trials: str | None = None
    charts: str | None = None


def study_pages(uri: str, study: str | None = None) -> StudyPages:
    """Find the pages of a study, or of the one that was driven last; of none, if the store has no study.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
        StudyError: There is no such study; names the nearest.
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
