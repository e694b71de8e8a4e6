"""Share the machine's devices out among the trials that run at once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.errors import ConfigError

__all__ = ["Slot", "num_cores", "plan_slots", "visible_gpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A lease of devices in which one trial runs at a time.

    Attributes:
        index: The number of the slot.
        threads: CPU threads of its trial.
        gpu: The GPU of its trial as `CUDA_VISIBLE_DEVICES` names it, or None.
    """

    index: int
    threads: int
    gpu: str | None = None

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """The variables by which a trial sees only its own devices."""
        return () if self.gpu is None else (("CUDA_VISIBLE_DEVICES", self.gpu),)


def plan_slots(
    *, slots: int | None, threads: int | None, accelerator: str, cores: int, gpus: Sequence[str]
) -> list[Slot]:
    """Derive the slots: one for each GPU when trials use GPUs, else one for each core, unless told otherwise.

    Raises:
        ConfigError: `launcher.slots` or `launcher.threads` is not positive.
    """
    for key, value in (("launcher.slots", slots), ("launcher.threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{key} must be at least 1, but got {value}.")
    used = list(gpus) if accelerator in ("auto", "gpu", "cuda") else []
    count = slots or len(used) or cores
    return [
        Slot(
            index=index,
            threads=threads or max(1, cores // count),
            gpu=used[index % len(used)] if used else None,
        )
        for index in range(count)
    ]


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus(
    environment: Mapping[str, str] = os.environ, proc: Path = Path("/proc/driver/nvidia/gpus")
) -> list[str]:
    """Name the NVIDIA GPUs that may be used, without starting CUDA; `CUDA_VISIBLE_DEVICES` is respected."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    return [str(index) for index, _ in enumerate(proc.iterdir())] if proc.is_dir() else []
