"""Six real processes that do the same at the same moment: `python six_at_once.py MODULE FUNCTION ARGUMENT ...`.

They are forked from one that has imported what they need, so that they collide and start quickly.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def six_at_once(module: str, function: str, *arguments: object) -> str:
    """Call the function in six processes; return what they printed, which includes the traceback of one that failed."""
    folders = [*sys.path, str(Path(__file__).parent), str(Path.cwd())]
    done = subprocess.run(
        [sys.executable, __file__, module, function, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    return done.stdout + ("" if done.returncode == 0 else f"exit status {done.returncode}")


def _call(function: Any, barrier: Any, arguments: list[str]) -> None:
    barrier.wait()
    function(*arguments)


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    barrier = fork.Barrier(6)
    processes = [fork.Process(target=_call, args=(function, barrier, sys.argv[3:])) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))
