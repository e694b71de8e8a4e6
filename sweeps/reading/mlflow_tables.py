"""The tables of MLflow's that are read by SQL with the columns that are, and which MLflow made them."""

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sweeps.core.urls import hide_password

__all__ = [
    "ALIASES",
    "LATEST",
    "LOGGED_MODELS",
    "PARAMS",
    "POINTS",
    "REGISTERED_MODELS",
    "RUNS",
    "TAGS",
    "VERSIONS",
    "VERSION_TAGS",
    "lacking",
    "version_problem",
]

RUNS = sa.table(
    "runs",
    *map(sa.column, ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage", "artifact_uri")),
)
TAGS = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
PARAMS = sa.table("params", *map(sa.column, ("run_uuid", "key", "value")))
LATEST = sa.table("latest_metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan", "step")))
POINTS = sa.table("metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan", "step", "timestamp")))
REGISTERED_MODELS = sa.table("registered_models", sa.column("name"))
ALIASES = sa.table("registered_model_aliases", *map(sa.column, ("name", "alias", "version")))
VERSIONS = sa.table("model_versions", *map(sa.column, ("name", "version", "source", "current_stage")))
VERSION_TAGS = sa.table("model_version_tags", *map(sa.column, ("name", "version", "key", "value")))
LOGGED_MODELS = sa.table("logged_models", *map(sa.column, ("model_id", "artifact_location", "lifecycle_stage")))

_REVISION = re.compile(r"^(down_)?revision\s*(?::[^=]*)?=\s*[\"'](\w+)", re.MULTILINE)


def lacking(connection: sa.Connection) -> list[str]:
    """Return the tables and columns that are needed and are not there, as `runs` or `runs.name`."""
    inspector = sa.inspect(connection)
    names = set(inspector.get_table_names())
    found = []
    for table in (RUNS, TAGS, PARAMS, LATEST, POINTS):
        if table.name not in names:
            found.append(table.name)
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        found += [f"{table.name}.{column.name}" for column in table.columns if column.name not in columns]
    return found


def version_problem(connection: sa.Connection, uri: str) -> str:
    """Say whether another MLflow than the installed one made the tables, and what to do; empty if it was this one."""
    try:
        revision = connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table("alembic_version")))
    except SQLAlchemyError:  # so old, or so new, that it has no such table
        revision = None
    known, newest = _revisions()
    if revision == newest:
        return ""
    ours = f"MLflow {version('mlflow')}"
    if revision is not None and revision not in known:
        return (
            f"it was made by a newer MLflow (its schema {revision} is unknown to {ours}). Update MLflow here: "
            "pip install -U mlflow"
        )
    return (
        f"it was made by an older MLflow (its schema is {revision or 'none'}, that of {ours} is {newest}). Back it up, "
        f"then run: mlflow db upgrade '{hide_password(uri)}'"
    )


def _revisions() -> tuple[set[str], str]:
    """Return the schemas that the installed MLflow knows, and its own; without importing it, which takes seconds."""
    spec = find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    texts = (file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    found = [match for text in texts for match in _REVISION.findall(text)]
    known = {revision for down, revision in found if not down}
    ends = known - {revision for down, revision in found if down}
    return known, next(iter(ends), "")
