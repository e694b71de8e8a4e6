"""The messages between processes: the driver's orders to the ranks, and the ranks' events to the driver.

Events carry only Python's plain types, so that the driver need not import torch to read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sweeps.core.secrets import Hidden

__all__ = [
    "Artifact",
    "Cause",
    "CheckPassed",
    "CornerResult",
    "DataContent",
    "Event",
    "Exited",
    "Failed",
    "Finished",
    "Inspected",
    "Joined",
    "Memory",
    "MetricPoint",
    "Metrics",
    "Order",
    "Place",
    "Progress",
    "PruneDecision",
    "RankJob",
    "Report",
    "Saved",
    "Started",
    "Stop",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a rank in the process group of its trial.

    Attributes:
        rank: Its number in the group, from 0. Rank 0 alone reports and logs.
        world_size: The number of ranks.
        local_rank: Its number among the ranks of its host, which is the device that it uses.
        num_nodes: The number of hosts.
        address: Where the group meets.
        port: Likewise.
        is_given: Whether somebody else (torchrun, srun) chose the place, and not the launcher. The launcher's rank 0
            serves at the socket that it is handed; else the environment says who serves.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    num_nodes: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    is_given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAfter:
    """Where a training is stopped, as the trace of another has it: after an epoch, or so many batches of it."""

    epoch: int
    batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJob:
    """What a rank is started with.

    Attributes:
        kind: `fit` trains; `inspect_data` reads the data; `inspect` the models, see `building`; the others try the
            config and those in folders below `folder` before any trial, see `preflight`.
        folder: The trial's folder; its `config.yaml` is all the rank knows of the configuration.
        place: Its place among the ranks of the trial.
        python_path: Folders from which the user's modules are imported.
        allowed_modules: The modules that a `_target_` may name; from the user's own machine, never from a record.
        threads: CPU threads of this rank; part of what decides the bits of a result.
        environment: Variables set before anything is built, such as `CUDA_VISIBLE_DEVICES`.
        prunes: Whether the driver answers each report with a `PruneDecision`; without a pruner the rank does not wait.
        resume_step: The step from which the trial goes on, where it was interrupted; None begins anew.
        stop_after: Where training stops, for a reproduction of a part; None trains to its end.
        provenance: The hash of what the driver knows of code, packages and machine, for the trace.
        known_data: What the samples of this data are, if another trial has told.
        join_timeout_s: How long to wait for the other ranks.
        stall_timeout_s: How long a rank may be silent; None for ever.
        limit_s: How long a check may try one corner after the other.
        judged: The metrics that trials are judged by, beside the objective of the config.
        hidden: What the frozen configs hide, by their fingerprints; it is in no file.
    """

    kind: Literal["fit", "check", "measure", "compare", "inspect_data", "inspect"] = "fit"
    folder: str
    place: Place = Place()
    python_path: tuple[str, ...] = ()
    allowed_modules: tuple[str, ...] = ()
    threads: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    prunes: bool = False
    resume_step: int | None = None
    stop_after: StopAfter | None = None
    provenance: str = ""
    known_data: Mapping[str, Any] | None = None
    join_timeout_s: float = 120.0
    stall_timeout_s: float | None = None
    limit_s: float = 20.0
    judged: tuple[str, ...] = ()
    hidden: Mapping[str, Hidden] = field(default_factory=dict, repr=False)


# --- the driver's orders -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneDecision:
    """Whether to prune a trial, and why; the driver's answer to each report."""

    prune: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Stop after the running step; the trial is recorded as interrupted."""


Order = PruneDecision | Stop


# --- the ranks' events -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of one metric at a training step, with the time in milliseconds since the epoch."""

    key: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The rank has found the others, and all have the same configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first training step begins; `time_s` is `time.time()` there."""

    time_s: float
    num_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far training has come: `step` of `num_steps` in `epoch` of `max_epochs` (-1: unknown)."""

    epoch: int
    max_epochs: int
    step: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """A batch of metric points."""

    points: tuple[MetricPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An intermediate value of the objective after an epoch; `step` counts the reports of the trial."""

    value: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The trial can go on from `step`; all that belongs to the steps before was sent before this."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file of the trial's folder that the run shall keep below `artifact_path`."""

    path: str
    artifact_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataContent:
    """What the samples of the data are, by split, and which arguments of the data module they do not depend on."""

    content: Mapping[str, Any]
    ignores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """Which parts of its config the model of each config takes, in their order; see `parts.PARTS`."""

    parts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The rank's last word when nothing went wrong.

    Attributes:
        state: How training ended.
        reason: Why it ended before its time, if it did.
        value: The objective at the best checkpoint; None when it was never logged.
        metrics: The last value of each metric, those of validation at the best checkpoint.
    """

    state: Literal["complete", "pruned", "interrupted"]
    reason: str = ""
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


Cause = Literal["error", "memory", "diverged", "usage", "peer", "elsewhere", "died", "stalled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The last word of a rank in which something raised, or what the launcher says of one that is dead or stuck.

    Attributes:
        cause: `memory` when a device or the process ran out of it, `diverged` when the loss is no longer finite,
            `usage` when the configuration is to blame, `peer` when the line to another rank broke, so that the
            other is to blame, `elsewhere` when that other one has a launcher of its own and left word why, `died`
            when the process ended without a last word, `stalled` when it never joined or made no progress, else
            `error`.
        message: One line: the exception's type and text.
        traceback: The whole traceback, recorded as an artifact; empty when there is none.
    """

    cause: Cause
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The bytes that training takes on one rank, as far as they were measured; see `preflight`.

    Attributes:
        parameters: Parameters and buffers.
        gradients: Gradients, and the buckets in which ranks exchange them.
        optimizer: The optimizer's state after a step.
        activations: What a backward pass over one batch needs; None where that was not measured.
        peak: The most that a GPU's allocator has given out; None on other devices.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int | None
    peak: int | None = None

    @property
    def total(self) -> int:
        """The peak, or else the sum of the parts."""
        return self.peak or self.parameters + self.gradients + self.optimizer + (self.activations or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CornerResult:
    """What rank 0 saw of a config that a check has tried; these come in the order of the configs.

    Attributes:
        was_run: Whether batches were trained; else it was only built.
        num_parameters: The number of parameters, over all ranks.
        memory: What training takes; None if it was not run.
        digest: The same for configs that do the same in these batches; empty if it was not run.
        unused: Parameters that want a gradient and got none.
    """

    was_run: bool
    num_parameters: int
    memory: Memory | None = None
    digest: str = ""
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPassed:
    """The last word of a check.

    Attributes:
        metrics: What the module of the first config has logged.
        num_parameters: The parameters of the first config.
        device_bytes: The memory of the GPU that a rank can have; None where none was used.
        duration_s: How long it took, once the modules were imported and the ranks had met.
        warnings: What may fail later, a line each.
        late: Metrics that trials are judged by and that were not logged, but may come later.
    """

    metrics: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    num_parameters: int = 0
    device_bytes: int | None = None
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """No process of the trial is left; written by the launcher."""


Event = (
    Joined
    | Started
    | Progress
    | Metrics
    | Report
    | Saved
    | Artifact
    | DataContent
    | Inspected
    | Finished
    | Failed
    | CornerResult
    | CheckPassed
    | Exited
)
