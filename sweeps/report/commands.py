"""The commands that a report offers: to look at the study, to go on with it, to train its best once more."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.core import paths
from sweeps.core.errors import LightsweepError
from sweeps.results.queries import TrialRow
from sweeps.search.space.overrides import hide_typed
from sweeps.tracking import tags

if TYPE_CHECKING:
    from sweeps.results.study import StoredStudy

__all__ = ["Commands", "next_commands", "train_command"]

Commands = list[tuple[str, str]]
"""What each is for, and what to type."""

_IRRELEVANT = ("study.name", "study.storage", "study.num_trials", "study.timeout_s", "study.device_hours", "store_dir")


def next_commands(study: "StoredStudy", store_dir: Path, *, where: str = "") -> Commands:
    """Return the commands, each with what it is for.

    Args:
        study: As the store tells it.
        store_dir: The folder with that of the study, if this machine has it.
        where: The options by which a command finds the store.
    """
    name = shlex.quote(study.name)
    found = [("All trials, best first", f"lightsweep compare {name} --top 10{where}")]
    if study.best:
        best = study.best[0]
        which = "The best trial" if len(study.best) == 1 else f"#{best.trial}, the first of the front"
        found.append(
            (f"{which}, with all that is known of it", f"lightsweep show {shlex.quote(f'best:{study.name}')}{where}")
        )
        found.append(
            (
                f"{which}, trained again and proved equal",
                f"lightsweep reproduce {shlex.quote(f'best:{study.name}')}{where}",
            )
        )
        again = train_command(study, best, store_dir)
        if again is not None:
            params = study.parent.params
            is_one = all(params.get(f"study.{key}") in (None, "1", "None") for key in ("replicates", "folds"))
            what = "as a training" if is_one else "the first of its trainings, as one"
            found.append((f"{which}, {what} of its own, to change this or that", again))
    if (paths.study_dir(store_dir, study.name) / paths.STUDY).is_file():
        folder = "" if store_dir == Path("mlruns") else f" --store-dir {shlex.quote(str(store_dir))}"
        more = f"study.num_trials={2 * max(len(study.trials), 1)}"
        found.append(("Go on, up to a larger total", f"lightsweep resume {name}{folder} {more}"))
    if not study.uri.startswith("http"):
        found.append(("All of it in MLflow's UI", f"lightsweep ui {name}{where}"))
    return found


def train_command(study: "StoredStudy", row: TrialRow, store_dir: Path) -> str | None:
    """Return the command that trains a trial's configuration again, from the sweep's command line and its seed.

    With as many threads as the slots of the sweep had: on another number sums come out otherwise, and after some
    epochs so do accuracies.
    Of a trial that was trained several times, the first of its trainings; None if its folder is not on this machine.
    """
    from sweeps.config.study_file import read_record
    from sweeps.core.safe_yaml import read_config
    from sweeps.search.space import key_of, quote, split_overrides, verbatim

    folder = paths.trial_dir(paths.study_dir(store_dir, study.name), row.trial or 0)
    folder = paths.replicate_dir(folder, 0) if paths.replicate_dir(folder, 0).is_dir() else folder
    try:
        record = read_record(study.name, store_dir)
        config = read_config(folder / paths.CONFIG)
        plain, _ = split_overrides(record["overrides"])
        own = {"seed": config["seed"]}
        if (config["data"] or {}).get("num_folds") is not None:
            own |= {"data.num_folds": config["data"]["num_folds"], "data.fold": config["data"]["fold"]}
        replaced = {*_IRRELEVANT, *own}
        kept = [text for text in plain if key_of(text) not in replaced and hide_typed(text) == text]
    except (LightsweepError, OSError, KeyError, TypeError):
        return None
    searched = _searched(study, row, quote)
    words = ["lightsweep", "train", "--config-name", record["config_name"]]
    words += ["--config-dir", record["config_dir"]] if record["config_dir"] else []
    words += [*kept, *searched, *(f"{key}={quote(value)}" for key, value in own.items() if key not in row.params)]
    threads = study.parent.tags.get(tags.THREADS)
    is_said = any(key_of(text) == "launcher.threads" for text in kept)
    words += [] if threads is None or is_said else [f"launcher.threads={threads}"]
    words += [] if store_dir == Path("mlruns") else [f"store_dir={verbatim(str(store_dir))}"]
    return " ".join(map(shlex.quote, words))


def _searched(study: "StoredStudy", row: TrialRow, quote: Any) -> Sequence[str]:
    space = study.space
    if space is not None and row.params.keys() <= set(space.keys):
        return space.overrides(row.params)
    return [f"{key}={quote(value)}" for key, value in row.params.items()]
