"""Read the rank and the address of a process group from the environment that torchrun or srun sets."""

import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence

from sweeps.core.errors import ConfigError
from sweeps.core.messages import Place

__all__ = ["devices_overrides", "given_place", "joining_environment"]

_SIOCGIFADDR = 0x8915  # Linux: the address of a network interface
_ELSEWHERE = "192.0.2.1"  # reserved for examples: nobody's, so the way to it is the default one


def given_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place that this process was started in, or None where it was started by itself.

    torchrun, and whoever else follows `torch.distributed`, sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. srun
    sets SLURM_STEP_NUM_TASKS and SLURM_PROCID; a batch script, whose variables look alike, has no SLURM_STEP_ID. One
    process alone is not in a group.

    Raises:
        ConfigError: The hosts do not have equally many processes, in order, or a number is not one.
    """
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        size, local_size = _number(environment, "WORLD_SIZE"), _number(environment, "LOCAL_WORLD_SIZE", "1")
        num_hosts = _number(environment, "GROUP_WORLD_SIZE", str(size // max(1, local_size)))  # torchrun says it
        place = _place(
            rank=_number(environment, "RANK"),
            size=size,
            local_rank=_number(environment, "LOCAL_RANK", "0"),
            per_host=[local_size] * num_hosts,
            address=environment["MASTER_ADDR"],
            port=_number(environment, "MASTER_PORT"),
        )
    elif {"SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"} <= environment.keys():
        size, num_hosts = (
            _number(environment, "SLURM_STEP_NUM_TASKS"),
            _number(environment, "SLURM_STEP_NUM_NODES", "1"),
        )
        if size == 1:
            return None
        place = _place(
            rank=_number(environment, "SLURM_PROCID"),
            size=size,
            local_rank=_number(environment, "SLURM_LOCALID"),
            per_host=_tasks_per_host(
                environment.get("SLURM_STEP_TASKS_PER_NODE") or f"{size // num_hosts}(x{num_hosts})"
            ),
            address=environment.get("MASTER_ADDR")
            or ("127.0.0.1" if num_hosts == 1 else _first_host(environment["SLURM_STEP_NODELIST"])),
            port=_number(environment, "MASTER_PORT") if environment.get("MASTER_PORT") else _port(environment),
        )
    else:
        return None
    return place if place.world_size > 1 else None


def joining_environment(place: Place, environment: Mapping[str, str] = os.environ) -> tuple[tuple[str, str], ...]:
    """Return the variables that a rank needs in order to meet the others, where they are not set.

    Gloo listens at the address that the host's own name resolves to, which is often the loopback interface. The
    interface that leads to the meeting place is the one that leads to the others. On the host of the meeting place
    that may be the loopback interface, too; where there are other hosts, it is the one that leads outside.
    """
    variables = {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port)}
    interface = _interface_towards(place.address)
    if interface == "lo" and place.num_nodes > 1:
        interface = _interface_towards(_ELSEWHERE)
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
        key, _, value = override.lstrip("+").partition("=")
        if key in given and value != str(given[key]):
            raise ConfigError(
                f"{override}, but this process was started as one of {place.world_size} on {place.num_nodes} "
                f"host{'s'[: place.num_nodes - 1]}: leave {key} out, or start as many."
            )
    return [f"{key}={value}" for key, value in given.items()]


def _place(*, rank: int, size: int, local_rank: int, per_host: Sequence[int], address: str, port: int) -> Place:
    is_even = len(set(per_host)) == 1 and sum(per_host) == size
    if not is_even or not 0 <= rank < size or rank % per_host[0] != local_rank:
        raise ConfigError(
            f"Every host must start equally many processes, in order, but this is rank {rank} of {size}, number "
            f"{local_rank} on a host, and the hosts have {', '.join(map(str, per_host))}: give every host the same "
            "--nproc-per-node (torchrun), or --ntasks-per-node and --distribution=block (srun)."
        )
    return Place(
        rank=rank,
        world_size=size,
        local_rank=local_rank,
        num_nodes=len(per_host),
        address=address,
        port=port,
        is_given=True,
    )


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name, default)
    if not text.isdecimal():
        raise ConfigError(f"{name} must be a whole number, but is {text!r} in the environment.")
    return int(text)


def _tasks_per_host(text: str) -> list[int]:
    """Return the number of processes of each host from SLURM's short form of it, such as `2(x3),1`."""
    found = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(",")]
    return [int(part[1]) for part in found if part for _ in range(int(part[2] or 1))]


def _first_host(nodes: str) -> str:
    """Return the first of the hosts that SLURM lists, such as `gpu[007-009,12],login1` or `rack[1-2]node[3,5]`."""
    first = re.sub(r"\[([^\[\],-]+)[^\[\]]*\]", r"\1", nodes).partition(",")[0]
    if not first:
        raise ConfigError(f"SLURM_STEP_NODELIST={nodes!r} names no host: set MASTER_ADDR to that of rank 0.")
    return first


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
