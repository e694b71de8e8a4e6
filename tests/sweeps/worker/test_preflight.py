"""Corners are tried in this process: what is run, what is told of it, and what is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeChannel

from sweeps.config.composer import ALLOWED_MODULES, Composer, Config
from sweeps.core.errors import ConfigError
from sweeps.core.messages import CornerResult, RankJob
from sweeps.worker import preflight, probe
from sweeps.worker.process_group import Ranks

ALLOWED = ("user_modules", *ALLOWED_MODULES)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    store = tmp_path_factory.mktemp("store")
    return Composer("train", [f"store_dir={store}", "trainer=cpu"]).trial({}, seed=0)


def changed(config: Config, **values: Any) -> Config:
    """Return a copy with values set; `model__depth` stands for `model.depth`."""
    config = copy.deepcopy(config)
    for dotted, value in values.items():
        *parents, last = dotted.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


def job(folder: Path, limit_s: float = 60.0) -> RankJob:
    return RankJob(folder=str(folder), allowed_modules=ALLOWED, limit_s=limit_s)


def attempt(do: Any, configs: list[Config], folder: Path, limit_s: float = 60.0) -> list[CornerResult]:
    channel = FakeChannel()
    do(configs, channel, Ranks(), job(folder, limit_s=limit_s))
    return [event for event in channel.events if isinstance(event, CornerResult)]


def own(config: Config, net: str, **more: Any) -> Config:
    return changed(config, model={"_target_": f"user_modules.{net}", **more})


def test_a_check_runs_the_test_as_well(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import user_modules

    def broken(self: Any, batch: Any, batch_idx: int) -> None:
        raise RuntimeError("the test is broken")

    monkeypatch.setattr(user_modules.Own, "test_step", broken)
    one = changed(config, model={"_target_": "user_modules.Own"}, objective__metric="val_score")
    one["callbacks"]["checkpoint"]["monitor"] = "val_score"
    with pytest.raises(RuntimeError, match="the test is broken"):
        attempt(preflight.try_corners, [one], tmp_path)


@pytest.mark.parametrize("fails_in", ["forward", "backward", "second"])
def test_each_corner_goes_forward_and_backward(config: Config, tmp_path: Path, fails_in: str) -> None:
    corners = [own(config, "Fragile"), own(config, "Fragile"), own(config, "Fragile", fails_in=fails_in)]
    channel = FakeChannel()
    with pytest.raises(RuntimeError, match=f"broken in {fails_in}"):
        preflight.try_corners(corners, channel, Ranks(), job(tmp_path))  # type: ignore[arg-type]
    assert len(channel.events) == 2  # the third is to blame


def test_an_error_of_in_place_changes_is_seen_although_memory_is_measured(config: Config, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        attempt(preflight.try_corners, [own(config, "Fragile"), own(config, "Fragile", fails_in="place")], tmp_path)


def test_corners_that_there_is_no_time_for_are_built(config: Config, tmp_path: Path) -> None:
    tried = attempt(preflight.try_corners, [config, changed(config, model__depth=4)], tmp_path, limit_s=0.0)
    assert [one.was_run for one in tried] == [True, False]
    assert tried[1].num_parameters > tried[0].num_parameters
    with pytest.raises(ConfigError, match=r"model.activation must be one of"):
        attempt(preflight.try_corners, [config, changed(config, model__activation="tanhh")], tmp_path, limit_s=0.0)


def test_memory_is_what_an_mlp_needs_by_hand(config: Config, tmp_path: Path) -> None:
    width, inputs, classes, batch = 512, 64, 10, 64
    (tried,) = attempt(preflight.measure, [changed(config, model__width=width)], tmp_path)
    parameters = 4 * (inputs * width + width + width * classes + classes)
    # the inputs, what ReLU gives out and the next layer takes in, the log-probabilities, the labels; the largest twice
    activations = 4 * batch * (inputs + width + classes) + 8 * batch + 2 * 4 * batch * width
    memory = tried.memory
    assert tried.num_parameters == parameters // 4
    assert memory is not None
    assert memory.gradients == parameters
    assert memory.parameters == pytest.approx(parameters, abs=200)  # and the states of metrics
    assert memory.optimizer == 2 * parameters + 4 * 4  # Adam's two moments, and a step for each tensor
    assert memory.activations == pytest.approx(activations, rel=0.01)


@pytest.mark.parametrize("batch", [1000, 2000], ids=["the second is smaller", "there is one alone"])
def test_memory_is_that_of_a_whole_batch(config: Config, tmp_path: Path, batch: int) -> None:
    (tried,) = attempt(preflight.measure, [changed(config, data__batch_size=batch)], tmp_path)
    samples = min(batch, 1299)  # of digits
    assert tried.memory is not None
    assert tried.memory.activations == pytest.approx(samples * (4 * (64 + 3 * 128 + 10) + 8), rel=0.01)


def resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


def test_the_estimate_is_near_what_the_process_really_takes(config: Config, tmp_path: Path) -> None:
    large = changed(config, model__width=2048, model__depth=3)
    attempt(preflight.measure, [config], tmp_path)  # whatever is loaded at the first time
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins anew
    except OSError:
        pytest.skip("the peak of resident memory cannot be set back here")
    before = resident("VmRSS")
    (tried,) = attempt(preflight.measure, [large], tmp_path)
    assert tried.memory is not None
    assert 0.6 < tried.memory.total / (resident("VmHWM") - before) < 1.3


def test_nets_with_tensors_of_all_layouts_are_tried(config: Config, tmp_path: Path) -> None:
    (plain,) = attempt(preflight.measure, [own(config, "Fragile")], tmp_path)
    (odd,) = attempt(preflight.compare, [own(config, "Odd")], tmp_path)
    (checked,) = attempt(preflight.try_corners, [own(config, "Odd")], tmp_path)
    assert plain.memory is not None and odd.memory is not None and checked.memory is not None
    sparse = (2 * 4 * 8 + 4 * 4) + 2 * (5 * 8 + 4 * 8 + 4 * 4)
    nested = (4 * 8 + 15 * 4) + (3 * 8 + 15 * 4)
    assert odd.memory.parameters - plain.memory.parameters == sparse + nested + 2 * 8


def test_the_optimizers_state_is_measured(config: Config, tmp_path: Path) -> None:
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}
    configs = [changed(config, optimizer=sgd), changed(config, optimizer=sgd | {"momentum": 0.9})]
    plain, momentum = attempt(preflight.measure, configs, tmp_path)
    assert plain.memory is not None and momentum.memory is not None
    assert plain.memory.optimizer == 0
    assert momentum.memory.optimizer == momentum.memory.gradients


@pytest.mark.parametrize(("frozen", "unused"), [(False, ("net.spare.weight", "net.spare.bias")), (True, ())])
def test_parameters_without_a_gradient_are_named_unless_frozen(
    config: Config, tmp_path: Path, frozen: bool, unused: tuple[str, ...]
) -> None:
    (tried,) = attempt(preflight.try_corners, [own(config, "Spare", frozen=frozen)], tmp_path)
    assert tried.unused == unused


def test_parameters_that_take_turns_are_used(config: Config, tmp_path: Path) -> None:
    (tried,) = attempt(preflight.measure, [own(config, "TakesTurns")], tmp_path)
    assert tried.unused == ()


def test_data_is_set_up_once_for_all_corners_that_share_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules.data.digits import Digits

    sizes = []
    setup = Digits.setup

    def counted(self: Any, stage: str) -> None:
        sizes.append((self.batch_size, stage))
        setup(self, stage)

    monkeypatch.setattr(Digits, "setup", counted)
    corners = [config, changed(config, model__depth=2), changed(config, model__depth=3)]
    attempt(preflight.try_corners, [*corners, changed(config, data__batch_size=32)], tmp_path)
    assert sizes == [(64, "fit"), (64, "test"), (32, "fit")]


def test_the_same_config_does_the_same_whether_its_data_is_shared_or_not(config: Config, tmp_path: Path) -> None:
    tried = attempt(preflight.try_corners, [config, copy.deepcopy(config)], tmp_path)
    again = attempt(preflight.measure, [config], tmp_path)
    assert tried[0].digest == tried[1].digest == again[0].digest


ALIKE = [
    {"model__depth": 0, "model__dropout": 0.5},  # no hidden layer, nothing to drop
    {"model__depth": 0, "model__activation": "tanh"},
]


@pytest.mark.parametrize("values", ALIKE)
def test_what_changes_nothing_has_the_same_digest(config: Config, tmp_path: Path, values: dict[str, Any]) -> None:
    one, other = attempt(preflight.compare, [changed(config, model__depth=0), changed(config, **values)], tmp_path)
    assert one.digest == other.digest


@pytest.mark.parametrize(
    "values",
    [
        {"model__dropout": 0.5},
        {"model__initialization": "kaiming"},
        {"optimizer__weight_decay": 0.1},
        {"optimizer__betas": [0.8, 0.99]},
        {"system__label_smoothing": 0.1},
        {"data__drop_last": True},
        {"data__augmentation__crop_padding": 1},
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_changes_something_has_another_digest(config: Config, tmp_path: Path, values: dict[str, Any]) -> None:
    one, other = attempt(preflight.measure, [config, changed(config, **values)], tmp_path)
    assert one.digest != other.digest


def test_what_acts_after_the_step_or_in_validation_shows_when_compared(config: Config, tmp_path: Path) -> None:
    configs = [own(config, "Spare"), own(config, "Spare", decay=0.5), own(config, "Spare", scale=2.0)]
    measured = attempt(preflight.measure, configs, tmp_path)
    compared = attempt(preflight.compare, configs, tmp_path)
    assert len({one.digest for one in measured}) == 1
    assert len({one.digest for one in compared}) == 3


def test_a_schedule_that_waits_for_a_metric_of_validation_is_no_obstacle(config: Config, tmp_path: Path) -> None:
    plateau = {"_target_": "lightning_modules.schedulers.plateau", "_partial_": True, "monitor": "val/loss"}
    assert attempt(preflight.try_corners, [config, changed(config, scheduler=plateau)], tmp_path)[1].was_run


@pytest.mark.parametrize("unlikely", [{"trainer__limit_train_batches": 0}, {"data__batch_size": 2000}])
def test_no_batch_or_one_alone_is_no_obstacle(config: Config, tmp_path: Path, unlikely: dict[str, Any]) -> None:
    (tried,) = attempt(preflight.measure, [changed(config, **unlikely)], tmp_path)
    assert tried.was_run == ("data__batch_size" in unlikely)
    assert tried.num_parameters > 0


def test_saved_tensors_are_counted_once_each_and_without_parameters() -> None:
    module: Any = torch.nn.Linear(8, 8)
    saved = probe._SavedTensors(module)
    with saved:
        x = torch.zeros(4, 8)
        hidden = torch.tanh(module(x))
        module(hidden).sum().backward()
    assert saved.num_bytes == x.nbytes + hidden.nbytes
