"""Which model each number is of: all that a trial reports is of the model that is kept and tested."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeChannel

from sweeps.config.composer import ALLOWED_MODULES, Composer
from sweeps.core.errors import ConfigError
from sweeps.core.messages import Artifact, CheckPassed, Finished, RankJob, Saved, Started
from sweeps.worker import fit as train
from sweeps.worker import preflight
from sweeps.worker.callbacks import DivergedError
from sweeps.worker.process_group import Ranks

ALLOWED = ("field_modules", *ALLOWED_MODULES)
CHECKPOINT = "pytorch_lightning.callbacks.ModelCheckpoint"
SCRIPT = {"acc": [0.9, 0.1], "loss": [0.5, 0.2], "names": ["val/acc", "val/loss"]}


class Case:
    """A config of a module of `field_modules`, that can be checked and trained in this process."""

    def __init__(self, folder: Path, module: str, *overrides: str, **arguments: Any) -> None:
        basics = ["trainer=cpu", "trainer.max_epochs=2", "trainer.enable_model_summary=false", f"store_dir={folder}"]
        self.config = Composer("train", [*basics, *overrides]).trial({}, seed=0)
        self.config["model"] = {"_target_": f"field_modules.{module}", **arguments}
        self.config["data"] = {"_target_": "field_modules.Tables"}
        self.folder = folder
        self.channel = FakeChannel()

    def check(self) -> CheckPassed:
        job = RankJob(folder=str(self.folder / "check"), allowed_modules=ALLOWED)
        return preflight.try_corners([self.config], FakeChannel(), Ranks(), job)  # type: ignore[arg-type]

    def fit(self, resume_step: int | None = None) -> Finished:
        job = RankJob(folder=str(self.folder), allowed_modules=ALLOWED, resume_step=resume_step)
        return train.fit(self.config, self.channel, Ranks(), job)  # type: ignore[arg-type]

    def shown(self, name: str) -> float:
        """Return what MLflow shows of a metric: its last point."""
        return self.channel.curves[name][-1][1]

    @property
    def artifacts(self) -> list[str]:
        return [Path(it.path).name for it in self.channel.events if isinstance(it, Artifact) and it.artifact_path]


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Case]:
    return lambda module, *overrides, **arguments: Case(tmp_path, module, *overrides, **arguments)


@pytest.mark.parametrize(
    "names",
    [
        ["val/acc", "val/loss"],
        ["val_acc", "val_loss"],
        ["valid/accuracy", "valid/loss"],
        ["acc", "loss of validation"],
        ["validation.accuracy", "Loss"],
    ],
)
def test_all_metrics_of_a_validation_are_of_the_model_that_is_tested(case: Any, names: list[str]) -> None:
    one = case("Scripted", f"objective.metric='{names[0]}'", **SCRIPT | {"names": names})
    one.check()
    finished = one.fit()
    assert finished.value == finished.metrics[names[0]] == one.shown(names[0]) == pytest.approx(0.9)
    assert finished.metrics[names[1]] == one.shown(names[1]) == pytest.approx(0.5)
    assert finished.metrics["test/epochs_seen"] == 1
    assert one.artifacts == ["epoch=0-step=21.ckpt"]


def test_metrics_of_several_loaders_are_kept_alike(case: Any) -> None:
    one = case("Scripted", "objective.metric=val/acc/dataloader_idx_1", **SCRIPT)
    one.config["data"]["kind"] = "two"
    finished = one.fit()
    assert finished.value == pytest.approx(0.9)
    assert finished.metrics["val/loss/dataloader_idx_0"] == finished.metrics["val/loss/dataloader_idx_1"]
    assert one.shown("val/loss/dataloader_idx_0") == pytest.approx(0.5)


def test_metrics_of_training_are_those_of_the_epoch_that_is_kept(case: Any) -> None:
    one = case("InTraining", "objective.metric=acc", **SCRIPT | {"names": ["acc", "own_loss"]})
    finished = one.fit()
    assert finished.value == pytest.approx(0.9)
    assert finished.metrics["own_loss"] == one.shown("own_loss") == pytest.approx(0.5)
    assert finished.metrics["val/other"] == one.shown("val/other") == pytest.approx(0.5)
    assert finished.metrics["test/epochs_seen"] == 1


@pytest.mark.parametrize("puts", [False, True])
def test_an_objective_that_a_callback_logs_is_reported(case: Any, puts: bool) -> None:
    one = case("Scripted", "objective.metric=val/own", **SCRIPT)
    own = {"_target_": "field_modules.ScriptedCallback", "name": "val/own", "puts": puts}
    one.config["callbacks"] = {"own": own, **one.config["callbacks"]}
    assert "val/own" in one.check().metrics
    finished = one.fit()
    assert one.channel.reports == pytest.approx([0.9, 0.1])
    assert finished.metrics["val/own"] == pytest.approx(0.9)
    assert finished.metrics["val/loss"] == pytest.approx(0.5)


def test_an_objective_of_each_second_epoch_is_a_warning_and_trains(case: Any) -> None:
    script = SCRIPT | {"acc": [0.0, 0.3, 0.0, 0.9, 0.0, 0.1], "loss": [6, 5, 4, 3, 2, 1]}
    one = case("Scripted", "trainer.max_epochs=6", every=2, **script)
    assert any("val/acc" in warning for warning in one.check().warnings)
    finished = one.fit()
    assert one.channel.reports == pytest.approx([0.3, 0.9, 0.1])
    assert (finished.value, finished.metrics["val/loss"]) == (pytest.approx(0.9), 3)
    assert finished.metrics["test/epochs_seen"] == 4


@pytest.mark.parametrize(
    ("settings", "best"),
    [
        (("trainer.val_check_interval=0.5",), 31),
        (("trainer.val_check_interval=17", "trainer.check_val_every_n_epoch=null", "trainer.max_epochs=4"), 51),
    ],
)
def test_a_validation_within_the_epoch_may_be_the_best(case: Any, settings: tuple[str, ...], best: int) -> None:
    one = case("ByValidation", *settings, acc=[0.1, 0.2, 0.9, 0.3])
    finished = one.fit()
    assert one.channel.reports == pytest.approx([0.1, 0.2, 0.9, 0.3])
    assert finished.value == finished.metrics["val/acc"] == one.shown("val/acc") == pytest.approx(0.9)
    assert finished.metrics["val/batches"] == finished.metrics["test/batches"] == one.shown("val/batches") == best


# --- which checkpoint is kept --------------------------------------------------------------------------


def test_of_several_checkpoints_the_one_that_follows_the_objective_counts(case: Any) -> None:
    one = case("Scripted", **SCRIPT)
    every = {"_target_": CHECKPOINT, "save_top_k": -1, "filename": "every-{epoch}"}
    one.config["callbacks"] = {"aaa": every, **one.config["callbacks"]}
    finished = one.fit()
    assert (finished.value, finished.metrics["test/epochs_seen"]) == (pytest.approx(0.9), 1)
    assert one.artifacts == ["epoch=0-step=21.ckpt"]


@pytest.mark.parametrize(
    ("change", "value", "seen"),
    [
        ({"every_n_epochs": 2}, 0.1, 2),
        ({"save_top_k": 0}, 0.1, 2),
        ({"save_top_k": 0, "save_last": True}, 0.1, 2),
        ({"monitor": "val/loss", "mode": "min"}, 0.1, 2),
        ({"monitor": None}, 0.1, 2),
        ({"mode": "min"}, 0.1, 2),
        ({"every_n_train_steps": 21}, 0.1, 1),  # saved before `seen` is counted up, as validation saw it
        ({"every_n_train_steps": 42, "monitor": None}, 0.1, 1),
        ({"every_n_train_steps": 21, "save_on_train_epoch_end": False}, 0.9, 0),
        ({"save_on_train_epoch_end": False}, 0.9, 0),
        ({"save_weights_only": True}, 0.9, 1),
        ({"save_last": True}, 0.9, 1),
    ],
)
def test_value_and_checkpoint_are_of_one_model_however_it_is_saved(
    case: Any, change: dict[str, Any], value: float, seen: int
) -> None:
    one = case("Scripted", **SCRIPT)
    one.config["callbacks"]["checkpoint"] |= change
    finished = one.fit()
    assert finished.value == finished.metrics["val/acc"] == one.shown("val/acc") == pytest.approx(value)
    assert finished.metrics["val/loss"] == one.shown("val/loss") == pytest.approx({0.9: 0.5, 0.1: 0.2}[value])
    assert finished.metrics["test/epochs_seen"] == seen


def test_a_model_that_was_saved_between_validations_is_validated(case: Any) -> None:
    one = case("Base")
    one.config["callbacks"]["checkpoint"]["every_n_train_steps"] = 5
    finished = one.fit()
    assert finished.value == finished.metrics["val/acc"] == one.shown("val/acc")
    assert finished.metrics["test/acc"] == finished.value  # `Tables` tests what it validates
    assert finished.value not in one.channel.reports


def test_a_trial_that_is_resumed_knows_the_model_that_was_kept_before(case: Any) -> None:
    script = SCRIPT | {"acc": [0.1, 0.9, 0.2, 0.3], "loss": [1, 2, 3, 4]}
    one = case("Scripted", "trainer.max_epochs=4", "tracking.resume_overhead=1e9", **script)
    one.fit()
    at_third = next(event.step for event in one.channel.events if isinstance(event, Saved) and event.step == 42)
    one.channel = FakeChannel()
    finished = one.fit(resume_step=at_third)
    assert one.channel.reports == pytest.approx([0.2, 0.3])
    assert (finished.value, finished.metrics["val/loss"]) == (pytest.approx(0.9), 2)
    assert finished.metrics["test/epochs_seen"] == 2


def test_a_state_that_an_earlier_version_saved_is_taken_up(case: Any) -> None:
    one = case(
        "Scripted", "trainer.max_epochs=4", "tracking.resume_overhead=1e9", **SCRIPT | {"acc": [0.1, 0.2, 0.3, 0.9]}
    )
    one.fit()
    state = next(path for path in one.folder.glob("resume-*-42.ckpt"))
    content = torch.load(state, weights_only=False)
    key = next(key for key in content["callbacks"] if key.startswith("Reporter"))
    content["callbacks"][key] = {"value": 0.2, "metrics": {"val/acc": 0.2}, "num_reports": 2}
    torch.save(content, state)
    one.channel = FakeChannel()
    finished = one.fit(resume_step=42)
    assert (finished.value, finished.metrics["test/epochs_seen"]) == (pytest.approx(0.9), 4)


def test_without_checkpoints_the_value_is_that_of_the_last_model(case: Any) -> None:
    one = case("Scripted", **SCRIPT)
    one.config["callbacks"] = None
    finished = one.fit()
    assert (finished.value, finished.metrics["val/loss"]) == (pytest.approx(0.1), pytest.approx(0.2))
    assert finished.metrics["test/epochs_seen"] == 2


def test_the_best_of_all_that_were_saved_is_kept(case: Any) -> None:
    one = case("Scripted", "trainer.max_epochs=3", **SCRIPT | {"acc": [0.1, 0.9, 0.2], "loss": [1, 2, 3]})
    one.config["callbacks"]["checkpoint"] |= {"monitor": None, "save_top_k": -1}
    finished = one.fit()
    assert (finished.value, finished.metrics["test/epochs_seen"]) == (pytest.approx(0.9), 2)
    assert one.artifacts == ["epoch=1-step=42.ckpt"]


def test_a_test_that_logs_the_name_of_the_objective_does_not_replace_it(case: Any) -> None:
    one = case("Scripted", **SCRIPT | {"acc": [0.1, 0.9]})
    one.config["model"]["tested"] = "val/acc"
    finished = one.fit()
    assert finished.value == finished.metrics["val/acc"] == one.shown("val/acc") == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("change", "settings", "value", "seen"),
    [
        ({}, (), 0.9, 2),
        ({}, ("trainer.val_check_interval=0.5",), 0.9, 2),
        ({}, ("trainer.check_val_every_n_epoch=2",), 0.9, 2),
        ({"every_n_train_steps": 5}, (), 0.2, 3),  # never saved when it is logged: the last model counts
    ],
)
def test_an_objective_that_only_training_logs_is_of_the_model_that_is_tested(
    case: Any, change: dict[str, Any], settings: tuple[str, ...], value: float, seen: int
) -> None:
    script = SCRIPT | {"acc": [1, 1, 1], "loss": [0.1, 0.9, 0.2], "names": ["acc", "own"]}
    one = case("InTraining", "objective.metric=own", "trainer.max_epochs=3", *settings, **script)
    one.config["callbacks"]["checkpoint"] |= change
    finished = one.fit()
    assert one.channel.reports == pytest.approx([0.1, 0.9, 0.2])
    assert finished.value == finished.metrics["own"] == one.shown("own") == pytest.approx(value)
    assert finished.metrics["test/epochs_seen"] == seen


@pytest.mark.parametrize("saves", [True, False])
def test_averaged_weights_are_those_that_are_validated_and_tested(case: Any, saves: bool) -> None:
    one = case("Weighs")
    average = {"_target_": "pytorch_lightning.callbacks.EMAWeightAveraging", "decay": 0.9}
    one.config["callbacks"] = {"average": average, **(one.config["callbacks"] if saves else {})}
    finished = one.fit()
    assert finished.metrics["test/weight"] == finished.metrics["val/weight"]
    assert finished.metrics["test/acc"] == finished.value  # `Tables` tests what it validates


def test_weights_that_a_callback_puts_in_at_the_end_are_validated(case: Any) -> None:
    one = case("Weighs", "trainer.max_epochs=4")
    name = "pytorch_lightning.callbacks.StochasticWeightAveraging"
    one.config["callbacks"] = {"average": {"_target_": name, "swa_lrs": 0.5, "swa_epoch_start": 1}}
    finished = one.fit()
    assert finished.metrics["test/weight"] == finished.metrics["val/weight"] == one.shown("val/weight")
    assert finished.metrics["test/acc"] == finished.value == finished.metrics["val/acc"]
    assert finished.value not in one.channel.reports
    assert "train/loss" in finished.metrics


# --- parameters that come late -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "size"), [("Lazy", 2 * 64 + 650), ("Late", 64 * 32 + 32 + 330), ("Later", 64 * 32 + 32 + 330)]
)
def test_parameters_that_come_late_are_counted(case: Any, module: str, size: int) -> None:
    one = case(module)
    assert one.check().num_parameters == size
    assert one.fit().state == "complete"
    assert [it.num_parameters for it in one.channel.events if isinstance(it, Started)] == [size]


# --- the check is the training run, shortened ----------------------------------------------------------


def test_a_schedule_over_a_share_of_all_steps_passes(case: Any) -> None:
    one = case("Warm")
    one.check()
    assert one.fit().state == "complete"


def test_a_module_may_speak_to_its_logger_and_knows_the_last_batch(case: Any) -> None:
    one = case("Talks", "objective.metric=train/last")
    assert "train/last" in one.check().metrics
    finished = one.fit()
    assert finished.value == 20
    assert one.shown("my/norm") == 1.0


@pytest.mark.parametrize("key", ["early_stopping", "checkpoint"])
def test_a_monitor_that_does_not_exist_is_refused_with_the_nearest_name(case: Any, key: str) -> None:
    one = case("Base", "callbacks=[default,early_stopping]")
    one.config["callbacks"][key]["monitor"] = "val/los"
    with pytest.raises(ConfigError, match=rf"callbacks\.{key}\.monitor.*'val/loss'"):
        one.check()


def test_callbacks_that_the_module_brings_are_checked_and_save_nothing_of_the_check(case: Any, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    one = case("Brings", monitor="val/loss", place=str(folder))
    one.check()
    assert not folder.exists()
    finished = one.fit()
    assert [path.name for path in folder.iterdir()] == one.artifacts
    assert finished.metrics["test/acc"] == finished.value
    wrong = case("Brings", monitor="val/los", place=str(folder))
    with pytest.raises(ConfigError, match=r"EarlyStopping.*configure_callbacks.*'val/loss'"):
        wrong.check()


def test_a_metric_that_a_function_logs_later_is_a_warning(case: Any) -> None:
    one = case("LogsByHelper", "objective.metric=val/score")
    assert one.check().late == ("val/score",)
    assert one.fit().value == 0.5


def test_a_misspelt_objective_is_refused(case: Any) -> None:
    one = case("Base", "objective.metric=val/ac")
    with pytest.raises(ConfigError, match="'val/acc'"):
        one.check()


@pytest.mark.parametrize("kind", ["empty", "unsized empty"])
def test_data_without_a_batch_is_named(case: Any, kind: str) -> None:
    one = case("Base")
    one.config["data"]["kind"] = kind
    for attempt in (one.check, one.fit):
        with pytest.raises(ConfigError, match=r"no batch.*Tables\.train_dataloader"):
            attempt()


def test_training_that_is_stopped_before_it_begins_is_not_for_want_of_data(case: Any) -> None:
    one = case("StopsAtOnce")
    for attempt in (one.check, one.fit):
        with pytest.raises(ConfigError, match="should_stop"):
            attempt()


def test_a_progress_bar_is_no_reason_to_refuse(case: Any) -> None:
    one = case("Base")
    one.config["callbacks"]["bar"] = {"_target_": "pytorch_lightning.callbacks.TQDMProgressBar"}
    one.check()
    assert one.fit().state == "complete"


# --- what is recorded decides nothing ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["nan", "inf", "once", "manual"])
@pytest.mark.parametrize("every", [0, 1, 50])
def test_a_loss_that_is_no_number_ends_training_however_few_are_recorded(case: Any, how: str, every: int) -> None:
    one = case("Blows", f"tracking.log_every_n_steps={every}", how=how)
    with pytest.raises(DivergedError, match=r"loss.*(nan|inf|not a finite)"):
        one.fit()


@pytest.mark.parametrize("every", [0, 1])
def test_a_large_loss_is_a_number(case: Any, every: int) -> None:
    assert case("Large", f"tracking.log_every_n_steps={every}").fit().state == "complete"


def test_an_objective_that_is_no_number_ends_training(case: Any) -> None:
    one = case("Scripted", **SCRIPT | {"acc": [0.9, math.nan]})
    with pytest.raises(DivergedError, match="val/acc"):
        one.fit()
