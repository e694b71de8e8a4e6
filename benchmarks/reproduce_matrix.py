"""Sweeps of 20 trials over optimizers, nets, trainers, slots, interruptions; their trials are reproduced bit for bit.

`reproduce_matrix.py 2` has two sweeps on each data set and writes no result.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

from harness import Result, lightsweep, scratch

_ROWS = 7  # sweeps on each data set
_TRIALS, _EPOCHS = 20, 5
_FIRST_CUT = 4  # the trial from which on a sweep is cut off
_DRAWS = 20_000  # each row is the one of so many that brings most pairs of values together
_WORTH = 10  # pairs that a value on a data set counts as
_CUTS = {"killed": signal.SIGKILL, "stopped": signal.SIGINT}
_TRIES = 3  # a sweep may end, or all its trials, before it is cut off

FACTORS: dict[str, dict[str, tuple[str, ...]]] = {
    "optimizer": {name: (f"optimizer={name}",) for name in ("adagrad", "adam", "adamw", "rmsprop", "sgd")},
    "scheduler": {
        name: (f"scheduler={name}",)
        for name in ("none", "cosine", "exponential", "one_cycle", "plateau", "step", "warmup")
    },
    "net": {
        "mlp": ("model=mlp", "model.depth=2", "model.dropout=0.2"),
        "mlp, batch norm": ("model=mlp", "model.normalization=batch"),
        "cnn": ("model=cnn", "model.channels=8", "model.dropout=0.2"),
        "cnn, layer norm": ("model=cnn", "model.channels=8", "model.normalization=layer"),
        "fashion_cnn": ("experiment=fashion_cnn",),
        "mlp_dropout": ("experiment=mlp_dropout",),
        "mlp_sgd": ("experiment=mlp_sgd",),
    },
    "trainer": {
        "1 rank": ("trainer=cpu",),
        "ddp_cpu": ("trainer=ddp_cpu",),
        "fsdp": ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.strategy.min_unit_parameters=1000"),
        "local_sgd": ("trainer=local_sgd", "trainer.accelerator=cpu"),
        "model_parallel": ("trainer=model_parallel", "trainer.accelerator=cpu"),
    },
    "slots": {"1": ("launcher.slots=1",), "2": ("launcher.slots=2",)},
    "threads": {"1": ("launcher.threads=1",), "2": ("launcher.threads=2",)},
    "start": {"forked": (), "spawned": ("launcher.start_method=spawn",)},
    "pruner": {
        "median": ("pruner=median", "pruner.n_startup_trials=2"),
        "hyperband": ("pruner=hyperband", f"pruner.max_resource={_EPOCHS}"),
        "halving": ("pruner=successive_halving", "pruner.min_resource=1"),
        "none": ("pruner=none",),
    },
    "images": {
        "plain": (),
        "augmented": ("data.augmentation.crop_padding=1", "data.augmentation.rotation_degrees=10"),
    },
    "steps": {
        "plain": (),
        "bf16": ("trainer.precision=bf16-mixed",),
        "accumulated, clipped": ("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1"),
    },
    "cut": {"no": (), "killed": (), "stopped": ()},
}
DATA = {
    "digits": ("data=digits",),
    "fashion_mnist": (
        "data=fashion_mnist",
        *("trainer.limit_train_batches=24", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"),
    ),
}
SHRUNK = f"{_EPOCHS} epochs; of Fashion-MNIST 24 training batches an epoch, 1,024 images of validation and of test"
Row = dict[str, str]


def rows(count: int) -> list[Row]:
    """Return `count` rows on each data set, such that each value meets each data set, and many pairs of others meet."""
    draw = random.Random(0)
    seen: set[frozenset[tuple[str, str]]] = set()
    found: list[Row] = []
    for number in range(count * len(DATA)):
        data = list(DATA)[number % len(DATA)]
        drawn = [{"data": data, **{name: draw.choice(list(of)) for name, of in FACTORS.items()}} for _ in range(_DRAWS)]
        sensible = [row for row in drawn if is_sensible(row, seen)]
        found.append(max(sensible, key=lambda row: worth(pairs(row) - seen)))
        seen |= pairs(found[-1])
    return found


def worth(new: set[frozenset[tuple[str, str]]]) -> int:
    """Return what pairs are worth that no row has had: those with the data set most."""
    return sum(_WORTH if any(name == "data" for name, _ in pair) else 1 for pair in new)


def is_sensible(row: Row, seen: set[frozenset[tuple[str, str]]]) -> bool:
    """Tell whether a row makes sense, and is not merely slow, as are more threads than cores or many spawned ranks."""
    is_spawned, is_alone = row["start"] == "spawned", row["trainer"] == "1 rank"
    if is_spawned and frozenset([("data", row["data"]), ("start", "spawned")]) in seen:
        return False
    if row["net"] == "mlp_sgd" and row["optimizer"] not in ("sgd", "rmsprop"):  # it sets a momentum
        return False
    if row["threads"] == "2" and (row["slots"] == "2" or is_spawned):
        return False
    return is_alone or (row["threads"] == "1" and not is_spawned)


def pairs(row: Row) -> set[frozenset[tuple[str, str]]]:
    """Return the pairs of values that meet in a row."""
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def words(row: Row) -> list[str]:
    """Return a row in words."""
    named = ("slots", "threads")
    return [
        f"{value} {name}" if name in named else value for name, value in row.items() if value not in ("plain", "no")
    ]


def overrides(row: Row) -> list[str]:
    """Return the command line of a row's sweep."""
    parts = [word for name, value in row.items() if name in FACTORS for word in FACTORS[name][value]]
    if row["trainer"] == "model_parallel" and "cnn" in row["net"]:  # it has no plan to divide its layers by
        parts.append("trainer.strategy.tensor_parallel_size=1")
    common = ("search=none", "optimizer.lr=tag(log,interval(1e-3,1e-1))", "data.batch_size=choice(32,64)")
    more = (f"study.num_trials={_TRIALS}", f"trainer.max_epochs={_EPOCHS}", "study.report=false")
    return [*DATA[row["data"]], *parts, *common, *more]


class Folder:
    """A new working folder, in which one sweep runs and its trials are reproduced."""

    def __init__(self, folder: Path, study: str) -> None:
        self.folder = folder
        self.study = study
        self.cut_trials: list[int] = []
        folder.mkdir()

    def sweep(self, words: list[str], cut: str) -> None:
        """Sweep; if it is to be cut off, until a trial can go on where it was, and resume then."""
        words = [*lightsweep(), "sweep", f"study.name={self.study}", *words]
        if cut == "no":
            self._run(words)
            return
        with (self.folder / "sweep.log").open("w") as log:
            driver = subprocess.Popen(
                [*words, "tracking.resume_overhead=1e9"],  # save at every epoch
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
            while driver.poll() is None and not self._can_go_on():
                time.sleep(0.002)
            driver.send_signal(_CUTS[cut])
            driver.wait()
        self._run([*lightsweep(), "resume", self.study])
        self.cut_trials = [int(path.parent.name) for path in self._trials.glob("*/trace.jsonl") if went_on(path)]

    def states(self) -> dict[int, str]:
        """Return how each trial ended."""
        done = self._run([*lightsweep(), "compare", self.study, "--top", str(_TRIALS), "--format", "json"])
        return {row["trial"]: row["state"] for row in json.loads(done.stdout)}

    def reproduce(self, name: str, start: str) -> dict[str, Any]:
        """Reproduce a run and return what is said of it."""
        command = [*lightsweep(), "reproduce", name, "--format", "json", "--start-method", start]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if not done.stdout.strip():
            return {"verdict": f"status {done.returncode}", "reason": done.stderr[-2000:], "num_epochs": 0}
        return dict(json.loads(done.stdout))

    def _can_go_on(self) -> bool:
        """Tell whether a trial has saved twice: the driver knows of the first by then."""
        saved = Counter(path.parent for path in self._trials.glob("00*/resume-*.ckpt"))
        return any(count > 1 and int(folder.name) >= _FIRST_CUT for folder, count in saved.items())

    @property
    def _trials(self) -> Path:
        return self.folder / "mlruns" / self.study

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done


def went_on(trace: Path) -> bool:
    """Tell whether a training was interrupted and continued from its checkpoint."""
    return sum('"begins"' in line for line in trace.read_text().splitlines()) > 1


def shown(folder: Path, row: Row) -> list[tuple[str, dict[str, Any]]]:
    """Sweep as a row says; return what came of the best trial, a pruned one, and those that were cut off."""
    for number in range(_TRIES):
        place = Folder(folder.with_name(f"{folder.name}-{number}"), "s")
        place.sweep(overrides(row), row["cut"])
        if row["cut"] == "no" or place.cut_trials:
            break
    other = "spawn" if row["start"] == "forked" and row["slots"] == "1" else "forkserver"
    found = [("best", place.reproduce(f"best:{place.study}", other))]
    states = place.states()
    pruned = [trial for trial, state in states.items() if state == "pruned" and trial not in place.cut_trials]
    if pruned:
        found.append(("pruned", place.reproduce(f"{place.study}#{max(pruned)}", "forkserver")))
    for trial in place.cut_trials[:1]:
        what = f"{row['cut']}, went on, {states[trial]}"
        found.append((what, place.reproduce(f"{place.study}#{trial}", "forkserver")))
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _ROWS
    result = Result(
        name=Path(__file__).stem,
        claim=f"of sweeps of {_TRIALS} trials the best trial, a pruned one and one that was cut off and went on are "
        "reproduced exact, whatever the optimizer, net, schedule, strategy, slots, threads and start method",
    )
    result.raw["shrunk"] = SHRUNK
    matrix = rows(count)
    verdicts: Counter[str] = Counter()
    began = time.monotonic()
    with scratch() as folder:
        for number, row in enumerate(matrix):
            try:
                found = shown(folder / str(number), row)
            except RuntimeError as error:  # the others are to be seen nevertheless
                found = [("sweep", {"verdict": "failed", "reason": str(error), "num_epochs": 0})]
            for what, told in found:
                verdicts[told["verdict"]] += 1
                name = f"{number + 1}. " + ", ".join(words(row))
                result.raw.setdefault("verdicts", []).append({**row, "what": what, **told})
                remark = f"{told['num_epochs']} epochs" + ("" if told["verdict"] == "exact" else f": {told['reason']}")
                result.add(f"{name}: {what}", told["verdict"], remark)
    met = set().union(*map(pairs, matrix))
    possible = sum(len(one) * len(other) for one, other in combinations([*FACTORS.values(), DATA], 2))
    result.add("pairs of values that met in a sweep", f"{len(met)} of {possible}", ", ".join(["data", *FACTORS]))
    result.add("sweeps, reproductions", f"{len(matrix)}, {verdicts.total()}", f"of {_TRIALS} trials each; {SHRUNK}")
    result.add("all together", f"{time.monotonic() - began:.0f} s")
    result.holds = set(verdicts) == {"exact"}
    if len(sys.argv) == 1:
        result.save()


if __name__ == "__main__":
    main()
