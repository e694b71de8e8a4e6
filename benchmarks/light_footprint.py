"""How long `lightsweep --help` takes, and how much memory each further slot needs."""

import subprocess
import sys
import time
from pathlib import Path

from harness import Result, lightsweep, median, scratch

_MB = 1024  # /proc counts in kB


def help_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([*lightsweep(), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def ranks_of(driver: int) -> list[int]:
    """Return the processes that the server of `driver` has forked."""
    servers = [pid for pid in _children(driver) if "forkserver" in _command(pid)]
    return [rank for server in servers for rank in _children(server)]


def private_kb(pid: int) -> int:
    """Return the memory that goes away with a process: what it shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def slot_memory(slots: int) -> list[int]:
    """Return the private memory of each rank while `slots` trials train, in kB."""
    command = [
        *lightsweep(),
        "sweep",
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
        f"study.name=memory-{slots}",
        f"study.num_trials={slots}",
        "trainer=cpu",
        "trainer.max_epochs=100000",
        f"launcher.slots={slots}",
        "launcher.grace_s=0",
    ]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            logs = list(Path("mlruns", f"memory-{slots}").glob("*/checkpoints/*.ckpt"))
            if len({log.parent for log in logs}) == slots:  # each has validated at least once
                break
            time.sleep(0.1)
        time.sleep(2)
        return sorted(private_kb(rank) for rank in ranks_of(driver.pid))
    finally:
        driver.terminate()
        driver.wait()


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid:
                found.append(int(entry.name))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    result = Result(
        name=Path(__file__).stem,
        claim="`lightsweep --help` takes at most 0.5 s, and each further forked slot at most 150 MB of its own",
    )
    helps = [help_seconds() for _ in range(11)]
    result.add("lightsweep --help", f"{median(helps):.2f} s", "median of 11")
    with scratch():
        slots = {number: slot_memory(number) for number in (1, 2, 4)}
    for number, kilobytes in slots.items():
        assert len(kilobytes) == number, f"{number} ranks were expected, but {len(kilobytes)} were seen"
        figures = ", ".join(f"{kb / _MB:.0f}" for kb in kilobytes)
        result.add(f"{number} slots training digits", f"{figures} MB", "private memory of each rank")
    result.raw = {"help (s)": helps, "private memory (kB)": slots}
    result.holds = median(helps) <= 0.5 and max(max(each) for each in slots.values()) <= 150 * _MB
    result.save()


if __name__ == "__main__":
    sys.exit(main())
