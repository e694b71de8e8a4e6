"""The addresses of stores: which driver they need, and how they may be shown."""

from importlib.util import find_spec

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

__all__ = ["hide_password", "with_installed_driver"]


def hide_password(uri: str) -> str:
    """Return `uri` as it may be shown."""
    try:
        return make_url(uri).render_as_string(hide_password=True)
    except ArgumentError:
        return uri


def with_installed_driver(uri: str) -> str:
    """Return a `postgresql://` URL with psycopg 3 as its driver where psycopg2, SQLAlchemy's default, is missing."""
    scheme, separator, rest = uri.partition("://")
    if scheme in ("postgresql", "postgres") and separator and find_spec("psycopg2") is None:
        return f"postgresql+psycopg://{rest}"
    return uri
