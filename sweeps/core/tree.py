"""Walk nested plain data: mappings, lists and their leaves."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

__all__ = ["KeyPath", "flatten", "leaves", "replace_leaves", "texts"]

KeyPath = tuple[Any, ...]
"""The keys and indices that lead from the top to a leaf."""


def leaves(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each leaf with its key path; empty mappings and lists have none."""
    if isinstance(tree, Mapping | list):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def texts(tree: Any) -> Iterator[str]:
    """Yield the leaves that are text."""
    return (leaf for _, leaf in leaves(tree) if isinstance(leaf, str))


def replace_leaves(tree: Any, leaves_at: Mapping[KeyPath, Any], path: KeyPath = ()) -> Any:
    """Copy a tree, with the leaves at some key paths replaced."""
    if isinstance(tree, Mapping):
        return {key: replace_leaves(value, leaves_at, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [replace_leaves(value, leaves_at, (*path, index)) for index, value in enumerate(tree)]
    return leaves_at.get(path, tree)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Map dotted keys to leaves; a list is a leaf, unless it holds mappings."""
    if isinstance(tree, Mapping) and (tree or not prefix):
        flat: dict[str, Any] = {}
        for key, value in tree.items():
            word = _word(key)
            found = flatten(value, f"{prefix}.{word}" if prefix else word)
            while not found.keys().isdisjoint(flat):  # 1 and '1', or a key with a dot in it
                word = f"'{word}'"
                found = flatten(value, f"{prefix}.{word}" if prefix else word)
            flat |= found
        return flat
    if isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        return flatten({str(index): item for index, item in enumerate(tree)}, prefix)
    return {prefix: tree}


def _word(key: Any) -> str:
    """Return a key as YAML and the command line write it."""
    return key if isinstance(key, str) else yaml.safe_dump(key).split("\n")[0]
