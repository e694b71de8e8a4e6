"""The types, defaults and meanings of the configuration's fixed keys.

Groups whose options name a `_target_` (model, data, system, optimizer, scheduler, sampler, pruner, and each
entry of callbacks) take the keyword arguments of that target: their types are those of its signature, and they
are checked before the first trial. Everything else is typed here, and Hydra refuses what does not fit.
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

_IS_TEXT = {"is_text": True}  # a text or several: what is typed is not read as a number, see `text_keys`


@dataclass
class TrainerConfig:
    """What Lightning's Trainer is given; the names and meanings are Lightning's own."""

    accelerator: str = "auto"
    """auto, cpu or gpu"""
    strategy: Any = "auto"
    """how ranks train together: a name of Lightning's, such as ddp, or a `_target_` with its arguments"""
    devices: int = 1
    """devices of one trial, on one host: each is used by a process of its own, a rank"""
    num_nodes: int = 1
    """hosts of one trial; more than one need torchrun or srun"""
    sync_batchnorm: bool = False
    """let batch normalisation count the samples of all ranks"""
    precision: str = "32-true"
    """32-true, 16-mixed, bf16-mixed, ..."""
    max_epochs: int = 10
    min_epochs: int | None = None
    max_steps: int = -1
    """optimizer steps after which training stops; -1: as many as the epochs have"""
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None
    """norm or value"""
    check_val_every_n_epoch: int | None = 1
    """null: val_check_interval counts batches over the ends of epochs"""
    val_check_interval: int | float | None = None
    """validate within the epoch: a fraction of it, or a number of batches"""
    limit_train_batches: int | float | None = None
    """fraction of the batches when at most 1.0, else their number; likewise for val and test"""
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    num_sanity_val_steps: int = 0
    """validation batches before training; the check before the first trial has done one already"""
    deterministic: bool | str = False
    """true: operations whose result may be another each time are refused; warn: they are named in the record"""
    benchmark: bool | None = None
    detect_anomaly: bool = False
    inference_mode: bool = True
    profiler: str | None = None
    """simple or advanced; the report is written to the trial's log"""
    enable_model_summary: bool = False
    """print the layers into the trial's log"""


@dataclass
class TrackingConfig:
    """Where runs are recorded, and how finely."""

    uri: str | None = None
    """an SQLAlchemy URL or the http address of an MLflow server; null: SQLite in the store"""
    experiment: str = "lightsweep"
    """the MLflow experiment that holds the runs"""
    log_every_n_steps: int = 1
    """a point of train/loss_step every so many steps; 0: none"""
    flush_interval_s: float = 0.5
    """how long a rank may hold metric points back"""
    log_checkpoint: bool = True
    """keep the best checkpoint as an artifact of the run"""
    resume_overhead: float = 0.02
    """share of the training time that may go into saving where a trial can go on after a crash; 0: never"""
    timeout_s: float = 60.0
    """how long to wait for the store at the end before what is unsent goes to a file"""
    tags: dict[str, str] = field(default_factory=dict)
    """tags of your own on every run"""


@dataclass
class ObjectiveConfig:
    """What a run is judged by while it trains: the best checkpoint, early stopping and the pruner follow it.

    In a sweep it is the first metric of the study.
    """

    metric: str = "val/acc"
    direction: str = "maximize"
    """maximize or minimize"""


@dataclass
class RunConfig:
    """What one run is made of: the frozen config of a trial."""

    data: Any = None
    """null: the module has loaders of its own"""
    model: Any = MISSING
    system: Any = None
    """trains a net; a LightningModule needs none"""
    optimizer: Any = None
    scheduler: Any = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: Any = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    seed: int = 0
    """every random stream derives from it: weights, data order, augmentation, dropout"""
    test: bool = True
    """test the best checkpoint after training"""
    store_dir: str = "mlruns"
    """the folder of everything that is written"""
    allowed_modules: list[str] = field(default_factory=list)
    """modules of yours that `_target_` may name, beside those in --config-dir"""


@dataclass
class LauncherConfig:
    """How trials are started and watched."""

    slots: int | None = None
    """trials at once; null: as many as the devices allow, or the cores"""
    trials_per_device: int = 1
    """trials that share a device"""
    threads: int | None = None
    """CPU threads of each rank; null: the cores shared out among all ranks that run at once"""
    start_method: str = "forkserver"
    """forkserver (milliseconds a trial) or spawn (seconds; for modules that cannot be forked)"""
    grace_s: float = 20.0
    """how long a trial that is told to stop may take before it is killed"""
    join_timeout_s: float = 120.0
    """how long the ranks of a trial may take to find each other before it has failed"""
    stall_timeout_s: float | None = 600.0
    """how long a rank may be silent, neither a batch nor a report, before its trial has failed; null: for ever"""


@dataclass
class TrainConfig(RunConfig):
    """One run: `lightsweep train`."""

    check: bool = True
    """try two batches before anything is recorded; false: begin at once, which the record says"""
    launcher: LauncherConfig = field(default_factory=LauncherConfig)


@dataclass
class StudyConfig:
    """One optimisation."""

    name: str | None = None
    """null: the data, the model and a number, such as digits-mlp-3"""
    metric: Any = field(default="val/acc", metadata=_IS_TEXT)
    """what a trial is judged by: a metric that the model logs, or `num_params`; or a list of several"""
    direction: Any = field(default="maximize", metadata=_IS_TEXT)
    """maximize or minimize, one for each metric"""
    constraints: Any = field(default=None, metadata=_IS_TEXT)
    """what a trial must satisfy to be the best: a text such as 'num_params <= 1e6', or a list of them"""
    replicates: int = 1
    """trainings of each trial, with other seeds; the mean is its value"""
    folds: int | None = None
    """cross-validation: trainings of each trial, each with another fold of the data for validation"""
    num_trials: int = 20
    """trials in all, those of earlier runs of the same study included"""
    timeout_s: float | None = None
    """start no trial after so many seconds of this run of the command, and stop the running ones"""
    device_hours: float | None = None
    """hours of all devices that the trials of the study may use, those of earlier runs included; null: no limit"""
    trial_timeout_s: float | None = None
    """prune a trial that has taken so many seconds; null: no limit"""
    max_failures: int | None = 10
    """stop when more trials than this have failed; null: never"""
    reuse: bool = True
    """do not train what a trial of the study has trained already: take its result"""
    enqueue: list[dict[str, Any]] = field(default_factory=list)
    """values to try first, once the study is created: [{optimizer.lr: 0.01, model.depth: 2}]"""
    warm_start: Any = field(default=None, metadata=_IS_TEXT)
    """the name of another study in the same storage, or a list of names: a new study's sampler knows their results"""
    report: bool = True
    """write report.html and the plots when the sweep ends, and record them with the run of the study"""
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
    """Make the schemas known to Hydra under the names that the primary configs use."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="sweep_schema", node=SweepConfig)
