"""Resolve the name of a run: a run id or its beginning, `STUDY#12`, `STUDY#12/1`, `train#3` or `best:STUDY`.

A reproduction is called `reproduction#0`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.core.errors import UsageError, did_you_mean
from sweeps.core.text import some_of, whole
from sweeps.results.queries import trial_rows
from sweeps.results.reader import RunReader
from sweeps.results.rows import TrialRow, best_rows, current_rows
from sweeps.tracking import tags
from sweeps.tracking.runs import ServerRun

__all__ = ["HOW", "Found", "best_run_id", "find_run", "label"]

HOW = "A run is named by its id or the beginning of it, as STUDY#12, as best:STUDY, or as train#3."

_ID = re.compile(r"[0-9a-f]{1,32}")
_NUMBERED = re.compile(r"(?P<study>.+)#(?P<trial>\d{1,18})(?:/(?P<replicate>\d{1,18}))?", re.DOTALL)
_BEST = "best:"
_TRAIN = "train"
_REPRODUCTION = "reproduction"


@dataclass(frozen=True, slots=True)
class Found:
    """A run that was named, and what there is to say of the choice."""

    run_id: str
    note: str = ""


def find_run(reader: RunReader, uri: str, name: str) -> Found:
    """Return the run that is called so.

    Args:
        reader: Of the store.
        uri: The store's address.
        name: As typed.

    Raises:
        UsageError: There is no such run, or there are several; names those that are near.
    """
    if name.startswith(_BEST):
        return _best(reader, uri, name.removeprefix(_BEST))
    numbered = _NUMBERED.fullmatch(name)
    if numbered is not None:
        return Found(_numbered(reader, name, numbered))
    if _ID.fullmatch(name):
        found = reader.ids_from(name)
        if len(found) == 1:
            return Found(found[0])
        if found:
            raise UsageError(f"{len(found)} runs begin with {name!r}: {some_of(found)}. Type more of the id.")
    studies = reader.studies()
    if name in studies:
        raise UsageError(f"{name!r} is a study, not a run: name a trial as {name}#0, or its best as best:{name}.")
    near = did_you_mean(name, {f"{_BEST}{study}" for study in studies} | {f"{study}#0" for study in studies})
    raise UsageError(f"There is no run {name!r}. {HOW} {near if studies else 'The store holds no study yet.'}")


def label(reader: RunReader, run: ServerRun) -> str:
    """Return the shortest name by which `find_run` finds a run, or the beginning of its id."""
    name = _usual_name(run)
    numbered = _NUMBERED.fullmatch(name)
    if numbered is None:
        return name
    try:
        return name if _numbered(reader, name, numbered) == run.run_id else run.run_id[:8]
    except UsageError:  # several are called so
        return run.run_id[:8]


def best_run_id(uri: str, study: str) -> str | None:
    """Return the run that `best:STUDY` finds; None if the study has no best trial."""
    best = _best_rows(uri, study)
    return best[0].run_id if best else None


def _usual_name(run: ServerRun) -> str:
    study, trial = run.tags.get(tags.STUDY), run.tags.get(tags.TRIAL, "")
    folder = run.tags.get(tags.FOLDER, "")
    match run.tags.get(tags.KIND):
        case "trial" if study and trial.isdecimal():
            return f"{study}#{trial}"
        case "replicate" if study and trial.isdecimal():
            return f"{study}#{trial}/{run.tags.get(tags.REPLICATE, '')}"
        case "train" if folder.isdecimal():
            return f"{_TRAIN}#{int(folder)}"
        case "reproduction" if folder.isdecimal():
            return f"{_REPRODUCTION}#{int(folder)}"
        case _:
            return run.run_id[:8]


def _best(reader: RunReader, uri: str, study: str) -> Found:
    _require_study(reader, study)
    best = _best_rows(uri, study)
    if not best:
        raise UsageError(
            f"{_BEST}{study}: the study has no best trial yet: none of its trials is complete, satisfies "
            f"the constraints and has a value. See `lightsweep compare {study}`."
        )
    first, leading = best[0], next(iter(best[0].objectives))
    if len(first.objectives) < 2:
        return Found(first.run_id)
    return Found(
        first.run_id,
        f"{_BEST}{study} is trial {first.trial}, the first of {len(best)} on the Pareto front by {leading}.",
    )


def _best_rows(uri: str, study: str) -> list[TrialRow]:
    rows = current_rows(trial_rows(uri, [study]))
    return best_rows(rows, rows[0].objectives) if rows else []


def _numbered(reader: RunReader, name: str, parts: re.Match[str]) -> str:
    study, trial = parts["study"], int(parts["trial"])
    replicate = None if parts["replicate"] is None else int(parts["replicate"])
    wanted = {tags.KIND: "trial", tags.STUDY: study, tags.TRIAL: str(trial)}
    if replicate is not None:
        wanted |= {tags.KIND: "replicate", tags.REPLICATE: str(replicate)}
    found = _current_runs(reader.runs_with(wanted))
    if study == _TRAIN and replicate is None:
        found += reader.runs_with({tags.KIND: "train", tags.FOLDER: f"{trial:04d}"})
    if study == _REPRODUCTION and replicate is None:
        found += reader.runs_with({tags.KIND: "reproduction", tags.FOLDER: f"{trial:04d}"})
    if len(found) == 1:
        return found[0].run_id
    if found:
        ids = some_of([run.run_id for run in found])
        raise UsageError(f"{len(found)} runs are called {name!r}: {ids}. Name one by its id.")
    if study == _TRAIN and _TRAIN not in reader.studies():
        numbers = {run.tags.get(tags.FOLDER, "") for run in reader.runs_with({tags.KIND: "train"})}
        raise UsageError(f"There is no run {name!r}. {_known('train', numbers, trial, 'The store has no train yet.')}")
    _require_study(reader, study)
    if replicate is not None:
        siblings = reader.runs_with({tags.KIND: "replicate", tags.STUDY: study, tags.TRIAL: str(trial)})
        numbers = {run.tags.get(tags.REPLICATE, "") for run in siblings}
        none = f"Trial {trial} has no replicates." if _current_runs(reader.runs_with(_trial(study, trial))) else ""
        none = none or f"Study {study!r} has no trial {trial}."
        raise UsageError(f"There is no run {name!r}. {_known(f'{study}#{trial}', numbers, replicate, none, '/')}")
    numbers = {run.tags.get(tags.TRIAL, "") for run in reader.runs_with({tags.KIND: "trial", tags.STUDY: study})}
    raise UsageError(f"There is no run {name!r}. {_known(study, numbers, trial, 'The study has no trials yet.')}")


def _trial(study: str, trial: int) -> dict[str, str]:
    return {tags.KIND: "trial", tags.STUDY: study, tags.TRIAL: str(trial)}


def _current_runs(runs: Sequence[ServerRun]) -> list[ServerRun]:
    """Leave out what was dropped by a migration, then what was interrupted and begun anew, if something is left."""
    kept = list(runs)
    for state in ("dropped", "interrupted"):
        kept = [run for run in kept if run.tags.get(tags.STATE) != state] or kept
    return kept


def _known(of: str, texts: set[str], wanted: int, none: str, mark: str = "#") -> str:
    """Name the numbers that there are: the nearest, and the range."""
    numbers = sorted(number for text in texts if (number := whole(text)) is not None)
    if not numbers:
        return none
    nearest = sorted(numbers, key=lambda number: (abs(number - wanted), number))[:3]
    names = " or ".join(f"{of}{mark}{number}" for number in sorted(nearest))
    return f"The numbers go from {numbers[0]} to {numbers[-1]}. Did you mean {names}?"


def _require_study(reader: RunReader, study: str) -> None:
    studies = reader.studies()
    if study not in studies and not reader.runs_with({tags.KIND: "trial", tags.STUDY: study}):  # its own run deleted
        hint = did_you_mean(study, studies) or "The store holds no study yet."
        raise UsageError(f"There is no study {study!r}. {hint}")
