"""Read YAML that others may have written, as plain data within limits, and check who owns a file.

Nothing that is read here is run, imported, resolved or looked up. `config/instantiate.py` decides which `_target_` may
be built.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from sweeps.core.errors import StoreError

__all__ = ["MAX_BYTES", "opened", "read_config", "read_text", "read_yaml"]

MAX_BYTES = 1_000_000
"""of a text; a frozen configuration has some thousand"""

_MAX_DEPTH = 32
_MAX_NODES = 50_000
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(source: Path | str) -> dict[str, Any]:
    """Read the configuration of a run from its record.

    **Promises.** The result is a mapping of strings to plain data: mappings, lists, strings, numbers, true, false and
    null. It comes from at most `MAX_BYTES` of YAML without aliases, tags and keys that occur twice, and is at most 32
    levels deep. Texts are as they were written: nothing is interpolated, and what could be (`${...}`) is refused, so
    that nothing that gets the result can resolve it either. There is no section `hydra`.

    **Not promised.** That it is a configuration, or one that may be built: `config.build` checks each `_target_` when
    it comes to it, by the modules that are allowed on this machine. What it says of `allowed_modules` grants nothing,
    and its `store_dir` and other folders are those of the machine that wrote it.

    Args:
        source: A file, or the text itself.

    Raises:
        StoreError: It breaks one of the promises; says which, in one line.
    """
    what = str(source) if isinstance(source, Path) else "The configuration"
    found = read_yaml(source)
    if not isinstance(found, dict):
        raise StoreError(f"{what} must hold a mapping, but holds a {type(found).__name__}.")
    if "hydra" in found:
        raise StoreError(f"{what} has a section hydra, which no record of a run has: it is not used.")
    for key in found:
        if not isinstance(key, str):
            raise StoreError(f"{what} must have words as its keys, but has {key!r}.")
    for key, text in _texts(found):
        if "${" in text:
            raise StoreError(
                f"{what}: {key} holds an interpolation, {text[:80]!r}. The record of a run has values: nothing in it "
                "is looked up, on this machine or in its environment."
            )
    return found


def read_yaml(source: Path | str, *, unless_own: str = "") -> Any:
    """Read YAML as plain data, within the limits that `read_config` states.

    Args:
        source: A file, or the text itself.
        unless_own: See `read_text`.

    Raises:
        OSError: The file cannot be read.
        StoreError: It is too large or too deep, not valid, or has more in it than plain data.
    """
    what = str(source) if isinstance(source, Path) else "The text"
    text = read_text(source, unless_own=unless_own) if isinstance(source, Path) else _bounded(source, what)
    try:
        _require_shallow(text, what)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _plain(node, loader, what)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise StoreError(f"{what} is not valid YAML: {' '.join(str(error).split())[:200]}") from error


def read_text(path: Path, *, max_bytes: int = MAX_BYTES, unless_own: str = "") -> str:
    """Read a text file, unless it is too large.

    Args:
        path: The file.
        max_bytes: The most that it may have.
        unless_own: What to say of a file that others can have written, which is then refused; empty to read any.

    Raises:
        OSError: It cannot be read.
        StoreError: It is larger than `max_bytes`, no UTF-8, or not a file but a device or a pipe, which may never end;
            or it is not the user's alone, and has to be.
    """
    with _file(path, link=unless_own and f"{path} {unless_own}") as (file, status):
        if unless_own and not _is_own(status):
            raise StoreError(f"{path} {unless_own}")
        content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise StoreError(f"{path} may have {max_bytes:,} bytes, but has {status.st_size:,}: it is not read.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} must be UTF-8, but is not: {error.reason} at byte {error.start}.") from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """Open a file, and tell whether only this user can have written it: it is theirs, and nobody else may write it.

    What is told is of the file that is open. A path says nothing: who owns a folder on its way puts another file
    there between the look and the reading.

    Raises:
        OSError: It cannot be opened.
        StoreError: It is not a file, but a link, a device, a pipe or a folder.
    """
    with _file(path, link=f"{path} must be a file, but is a link, which is not followed.") as (file, status):
        yield file, _is_own(status)


@contextmanager
def _file(path: Path, *, link: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open what is a file; `link` is what to say of a link, or empty to follow it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if link else 0))
    except OSError as error:
        if link and error.errno == errno.ELOOP:
            raise StoreError(link) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise StoreError(f"{path} must be a file, but is a device, a pipe or a folder.")
    with os.fdopen(descriptor, "rb") as file:
        yield file, status


def _is_own(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _bounded(text: str, what: str) -> str:
    if len(text) > MAX_BYTES:
        raise StoreError(f"{what} may have {MAX_BYTES:,} characters, but has {len(text):,}.")
    return text


def _require_shallow(text: str, what: str) -> None:
    """Look at the events alone, which takes no stack and makes no objects however the text is nested."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise StoreError(f"{what} has an anchor or an alias ({_line(event)}), which is refused.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise StoreError(f"{what} may be {_MAX_DEPTH} levels deep, but is deeper.")
        if count > _MAX_NODES:
            raise StoreError(f"{what} may have {_MAX_NODES:,} entries, but has more.")


def _plain(node: yaml.Node, loader: Any, what: str) -> Any:
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_plain(item, loader, what) for item in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _PLAIN:
                raise StoreError(f"{what} has a key that is not a plain value ({_line(key_node)}).")
            key = _scalar(key_node, loader, what)
            if key in found:
                raise StoreError(f"{what} has the key {key!r} twice ({_line(key_node)}).")
            found[key] = _plain(value_node, loader, what)
        return found
    if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
        return _scalar(node, loader, what)
    raise StoreError(f"{what} has {node.tag!r} in it ({_line(node)}), but may have plain values only.")


def _scalar(node: yaml.ScalarNode, loader: Any, what: str) -> Any:
    try:
        return loader.construct_object(node)
    except ValueError as error:  # a number of thousands of digits
        raise StoreError(f"{what}: {_line(node)} has no value that can be read: {error}") from error


def _line(where: Any) -> str:
    return f"line {where.start_mark.line + 1}"


def _texts(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from ((prefix or str(key), str(key)), *_texts(value, f"{prefix}.{key}" if prefix else str(key)))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _texts(value, f"{prefix}.{index}")
    elif isinstance(tree, str):
        yield prefix, tree
