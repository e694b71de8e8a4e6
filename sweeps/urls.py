"""The addresses of stores: the default, which driver they need, and how they may be shown and recorded."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from sweeps import paths

__all__ = ["default_uri", "hide_password", "passwords_in", "store_options", "with_installed_driver"]

_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):\S+@")  # to the last @ of the word: a password may hold / and @


def default_uri(store: Path) -> str:
    """Return the URL of the SQLite file in the store."""
    return f"sqlite:///{(store / paths.MLFLOW_DB).resolve()}"


def hide_password(text: str) -> str:
    """Return `text` with `***` for the password in every URL in it."""
    return _PASSWORD.sub(r"\1:***@", text)


def passwords_in(text: str) -> list[str]:
    """Return the passwords in the URLs in `text`, as they stand there and without their escapes."""
    found = (
        [match[0].partition(":")[2].removesuffix("@") for match in _PASSWORD.finditer(text)] if "://" in text else []
    )
    return list(dict.fromkeys(form for password in found for form in (password, unquote(password))))


def store_options(store_dir: Path, uri: str | None = None) -> str:
    """Return the options by which a command finds the store, if it needs any; without a password."""
    options = "" if store_dir == Path("mlruns") else f" --store-dir {shlex.quote(str(store_dir))}"
    return options if uri is None else f"{options} --uri {shlex.quote(hide_password(uri))}"


def with_installed_driver(uri: str) -> str:
    """Return a `postgresql://` URL with psycopg 3 as its driver where psycopg2, SQLAlchemy's default, is missing."""
    scheme, separator, rest = uri.partition("://")
    if scheme in ("postgresql", "postgres") and separator and find_spec("psycopg2") is None:
        return f"postgresql+psycopg://{rest}"
    return uri
