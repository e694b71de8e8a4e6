"""A trial from its config to its last word, in this process: what is reported, and when."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeChannel

from sweeps.config.composer import Composer
from sweeps.core import paths
from sweeps.core.determinism import explained
from sweeps.core.errors import ConfigError
from sweeps.core.messages import RankJob, Saved, StopAfter
from sweeps.reproduce.trace import read_trace
from sweeps.reproduce.verdict import Evidence, judge
from sweeps.worker import fit as train
from sweeps.worker.process_group import Ranks


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def configure(store: Path) -> Callable[..., Any]:
    def make(metric: str, direction: str = "maximize", **trainer: Any) -> Any:
        overrides = [f"store_dir={store}", "trainer=cpu", "trainer.max_epochs=3", f"objective.metric={metric}"]
        config = Composer("train", [*overrides, f"objective.direction={direction}"]).trial({}, seed=0)
        config["model"] = {"_target_": "user_modules.Own"}
        config["trainer"] |= trainer
        return config

    return make


def job(folder: Path) -> RankJob:
    return RankJob(folder=str(folder), allowed_modules=("user_modules", *train_modules()))


def fit(config: Any, folder: Path, **more: Any) -> tuple[Any, FakeChannel]:
    channel = FakeChannel()
    allowed = ("user_modules", "lightning_modules", "torch.optim", "torchmetrics", "pytorch_lightning.callbacks")
    return train.fit(config, channel, Ranks(), RankJob(folder=str(folder), allowed_modules=allowed, **more)), channel


def test_a_module_that_saves_its_hyperparameters_is_tested_at_its_best_checkpoint(
    configure: Any, tmp_path: Path
) -> None:
    finished, channel = fit(configure("val_score"), tmp_path)
    assert finished.state == "complete"
    assert len(channel.reports) == 3
    assert finished.value == max(channel.reports)


def test_a_net_with_tensors_of_all_layouts_is_trained(configure: Any, tmp_path: Path) -> None:
    config = configure("val/acc")
    config["model"] = {"_target_": "user_modules.Odd"}
    finished, _ = fit(config, tmp_path)
    assert finished.state == "complete"


def test_an_objective_of_training_is_reported_with_the_value_of_its_own_epoch(configure: Any, tmp_path: Path) -> None:
    finished, channel = fit(configure("train_loss", "minimize"), tmp_path)
    logged = [value for key, value in channel.points if key == "train_loss"]
    assert channel.reports == pytest.approx(logged)
    assert finished.value == min(channel.reports)


def test_epochs_without_validation_report_nothing(configure: Any, tmp_path: Path) -> None:
    _, channel = fit(configure("val_score", check_val_every_n_epoch=2, max_epochs=4), tmp_path)
    assert len(channel.reports) == 2


def test_training_that_never_validates_says_so(configure: Any, tmp_path: Path) -> None:
    config = configure("val_score", check_val_every_n_epoch=5)
    config["callbacks"] = None
    with pytest.raises(ConfigError, match="val_score"):
        fit(config, tmp_path)


@pytest.mark.parametrize(("num_losses", "is_automatic"), [(1, True), (2, False)])
def test_a_loss_that_is_no_scalar_is_logged_if_it_is_one_number(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_losses: int, is_automatic: bool
) -> None:
    import user_modules

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch[0].flatten(1)).mean()
        if not is_automatic:
            self.manual_backward(loss)
            self.optimizers().step()
        return loss.expand(num_losses)

    monkeypatch.setattr(user_modules.Own, "automatic_optimization", is_automatic)
    monkeypatch.setattr(user_modules.Own, "training_step", step)
    finished, channel = fit(configure("val_score"), tmp_path)
    assert finished.state == "complete"
    assert ("train/loss_step" in dict(channel.points)) == (num_losses == 1)


def test_what_is_told_to_stop_after_its_last_step_is_complete(configure: Any, tmp_path: Path) -> None:
    channel = FakeChannel(stop_at_report=3)  # the order comes while the last epoch is reported
    finished = train.fit(configure("val_score"), channel, Ranks(), job(tmp_path))
    assert finished.state == "complete"


def test_what_is_stopped_within_an_epoch_leaves_no_end_of_one(configure: Any, tmp_path: Path) -> None:
    channel = FakeChannel(stop_at_step=30)  # of epochs of 21 steps
    finished = train.fit(configure("val_score"), channel, Ranks(), job(tmp_path))
    assert finished.state == "interrupted"
    logged = [key for key, _ in channel.points]
    assert logged.count("val_score") == logged.count("train_loss") == 1
    assert 21 < logged.count("train/loss_step") < 42


def adversarial(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
    """Step twice with each batch."""
    for _ in range(2):
        loss = stepped(self, batch)
    return loss


def patient(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
    """Step with every seventh batch, which of an epoch of 21 batches is not the last one."""
    return stepped(self, batch, is_due=batch_idx % 7 == 3)


def stepped(module: Any, batch: Any, is_due: bool = True) -> torch.Tensor:
    loss = torch.nn.functional.cross_entropy(module.layer(batch[0].flatten(1)), batch[1])
    module.manual_backward(loss)
    if is_due:
        module.optimizers().step()
        module.optimizers().zero_grad()
    module.log("train_loss", loss, on_step=False, on_epoch=True)
    module.log("loss_now", loss)
    return loss


def evidence_of(finished: Any, channel: FakeChannel, folder: Path) -> Evidence:
    return Evidence(trace=read_trace(folder / paths.TRACE), points=channel.curves, value=finished.value)


@pytest.mark.parametrize("step", [adversarial, patient, None])
def test_what_is_stopped_after_an_epoch_is_the_beginning_of_the_same_training(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Any
) -> None:
    import user_modules

    if step is not None:
        monkeypatch.setattr(user_modules.Own, "automatic_optimization", False)
        monkeypatch.setattr(user_modules.Own, "training_step", step)
    config = configure("val_score", check_val_every_n_epoch=2, max_epochs=4)
    config["tracking"]["log_every_n_steps"] = 5
    config["tracking"]["resume_overhead"] = 1e9
    finished, channel = fit(config, tmp_path / "whole")
    before = evidence_of(finished, channel, tmp_path / "whole")
    saved = [event.step for event in channel.events if isinstance(event, Saved)]
    assert saved == [epoch.metrics_end for epoch in before.trace.epochs[:3]] == [21, 42, 63]
    for last in before.trace.epochs[:3]:
        folder = tmp_path / str(last.epoch)
        stop_after = StopAfter(epoch=last.epoch, batches=last.batches)
        again = evidence_of(*fit(config, folder, stop_after=stop_after), folder)
        found = judge(before, again, metric="val_score", tolerance=None, differs={}, last=last)
        assert (found.kind, found.num_epochs) == ("exact", last.epoch + 1), found.reason


def test_what_ended_within_an_epoch_is_repeated_up_to_there(configure: Any, tmp_path: Path) -> None:
    config = configure("val_score")
    config["tracking"]["log_every_n_steps"] = 1
    channel = FakeChannel(stop_at_step=30)  # of epochs of 21 steps
    finished = train.fit(config, channel, Ranks(), job(tmp_path / "cut"))
    before = evidence_of(finished, channel, tmp_path / "cut")
    last = before.trace.epochs[-1]
    assert (last.epoch, last.batches < 21, last.metrics_end) == (1, True, 21 + last.batches)
    stop_after = StopAfter(epoch=1, batches=last.batches)
    again = evidence_of(*fit(config, tmp_path / "again", stop_after=stop_after), tmp_path / "again")
    options: dict[str, Any] = {"metric": "val_score", "tolerance": None, "differs": {}, "last": last}
    found = judge(before, again, **options, is_record_end=True)
    assert (found.kind, found.num_epochs) == ("exact", 2), found.reason


@pytest.fixture
def deterministic_is_restored() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic_is_restored")
def test_an_operation_without_a_deterministic_form_is_named(configure: Any, tmp_path: Path) -> None:
    config = configure("val/acc", max_epochs=1, deterministic="warn") | {"model": {"_target_": "user_modules.Unpools"}}
    finished, _ = fit(config, tmp_path)
    assert finished.state == "complete"
    assert read_trace(tmp_path / paths.TRACE).operations == ("max_unpooling2d_forward_out",)
    config["trainer"]["deterministic"] = True
    with pytest.raises(RuntimeError) as caught:
        fit(config, tmp_path)
    told = explained(str(caught.value))
    assert told is not None and "max_unpooling2d_forward_out has no" in told and "trainer.deterministic=warn" in told


def train_modules() -> tuple[str, ...]:
    from sweeps.config.composer import ALLOWED_MODULES

    return ALLOWED_MODULES


def test_num_params_alone_judges_no_training() -> None:
    assert "objective.metric=val/acc" in str(train.metric_is_missing("num_params", {"val/acc": 0.5}))
