"""The preload module of the fork server: it imports everything once, so that ranks need not.

It starts no thread and touches no device, since neither survives a fork.
"""

import gc
import importlib
import json
import os
import signal
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path

from sweeps.core import lightning_alias
from sweeps.core.paths import open_to_append

__all__ = ["VARIABLE"]

VARIABLE = "LIGHTSWEEP_PRELOAD"
"""JSON: the modules to import, the folders to find them in, and the file for what they print."""

_LAZY = (  # what a first fit would import by itself
    "antlr4",
    "fsspec.implementations.chained",
    "fsspec.implementations.local",
    "multiprocessing.popen_forkserver",
    "torch._dynamo",
    "torch.distributed",
    "torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook",
    "torch.utils.data",
)


def _preload() -> None:
    order = json.loads(os.environ.pop(VARIABLE, "null"))
    if order is None:
        return
    for signum in (signal.SIGINT, signal.SIGTERM):  # torchrun and srun signal all that a process has started, and
        signal.signal(signum, signal.SIG_IGN)  # ranks whose server is gone cannot finish their step
    log = open_to_append(Path(order["log"]))
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.path[:0] = [path for path in order["path"] if path not in sys.path]
    lightning_alias.install()
    for module in (
        "sweeps.cli.main",
        "sweeps.worker.main",
        "sweeps.worker.fit",
        "sweeps.worker.preflight",
        *_LAZY,
        *order["modules"],
    ):
        try:
            importlib.import_module(module)
        except Exception:  # the trial that needs the module says so, with the configuration's key
            traceback.print_exc()
    _settle_requirements()
    from sweeps.reproduce.provenance import imported_sources

    imported_sources(order["own"])  # as they are now: the files may change while ranks are forked
    gc.collect()
    gc.freeze()  # else the collector's first pass in each rank copies the shared pages


def _settle_requirements() -> None:
    """Look up what Lightning and torchmetrics ask of the installed packages: milliseconds in every rank."""
    entry_points()  # its caches of folders stay
    from lightning_utilities.core.imports import RequirementCache

    for module in list(sys.modules.values()):
        for value in list(vars(module).values()):
            if issubclass(type(value), RequirementCache):  # isinstance would wake lazy proxies
                bool(value)


_preload()
