"""From a free slot to the first training step of a trial of several ranks, and the same by Lightning's launcher."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import Result, median, scratch

from sweeps.config.composer import Composer, freeze
from sweeps.driver.session import CommandLine, Reporter
from sweeps.driver.sweep import sweep


def latencies(ranks: int, num_trials: int) -> list[float]:
    overrides: tuple[str, ...] = (
        "optimizer.lr=tag(log,interval(1e-4,1e-1))",
        "model.depth=range(1,4)",
        f"study.num_trials={num_trials}",
        f"study.name=of-{ranks}",
        "trainer=ddp_cpu" if ranks > 1 else "trainer=cpu",
        f"trainer.devices={ranks}",
        "trainer.max_epochs=1",
        "pruner=none",
        "launcher.slots=1",
    )
    result: Any = sweep(CommandLine(overrides=overrides, config_name="sweep"), Reporter())
    assert all(outcome.state == "complete" for outcome in result.totals.outcomes)
    ordered = sorted(result.totals.outcomes, key=lambda outcome: outcome.number)
    return [outcome.start_latency_s for outcome in ordered[1:]]  # the first had waited for the check


def lightning(folder: Path) -> float:
    """Return the seconds from `fit` to the first step in a process that has imported everything."""
    peer = Path(__file__).with_name("peer_ddp.py")
    done = subprocess.run(
        [sys.executable, str(peer), str(folder), "1", "1"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return float(done.stdout.split()[0])


def main() -> None:
    result = Result(
        name=Path(__file__).stem,
        claim="a trial of two ranks is at its first training step at most 300 ms after its slot is free (median)",
    )
    with scratch() as folder:
        for ranks in (1, 2, 3):
            found = latencies(ranks, 30)
            result.raw[f"{ranks} ranks (s)"] = found
            result.add(
                f"{ranks} rank{'s' if ranks > 1 else ''}",
                f"{1000 * median(found):.0f} ms",
                f"median of {len(found)}; slowest tenth from {1000 * sorted(found)[-len(found) // 10]:.0f} ms",
            )
            if ranks == 2:
                result.holds = median(found) <= 0.300
        config = Composer("train", ["trainer=ddp_cpu", f"store_dir={folder}/mlruns"]).trial({}, seed=0)
        freeze(config, folder / "peer")
        peers = [lightning(folder / "peer") for _ in range(3)]
        result.raw["Lightning's launcher, 2 ranks (s)"] = peers
        result.add(
            "2 ranks by Lightning's own launcher",
            f"{1000 * median(peers):.0f} ms",
            f"median of {len(peers)}; from `fit`, with everything imported in rank 0",
        )
    result.save()


if __name__ == "__main__":
    main()
