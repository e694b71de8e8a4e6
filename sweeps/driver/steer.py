"""`lightsweep enqueue` and `stop`: queue a command for the driver of a study, which `inbox.py` carries out."""

import fcntl
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.config.study_file import read_record
from sweeps.core import paths
from sweeps.core.errors import StudyError
from sweeps.core.text import values_text
from sweeps.core.urls import store_options
from sweeps.driver.inbox import Enqueue, Inbox, StopCommand

__all__ = ["enqueue", "is_driven", "stop"]

_HEARD_WITHIN_S = 15.0  # a driver looks several times a second, but a database may keep it waiting


def enqueue(name: str, store_dir: Path, overrides: Sequence[str]) -> str:
    """Queue a trial with these values, whether a driver works on the study or not; return what happens to it.

    Raises:
        StudyError: There is no such study in the store.
        SpaceError: A value cannot be read, its key is not searched, or it is not in the space.
    """
    from sweeps.driver.sweep_setup import read_sweep, recorded_command, storage_url
    from sweeps.search.space.space import read_values  # seconds of imports that `stop` does without
    from sweeps.search.states import count_trials
    from sweeps.search.storage import open_storage

    _, config, space = read_sweep(recorded_command(name, store_dir))
    values = read_values(overrides)
    space.encode(values)
    folder = paths.study_dir(store_dir, name)
    inbox = Inbox(folder)
    counts = count_trials(open_storage(storage_url(config)), name)
    num_before = counts.num_waiting + sum(isinstance(command.order, Enqueue) for command in inbox.read())
    num_taken, total = counts.num_finished + counts.num_running + num_before, config["study"]["num_trials"]
    inbox.write(Enqueue(values=values))
    text = values_text(values)
    after = f", after {num_before} that {'wait' if num_before > 1 else 'waits'} already" if num_before else ""
    if num_taken >= total:
        return (
            f"{text}: enqueued, but the {total} trials of study {name!r} are all taken. More are run by "
            f"`{_resume(name, store_dir)} study.num_trials={num_taken + 1}`."
        )
    if not is_driven(folder):
        return f"{text}: enqueued; it waits for `{_resume(name, store_dir)}`{after}."
    return f"{text}: enqueued; it runs next{after}."


def stop(name: str, store_dir: Path, *, is_now: bool) -> str:
    """Stop a running study once its trials finish, or at once if `is_now`; return what happens.

    Raises:
        StudyError: There is no such study in the store, or no driver works on it.
    """
    read_record(name, store_dir)
    folder = paths.study_dir(store_dir, name)
    if not is_driven(folder):
        raise StudyError(f"No driver works on study {name!r}, so there is nothing to stop.")
    inbox = Inbox(folder)
    command = inbox.write(StopCommand(is_now=is_now))
    deadline = time.monotonic() + _HEARD_WITHIN_S
    while inbox.holds(command) and time.monotonic() < deadline:
        if not is_driven(folder):
            inbox.forget(command)
            return f"The driver of study {name!r} has just ended."
        time.sleep(0.02)
    what = (
        "the running trials stop after their step and can be resumed"
        if is_now
        else "it starts no more trials, and ends when the running ones have ended; with --now they stop, too"
    )
    late = " It has not answered yet, but will do so as soon as it looks." if inbox.holds(command) else ""
    return f"Told the driver of study {name!r}: {what}.{late}"


def _resume(name: str, store_dir: Path) -> str:
    return f"lightsweep resume {shlex.quote(name)}{store_options(store_dir)}"


def is_driven(folder: Path) -> bool:
    """Tell whether a driver works on the study of this folder.

    Its lock is tried, and held for an instant if it is free; a driver that starts just then tries again.
    """
    try:
        descriptor = os.open(folder / paths.LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
