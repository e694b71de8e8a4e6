"""From a free slot to the first training step: tell, ask, compose, freeze, fork, build the data and the net."""

from pathlib import Path
from typing import Any

from harness import Result, median, scratch

from sweeps.driver.session import CommandLine, Reporter
from sweeps.driver.sweep import sweep


def latencies(start_method: str, num_trials: int, slots: int) -> list[float]:
    overrides: tuple[str, ...] = (
        "optimizer.lr=tag(log,interval(1e-4,1e-1))",
        "model.depth=range(1,4)",
        f"study.num_trials={num_trials}",
        f"study.name={start_method}-{slots}",
        "trainer.max_epochs=1",
        "pruner=none",
        f"launcher.slots={slots}",
        f"launcher.start_method={start_method}",
    )
    result: Any = sweep(CommandLine(overrides=overrides, config_name="sweep"), Reporter())
    assert all(outcome.state == "complete" for outcome in result.totals.outcomes)
    ordered = sorted(result.totals.outcomes, key=lambda outcome: outcome.number)
    return [outcome.start_latency_s for outcome in ordered[slots:]]  # the first ones had waited for the check


def main() -> None:
    result = Result(
        name=Path(__file__).stem,
        claim="from slot free to first training step: at most 100 ms (median); a spawned process needs seconds",
    )
    with scratch():
        for slots in (1, 2):
            forked = latencies("forkserver", 40, slots)
            result.raw[f"forkserver, {slots} slots (s)"] = forked
            result.add(
                f"forked, {slots} slot{'s'[: slots - 1]}",
                f"{1000 * median(forked):.0f} ms",
                f"median of {len(forked)}; slowest tenth from {1000 * sorted(forked)[-len(forked) // 10]:.0f} ms",
            )
            if slots == 1:
                result.holds = median(forked) <= 0.100
        spawned = latencies("spawn", 6, 1)
        result.raw["spawn, 1 slot (s)"] = spawned
        result.add("spawned, 1 slot", f"{1000 * median(spawned):.0f} ms", f"median of {len(spawned)}")
    result.save()


if __name__ == "__main__":
    main()
