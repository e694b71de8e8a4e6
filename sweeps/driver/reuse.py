"""The result cache: trials with the same configuration share results and data fingerprints."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.composer import Config, fingerprint
from sweeps.core.trials import EndState, Suggestion

__all__ = ["KnownData", "ResultCache", "identity"]

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


class ResultCache:
    """The trials whose result a trial of the same configuration takes: those that ended well, and those that run.

    Args:
        ended: The trials of earlier runs that are complete or pruned, by their identity.
        is_on: Whether results are reused at all.

    Attributes:
        released: Duplicates whose trial has ended: they take its result, or are trained if it has none.
    """

    def __init__(self, ended: Mapping[str, int] | None = None, *, is_on: bool = True) -> None:
        self.is_on = is_on
        self.released: deque[Suggestion] = deque()
        self._by_identity = dict(ended or {})
        self._duplicates: dict[int, list[Suggestion]] = {}

    @property
    def num_waiting(self) -> int:
        """How many duplicates wait for a trial to end."""
        return sum(map(len, self._duplicates.values()))

    def find(self, own: str) -> int | None:
        """Return the first trial of this identity."""
        return self._by_identity.get(own) if self.is_on else None

    def add(self, own: str, number: int) -> None:
        """Take note of a trial that starts."""
        self._by_identity.setdefault(own, number)

    def wait(self, number: int, duplicate: Suggestion) -> None:
        """Let a duplicate wait for a trial that runs."""
        self._duplicates.setdefault(number, []).append(duplicate)

    def release(self, number: int, state: EndState) -> None:
        """Release the duplicates of a trial that has ended; forget it if it has no result to give."""
        if state not in ("complete", "pruned"):
            self._by_identity = {own: other for own, other in self._by_identity.items() if other != number}
        self.released.extend(self._duplicates.pop(number, ()))


_DRAWN_FROM = ("seed", "model", "system")  # what `setup` draws comes after the weights, from the trial's seed
_HOW = ("multiprocessing_context", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "timeout_s")


class KnownData:
    """The contents of data configurations, as long as the driver lives: files may change until the next one.

    Samples may be drawn in `setup`, and are then others with another seed or another model before them; not those of
    data that says that no seed matters.
    """

    def __init__(self) -> None:
        self._ignored: dict[str, tuple[str, ...]] = {}
        self._contents: dict[str, Mapping[str, Any]] = {}

    def find(self, config: Config) -> Mapping[str, Any] | None:
        """Return what the samples of a run's data are, if a run of the same data has told."""
        return self._contents.get(self._key(config))

    def add(self, config: Config, content: Mapping[str, Any], ignores: Sequence[str]) -> None:
        """Keep what a run has told of its data, and which arguments its samples do not depend on."""
        self._ignored[_target(config.get("data") or {})] = tuple(ignores)
        self._contents[self._key(config)] = content

    def _key(self, config: Config) -> str:
        data = config.get("data") or {}
        ignored = (*_HOW, *self._ignored.get(_target(data), ()))
        drawn_from = {} if "seed" in ignored else {name: config.get(name) for name in _DRAWN_FROM}
        return fingerprint({"data": {key: of for key, of in data.items() if key not in ignored}, **drawn_from})


def _target(data: Any) -> str:
    return str(data.get("_target_"))
