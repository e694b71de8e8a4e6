"""What the store says, as the code that wrote it reads it: `python values.py > values.jsonl` in the unpacked store.

`values.jsonl` was made by commit b90f984. It has what is recorded, not how it is worded: later code may say more, but
none of this otherwise.
"""

import contextlib
import importlib
import io
import json
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["STUDIES", "entry_point", "values"]

STUDIES = ("small", "front", "repeated", "conditional", "types", "failing", "interrupted", "killed")
_ORDERS = (
    "compare",
    "compare --top 7",
    "compare --metric val/loss",
    "compare --where 'metrics.val/acc > 0.5' --sort duration_s",
    "compare --where \"state in ['failed', 'dropped', 'running'] or study like 'f%t'\"",
    "compare --where 'value = null' --sort study",
    "compare small --top 3",
    "compare small --sort optimizer.lr",
    "compare small --sort lr --descending --top 2",
    "compare small --where \"params.model.depth >= 2 and not infeasible contains 'num_params'\"",
    "compare small --where \"infeasible != ''\"",
    "compare small --metric val/loss",
    "compare small --metric test/loss --descending",
    "compare front --pareto",
    "compare front --metric num_params",
    "compare types --where \"params.tracking.tags.lot in ['1e3', '2024_11_30']\"",
    "compare types --where 'params.trainer.gradient_clip_val = null and state = \"complete\"' --sort data.batch_size",
    "compare types --where \"model.width = '[6, 4]' or data.drop_last = true\"",
    "compare conditional --where \"optimizer = 'sgd'\" --sort model.channels",
    "compare failing interrupted --where \"state = 'failed' or state = 'interrupted'\"",
)
"""lists of trials of which only the order is kept, since the studies have their values"""
_WHOLE = (
    *(f"compare {study}" for study in STUDIES),
    "compare --where 'study = null'",
    "compare small --group-by model.depth",
    "compare types failing --group-by study,state --top 3",
    "compare front --group-by model.width --metric val/loss",
    "show best:small",
    "show small#4",
    "show best:front",
    "show repeated#0",
    "show repeated#0/1",
    "show conditional#3",
    "show types#9",
    "show types#2",
    "show failing#0",
    "show failing#2",
    "show interrupted#1",
    "show killed#1",
    "show train#1",
    "diff best:small small#2",
    "diff small#1 front#1 train#0",
    "diff repeated#0/0 repeated#0/1",
    "predict digits@champion samples.json --probabilities",
    "predict digits/1 samples.json",
)


def entry_point() -> Callable[[list[str]], int | None]:
    """Return what the command `lightsweep` calls in this checkout, wherever it is."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["lightsweep"].partition(":")
    found: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), name)
    return found


def values() -> Iterator[tuple[str, Any]]:
    """Yield each reading command and what it finds in the store of the working folder."""
    for command in _ORDERS:
        yield f"order of {command}", [_name(row) for row in _json(command)]
    for command in _WHOLE:
        yield command, _recorded(_json(command))


def _json(command: str) -> Any:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = entry_point()([*shlex.split(command), "--format", "json"])
    assert not status, f"{command} ended with {status}"
    return json.loads(said.getvalue())


def _name(row: dict[str, Any]) -> str:
    return f"{row['study']}#{row['trial']}" if row["study"] else str(row["run_id"])


def _recorded(found: Any) -> Any:
    """Leave out of `show` the phrases that its origin is told in."""
    return {key: value for key, value in found.items() if key != "origin"} if isinstance(found, dict) else found


if __name__ == "__main__":
    for command, found in values():
        print(json.dumps([command, found]))
