"""What the driver has heard of the data: a trial of the same data need not look at it again."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.composer import Config, fingerprint

__all__ = ["KnownData"]

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
