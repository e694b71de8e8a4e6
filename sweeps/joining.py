"""Read from the environment the place in a process group that torchrun or srun has given this process."""

import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence

from sweeps.errors import ConfigError
from sweeps.records import Place

__all__ = ["devices_overrides", "given_place", "joining_environment"]

_SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


def given_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place that this process was started in, or None where it was started by itself.

    torchrun, and whoever else follows `torch.distributed`, sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. srun
    sets SLURM_STEP_NUM_TASKS and SLURM_PROCID; a batch script, whose variables look alike, has no SLURM_STEP_ID. One
    process alone is not in a group.

    Raises:
        ConfigError: The hosts do not have equally many processes, in order.
    """
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        place = _place(
            rank=environment["RANK"],
            size=environment["WORLD_SIZE"],
            local_rank=environment.get("LOCAL_RANK", "0"),
            local_size=environment.get("LOCAL_WORLD_SIZE", "1"),
            address=environment["MASTER_ADDR"],
            port=environment["MASTER_PORT"],
        )
    elif {"SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"} <= environment.keys():
        size = environment["SLURM_STEP_NUM_TASKS"]
        place = _place(
            rank=environment["SLURM_PROCID"],
            size=size,
            local_rank=environment["SLURM_LOCALID"],
            local_size=str(int(size) // int(environment.get("SLURM_STEP_NUM_NODES", "1"))),
            address=environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"]),
            port=environment.get("MASTER_PORT") or str(_port(environment)),
        )
    else:
        return None
    return place if place.world_size > 1 else None


def joining_environment(place: Place, environment: Mapping[str, str] = os.environ) -> tuple[tuple[str, str], ...]:
    """Return the variables that a rank needs in order to meet the others, where they are not set.

    Gloo listens at the address that the host's own name resolves to, which is often the loopback interface. The
    interface that leads to the meeting place is the one that leads to the others.
    """
    variables = {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port)}
    interface = _interface_towards(place.address)
    if interface is not None:
        variables["GLOO_SOCKET_IFNAME"] = interface
    return tuple((name, value) for name, value in variables.items() if name not in environment)


def devices_overrides(place: Place, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that make the configuration say what the group is.

    Raises:
        ConfigError: The command line says something else.
    """
    given = {"trainer.devices": place.world_size // place.num_nodes, "trainer.num_nodes": place.num_nodes}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in given and value != str(given[key]):
            raise ConfigError(
                f"{override}, but this process was started as one of {place.world_size} on {place.num_nodes} "
                f"host{'s'[: place.num_nodes - 1]}: leave {key} out, or start as many."
            )
    return [f"{key}={value}" for key, value in given.items()]


def _place(*, rank: str, size: str, local_rank: str, local_size: str, address: str, port: str) -> Place:
    world_size, per_host = int(size), int(local_size)
    if world_size % per_host or int(rank) % per_host != int(local_rank):
        raise ConfigError(
            f"Every host must start equally many processes, in order, but this is rank {rank} of {size}, number "
            f"{local_rank} of {local_size} on its host: give --nproc-per-node (torchrun) or --ntasks-per-node and "
            "--distribution=block (srun)."
        )
    return Place(
        rank=int(rank),
        world_size=world_size,
        local_rank=int(local_rank),
        num_nodes=world_size // per_host,
        address=address,
        port=int(port),
        is_given=True,
    )


def _first_host(nodes: str) -> str:
    """Return the first of the hosts that SLURM lists, such as `gpu[007-009,12],login1`."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\])?([^,]*)", nodes)
    if found is None:
        raise ConfigError(f"SLURM_STEP_NODELIST={nodes!r} names no host: set MASTER_ADDR to that of rank 0.")
    return f"{found[1]}{found[2] or ''}{found[3]}"


def _port(environment: Mapping[str, str]) -> int:
    """Return a port that all processes of a job step compute alike, and other steps rarely do."""
    return 20_000 + (int(environment.get("SLURM_JOB_ID", "0")) * 31 + int(environment["SLURM_STEP_ID"])) % 10_000


def _interface_towards(address: str) -> str | None:
    """Return the name of the network interface from which `address` is reached; None where that cannot be told."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                try:
                    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                except OSError:  # it has no IPv4 address
                    continue
                if socket.inet_ntoa(answer[20:24]) == own:
                    return name
    except OSError:
        pass
    return None
