"""A trial from its config to its last word, in this process: what is reported, and when."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeChannel

from sweeps import paths, train
from sweeps.config import Composer
from sweeps.errors import ConfigError
from sweeps.ranks import Ranks
from sweeps.reproducing.determinism import explained
from sweeps.reproducing.traces import read_trace


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


def fit(config: Any, folder: Path) -> tuple[Any, FakeChannel]:
    channel = FakeChannel()
    allowed = ("user_modules", "lightning_modules", "torch.optim", "torchmetrics", "pytorch_lightning.callbacks")
    return train.fit(config, channel, ranks=Ranks(), folder=folder, allowed=allowed), channel


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
    finished = train.fit(
        configure("val_score"), channel, ranks=Ranks(), folder=tmp_path, allowed=("user_modules", *train_modules())
    )
    assert finished.state == "complete"


def test_what_is_stopped_within_an_epoch_leaves_no_end_of_one(configure: Any, tmp_path: Path) -> None:
    channel = FakeChannel(stop_at_step=30)  # of epochs of 21 steps
    finished = train.fit(
        configure("val_score"), channel, ranks=Ranks(), folder=tmp_path, allowed=("user_modules", *train_modules())
    )
    assert finished.state == "interrupted"
    logged = [key for key, _ in channel.points]
    assert logged.count("val_score") == logged.count("train_loss") == 1
    assert 21 < logged.count("train/loss_step") < 42


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
    from sweeps.config import ALLOWED_MODULES

    return ALLOWED_MODULES


def test_num_params_alone_judges_no_training() -> None:
    assert "objective.metric=val/acc" in str(train.metric_is_missing("num_params", {"val/acc": 0.5}))
