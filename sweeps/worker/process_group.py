"""The process group of a trial as one of its ranks sees it: join, agree, and leave. One rank is the plain case.

A rank that decides alone before a collective hangs the others. So every decision here is made by rank 0 and carried
to all in one broadcast, or by a sum over all, and acted on by all after it.
"""

import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, TypeVar

import lightning_fabric.utilities.rank_zero
import lightning_utilities.core.rank_zero
import pytorch_lightning.utilities.rank_zero
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch import distributed
from torch.distributed import HashStore, PrefixStore, Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from sweeps.config.composer import Config, fingerprint
from sweeps.core.errors import ConfigError
from sweeps.core.failure_text import text_of
from sweeps.core.messages import Place, RankJob
from sweeps.core.tree import flatten

__all__ = ["JoinedEnvironment", "Ranks", "is_peer_failure"]

Decision = TypeVar("Decision")

_FOR_EVER = timedelta(days=365)
_SLACK_S = 60.0  # the launcher sees a stall first, and says more of it than a collective that times out
_FAILURE = "lightsweep/failure"
_LOOK_S = 1.0
_ASK_S = 0.01


class Ranks:
    """The ranks of a trial, as one of them.

    Attributes:
        place: The place of this rank.
    """

    def __init__(self, place: Place | None = None) -> None:
        self.place = place or Place()
        self._store: Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which reports, logs and decides."""
        return self.place.rank == 0

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.place.world_size

    def join(self, config: Config, job: RankJob, listener: int | None = None) -> None:
        """Meet the other ranks, form the process group, and compare configurations.

        Args:
            config: The frozen config, which says what the group is for.
            job: The job, which says where the ranks meet and how long they wait.
            listener: The file descriptor of the socket at which rank 0 serves, if the launcher has made one.

        Raises:
            ConfigError: Another rank has another configuration.
            torch.distributed.DistError: The others did not come in time.
        """
        for module in (
            lightning_utilities.core.rank_zero,
            lightning_fabric.utilities.rank_zero,
            pytorch_lightning.utilities.rank_zero,
        ):
            module.rank_zero_only.rank = self.place.rank  # else it is what it was before the fork
        trainer = config["trainer"]
        if self.size == 1 and trainer["strategy"] == "auto":
            return
        device = _device(trainer["accelerator"], self.place.local_rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        store = self._meet(timedelta(seconds=job.join_timeout_s), listener)
        stall_s = job.stall_timeout_s
        distributed.init_process_group(
            _backend(trainer["strategy"], device),
            store=store,
            rank=self.place.rank,
            world_size=self.size,
            timeout=_FOR_EVER if stall_s is None else timedelta(seconds=stall_s + _SLACK_S),
            device_id=device if device.type == "cuda" else None,
        )
        self._store = store
        self._device = device
        self._compare(config)

    def decide(self, decision: Callable[[], Decision]) -> Decision:
        """Return what `decision` returns on rank 0, or raise on every rank what it raises there.

        The others do not call it. Every rank must come here equally often.
        """
        if self.size == 1:
            return decision()
        said: list[Any] = [None, None]
        own: Exception | None = None
        if self.is_first:
            try:
                said[0] = decision()
            except Exception as error:  # raised after the broadcast, by all
                own, said[1] = error, text_of(error)
        distributed.broadcast_object_list(said, src=0)
        if said[1] is not None:
            raise own or _FirstFailedError(f"rank 0 has failed: {said[1]}")
        return said[0]  # type: ignore[no-any-return]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks of `values`, which has the same shape on each; double precision."""
        if self.size == 1:
            return values
        summed = values.to(self._device)
        distributed.all_reduce(summed)
        return summed

    def gather(self, own: Decision) -> list[Decision]:
        """Return what each rank gives, in their order; every rank must come here equally often."""
        if self.size == 1:
            return [own]
        gathered: list[Any] = [None] * self.size
        distributed.all_gather_object(gathered, own)
        return gathered

    def leave(self) -> None:
        """Wait until all others are done too, for a rank that leaves early breaks what the others still send."""
        if self.size > 1:
            with suppress(RuntimeError):  # a rank that has failed meanwhile speaks for itself
                distributed.barrier()

    def publish_failure(self, message: str) -> None:
        """Publish to the ranks of other hosts that this rank has failed, unless another one was first."""
        if self._store is not None and self.size > 1:
            with suppress(RuntimeError):  # whoever kept the store is gone
                self._store.compare_set(_FAILURE, "", f"rank {self.place.rank}: {message}")

    def first_failure(self) -> str | None:
        """Return the failure of the rank that failed first, if it could publish it."""
        with suppress(RuntimeError):
            return self._published_failure()
        return None

    def wait_for_failure(self) -> tuple[Literal["elsewhere", "peer"], str]:
        """Wait, beside the training, until another rank has failed, or the one that keeps the store is gone.

        A device that waits in a collective for a rank that is gone may wait for very long.
        """
        while True:
            time.sleep(_LOOK_S)
            try:
                failure = self._published_failure()
            except RuntimeError:
                return "peer", "the line to rank 0 broke"
            if failure is not None and not failure.startswith(f"rank {self.place.rank}: "):
                return "elsewhere", failure

    def _published_failure(self) -> str | None:
        if self._store is None or not self._store.check([_FAILURE]):
            return None
        return str(self._store.get(_FAILURE), errors="replace")

    def _meet(self, timeout: timedelta, listener: int | None) -> Store:
        place = self.place
        if place.is_given:
            store, _, _ = next(rendezvous("env://", place.rank, place.world_size, timeout=timeout))
            if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
                return _this_attempt(PrefixStore("lightsweep", store), place, timeout)
            return PrefixStore("lightsweep", store)
        if place.world_size == 1:
            return HashStore()
        return TCPStore(
            place.address,
            place.port,
            place.world_size,
            is_master=place.rank == 0,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listener,
        )

    def _compare(self, config: Config) -> None:
        """Raise on every rank if one has another configuration than rank 0."""
        if self.size == 1:
            return
        prints: list[Any] = [None] * self.size
        distributed.all_gather_object(prints, fingerprint(config))
        if len(set(prints)) == 1:
            return
        configs: list[Any] = [None] * self.size
        distributed.all_gather_object(configs, flatten(config))
        odd = next(rank for rank, other in enumerate(prints) if other != prints[0])
        first, other = configs[0], configs[odd]
        differing = [
            f"{key}={other.get(key, 'absent')} (rank 0: {first.get(key, 'absent')})"
            for key in {**first, **other}
            if first.get(key, "absent") != other.get(key, "absent")
        ]
        raise ConfigError(
            f"All ranks must train the same configuration, but rank {odd} has {', '.join(differing[:5])}: give every "
            "host the same command line and the same files."
        )


def _this_attempt(store: Store, place: Place, timeout: timedelta) -> Store:
    """Return a part of torchrun's store for this attempt alone: it outlives the ranks, and keeps what others have said.

    Each host counts restarts for itself, so rank 0 names the attempt, to all who ask. Who asked in an earlier attempt
    is gone and does not confirm.
    """
    own = uuid.uuid4().hex
    if place.rank > 0:
        store.set(f"asks/{place.rank}", own)
        store.wait([f"answer/{own}"], timeout)
        name = store.get(f"answer/{own}").decode()
        store.set(f"confirms/{name}/{place.rank}", "")
        return PrefixStore(name, store)
    deadline = time.monotonic() + timeout.total_seconds()
    missing = list(range(1, place.world_size))
    while missing:
        for rank in missing:
            if store.check([f"asks/{rank}"]):
                store.set(f"answer/{store.get(f'asks/{rank}').decode()}", own)
        missing = [rank for rank in missing if not store.check([f"confirms/{own}/{rank}"])]
        if missing and time.monotonic() > deadline:
            raise distributed.DistStoreError(f"rank {missing[0]} has not come")
        time.sleep(_ASK_S)
    return PrefixStore(own, store)


class _FirstFailedError(RuntimeError):
    """Rank 0 has failed, and says itself of what."""


class JoinedEnvironment(ClusterEnvironment):
    """Tells Lightning the place of a rank that exists already, so that it starts no process of its own."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    @property
    def creates_processes_externally(self) -> bool:
        """Yes: the launcher has made them."""
        return True

    @property
    def main_address(self) -> str:
        """Where the group has met."""
        return self._place.address

    @property
    def main_port(self) -> int:
        """Likewise."""
        return self._place.port

    @staticmethod
    def detect() -> bool:
        """No: it is always given."""
        return False

    def world_size(self) -> int:
        """Return the number of ranks."""
        return self._place.world_size

    def set_world_size(self, size: int) -> None:
        """Check what Lightning has computed."""
        self._require("world size", size, self._place.world_size)

    def global_rank(self) -> int:
        """Return the number of this rank."""
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        """Check what Lightning has computed."""
        self._require("rank", rank, self._place.rank)

    def local_rank(self) -> int:
        """Return the number of this rank on its host."""
        return self._place.local_rank

    def node_rank(self) -> int:
        """Return the number of the host."""
        return self._place.rank // (self._place.world_size // self._place.num_nodes)

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Check that the configuration asks for as many ranks as there are."""
        self._require("trainer.devices * trainer.num_nodes", num_devices * num_nodes, self._place.world_size)

    def _require(self, what: str, computed: int, given: int) -> None:
        if computed != given:
            raise ConfigError(
                f"{what} is {computed}, but this is rank {self._place.rank} (local {self._place.local_rank}) of "
                f"{self._place.world_size} on {self._place.num_nodes} hosts: give every host equally many ranks, "
                "in order, and as many trainer.devices."
            )


_BROKEN_LINE = re.compile(r"gloo/|NCCL|Connection (closed|reset|refused)|Broken pipe|Timed out waiting", re.IGNORECASE)


def is_peer_failure(error: BaseException) -> bool:
    """Tell whether an error only says that the line to another rank broke."""
    if isinstance(error, _FirstFailedError):
        return True
    if isinstance(error, distributed.DistError):
        return not isinstance(error, distributed.DistBackendError) or bool(_BROKEN_LINE.search(text_of(error)))
    return type(error) is RuntimeError and bool(_BROKEN_LINE.search(text_of(error)))


def _device(accelerator: str, local_rank: int) -> torch.device:
    uses_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    return torch.device("cuda", local_rank) if uses_gpu else torch.device("cpu")


def _backend(strategy: Any, device: torch.device) -> str:
    """Return the backend that the strategy names, else the device's usual one."""
    named = strategy.get("process_group_backend") if isinstance(strategy, dict) else None
    return named or ("nccl" if device.type == "cuda" else "gloo")
