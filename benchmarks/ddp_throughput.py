"""Samples a second of two ranks against one, against two trials side by side, and against Lightning's own DDP."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import Result, median, scratch

from sweeps.config.composer import Composer, freeze
from sweeps.core.messages import Exited, Failed, RankJob
from sweeps.launchers.local import LocalLauncher

_EPOCHS = 6
_HERE = str(Path(__file__).parent)
_BATCH = 64  # of each rank
_MODELS = {  # name: overrides, batches of an epoch
    "mlp on digits": (("data=digits", "model=mlp"), 9),
    "cnn on Fashion-MNIST": (("data=fashion_mnist", "model=cnn"), 20),
}


def configure(folder: Path, overrides: tuple[str, ...], batches: int, ranks: int) -> tuple[Composer, dict[str, Any]]:
    """Return a config that validates only at the end, and notes the time of each epoch."""
    composer = Composer(
        "train",
        [
            *overrides,
            "trainer=ddp_cpu" if ranks > 1 else "trainer=cpu",
            f"trainer.devices={ranks}",
            f"trainer.max_epochs={_EPOCHS}",
            f"trainer.check_val_every_n_epoch={_EPOCHS}",
            f"trainer.limit_train_batches={batches}",
            "trainer.limit_val_batches=2",
            f"data.batch_size={_BATCH}",
            "test=false",
            "tracking.log_checkpoint=false",
            f"store_dir={folder}/mlruns",
            "+callbacks.clock._target_=epoch_clock.EpochClock",
        ],
    )
    return composer, composer.trial({}, seed=0)


def ours(folder: Path, overrides: tuple[str, ...], batches: int, *, ranks: int, trials: int = 1) -> list[list[float]]:
    """Return the seconds of each epoch but the first, of trials that run at once."""
    composer, config = configure(folder, overrides, batches, ranks)
    launcher = LocalLauncher(modules=["epoch_clock"], python_path=[_HERE], log=folder / "server.log")
    homes = [folder / f"{ranks}-{trials}-{number}" for number in range(trials)]
    try:
        launcher.prepare(ranks * trials)
        for number, home in enumerate(homes):
            freeze(config, home)
            allowed = (*composer.allowed_modules, "epoch_clock")
            job = RankJob(folder=str(home), python_path=(_HERE,), allowed_modules=allowed, threads=1)
            launcher.start(number, job, ranks)
        left = trials
        while left:
            for _, event in launcher.poll(0.5):
                assert not isinstance(event, Failed), event
                left -= isinstance(event, Exited)
    finally:
        launcher.close()
    return [json.loads((home / "epochs.json").read_text())[1:] for home in homes]


def lightning(folder: Path, overrides: tuple[str, ...], batches: int) -> list[float]:
    """Return the seconds of each epoch but the first by Lightning's own DDP, of the same batches and threads."""
    _, config = configure(folder, overrides, batches, 2)
    home = folder / "peer"
    freeze(config, home)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("peer_ddp.py")), str(home), str(_EPOCHS), str(batches)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return [float(line) for line in done.stdout.split()][2:]


def main() -> None:
    result = Result(
        name=Path(__file__).stem,
        claim="two ranks train as many samples a second as Lightning's own DDP, or more; against 2 x one rank as it is",
    )
    verdicts = []
    with scratch() as folder:
        for name, (overrides, batches) in _MODELS.items():
            rounds: dict[str, list[float]] = {"one": [], "two": [], "pair": [], "peer": []}
            for number in range(3):  # in turn, so that a slow minute falls on all
                home = folder / f"{batches}-{number}"
                rounds["one"] += ours(home, overrides, batches, ranks=1)[0]
                rounds["two"] += ours(home, overrides, batches, ranks=2)[0]
                rounds["pair"] += [s for epochs in ours(home, overrides, batches, ranks=1, trials=2) for s in epochs]
                rounds["peer"] += lightning(home, overrides, batches)
            rates = {
                "one": batches * _BATCH / median(rounds["one"]),
                "two": 2 * batches * _BATCH / median(rounds["two"]),
                "pair": 2 * batches * _BATCH / median(rounds["pair"]),
                "peer": 2 * batches * _BATCH / median(rounds["peer"]),
            }
            result.raw[name] = rounds
            result.add(f"{name}: one rank", f"{rates['one']:,.0f} samples/s")
            result.add(
                f"{name}: two ranks",
                f"{rates['two']:,.0f} samples/s",
                f"{rates['two'] / rates['one'] / 2:.2f} of 2 x one rank",
            )
            result.add(
                f"{name}: two trials of one rank at once",
                f"{rates['pair']:,.0f} samples/s",
                f"{rates['pair'] / rates['one'] / 2:.2f} of 2 x one rank: what the two cores give without any talk",
            )
            result.add(
                f"{name}: two ranks by Lightning's own DDP",
                f"{rates['peer']:,.0f} samples/s",
                f"ours is {rates['two'] / rates['peer']:.2f} times that",
            )
            verdicts.append(rates["two"] >= rates["peer"])
    result.holds = all(verdicts)
    result.save()


if __name__ == "__main__":
    main()
