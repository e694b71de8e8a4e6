"""Find registered models: by SQL in MLflow's own tables, without a client, or from a server."""

import sqlalchemy as sa

from sweeps.tracking.database import ALIASES, LOGGED_MODELS, REGISTERED_MODELS, VERSION_TAGS, VERSIONS, connected
from sweeps.tracking.registry import ModelName, Registered, Registry, chosen_version, model_id_of
from sweeps.tracking.runs import is_server

__all__ = ["find_registered", "registered_names"]

_DELETED = "Deleted_Internal"  # MLflow's mark of a version that is gone


def find_registered(uri: str, wanted: ModelName) -> Registered:
    """Return the version of a registered model that is called so.

    Raises:
        UsageError: There is none; names what there is.
        StoreError: The store cannot be read.
    """
    if is_server(uri):
        return Registry(uri).find(wanted)
    with connected(uri) as connection:
        names = list(connection.scalars(sa.select(REGISTERED_MODELS.c.name)))
        of_model = sa.select(ALIASES.c.alias, ALIASES.c.version).where(ALIASES.c.name == wanted.name)
        aliases = {str(alias): int(version) for alias, version in connection.execute(of_model)}
        there = sa.select(VERSIONS.c.version, VERSIONS.c.source).where(
            VERSIONS.c.name == wanted.name, VERSIONS.c.current_stage != _DELETED
        )
        sources = {int(version): str(source or "") for version, source in connection.execute(there)}
        number = chosen_version(wanted, names, aliases, sources)
        model_id = model_id_of(sources[number])
        location = connection.scalar(
            sa.select(LOGGED_MODELS.c.artifact_location).where(
                LOGGED_MODELS.c.model_id == model_id, LOGGED_MODELS.c.lifecycle_stage == "active"
            )
        )
        pairs = sa.select(VERSION_TAGS.c.key, VERSION_TAGS.c.value).where(
            VERSION_TAGS.c.name == wanted.name, VERSION_TAGS.c.version == number
        )
        run_tags = {str(key): str(value or "") for key, value in connection.execute(pairs)}
    return Registered(
        name=wanted.name,
        version=number,
        model_id=model_id,
        artifact_uri=str(location or ""),
        version_tags=run_tags,
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
    )


def registered_names(uri: str) -> list[str]:
    """Return the names of all registered models of a database, and `NAME@ALIAS` for each of their aliases.

    Raises:
        StoreError: It cannot be read.
    """
    with connected(uri) as connection:
        names = connection.scalars(sa.select(REGISTERED_MODELS.c.name)).all()
        aliases = connection.execute(sa.select(ALIASES.c.name, ALIASES.c.alias)).all()
    return sorted([*map(str, names), *(f"{name}@{alias}" for name, alias in aliases)])
