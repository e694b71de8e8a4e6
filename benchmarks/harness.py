"""What every benchmark shares: the machine's description, medians, and a result file that states its claim."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["Result", "lightsweep", "median", "scratch"]

_RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "pytorch-lightning", "optuna", "mlflow", "hydra-core", "sqlalchemy", "numpy")


@dataclass(kw_only=True)
class Result:
    """One claim and what was measured.

    Attributes:
        name: The name of the result file.
        claim: What is to be shown, with its target.
        rows: Measured quantities; each a name, a figure with its unit, and a remark.
        raw: Every single measurement.
        holds: Whether the target was met; None where there is none.
    """

    name: str
    claim: str
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    holds: bool | None = None

    def add(self, name: str, figure: str, remark: str = "") -> None:
        """Add a quantity, and print it."""
        self.rows.append((name, figure, remark))
        print(f"  {name}: {figure}  {remark}".rstrip(), flush=True)

    def save(self) -> None:
        """Write the result as Markdown for people and JSON for programs."""
        _RESULTS.mkdir(exist_ok=True)
        verdict = {True: "met", False: "**not met**", None: "no target"}[self.holds]
        machine = _machine()
        lines = [
            f"# {self.name}",
            "",
            f"Claim: {self.claim} ({verdict})",
            "",
            "| quantity | figure | remark |",
            "|---|---|---|",
            *(f"| {name} | {figure} | {remark} |" for name, figure, remark in self.rows),
            "",
            f"Command: `python benchmarks/{self.name}.py`  ",
            f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}  ",
            f"Versions: {', '.join(f'{k} {v}' for k, v in machine['versions'].items())}  ",
            f"Commit: {machine['commit']}",
            "",
        ]
        (_RESULTS / f"{self.name}.md").write_text("\n".join(lines))
        content = {"claim": self.claim, "holds": self.holds, "rows": self.rows, "raw": self.raw, "machine": machine}
        (_RESULTS / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n")
        print(f"{self.name}: target {verdict}")


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def lightsweep() -> list[str]:
    """Return the command."""
    return [sys.executable, "-m", "sweeps"]


@contextmanager
def scratch() -> Iterator[Path]:
    """Work in an empty folder that goes away, on the same disk as the repository's temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="lightsweep-bench-"))
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> dict[str, Any]:
    cpu = next(
        (line.partition(":")[2].strip() for line in _read("/proc/cpuinfo").splitlines() if "model name" in line),
        platform.processor(),
    )
    memory_kb = int(_read("/proc/meminfo").split()[1])
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_kb / 2**20),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "commit": commit.stdout.strip() or "unknown",
    }


def _read(path: str) -> str:
    return Path(path).read_text()
