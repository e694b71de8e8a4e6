"""The Lightning logger of a rank: it sends metrics to the driver and touches no store."""

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from sweeps.worker.channel import Channel

__all__ = ["ChannelLogger"]

_LOG = logging.getLogger(__name__)


class ChannelLogger(Logger):
    """Sends metrics over the rank's channel; what else a run has is recorded by the driver.

    Args:
        channel: The line to the driver.
        folder: The trial's folder.
        is_cut: Whether training was stopped within an epoch. What it logs from then on is not kept: the trial may go
            on from the beginning of the epoch, and has then the curve of one that was not stopped.

    Attributes:
        is_silent: Whether all that is logged is dropped, as in a check.
    """

    def __init__(self, channel: Channel, folder: Path, is_cut: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.is_silent = False
        self._is_cut = is_cut
        self._channel = channel
        self._folder = folder

    @property
    def name(self) -> str:
        """Nothing: the folder names the run."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: the folder names the run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The trial's folder."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hold the metrics for the next message to the driver; what is not a number is left out, with a warning."""
        if self.is_silent or self._is_cut():
            return
        numbers: dict[str, float] = {}
        for name, value in metrics.items():
            try:
                numbers[str(name)] = float(value)
            except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of a tensor of several numbers
                _LOG.warning("metric %r is not recorded: it must be a number, but is a %s", name, type(value).__name__)
        self._channel.log(numbers, int(step or 0))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the driver records the frozen config."""
