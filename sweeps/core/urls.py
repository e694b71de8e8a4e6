"""Addresses of stores: the default, the database driver they need, and how they are shown without their secrets."""

import re
import shlex
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, unquote_plus

from sweeps.core import paths
from sweeps.core.errors import StoreError

__all__ = [
    "default_uri",
    "hide_password",
    "is_secret",
    "passwords_in",
    "sqlite_url",
    "store_options",
    "with_installed_driver",
]

_TOKEN = re.compile(r"(?P<before>://(?:(?<=http://)|(?<=https://)))(?P<secret>[^\s:/?#@]+)(?=:?@)", re.IGNORECASE)
_ADDRESS = re.compile(r"://\S+")
_PASSWORD = re.compile(r"(?P<before>://[^:/@]*:)(?P<secret>.+)$")  # of what is before the last @: it may hold / and @
_IN_QUERY = re.compile(  # to the next &, or the quote that ends the address
    r"""(?P<before>(?:^|[?&;])(?P<name>[^?&;=]+)=)(?P<secret>.+?)(?=&|\\{0,50}["'](?:\W|$)|$)"""
)


def default_uri(store: Path) -> str:
    """Return the URL of the SQLite file in the store."""
    return sqlite_url(store / paths.MLFLOW_DB)


def sqlite_url(file: Path) -> str:
    """Return the URL of a SQLite file, whatever its folders are called: `?` and `%` are escaped.

    Raises:
        StoreError: No URL names this file.
    """
    import sqlalchemy as sa

    path = str(file.resolve())
    try:
        url = sa.URL.create("sqlite", database=path).render_as_string()
        if "%" in url:  # of an address without a driver MLflow takes the escapes for the names of folders to make
            url = url.replace("sqlite:", "sqlite+pysqlite:", 1)
        is_safe = sa.make_url(url).database == path  # before 2.1, SQLAlchemy knew no escape for `?`
    except UnicodeEncodeError:
        is_safe = False
    if not is_safe:
        raise StoreError(
            f"There is no address of a database for the path {path!r}: rename the folder, or choose another with "
            "store_dir (--store-dir)."
        )
    return url


def hide_password(text: str) -> str:
    """Return `text` with `***` for what is secret in every URL in it.

    That is a password after a user, a value in the query whose key is called like a secret, and the user of a web
    address that has no password, since there it is a token.
    """
    return _divided(text)[0]


def passwords_in(text: str) -> list[str]:
    """Return what is secret in the URLs in `text`, as it stands there and without its escapes."""
    secrets = _divided(text)[1] if "://" in text else []
    return list(dict.fromkeys(form for secret in secrets for form in (secret, unquote(secret), unquote_plus(secret))))


def _divided(text: str) -> tuple[str, list[str]]:
    """Return a text with `***` for what is secret in its URLs, and what that is."""
    secrets: list[str] = []

    def hide(found: re.Match[str]) -> str:
        secrets.append(found["secret"])
        return f"{found['before']}***"

    def hide_value(found: re.Match[str]) -> str:
        is_shown = "${" in found["secret"] or not is_secret(unquote(found["name"]))
        return found[0] if is_shown else hide(found)

    def hide_in(found: re.Match[str]) -> str:
        address, mark, query = found[0].partition("?")
        before, at, host = f"{address}{mark}{_IN_QUERY.sub(hide_value, query)}".rpartition("@")
        return f"{_PASSWORD.sub(hide, before)}{at}{host}"

    return _ADDRESS.sub(hide_in, _TOKEN.sub(hide, text)), secrets


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


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENDS = re.compile(r"(password|passwd|passphrase|secret|apikey|credential)s?$|^(pwd|pw|authorization|bearer)$")
_KINDS_OF_KEY = {
    *("api", "access", "secret", "private", "account", "auth", "encryption", "license", "master", "service"),
    *("session", "shared", "signing", "ssh", "storage", "subscription", "deploy"),
}
_TOKENS_OF_TEXT = {  # what language models call tokens
    *("pad", "eos", "bos", "unk", "mask", "sep", "cls", "start", "end", "stop", "special", "class", "image", "audio"),
    *("num", "max", "min", "per", "use", "first", "last", "next", "new", "decoder", "prompt", "padding", "blank"),
}
_NO_SECRETS = {"PWD", "OLDPWD"}


@cache
def is_secret(key: str) -> bool:
    """Tell whether a key or a variable is called like something secret: `db_password`, `apiToken`, `API_KEY`.

    `num_tokens`, `tokenizer`, `pad_token`, `monkey`, `sort_key` and `password_file` are not.
    """
    words = [word.lower() for word in _WORDS.findall(key)]
    if not words or key in _NO_SECRETS:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if _ENDS.search(last):
        return True
    if last in ("key", "keys"):
        return before in _KINDS_OF_KEY
    return last == "token" and before not in _TOKENS_OF_TEXT
