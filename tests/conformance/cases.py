"""The cases: small modules, data, callbacks and settings, each odd in one way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_LIGHTNING = "pytorch_lightning.callbacks."
_OWN = "conformance.callbacks."


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configuration that plain Lightning and Lightsweep are both given.

    Attributes:
        name: What is odd.
        parts: The nodes of the module, the data module and the like.
        callbacks: Nodes by name, beside the shipped `checkpoint`.
        changed: What is changed in those that are shipped.
        trainer: Arguments of the Trainer.
        objective: By default `val/acc`, maximized.
        more: Other keys.
        without_default: Leave the shipped `checkpoint` out.
        differs: Why Lightsweep differs on purpose; None where it must not.
        ends: How it may end; empty where it is enough that it ends as plain Lightning does.
        message: What its message then has in it.
        value: Its value where it trains and plain Lightning does not; None if that is not known.
    """

    name: str
    parts: Mapping[str, Any]
    callbacks: Mapping[str, Any]
    changed: Mapping[str, Mapping[str, Any]]
    trainer: Mapping[str, Any]
    objective: Mapping[str, Any]
    more: Mapping[str, Any]
    seed: int = 3
    without_default: bool = False
    differs: str | None = None
    ends: tuple[Literal["complete", "refused", "failed"], ...] = ()
    message: str = ""
    value: float | None = None


def case(
    name: str,
    model: str | Mapping[str, Any] = "Base",
    data: str | Mapping[str, Any] | None = "Plain",
    *,
    callbacks: Mapping[str, Mapping[str, Any]] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    objective: Mapping[str, Any] | str | None = None,
    parts: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    **how: Any,
) -> Case:
    """Make a case; a class is named as `Name`, or as `(Name, arguments)`."""
    metric = {"metric": objective} if isinstance(objective, str) else dict(objective or {})
    return Case(
        name=name,
        parts={
            "model": _node("modules", model),
            "data": data if data is None else _node("data", data),
            **(parts or {}),
        },
        callbacks=callbacks or {},
        changed={"checkpoint": checkpoint} if checkpoint else {},
        trainer=trainer or {},
        objective={"metric": "val/acc", "direction": "maximize"} | metric,
        more=more or {},
        **how,
    )


def _node(module: str, what: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(what, str):
        return {"_target_": f"conformance.{module}.{what}"}
    return dict(what)


def model(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"conformance.modules.{name}", **arguments}


def data(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"conformance.data.{name}", **arguments}


def lightning(name: str, **arguments: Any) -> dict[str, dict[str, Any]]:
    return {"more": {"_target_": _LIGHTNING + name, **arguments}}


def own(name: str, **arguments: Any) -> dict[str, dict[str, Any]]:
    return {"more": {"_target_": _OWN + name, **arguments}}


_FORKED = {"multiprocessing_context": "fork", "num_workers": 2}
_LOSS = {"metric": "val/loss", "direction": "minimize"}

UNJUDGED: dict[str, Any] = {
    "differs": "a run whose objective is never logged has no value, and cannot be judged",
    "ends": ("refused", "failed"),
    "message": "val/acc",
}
NOT_A_NUMBER: dict[str, Any] = {
    "differs": "a run whose objective is not a number has diverged, which is a failure",
    "ends": ("failed",),
    "message": "diverged",
}
PATIENT: dict[str, Any] = {
    "differs": "Lightning's ModelCheckpoint refuses an objective that the first validation does not log; ours waits",
    "ends": ("complete",),
}
SHIPPED = {
    "model": {"_target_": "lightning_modules.nets.mlp.MLP", "input_shape": [1, 8, 8], "num_classes": 10},
    "data": {
        "_target_": "lightning_modules.data.digits.Digits",
        "num_classes": 10,
        "input_shape": [1, 8, 8],
        "cache_dir": "cache",
        "batch_size": 200,
        "eval_batch_size": 300,
        "drop_last": False,
        "seed": 3,
        "split_seed": 0,
        "val_fraction": 0.15,
        "test_fraction": 0.15,
        "num_folds": None,
        "fold": 0,
        "mean": 0.3053,
        "std": 0.3761,
        "augmentation": {
            "_target_": "lightning_modules.data.augmentation.Augmentation",
            "crop_padding": 1,
            "horizontal_flip": False,
            "rotation_degrees": 5.0,
            "brightness": 0.1,
            "contrast": 0.0,
        },
    },
}

MODULES = [
    case("plain"),
    case("lazy", "Lazy"),
    case("lazy buffers", "LazyNorm"),
    case("layers in configure_model", "Late"),
    case("layers in setup", "LateBySetup"),
    case("layers by the first batch", "LateByFirstBatch"),
    case("compiled in setup", "Compiled"),
    case("compiled at once", "CompiledAtOnce"),
    case("compiled in place", "CompiledInPlace"),
    case("scripted", "Scripted", trainer={"inference_mode": False}),
    case("dropout and batch norm", "Dropped"),
    case("sparse embedding", "Sparse", trainer={"max_epochs": 3}),
    case("sparse gradients alone", "SparseAlone"),
    case("buffers, no parameters", "NoParameters"),
    case("frozen part", "Frozen"),
    case("unused part", "UnusedPart"),
    case("tied weights", "Tied"),
    case("parametrized, complex and double", "Normed"),
    case("teacher", "WithTeacher"),
    case(
        "save_hyperparameters with a module",
        model("Saves", net={"_target_": "torch.nn.Linear", "in_features": 64, "out_features": 10}),
    ),
    case("save_hyperparameters", model("SavesPlain", sizes=[1, 2], notes={"a": None})),
    case("save_hyperparameters of other things", "SavesConfig"),
    case("takes optimizer and scheduler", "Given"),
    case(
        "takes a schedule",
        "Given",
        parts={"scheduler": {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "_partial_": True, "gamma": 0.5}},
    ),
    case("saves optimizer and scheduler", "GivenSaved"),
    case("takes anything", model("Anything", size=None, flavour="sour", **{"lambda": 1})),
    case("made by a function", "by_function"),
    case("another default type", "Doubled", trainer={"precision": "64-true"}),
    case("cannot be copied or shown", "Handmade"),
    case("shipped", parts={"model": SHIPPED["model"], "data": SHIPPED["data"]}),
]

OPTIMIZING = [
    case("gan", "Gan", objective=_LOSS),
    case("manual", "Manual"),
    case("manual, returns a loss", model("Manual", returns="loss")),
    case("manual, returns a dict", model("Manual", returns="dict")),
    case("manual with a plateau by hand", "ManualPlateau"),
    case("manual with many steps a batch", "ManyStepsABatch"),
    case("manual, max_steps", "ManyStepsABatch", trainer={"max_steps": 15, "max_epochs": -1}),
    case("several optimizers, automatic", "TwoOptimizers"),
    case("lbfgs", "Lbfgs"),
    case("own optimizer_step and hooks around", "OwnStep"),
    case("optimizer_step that skips", "SkipsSteps"),
    case("own clipping", "OwnClipping"),
    case("own clipping beside the Trainer's", "OwnClipping", trainer={"gradient_clip_val": 1.0}),
    case("training_step returns None", "ReturnsNone"),
    case("training_step returns a dict", "ReturnsDict"),
    case(
        "on_train_batch_start returns -1", "LeavesEpochs", objective={"metric": "train/loss", "direction": "minimize"}
    ),
    case("on_train_batch_start returns -1, so that nothing validates", "LeavesEpochs", **UNJUDGED),
    case("on_train_batch_start returns -1 at once", "LeavesAtOnce"),
    case("dataloader_iter", "FromIterator"),
    case("gradient penalty", "Penalized"),
    case("torch.func in training_step", "Functional"),
    case("torch.func in the loss", "FunctionalLoss"),
    case("activation checkpointing", "Checkpointed"),
    case("activation checkpointing, reentrant", model("Checkpointed", use_reentrant=True)),
    case("hooks", "Hooked"),
    case("forbids hooks on saved tensors", "Offloads"),
    case("in place", "InPlace"),
    case("gradients in validation", "GradsInValidation", trainer={"inference_mode": False}),
    case("gradients in validation, inference_mode", "GradsInValidation"),
    *(
        case(f"schedule: {kind}", model("Scheduled", kind=kind))
        for kind in (
            "step",
            "every third step",
            "every second epoch",
            "plateau",
            "plateau of training",
            "plateau within the epoch",
            "plateau of a misspelt metric",
            "plateau that may miss",
            "warmup",
            "rest",
            "one cycle",
            "one cycle of epochs",
            "one cycle that is fixed",
            "cosine",
            "by the epochs but the first two",
            "in sequence",
            "named",
        )
    ),
    case("schedule: by max_steps", model("Scheduled", kind="by maximum steps"), trainer={"max_steps": 11}),
    case(
        "schedule: warmup, accumulating",
        model("Scheduled", kind="warmup"),
        trainer={"accumulate_grad_batches": 2, "max_epochs": 4},
    ),
    case("schedule: warmup, max_steps", model("Scheduled", kind="warmup"), trainer={"max_steps": 14, "max_epochs": -1}),
    case(
        "schedule: one cycle, part of the batches",
        model("Scheduled", kind="one cycle"),
        trainer={"limit_train_batches": 4},
    ),
    case("schedule of one's own", "OwnSchedule"),
    case("asks the Trainer", "AsksTheTrainer"),
    case("asks the Trainer for limits", "AsksForLimits"),
    *(
        case(f"needs all samples: {where}", model("NeedsAll", where=where))
        for where in ("train", "validation", "test", "the end")
    ),
]

LOGGING = [
    case("val_acc", "Names", objective="val_acc"),
    case("val_loss, minimized", "Names", objective={"metric": "val_loss", "direction": "minimize"}),
    case("valid/accuracy", model("Names", acc="valid/accuracy", loss="valid/loss"), objective="valid/accuracy"),
    case("accuracy", model("Names", acc="accuracy", loss="loss", test="final"), objective="accuracy"),
    case("a name with blanks", model("Names", acc="Val Acc (%)", loss="Val Loss"), objective="Val Acc (%)"),
    case("a name with two slashes", model("Names", acc="val//acc", loss="val/./loss"), objective="val//acc"),
    case("test metrics called val", model("Names", test="val/of_test"), objective="val_acc"),
    case("train-like names", model("Names", acc="train/val_acc", loss="train/val_loss"), objective="train/val_acc"),
    case("two loaders", "Loaders", data("Several", num_val=2), objective="val/acc/dataloader_idx_1"),
    case(
        "three loaders, first", "Loaders", data("Several", num_val=3, num_test=2), objective="val/acc/dataloader_idx_0"
    ),
    case("add_dataloader_idx=False", "WithoutIndex", data("Several", num_val=2, num_test=2), objective="val/b/acc"),
    case("the second loader alone", "OnSecondOnly", data("Several", num_val=2), objective="val/acc/dataloader_idx_1"),
    case("reduce_fx and sync_dist", "Reduced"),
    case("reduce_fx: the sum", "Reduced", objective={"metric": "val/sum", "direction": "minimize"}),
    case("on_step and on_epoch", "OnStep"),
    case("on_step and on_epoch, named _epoch", "OnStep", objective="val/acc_epoch"),
    case("metric objects", "Metrics"),
    case("metric objects, of a collection", "Metrics", objective="val/f1"),
    case("the best so far", "BestMetric"),
    case("the best so far as objective", "BestMetric", objective="val/acc_best"),
    case("logged at the end of validation", "AtEpochEnd"),
    case("logged in training", "OfTraining", objective="train_acc"),
    case("logged in training, no validation", "OfTraining", "NoVal", objective="train_acc"),
    case("no validation_step", "NoValidationStep", objective="train_acc"),
    case("no validation at all", "NoValidationStep", "NoVal", objective="train_acc"),
    case("logged in training by step", "OfTrainingByStep", objective="train_acc"),
    case("training loss as objective", objective={"metric": "train/loss", "direction": "minimize"}),
    case("logged at the end of the training epoch", "AtTrainEpochEnd", objective="score"),
    case("validation's value logged at the end of the training epoch", "FromValidation", objective="score"),
    case(
        "logged in every second epoch",
        model("Told", acc=[None, 0.5, None, 0.7, None, 0.6], loss=[1] * 6),
        trainer={"max_epochs": 6},
        value=0.7,
        **PATIENT,
    ),
    case(
        "logged from the second epoch on",
        model("Told", acc=[None, 0.5, 0.7, 0.6], loss=[1] * 4),
        trainer={"max_epochs": 4},
        value=0.7,
        **PATIENT,
    ),
    case("logged in the first epoch only", model("EverySecond", first=0, every=9)),
    case("logged in the third epoch only", model("EverySecond", first=2, every=9), **PATIENT),
    case("one name in all loops", "SameName", objective="acc"),
    case("in every hook", "Everywhere"),
    case("in every hook, at the end", "Everywhere", objective="at/gap"),
    case("in every hook, of validation", "Everywhere", objective="at/known"),
    case("logged in every second epoch, no checkpoint", "EverySecond", trainer={"max_epochs": 4}, without_default=True),
    case(
        "logged from the second epoch on, no checkpoint",
        model("EverySecond", first=1, every=1),
        trainer={"max_epochs": 4},
        without_default=True,
    ),
    case(
        "logged when it is validated, every second epoch",
        model("EverySecond", first=1),
        trainer={"max_epochs": 4, "check_val_every_n_epoch": 2},
    ),
    *(
        case(f"logs {kind}", model("Odd", kind=kind))
        for kind in ("int", "float", "double", "half", "bool", "one element")
    ),
    case("logged by a callback", callbacks=own("LogsAtValidation"), objective="val/by_callback"),
    case("logged by a callback at the end of the epoch", callbacks=own("LogsAtEpochEnd"), objective="norm"),
    case("logged by a callback by itself", callbacks=own("LogsAtEpochEnd", of_callback=True), objective="norm"),
    case("never logged", objective="val/accuracy"),
    case("NaN objective in one epoch", model("NanValidation", values=["nan", 1, "nan"]), **NOT_A_NUMBER),
    case("NaN objective at the end", model("NanValidation", values=[1, 1, "nan"]), **NOT_A_NUMBER),
    case(
        "infinite in the first epoch, minimized",
        model("NanValidation", values=["inf", 1, 1]),
        objective={"direction": "minimize"},
    ),
    case("NaN objective always", model("NanValidation", values=["nan", "nan", "nan"]), **NOT_A_NUMBER),
    case(
        "the training loss diverges",
        "Diverges",
        differs="a diverged training is a failure",
        ends=("failed",),
        message="diverged",
    ),
    case(
        "the training loss diverges between recorded steps",
        "Diverges",
        more={"tracking.log_every_n_steps": 50},
        differs="a diverged training is a failure",
        ends=("failed",),
        message="diverged",
    ),
    case("logs through self.logger", "UsesLogger"),
    case(
        "reaches behind the logger",
        "UsesExperiment",
        differs="there is no library behind the logger",
        ends=("refused",),
        message="experiment",
    ),
    case("reaches behind the logger if it can", "UsesExperimentIfThere"),
    case("a callback logs to the logger", callbacks=own("LateLogger")),
    case("records no steps", more={"tracking.log_every_n_steps": 0}),
]

DATA = [
    case("iterable, without a length", data=data("Streamed", kind="unsized")),
    case(
        "iterable, without a length, accumulating",
        data=data("Streamed", kind="unsized"),
        trainer={"accumulate_grad_batches": 4},
    ),
    case("iterable, with a length", data=data("Streamed", kind="sized")),
    case("iterable, endless", data=data("Streamed", kind="endless"), trainer={"limit_train_batches": 5}),
    case(
        "iterable, endless, max_steps",
        data=data("Streamed", kind="endless"),
        trainer={"max_steps": 12, "val_check_interval": 4, "max_epochs": -1, "check_val_every_n_epoch": None},
    ),
    case("iterable with workers", data=data("Streamed", kind="unsized", how=_FORKED)),
    case(
        "warmup on an iterable without a length",
        model("Scheduled", kind="by the epochs but the first two"),
        data("Streamed", kind="unsized"),
    ),
    case("dict batches", "Keyed", "Dicts"),
    case("hooks of the data module for batches", data="Transferred"),
    case("hooks of the module for batches", "OwnTransfer"),
    case("dict of loaders", "SeveralBatches", data("Several", kind="dict")),
    case("list of loaders", "SeveralBatches", data("Several", kind="list")),
    case("the shorter of two loaders", "SeveralBatches", data("Several", kind="min_size")),
    case("loaders in sequence", "InSequence", data("Several", kind="sequential")),
    case("workers, forked", data=data("Augmented", how=_FORKED)),
    case(
        "workers as they come",
        data=data("Augmented", train={"shuffle": True, "num_workers": 1}),
        trainer={"max_epochs": 2},
    ),
    case("persistent workers", data=data("Augmented", how=_FORKED | {"persistent_workers": True})),
    case("augmentation without workers", data="Augmented"),
    case("a generator of one's own", data="Generated"),
    case("a generator of one's own, workers", data=data("Generated", how=_FORKED)),
    case("WeightedRandomSampler", data=data("Sampled", kind="weighted")),
    case("sampling with replacement, drop_last", data=data("Sampled", kind="replacement")),
    case("a sampler with set_epoch", data=data("Sampled", kind="set_epoch")),
    case("a sampler of batches", data=data("Sampled", kind="batches")),
    case("batches made by the data set", data="Unbatched"),
    case("iterables with a length", data="Counteds"),
    case("data that closes", data="Closing"),
    case("odd batches", "OddBatches", "OddBatches"),
    case("data made by a function", data="from_datasets"),
    case("iterables of one's own", data="Iterables"),
    case("split and noise in setup", data="Split"),
    case("data with hyperparameters and a state", data="Stateful"),
    case("loaders of the module, no data", "OwnLoaders", None),
    case("test loader of the module", "OwnLoaders", "NoTest"),
    case("no test loader", data="NoTest"),
    case("no test_step", "NoTestStep"),
    case("no test", more={"test": False}),
    case("no training batch", data="Empty", **(UNJUDGED | {"message": "batch"})),
    case("no validation loader, val/acc", data="EmptyVal", **UNJUDGED),
    case("no shuffling", data=data("Plain", train={"shuffle": False})),
    case("one batch an epoch", data=data("Plain", batch_size=200)),
]

_MC = _LIGHTNING + "ModelCheckpoint"

TOLD = model("Told", acc=[0.8, 0.5, 0.9, 0.3, 0.6], loss=[0.5, 0.1, 0.6, 0.7, 0.2])

CALLBACKS = [
    case(
        "early stopping",
        callbacks=lightning("EarlyStopping", monitor="val/loss", patience=0),
        trainer={"max_epochs": 6},
    ),
    case(
        "early stopping on training",
        callbacks=lightning("EarlyStopping", monitor="train/loss", patience=0),
        trainer={"max_epochs": 6},
    ),
    case(
        "early stopping at the end of the epoch",
        callbacks=lightning("EarlyStopping", monitor="train/loss", patience=1, check_on_train_epoch_end=True),
    ),
    case(
        "early stopping at a threshold",
        callbacks=lightning("EarlyStopping", monitor="val/acc", mode="max", stopping_threshold=0.2),
    ),
    case(
        "early stopping, misspelt",
        callbacks=lightning("EarlyStopping", monitor="val/los"),
        ends=("refused",),
        message="val/los",
    ),
    case("early stopping, misspelt, not strict", callbacks=lightning("EarlyStopping", monitor="val/los", strict=False)),
    case(
        "early stopping before min_epochs",
        callbacks=lightning("EarlyStopping", monitor="val/loss", patience=0),
        trainer={"max_epochs": 7, "min_epochs": 5},
    ),
    case(
        "early stopping on a late metric",
        model("EverySecond", first=1, every=1),
        callbacks=lightning("EarlyStopping", monitor="val/acc", mode="max", strict=False),
        trainer={"max_epochs": 4},
        **PATIENT,
    ),
    case(
        "early stopping of one's own",
        callbacks={"more": {"_target_": _OWN + "OwnStopping", "monitor": "val/loss", "patience": 0}},
    ),
    case(
        "a second checkpoint without monitor",
        callbacks={"aaa": {"_target_": _MC, "save_top_k": -1, "every_n_epochs": 1, "filename": "every-{epoch}"}},
    ),
    case(
        "a second checkpoint by another metric",
        callbacks={"aaa": {"_target_": _MC, "monitor": "train/loss", "mode": "max", "filename": "worst"}},
    ),
    case(
        "a second checkpoint by steps", callbacks={"aaa": {"_target_": _MC, "every_n_train_steps": 4, "save_top_k": -1}}
    ),
    case(
        "a second checkpoint of weights",
        callbacks={"aaa": {"_target_": _MC, "save_weights_only": True, "save_last": True}},
    ),
    case(
        "a second checkpoint by time",
        callbacks={"aaa": {"_target_": _MC, "monitor": "val/loss", "save_on_train_epoch_end": True}},
    ),
    case("save_last", checkpoint={"save_last": True}),
    case("save_last as a link", checkpoint={"save_last": "link"}),
    case("every_n_epochs=2", checkpoint={"every_n_epochs": 2}, trainer={"max_epochs": 4}),
    case(
        "every_n_epochs=2, kept is not the best",
        checkpoint={"every_n_epochs": 2},
        model=model("Base", peak=1),
        trainer={"max_epochs": 4},
    ),
    case("every_n_train_steps", checkpoint={"every_n_train_steps": 4}, trainer={"max_epochs": 4}),
    case("save_top_k=2", checkpoint={"save_top_k": 2}),
    case("save_top_k=-1", checkpoint={"save_top_k": -1}),
    case("save_top_k=0", checkpoint={"save_top_k": 0}),
    case("save_weights_only", checkpoint={"save_weights_only": True}),
    case("save_on_train_epoch_end", checkpoint={"save_on_train_epoch_end": True}),
    case("save_on_train_epoch_end=false", checkpoint={"save_on_train_epoch_end": False}),
    case(
        "a name of the file by the metric",
        checkpoint={"filename": "{epoch}-{val/acc:.3f}", "auto_insert_metric_name": True},
    ),
    case(
        "a ModelCheckpoint of one's own kind",
        callbacks={"aaa": {"_target_": _OWN + "OwnCheckpoint", "monitor": "val/acc", "mode": "max"}},
        without_default=True,
    ),
    case("no checkpoint", without_default=True),
    case("monitors another metric", checkpoint={"monitor": "val/loss", "mode": "min"}),
    *(
        case(f"told: {name}", TOLD, checkpoint=checkpoint, callbacks=callbacks, trainer={"max_epochs": 5} | trainer)
        for name, checkpoint, callbacks, trainer in [
            ("plain", None, {}, {}),
            ("monitors another metric", {"monitor": "val/loss", "mode": "min"}, {}, {}),
            ("monitors a training metric", {"monitor": "train/loss", "mode": "max"}, {}, {}),
            ("monitors nothing", {"monitor": None}, {}, {}),
            ("the other mode", {"mode": "min"}, {}, {}),
            ("every_n_epochs=2", {"every_n_epochs": 2}, {}, {}),
            ("every_n_train_steps", {"every_n_train_steps": 8}, {}, {}),
            ("save_top_k=-1", {"save_top_k": -1}, {}, {}),
            ("save_top_k=3", {"save_top_k": 3}, {}, {}),
            ("save_last", {"save_last": True}, {}, {}),
            ("save_on_train_epoch_end=false", {"save_on_train_epoch_end": False}, {}, {}),
            (
                "another without monitor",
                None,
                {"aaa": {"_target_": _MC, "filename": "each-{epoch}", "save_top_k": -1}},
                {},
            ),
            (
                "another by another metric",
                None,
                {"aaa": {"_target_": _MC, "monitor": "val/loss", "filename": "l-{epoch}"}},
                {},
            ),
            ("another of the last", None, {"aaa": {"_target_": _MC, "save_top_k": 0, "save_last": True}}, {}),
            ("early stopping", None, lightning("EarlyStopping", monitor="val/loss", patience=1), {}),
            ("check_val_every_n_epoch=2", None, {}, {"check_val_every_n_epoch": 2}),
            ("val_check_interval=0.5", None, {}, {"val_check_interval": 0.5}),
        ]
    ),
    case("told: ties", model("Told", acc=[0.5, 0.5, 0.5], loss=[1, 2, 3])),
    case("told: NaN first", model("Told", acc=["nan", 0.5, 0.4], loss=[1, 2, 3]), **NOT_A_NUMBER),
    case("told: NaN of another metric", model("Told", acc=[0.3, 0.5, 0.4], loss=[1, "nan", 3])),
    case("told: infinite", model("Told", acc=[0.5, "inf", 0.4], loss=[1, 2, 3])),
    case(
        "told: minimized, all infinite",
        model("Told", acc=["inf", "inf", "inf"], loss=[1, 2, 3]),
        objective={"direction": "minimize"},
    ),
    case("OnExceptionCheckpoint", callbacks=lightning("OnExceptionCheckpoint", dirpath="crashed")),
    case(
        "BackboneFinetuning",
        "Backbone",
        callbacks=lightning("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.1),
    ),
    case("finetuning of one's own", "Backbone", callbacks=own("Unfreezes")),
    case(
        "GradientAccumulationScheduler", callbacks=lightning("GradientAccumulationScheduler", scheduling={0: 1, 1: 2})
    ),
    case("accumulation by hand", callbacks=own("Accumulates")),
    case(
        "SWA",
        callbacks=lightning("StochasticWeightAveraging", swa_lrs=0.1, swa_epoch_start=1),
        trainer={"max_epochs": 4},
    ),
    case(
        "SWA, at 80 percent", callbacks=lightning("StochasticWeightAveraging", swa_lrs=0.1), trainer={"max_epochs": 5}
    ),
    case(
        "SWA with batch norm",
        "Dropped",
        callbacks=lightning("StochasticWeightAveraging", swa_lrs=0.1, swa_epoch_start=1),
        trainer={"max_epochs": 4},
    ),
    case("WeightAveraging", callbacks=lightning("WeightAveraging")),
    case("EMAWeightAveraging", callbacks=lightning("EMAWeightAveraging", decay=0.9)),
    case("EMAWeightAveraging, late", callbacks=lightning("EMAWeightAveraging", decay=0.9, update_starting_at_step=7)),
    case("averaging of one's own", callbacks=own("EveryStepAverage")),
    case("home-made EMA", callbacks=own("Swaps")),
    case("LearningRateMonitor", model("Scheduled", kind="step"), callbacks=lightning("LearningRateMonitor")),
    case(
        "LearningRateMonitor without a schedule", callbacks=lightning("LearningRateMonitor", logging_interval="epoch")
    ),
    case("Timer", callbacks=lightning("Timer", duration="00:01:00:00", interval="step")),
    case(
        "Timer, no time",
        callbacks=lightning("Timer", duration="00:00:00:00", interval="epoch"),
        **(UNJUDGED | {"message": ""}),
    ),
    case("ModelSummary", callbacks=lightning("ModelSummary", max_depth=2)),
    case("RichModelSummary", callbacks=lightning("RichModelSummary")),
    case("RichProgressBar", callbacks=lightning("RichProgressBar")),
    case("TQDMProgressBar", callbacks=lightning("TQDMProgressBar", refresh_rate=10)),
    case("DeviceStatsMonitor", callbacks=lightning("DeviceStatsMonitor", cpu_stats=False)),
    case("LearningRateFinder", callbacks=lightning("LearningRateFinder", num_training_steps=12)),
    case("BatchSizeFinder", callbacks=lightning("BatchSizeFinder", max_trials=2, steps_per_trial=1)),
    case("ModelPruning", callbacks=lightning("ModelPruning", pruning_fn="l1_unstructured", amount=0.3)),
    case("a callback that stops", callbacks=own("Stops"), trainer={"max_epochs": 5}),
    case("a callback that stops within the epoch", callbacks=own("StopsAtStep"), trainer={"max_epochs": 5}),
    case("a callback that draws", callbacks=own("Draws")),
    case("a callback with a state", callbacks=own("Counts")),
    case("a callback that refuses at the start", callbacks=own("Raises", hook="on_fit_start"), ends=("refused",)),
    case("a callback that refuses at the end", callbacks=own("Raises", hook="on_train_end")),
    case("a callback that refuses the test", callbacks=own("Raises", hook="on_test_start")),
    case("a module that brings callbacks", "BringsCallbacks"),
    case("a module that brings its checkpoint", "BringsCheckpoint"),
]

TRAINER = [
    case("accumulate_grad_batches", trainer={"accumulate_grad_batches": 4}),
    case("gradient_clip_val", trainer={"gradient_clip_val": 0.1}),
    case("gradient_clip_algorithm", trainer={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    case("fast_dev_run", trainer={"fast_dev_run": 2}),
    case("val_check_interval=0.5", trainer={"val_check_interval": 0.5}),
    case("val_check_interval=2", model("Base", peak=1), trainer={"val_check_interval": 2}),
    case("val_check_interval over epochs", trainer={"val_check_interval": 4, "check_val_every_n_epoch": None}),
    case(
        "check_val_every_n_epoch=2",
        trainer={"check_val_every_n_epoch": 2, "max_epochs": 5},
        model=model("Base", peak=3),
    ),
    case("check_val_every_n_epoch beyond the end", trainer={"check_val_every_n_epoch": 9}, **UNJUDGED),
    case("max_steps", trainer={"max_steps": 8}),
    case("max_steps within the first epoch", trainer={"max_steps": 4}, **UNJUDGED),
    case("max_steps without max_epochs", trainer={"max_steps": 15, "max_epochs": -1}),
    case("max_steps=0", trainer={"max_steps": 0}, **UNJUDGED),
    case("max_epochs=0", trainer={"max_epochs": 0}, **UNJUDGED),
    case("min_epochs", "StopsItself", trainer={"min_epochs": 3, "max_epochs": 5}),
    case("a module that stops", "StopsItself", trainer={"max_epochs": 5}),
    case("min_steps", "StopsItself", trainer={"min_steps": 16, "max_epochs": 5}),
    case("max_time", trainer={"max_time": "00:00:10:00"}),
    case("overfit_batches=2", trainer={"overfit_batches": 2}),
    case("overfit_batches=0.5", trainer={"overfit_batches": 0.5}),
    case("limit_train_batches=0.5", trainer={"limit_train_batches": 0.5}),
    case("limit_train_batches=1", trainer={"limit_train_batches": 1}),
    case(
        "limit_train_batches=0", trainer={"limit_train_batches": 0}, **(UNJUDGED | {"message": "limit_train_batches"})
    ),
    case("limit_val_batches=0", trainer={"limit_val_batches": 0}, **UNJUDGED),
    case(
        "limit_val_batches=0, objective of training",
        "OfTraining",
        trainer={"limit_val_batches": 0},
        objective="train_acc",
    ),
    case("limit_val_batches=0.7", trainer={"limit_val_batches": 0.7}),
    case("limit_test_batches=1", trainer={"limit_test_batches": 1}),
    case("num_sanity_val_steps=2", trainer={"num_sanity_val_steps": 2}),
    case("num_sanity_val_steps=-1", "BestMetric", trainer={"num_sanity_val_steps": -1}),
    case("num_sanity_val_steps=2 with dropout", "Dropped", trainer={"num_sanity_val_steps": 2}),
    case("reload_dataloaders_every_n_epochs", data="Reloaded", trainer={"reload_dataloaders_every_n_epochs": 1}),
    case("use_distributed_sampler=false", trainer={"use_distributed_sampler": False}),
    case("precision=bf16-mixed", "Dropped", trainer={"precision": "bf16-mixed"}),
    case("precision=64-true", "Dropped", trainer={"precision": "64-true"}),
    case("precision=bf16-true", trainer={"precision": "bf16-true"}),
    case("precision=16-mixed", "Dropped", trainer={"precision": "16-mixed"}),
    case("deterministic", trainer={"deterministic": True}),
    case("deterministic=warn", trainer={"deterministic": "warn"}),
    case("detect_anomaly", "Dropped", trainer={"detect_anomaly": True}),
    case("detect_anomaly with NaN", "Diverges", trainer={"detect_anomaly": True}),
    case("profiler=simple", trainer={"profiler": "simple"}),
    case("enable_model_summary", "Example", trainer={"enable_model_summary": True}),
    case("inference_mode=false", trainer={"inference_mode": False}),
    case("benchmark", trainer={"benchmark": True}),
    case("log_every_n_steps=50", more={"tracking.log_every_n_steps": 50}),
    case("strategy=ddp", trainer={"strategy": "ddp"}),
]

HOOKS = [
    case("changes its checkpoint", "ChangesCheckpoint"),
    case("strict_loading=False", "Partial"),
    case("a state that is no tensor", "ExtraState"),
    case("seeds by itself", "Seeds"),
    case("all hooks", "AllHooks"),
    case("writes files and prints", "Loose"),
    case("uses the Trainer", "UsesTrainer"),
    case("raises KeyboardInterrupt", model("Interrupts", kind="keyboard")),
    case("raises SystemExit", model("Interrupts", kind="exit")),
    case("another seed", seed=2**32 - 1),
]

CASES: list[Case] = [*MODULES, *OPTIMIZING, *LOGGING, *DATA, *CALLBACKS, *TRAINER, *HOOKS]
