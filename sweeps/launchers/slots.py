"""Divide the devices of the machine among the trials that run at once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.core.errors import ConfigError

__all__ = ["Slot", "devices_per_slot", "num_cores", "plan_slots", "visible_gpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A lease of devices in which one trial runs at a time.

    Attributes:
        index: The number of the slot.
        threads: CPU threads of each rank.
        devices: Devices of its trial, and so the number of its ranks.
        gpus: The GPUs of its trial as `CUDA_VISIBLE_DEVICES` names them; none where trials use the CPU.
    """

    index: int
    threads: int
    devices: int = 1
    gpus: tuple[str, ...] = ()

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """The variables by which a trial sees only its own devices."""
        return (("CUDA_VISIBLE_DEVICES", ",".join(self.gpus)),) if self.gpus else ()


def plan_slots(
    *,
    slots: int | None,
    devices: int,
    trials_per_device: int,
    threads: int | None,
    accelerator: str,
    cores: int,
    gpus: Sequence[str],
) -> list[Slot]:
    """Share the GPUs out in groups of `devices` when trials use GPUs, else the cores.

    Args:
        slots: How many trials run at once; None for as many as fit.
        devices: How many devices a trial uses.
        trials_per_device: How many trials share a device.
        threads: CPU threads of each rank; None for an equal share of the cores.
        accelerator: `trainer.accelerator`.
        cores: How many cores there are.
        gpus: The GPUs there are.

    Raises:
        ConfigError: A number is not positive, or a trial wants more GPUs than there are.
    """
    wanted = {
        "launcher.slots": slots,
        "trainer.devices": devices,
        "launcher.trials_per_device": trials_per_device,
        "launcher.threads": threads,
    }
    for key, value in wanted.items():
        if value is not None and value < 1:
            raise ConfigError(f"{key} must be at least 1, but got {value}.")
    used = list(gpus) if accelerator in ("auto", "gpu", "cuda") else []
    if used and devices > len(used):
        raise ConfigError(
            f"trainer.devices={devices} needs as many GPUs, but {len(used)} can be seen ({', '.join(used)}): set "
            f"trainer.devices={len(used)} or less, or trainer=ddp_cpu."
        )
    leases = [tuple(used[first : first + devices]) for first in range(0, len(used) - devices + 1, devices)]
    count = slots or max(1, len(leases) or cores // devices) * trials_per_device
    return [
        Slot(
            index=index,
            threads=threads or max(1, cores // (count * devices)),
            devices=devices,
            gpus=leases[index % len(leases)] if leases else (),
        )
        for index in range(count)
    ]


def devices_per_slot(slots: Sequence[Slot]) -> float:
    """Return how many devices a trial uses; of a device that several trials share, each uses its part."""
    gpus = {gpu for slot in slots for gpu in slot.gpus}
    return len(gpus) / len(slots) if gpus else float(slots[0].devices)


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
