"""64 short trials on 2 slots against a hand-written loop in one process; imports included on both sides."""

import os
import subprocess
import sys
import time
from pathlib import Path

from harness import Result, lightsweep, median, scratch

_TRIALS, _EPOCHS, _ROUNDS = 64, 5, 3
_PEER = Path(__file__).with_name("peer_loop.py")


def ours(number: int) -> list[str]:
    return [
        *lightsweep(),
        "sweep",
        "optimizer.lr=tag(log,interval(1e-4,1e-1))",
        "model.depth=range(1,4)",
        f"study.num_trials={_TRIALS}",
        f"study.name=bench-{number}",
        f"trainer.max_epochs={_EPOCHS}",
        "pruner=none",
        "launcher.slots=2",
        "test=false",
    ]


def peer(detail: str) -> list[str]:
    return [sys.executable, str(_PEER), str(_TRIALS), str(_EPOCHS), detail]


def timed(command: list[str], folder: Path) -> float:
    folder.mkdir()
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    return time.perf_counter() - began


def main() -> None:
    result = Result(
        name=Path(__file__).stem,
        claim=f"{_TRIALS} trials of {_EPOCHS} epochs on 2 slots, every metric tracked (the loss of every step, too), "
        "take at most 0.45 of the wall time of a hand-written loop of optuna + Lightning + MLFlowLogger on SQLite "
        "in one process, imports included",
    )
    times: dict[str, list[float]] = {"lightsweep": [], "loop, epoch metrics": [], "loop, every step": []}
    with scratch() as folder:
        for number in range(_ROUNDS):  # alternating, so that a busy moment of the machine hits all alike
            times["lightsweep"].append(timed(ours(number), folder / f"ours-{number}"))
            times["loop, epoch metrics"].append(timed(peer("epoch"), folder / f"epoch-{number}"))
            times["loop, every step"].append(timed(peer("step"), folder / f"step-{number}"))
    result.raw["seconds"] = times
    own = median(times["lightsweep"])
    result.add("lightsweep, every step and epoch", f"{own:.1f} s", f"median of {_ROUNDS}; an empty store each time")
    for name in ("loop, epoch metrics", "loop, every step"):
        ratios = [a / b for a, b in zip(times["lightsweep"], times[name], strict=True)]
        result.raw[f"ratio to {name}"] = ratios
        result.add(name, f"{median(times[name]):.1f} s", f"lightsweep takes {median(ratios):.2f} of it")
    result.holds = median(result.raw["ratio to loop, every step"]) <= 0.45
    result.save()


if __name__ == "__main__":
    main()
