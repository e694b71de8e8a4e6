"""Ask a process of the launcher what the models of a command line are: nets, or LightningModules that take other parts.

It is asked once, before any run exists; the answer decides which parts are resolved, checked and recorded.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sweeps.config.composer import Composer, Config, freeze
from sweeps.core import paths
from sweeps.core.errors import ConfigError, PreflightError
from sweeps.core.messages import Event, Exited, Failed, Inspected, RankJob
from sweeps.driver.jobs import JobBuilder
from sweeps.launchers.slots import Slot

__all__ = ["inspect_models"]

_INSPECTION = -2  # its number among the trials


class InspectionLauncher(Protocol):
    """What an inspection needs of a launcher; see `LocalLauncher`."""

    def start(self, number: int, job: RankJob, num_ranks: int = 1) -> None:
        """Start the ranks of a trial."""

    def poll(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Wait for events."""

    def kill(self, number: int) -> None:
        """End a trial at once."""


def inspect_models(
    launcher: InspectionLauncher,
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
        heard = _heard(launcher)
        failed = next((event for event in heard if isinstance(event, Failed)), None)
        if failed is not None and failed.cause == "usage":
            raise ConfigError(failed.message)
        if failed is not None:
            keeps_logs = True
            raise PreflightError(
                f"{failed.message}\n(the model was built beforehand; all of it is in "
                f"{', '.join(str(log) for log in paths.rank_logs(folder))})"
            )
    finally:
        launcher.kill(_INSPECTION)
        if not keeps_logs:
            shutil.rmtree(folder, ignore_errors=True)
    composer.parts.learn(asked, next(event.parts for event in heard if isinstance(event, Inspected)))
    return True


def _heard(launcher: InspectionLauncher) -> list[Event]:
    heard: list[Event] = []
    while not any(isinstance(event, Exited) for event in heard):
        heard += [event for number, event in launcher.poll(1.0) if number == _INSPECTION]
    return heard
