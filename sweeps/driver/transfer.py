"""Bring earlier trials into a study: migrate its own to a new space (`--migrate`), or import those of other studies.

`search/space/compatibility.py` decides which trials fit. This module finds their configurations, reports the result,
and updates the tags of their runs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.config.composer import Composer, Config, load_frozen
from sweeps.config.study_file import read_choices
from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.driver.sweep_setup import SweepPlan
from sweeps.search.space.compatibility import Composed, ValueOf
from sweeps.search.study import Study
from sweeps.search.transfer import Migration, is_stored, migrate, note_recorded, require_sources, unrecorded, warm_start
from sweeps.tracking import tags
from sweeps.tracking.store import RunStore

if TYPE_CHECKING:
    from sweeps.search.storage import Storage

__all__ = ["check_warm_start", "known_choices", "move_over", "record_move", "start_warm"]

_NUM_REASONS = 3  # of trials that do not fit, in the terminal


def check_warm_start(plan: SweepPlan, storage: "Storage") -> None:
    """Check before anything is trained that a new study can import from the studies of `study.warm_start`.

    Raises:
        ConfigError: It cannot; the study that it is for may be there already, though.
    """
    name, sources = plan.config["study"]["name"], _sources(plan.config)
    if sources and not (name and is_stored(storage, name)):
        require_sources(storage, sources, plan.terms)


def known_choices(folder: Path, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of groups that hold for every trial of a study, with those now chosen."""
    now = {group: option for group, option in choices.items() if not group.startswith("hydra/")}
    before = read_choices(folder)
    if before is None:
        return now
    return {group: option for group, option in now.items() if group in before and before[group] == option}


def move_over(plan: SweepPlan, name: str, storage: "Storage", *, folder: Path, say: Callable[[str], None]) -> None:
    """Move a study over to another space, if it has another one, and say what became of its trials."""
    moved = migrate(
        storage,
        name,
        space=plan.space,
        terms=plan.terms,
        recorded=_Past(folder, plan.composer).of,
        composed=_composed(plan.composer),
    )
    if moved is not None:
        _say_moved(name, moved, say)


def start_warm(plan: SweepPlan, name: str, storage: "Storage", *, store_dir: Path, say: Callable[[str], None]) -> None:
    """Create a study with what others have found, unless it is there or is to know nothing."""
    sources = _sources(plan.config)
    if not sources or is_stored(storage, name):
        return
    pasts = {source: _Past(paths.study_dir(store_dir, source), plan.composer) for source in sources}
    for imported in warm_start(
        storage,
        name,
        sources=sources,
        space=plan.space,
        terms=plan.terms,
        recorded=lambda source, number: pasts[source].of(number),
        composed=_composed(plan.composer),
    ):
        incompatible = f" ({len(imported.incompatible)} incompatible)" if imported.incompatible else ""
        say(f"warm start: imported {imported.count} trials from study {imported.source}{incompatible}")
        _say_reasons(say, imported.incompatible)


def record_move(study: Study, store: RunStore, parent: str) -> None:
    """Tell the runs of a study what its last migration did, if they do not know yet."""
    moved = unrecorded(study)
    if moved is None:
        return
    described = study.space.describe()
    gone = {key: "not searched" for key in moved.space_before if key not in described}
    run_tags = {f"search.{key}": text for key, text in {**described, **gone}.items()}
    store.set_tags(parent, {**run_tags, tags.BACKUP: moved.backup})
    dropped = study.dropped
    has_other_keys = described.keys() != moved.space_before.keys()
    for run_id, trial in store.trial_runs(study.name).items() if dropped or has_other_keys else ():
        if trial in dropped:
            store.set_tags(run_id, {tags.STATE: "dropped", tags.REASON: dropped[trial]})
        elif has_other_keys:
            store.set_tags(run_id, {tags.PARAMS: json.dumps(study.values_of(trial))})
    note_recorded(study)


def _sources(config: Config) -> list[str]:
    given = config["study"]["warm_start"]
    names = [given] if isinstance(given, str) else given or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"study.warm_start must be the name of a study, or a list of names, but got {given!r}. Example: "
            "study.warm_start=[first,second]"
        )
    return names


# --- where configurations are found --------------------------------------------------------------------


class _Past:
    """What the folder of a study tells of the configurations of its trials."""

    def __init__(self, folder: Path, composer: Composer) -> None:
        self._folder = folder
        self._composer = composer
        self._choices = read_choices(folder) or {}

    def of(self, number: int) -> ValueOf | None:
        """Return what is known of a trial; None if it has not begun."""
        folder = paths.trial_dir(self._folder, number)
        if not (folder / paths.CONFIG).is_file():
            return None
        config = cache(lambda: load_frozen(folder))  # read when something is asked for
        return lambda key: _look(self._composer, config(), self._choices)(key)


def _composed(composer: Composer) -> Composed:
    """Return what composes a trial of the command line, to look at it."""
    return lambda values: _look(composer, composer.trial(values, seed=0), {**composer.choices, **values})


def _look(composer: Composer, config: Config, choices: Mapping[str, Any]) -> ValueOf:
    def look(key: str) -> Any:
        if composer.is_group(key):
            return choices[key]
        node: Any = config
        for word in key.split("."):
            if isinstance(node, list) and word.isdecimal() and int(word) < len(node):
                node = node[int(word)]
            elif isinstance(node, Mapping):
                node = node[word]
            else:
                raise KeyError(key)
        return node

    return look


# --- what the terminal says ----------------------------------------------------------------------------


def _say_moved(name: str, moved: Migration, say: Callable[[str], None]) -> None:
    say(
        f"study {name} is moved to the new space: {moved.num_kept} trials are kept, {len(moved.dropped)} dropped "
        f"(as it was, it is {moved.backup} in the storage)",
    )
    _say_reasons(say, moved.dropped)


def _say_reasons(say: Callable[[str], None], reasons: Mapping[int, str]) -> None:
    shown: Sequence[int] = sorted(reasons)[:_NUM_REASONS]
    for number in shown:
        say(f"  #{number}: {reasons[number]}")
    if len(reasons) > len(shown):
        say(f"  and {len(reasons) - len(shown)} more")
