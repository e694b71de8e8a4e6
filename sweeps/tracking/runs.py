"""A recorded run as plain data, whether read by SQL or from a server."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Artifact", "ServerRun", "StoredRun", "is_server"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun(ServerRun):
    """A run with all that the store has of it, but for the histories of its metrics."""

    params: Mapping[str, str] = field(default_factory=dict)
    artifact_uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that was recorded; its path is relative to the artifacts of the run."""

    path: str
    size: int


def is_server(uri: str) -> bool:
    """Tell whether `uri` is the address of an MLflow server rather than a database."""
    return uri.startswith(("http://", "https://"))
