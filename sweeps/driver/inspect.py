"""Ask a process with torch, before any run exists, which parts of a configuration models take, and what the data is."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sweeps.config.composer import Composer, Config, freeze
from sweeps.core import paths
from sweeps.core.errors import ConfigError, PreflightError
from sweeps.core.messages import DataContent, Event, Exited, Failed, Inspected
from sweeps.driver.jobs import JobBuilder
from sweeps.launchers.launcher import Launcher
from sweeps.launchers.slots import Slot

__all__ = ["inspect_data", "inspect_models"]

_INSPECTION = -2  # its number among the trials


def inspect_models(
    launcher: Launcher,
    composer: Composer,
    jobs: JobBuilder,
    configs: Sequence[Config],
    slot: Slot,
    store_dir: Path,
) -> bool:
    """Let the composer know which parts the models of these configs take; return whether something new was learned.

    Raises:
        ConfigError: A model cannot be built, or is neither a net nor a LightningModule.
        PreflightError: A model's own code failed.
    """
    asked = composer.parts.unknown(configs)
    if not asked:
        return False
    folder = paths.check_dir(store_dir)
    keeps_logs = False
    try:
        for number, config in enumerate(asked):
            freeze(dict(config), folder if number == 0 else paths.trial_dir(folder, number))
        launcher.start(
            _INSPECTION,
            jobs.job("inspect", folder, slot, list(map(dict, asked))),
        )
        events = _events(launcher)
        failed = next((event for event in events if isinstance(event, Failed)), None)
        if failed is not None and failed.cause == "usage":
            raise ConfigError(failed.message)
        if failed is not None:
            keeps_logs = True
            raise PreflightError(
                f"{failed.message}\n(the model was built beforehand; full log: "
                f"{', '.join(str(log) for log in paths.rank_logs(folder))})"
            )
    finally:
        launcher.kill(_INSPECTION)
        if not keeps_logs:
            shutil.rmtree(folder, ignore_errors=True)
    composer.parts.learn(asked, next(event.parts for event in events if isinstance(event, Inspected)))
    return True


def inspect_data(
    launcher: Launcher, jobs: JobBuilder, config: Config, slot: Slot, store_dir: Path
) -> DataContent | Failed:
    """Let a process of each rank read the data of a config; return what the samples are, or why that failed."""
    folder = paths.check_dir(store_dir)
    try:
        freeze(config, folder)
        launcher.start(_INSPECTION, jobs.job("inspect_data", folder, slot, [config]), slot.devices)
        found = next((event for event in _events(launcher) if isinstance(event, DataContent | Failed)), None)
        assert found is not None, "a process that reads the data sends what it is, or that it failed"
        return found
    finally:
        launcher.kill(_INSPECTION)
        shutil.rmtree(folder, ignore_errors=True)


def _events(launcher: Launcher) -> list[Event]:
    events: list[Event] = []
    while not any(isinstance(event, Exited) for event in events):
        events += [event for number, event in launcher.poll(1.0) if number == _INSPECTION]
    return events
