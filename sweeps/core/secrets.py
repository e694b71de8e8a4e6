"""Passwords and keys: recognise them, and keep them out of everything that is recorded or shown.

A secret in a configuration is recognised by the name of its key, in the environment by the name of the variable, and
in a URL by its position. Wherever such a value occurs, plain or escaped, `***` replaces it. The ranks of a trial get
the hidden values over the driver's pipe, never in a file, on their command line or in their environment.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import yaml

from sweeps.core.tree import KeyPath, leaves, replace_leaves
from sweeps.core.urls import hide_password, is_secret, passwords_in

__all__ = ["HIDDEN", "Hidden", "Secrets", "is_secret", "reveal", "withhold"]

HIDDEN = "***"
"""what stands in the place of a secret"""

Hidden = tuple[tuple[tuple[str | int, ...], Any], ...]
"""what a configuration hides: the place of each value, and the value"""

_MIN_LENGTH = 6  # a shorter value is hidden at its key alone: as a word it may stand anywhere
_MIN_OF_ENVIRONMENT = 8
_MAX_TEXT = 8_000_000  # bytes
_T = TypeVar("_T")


class Secrets:
    """The secret values that this process knows of, to be hidden wherever they turn up.

    Args:
        environment: The variables among which there may be some.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._of_environment = tuple(_of_environment(os.environ if environment is None else environment))
        self._values: set[str] = set()
        self._words: list[str] = []
        self._pattern: re.Pattern[str] | None = None
        self._compile()

    @property
    def of_configuration(self) -> frozenset[str]:
        """The values that come from a configuration."""
        return frozenset(self._values)

    def add(self, values: Iterable[Any]) -> None:
        """Take note of values; short ones are left out, since as words they may stand anywhere."""
        new = {str(value) for value in values if len(str(value)) >= _MIN_LENGTH} - self._values
        if new:
            self._values |= new
            self._compile()

    def hide(self, text: str) -> str:
        """Return `text` with `***` for each secret, and for the password in each URL."""
        if "://" in text:
            text = hide_password(text)
        # looking for one word after the other is ten times as fast as the pattern, which most texts do not need
        may_contain = self._pattern is not None and any(word in text for word in self._words)
        return self._pattern.sub(HIDDEN, text) if self._pattern is not None and may_contain else text

    def hide_in(self, value: _T) -> _T:
        """Return plain data, or a record, with the secrets in its texts hidden; keys stay as they are."""
        hidden: Any = value
        if isinstance(value, str):
            hidden = self.hide(value)
        elif isinstance(value, Mapping):
            hidden = {key: self.hide_in(item) for key, item in value.items()}
        elif isinstance(value, list):
            hidden = [self.hide_in(item) for item in value]
        elif isinstance(value, tuple):
            hidden = tuple(self.hide_in(item) for item in value)
        elif is_dataclass(value) and not isinstance(value, type):
            hidden = replace(value, **{field.name: self.hide_in(getattr(value, field.name)) for field in fields(value)})
        return hidden  # type: ignore[no-any-return]

    @contextmanager
    def public_copy(self, path: Path) -> Iterator[Path | None]:
        """Give a file that may be published: itself, or a copy with the secrets hidden; None if it is not text.

        Other files than texts are searched for the secrets of the configuration alone.
        """
        if self._pattern is None:
            yield path
            return
        with path.open("rb") as file:
            start = file.read(_MAX_TEXT + 1)
        text = None if len(start) > _MAX_TEXT or b"\0" in start else start.decode("utf-8", errors="replace")
        if text is None:
            yield None if self._is_in(path) else path
        elif (hidden := self.hide(text)) == text:
            yield path
        else:
            with TemporaryDirectory() as folder:
                copy = Path(folder) / path.name
                copy.write_text(hidden, encoding="utf-8")
                yield copy

    def _is_in(self, path: Path) -> bool:
        """Tell whether a file of any size has one of the secrets of the configuration in it."""
        words = [word.encode(errors="surrogatepass") for word in _as_written(self._values)]
        longest = max(map(len, words), default=0)
        end = b""
        with path.open("rb") as file:
            while words and (block := file.read(_MAX_TEXT)):
                block = end + block
                if any(word in block for word in words):
                    return True
                end = block[-longest:]
        return False

    def _compile(self) -> None:
        self._words = sorted(_as_written({*self._of_environment, *self._values}), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._words))) if self._words else None


def _as_written(values: Iterable[str]) -> set[str]:
    """Return the values, and how they stand in what is printed: in `repr`, JSON, YAML, URLs, or one in another."""
    words = set(values)
    for _ in range(2):
        words |= {written for word in words for written in _escaped(word)}
    return words


def _escaped(text: str) -> Iterator[str]:
    encoded = text.encode(errors="surrogatepass")
    for characters in (map(repr, text), map(ascii, text), (repr(bytes([byte]))[1:] for byte in encoded)):
        shown = "".join(character[1:-1] for character in characters)
        yield from (shown, shown.replace("'", r"\'"))  # which of the two is for the text around it to say
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    yield from (text.replace("'", "''"), yaml.dump(text, default_style='"', width=math.inf)[1:-2])
    yield from (quote(encoded), quote(encoded, safe=""), quote_plus(encoded))


def withhold(tree: Mapping[str, Any], secrets: Secrets) -> tuple[dict[str, Any], Hidden]:
    """Divide plain data into what all may see and what is hidden there; `secrets` learns the values.

    A value below a secret key is hidden, unless it is null, true or false, or an interpolation, which only says where
    the value is; so are secrets and the passwords of URLs in any text.
    """
    found = list(leaves(tree))
    by_key = {path: value for path, value in found if _is_withheld(path, value)}
    in_text = [(path, value) for path, value in found if isinstance(value, str)]
    secrets.add(by_key.values())
    secrets.add(password for _, text in in_text for password in passwords_in(text))
    shown: dict[KeyPath, Any] = {path: secrets.hide(text) for path, text in in_text}
    shown |= dict.fromkeys(by_key, HIDDEN)
    hidden = tuple((path, value) for path, value in found if path in shown and shown[path] != value)
    return replace_leaves(tree, {path: shown[path] for path, _ in hidden}), hidden


def reveal(tree: Mapping[str, Any], hidden: Hidden) -> dict[str, Any]:
    """Put back what `withhold` has hidden."""
    revealed: dict[str, Any] = replace_leaves(tree, dict(hidden))
    return revealed


def _is_withheld(path: KeyPath, value: Any) -> bool:
    """Whether a leaf is below a secret key, and is a value rather than a switch or an interpolation."""
    if value is None or isinstance(value, bool) or value == "" or "${" in str(value):
        return False
    return any(is_secret(str(key)) for key in path)


def _of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        found = [value] if is_secret(name) and not value.startswith(("/", "~")) else passwords_in(value)
        yield from (secret for secret in found if len(secret) >= _MIN_OF_ENVIRONMENT)
