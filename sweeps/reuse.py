"""Which trial has trained which configuration, so that none is trained twice."""

from collections.abc import Mapping
from typing import Any

from sweeps.config.composer import Config, fingerprint

__all__ = ["Twins", "identity"]

_RECORDING = ("store_dir", "tracking")  # where and how a run is recorded does not change its result


def identity(config: Config, values: Mapping[str, Any]) -> str:
    """Return the fingerprint of all that decides the result of a trial, but for its seed.

    A trial has a seed of its own, so wherever the configuration refers to it (`${seed}`) it does not count either;
    unless the seed is searched, and is what the trials are to differ in.

    Args:
        config: The config of the trial.
        values: What is searched.
    """
    relevant = {key: value for key, value in config.items() if key not in _RECORDING}
    return fingerprint(relevant if "seed" in values else _without(relevant, config["seed"]))


def _without(node: Any, seed: int) -> Any:
    if isinstance(node, Mapping):
        return {key: _without(value, seed) for key, value in node.items()}
    if isinstance(node, list):
        return [_without(value, seed) for value in node]
    return None if type(node) is int and node == seed else node


class Twins:
    """The trials whose result a trial of the same configuration takes: those that ended well, and those that run.

    Args:
        ended: The trials of earlier runs that are complete or pruned, by their identity.
        is_on: Whether results are reused at all.
    """

    def __init__(self, ended: Mapping[str, int] | None = None, *, is_on: bool = True) -> None:
        self.is_on = is_on
        self._by_identity = dict(ended or {})

    def find(self, own: str) -> int | None:
        """Return the first trial of this identity."""
        return self._by_identity.get(own) if self.is_on else None

    def add(self, own: str, number: int) -> None:
        """Take note of a trial that starts."""
        self._by_identity.setdefault(own, number)

    def drop(self, number: int) -> None:
        """Forget a trial that has no result to give: it failed, or waits to go on."""
        self._by_identity = {own: other for own, other in self._by_identity.items() if other != number}
