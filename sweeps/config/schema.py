"""The types, defaults and meanings of the configuration's fixed keys.

Groups whose options name a `_target_` (model, data, system, optimizer, scheduler, sampler, pruner, and each
entry of callbacks) take the keyword arguments of that target: its signature has their types, and they are
checked before the first trial. Everything else is typed here, and Hydra refuses values of other types.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

__all__ = [
    "LauncherConfig",
    "ObjectiveConfig",
    "RunConfig",
    "StudyConfig",
    "SweepConfig",
    "TrackingConfig",
    "TrainConfig",
    "TrainerConfig",
    "register",
]

_IS_TEXT = {"is_text": True}  # a text or a list of texts: not parsed as a number, see `text_keys`


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer, with Lightning's names and meanings."""

    accelerator: str = "auto"
    """auto, cpu or gpu"""
    strategy: Any = "auto"
    """how ranks train together: one of Lightning's names, e.g. ddp, or a `_target_` with its arguments"""
    devices: int = 1
    """devices of one trial on one host; each is used by a separate process, a rank"""
    num_nodes: int = 1
    """hosts of one trial; more than one requires torchrun or srun"""
    sync_batchnorm: bool = False
    """normalise batches over the samples of all ranks"""
    precision: str = "32-true"
    """32-true, 16-mixed, bf16-mixed, ..."""
    max_epochs: int = 10
    min_epochs: int | None = None
    max_steps: int = -1
    """optimizer steps after which training stops; -1: no limit but the epochs"""
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None
    """norm or value"""
    check_val_every_n_epoch: int | None = 1
    """null: val_check_interval counts batches across epochs"""
    val_check_interval: int | float | None = None
    """validate within the epoch: a fraction of it, or a number of batches"""
    limit_train_batches: int | float | None = None
    """fraction of the batches when at most 1.0, else their number; likewise for val and test"""
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    num_sanity_val_steps: int = 0
    """validation batches before training; the check before the first trial has already run one"""
    deterministic: bool | str = False
    """true: refuse operations whose result may vary between executions; warn: record their names"""
    benchmark: bool | None = None
    detect_anomaly: bool = False
    inference_mode: bool = True
    profiler: str | None = None
    """simple or advanced; the report is written to the trial's log"""
    enable_model_summary: bool = False
    """print the layers into the trial's log"""


@dataclass
class TrackingConfig:
    """Where runs are recorded, and in how much detail."""

    uri: str | None = None
    """an SQLAlchemy URL or the http address of an MLflow server; null: SQLite in the store"""
    experiment: str = "lightsweep"
    """the MLflow experiment that holds the runs"""
    log_every_n_steps: int = 1
    """steps between two points of train/loss_step; 0: none"""
    flush_interval_s: float = 0.5
    """seconds that a rank may hold back metric points"""
    log_checkpoint: bool = True
    """keep the best checkpoint as an artifact of the run"""
    resume_overhead: float = 0.02
    """share of the training time that may be spent on saving state for resuming; 0: never save"""
    timeout_s: float = 60.0
    """seconds to wait for the store at the end, before unsent data is written to a file"""
    tags: dict[str, str] = field(default_factory=dict)
    """your own tags, set on every run"""


@dataclass
class ObjectiveConfig:
    """The metric by which a run is judged while it trains: by the best checkpoint, early stopping and the pruner.

    In a sweep it defaults to the first metric of the study.
    """

    metric: str = "val/acc"
    direction: str = "maximize"
    """maximize or minimize"""


@dataclass
class RunConfig:
    """The parts of one run: the frozen config of a trial."""

    data: Any = None
    """null: the module has its own loaders"""
    model: Any = MISSING
    system: Any = None
    """the LightningModule that trains a net; null if the model is one itself"""
    optimizer: Any = None
    scheduler: Any = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: Any = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    seed: int = 0
    """every random stream is derived from it: weights, data order, augmentation, dropout"""
    test: bool = True
    """test the best checkpoint after training"""
    store_dir: str = "mlruns"
    """directory for all output"""
    allowed_modules: list[str] = field(default_factory=list)
    """your own modules that `_target_` may name, in addition to those in --config-dir"""


@dataclass
class LauncherConfig:
    """How trials are started and watched."""

    slots: int | None = None
    """concurrent trials; null: as many as the devices (or cores) allow"""
    trials_per_device: int = 1
    """trials that share a device"""
    threads: int | None = None
    """CPU threads of each rank; null: the cores divided among all concurrent ranks"""
    start_method: str = "forkserver"
    """forkserver (milliseconds per trial) or spawn (seconds; for modules that cannot be forked)"""
    grace_s: float = 20.0
    """seconds that a trial may take to stop before it is killed"""
    join_timeout_s: float = 120.0
    """seconds that the ranks of a trial may take to connect before it fails"""
    stall_timeout_s: float | None = 600.0
    """seconds that a rank may be silent (no batch, no report) before its trial fails; null: no limit"""


@dataclass
class TrainConfig(RunConfig):
    """One run: `lightsweep train`."""

    check: bool = True
    """try two batches before anything is recorded; false: start immediately and tag the runs as unchecked"""
    launcher: LauncherConfig = field(default_factory=LauncherConfig)


@dataclass
class StudyConfig:
    """One optimisation: its name, objectives, budget and storage."""

    name: str | None = None
    """null: the data, the model and a number, e.g. digits-mlp-3"""
    metric: Any = field(default="val/acc", metadata=_IS_TEXT)
    """the objective: a metric that the model logs, or `num_params`; or a list of several"""
    direction: Any = field(default="maximize", metadata=_IS_TEXT)
    """maximize or minimize; one per metric"""
    constraints: Any = field(default=None, metadata=_IS_TEXT)
    """condition that the best trial must satisfy, e.g. 'num_params <= 1e6'; or a list of conditions"""
    replicates: int = 1
    """training runs per trial, with different seeds; their mean is its value"""
    folds: int | None = None
    """cross-validation: training runs per trial, each validating on a different fold of the data"""
    num_trials: int = 20
    """total number of trials, including those of earlier sessions of the study"""
    timeout_s: float | None = None
    """after this many seconds of the current command, start no trial and stop the running ones"""
    device_hours: float | None = None
    """device-hours that the trials of the study may use, including earlier sessions; null: no limit"""
    trial_timeout_s: float | None = None
    """prune a trial after this many seconds; null: no limit"""
    max_failures: int | None = 10
    """stop when more than this many trials have failed; null: never"""
    reuse: bool = True
    """reuse the result if a trial of the study has already trained the same configuration"""
    enqueue: list[dict[str, Any]] = field(default_factory=list)
    """values to try first in a new study: [{optimizer.lr: 0.01, model.depth: 2}]"""
    warm_start: Any = field(default=None, metadata=_IS_TEXT)
    """name of another study in the same storage, or a list: their results are given to a new study's sampler"""
    report: bool = True
    """write report.html and the plots when the sweep ends, and record them with the study run"""
    storage: str | None = None
    """the SQLAlchemy URL of Optuna's tables; null: SQLite in the store"""


@dataclass
class SweepConfig(TrainConfig):
    """A search: `lightsweep sweep`."""

    search: Any = None
    sampler: Any = MISSING
    pruner: Any = MISSING
    study: StudyConfig = field(default_factory=StudyConfig)


def register() -> None:
    """Register the schemas with Hydra under the names that the primary configs use."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="sweep_schema", node=SweepConfig)
