"""The tables of MLflow's that are read by SQL, with the columns that are."""

import sqlalchemy as sa

__all__ = ["LATEST", "RUNS", "TAGS"]

RUNS = sa.table(
    "runs",
    *map(sa.column, ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage")),
)
TAGS = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
LATEST = sa.table("latest_metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan")))
