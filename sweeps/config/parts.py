"""Which parts of a configuration a model takes: a net takes all of them, a LightningModule those in its signature.

Only a process that imports torch can tell a net from a LightningModule (see `worker/building.py`); the driver caches
the answers of such processes here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["PARTS", "PartsTaken"]

PARTS = ("system", "optimizer", "scheduler")
"""The parts that not every model takes."""

_NETS = ("lightning_modules.nets.", "torch.nn.")


class PartsTaken:
    """What is known of the models of one command line."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {}

    def of(self, model: Any) -> frozenset[str] | None:
        """Return the parts that a model takes, given its configuration; None if that is not known.

        The answer for a class holds for all its arguments. A function may build one kind or the other: of arguments
        that were not asked about, the answer is known only if it was the same for all that were.
        """
        target = _target(model)
        if target.startswith(_NETS):
            return frozenset(PARTS)
        if _key(model) in self._known:
            return self._known[_key(model)]
        answers = {parts for key, parts in self._known.items() if json.loads(key)[0] == target}
        return answers.pop() if len(answers) == 1 else None

    def unknown(self, configs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the configs to ask about: one for each kind of model that they have."""
        found: dict[str, Mapping[str, Any]] = {}
        for config in configs:
            model = config["model"]
            if not _target(model).startswith(_NETS) and _key(model) not in self._known:
                found.setdefault(_key(model), config)
        return list(found.values())

    def learn(self, configs: Sequence[Mapping[str, Any]], answers: Sequence[Sequence[str]]) -> None:
        """Keep what was answered for configs, in their order."""
        for config, parts in zip(configs, answers, strict=True):
            self._known[_key(config["model"])] = frozenset(parts)


def _target(model: Any) -> str:
    return str(model.get("_target_", "")) if isinstance(model, Mapping) else ""


def _key(model: Any) -> str:
    """Return the target and those arguments that may decide what a function builds: words and switches, not numbers."""
    arguments = model if isinstance(model, Mapping) else {}
    words = {
        str(name): value
        for name, value in arguments.items()
        if name != "_target_" and (isinstance(value, bool | str) or value is None)
    }
    return json.dumps([_target(model), words], sort_keys=True)
