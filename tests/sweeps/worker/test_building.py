"""What `model`, `data` and `callbacks` build: a LightningModule is used as it is, a net is wrapped, others refused."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.systems.classifier import Classifier
from sweeps.config.composer import ALLOWED_MODULES, Composer
from sweeps.config.parts import PARTS, PartsTaken
from sweeps.core.errors import ConfigError
from sweeps.worker.building import build_callback, build_data, build_module, parts_taken

KIT = """
import functools
import sys
import types
import lightning as L
import torch


class Own(L.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.layer = torch.nn.Linear(2, 2)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    @classmethod
    def with_rate(cls, lr: float):
        return cls(lr)


class Given(Own):
    def __init__(self, optimizer, scheduler=None):
        super().__init__()
        self.make = optimizer, scheduler


class Net(torch.nn.Module):
    def __init__(self, scheduler: int = 3, inner: bool = False):
        super().__init__()
        self.scheduler = scheduler
        self.layer = Own() if inner else torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


class Steps(Net):
    def training_step(self, batch, batch_idx): ...


class Optimizes(Net):
    def configure_optimizers(self): ...


class LightningModule(torch.nn.Module):
    __module__ = "thunder.pytorch.core"

    def training_step(self, batch, batch_idx): ...


class Stranger(LightningModule): ...


def make(kind: str = "own", lr: float = 0.5):
    return {"own": Own, "net": lambda lr: Net(), "steps": lambda lr: Steps()}[kind](lr)


def compiled():
    return torch.compile(Own(), backend="eager")


def compiled_net(steps: bool = False):
    return torch.compile(Steps() if steps else Net(), backend="eager")


def given(optimizer):
    return Given(optimizer)


part = functools.partial(Own, lr=0.25)


class Data(L.LightningDataModule): ...


class PlainData:
    def train_dataloader(self): ...


class PlainCallback:
    def on_fit_start(self, *arguments): ...
"""
ALLOWED = (*ALLOWED_MODULES, "kit_of_building")


@pytest.fixture(autouse=True)
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import importlib
    import sys

    from sweeps.core import lightning_alias

    lightning_alias.install()
    (tmp_path / "kit_of_building.py").write_text(KIT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("kit_of_building")
    del sys.modules["kit_of_building"]


def config(name: str, **arguments: Any) -> Any:
    base = Composer("train").trial({}, 0)
    return {**base, "model": {"_target_": f"kit_of_building.{name}", **arguments}}


@pytest.mark.parametrize(
    ("name", "arguments", "lr"),
    [
        ("Own", {"lr": 0.3}, 0.3),
        ("Own.with_rate", {"lr": 0.4}, 0.4),
        ("make", {}, 0.5),
        ("part", {}, 0.25),
        ("compiled", {}, 0.1),
    ],
)
def test_a_lightning_module_is_used_as_it_is_whatever_builds_it(kit: Any, name: str, arguments: Any, lr: float) -> None:
    wanted = config(name, **arguments) | {"system": None, "optimizer": None}
    module = build_module(wanted, allowed=ALLOWED)
    assert type(module) is kit.Own and module.lr == lr
    assert parts_taken(wanted, allowed=ALLOWED) == ()


def test_a_checkpoint_is_loaded_by_the_class_method_as_weights_alone(kit: Any, tmp_path: Path) -> None:
    trained = kit.Own(lr=0.7)
    content = {"state_dict": trained.state_dict(), "hyper_parameters": {"lr": 0.7}, "pytorch-lightning_version": "2.6"}
    torch.save(content, tmp_path / "own.ckpt")
    wanted = config("Own.load_from_checkpoint", checkpoint_path=str(tmp_path / "own.ckpt"))
    module = build_module(wanted, allowed=ALLOWED)
    assert type(module) is kit.Own and module.lr == 0.7
    assert torch.equal(module.layer.weight, trained.layer.weight)
    wanted["model"]["weights_only"] = False
    with pytest.raises(ConfigError, match="weights_only must be true"):
        build_module(wanted, allowed=ALLOWED)


def test_a_checkpoint_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    torch.save({"state_dict": {}, "hyper_parameters": Harm()}, tmp_path / "own.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        build_module(config("Own.load_from_checkpoint", checkpoint_path=str(tmp_path / "own.ckpt")), allowed=ALLOWED)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["Given", "given"])
def test_optimizer_and_scheduler_are_given_where_the_signature_has_them(kit: Any, name: str) -> None:
    wanted = config(name) | {"system": None}
    module = build_module(wanted, allowed=ALLOWED)
    assert type(module) is kit.Given and module.make[0].func is torch.optim.Adam
    assert parts_taken(wanted, allowed=ALLOWED) == (("optimizer", "scheduler") if name == "Given" else ("optimizer",))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("Net", {}), ("Net", {"inner": True}), ("make", {"kind": "net"}), ("compiled_net", {})],
)
def test_a_net_is_wrapped_and_takes_all_parts(name: str, arguments: Any) -> None:
    wanted = config(name, **arguments)
    assert isinstance(build_module(wanted, allowed=ALLOWED), Classifier)
    assert parts_taken(wanted, allowed=ALLOWED) == PARTS


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("Steps", {}, "training_step"),
        ("Optimizes", {}, "configure_optimizers"),
        ("make", {"kind": "steps"}, "training_step"),
        ("compiled_net", {"steps": True}, "training_step"),
        ("Stranger", {}, "thunder.pytorch.core.LightningModule"),
    ],
)
@pytest.mark.parametrize("do", [build_module, parts_taken])
def test_what_has_a_training_step_and_is_not_a_lightning_module_is_refused(
    do: Any, name: str, arguments: Any, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        do(config(name, **arguments), allowed=ALLOWED)
    assert told in str(caught.value) and f"kit_of_building.{name}" in str(caught.value)


@pytest.mark.parametrize("part", ["system", "optimizer"])
def test_a_net_without_what_trains_it_is_refused_by_the_key(part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_module(config("Net") | {part: None}, allowed=ALLOWED)
    assert str(caught.value).startswith(f"{part} is null")


def test_data_and_callbacks_of_another_kind_are_refused_by_their_keys(kit: Any) -> None:
    data = {"data": {"_target_": "kit_of_building.Data"}}
    assert isinstance(build_data(data, allowed=ALLOWED), pl.LightningDataModule)
    with pytest.raises(ConfigError, match=r"^data\._target_: 'kit_of_building.PlainData'"):
        build_data({"data": {"_target_": "kit_of_building.PlainData"}}, allowed=ALLOWED)
    with pytest.raises(ConfigError, match=r"^callbacks\.x\._target_: 'kit_of_building.PlainCallback'"):
        build_callback({"_target_": "kit_of_building.PlainCallback"}, key="callbacks.x", allowed=ALLOWED)
    light = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/acc"}
    assert type(build_callback(light, key="callbacks.x", allowed=ALLOWED)) is pl.callbacks.EarlyStopping


# --- what the driver knows of it -----------------------------------------------------------------------


def own_options(folder: Path) -> Path:
    """Write options of a user's: a model, and data without `num_classes`."""
    (folder / "model").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "model" / "mine.yaml").write_text("_target_: mine.Mine\nlr: 0.1\nkind: a\n")
    (folder / "data" / "mine.yaml").write_text("_target_: mine.Data\n")
    (folder / "mine.py").touch()
    return folder


def test_what_a_model_does_not_take_need_not_be_possible_to_resolve(tmp_path: Path) -> None:
    composer = Composer("train", ["model=mine", "data=mine"], own_options(tmp_path / "own"))
    unasked = composer.trial({}, 0)
    assert unasked["system"] is None and unasked["optimizer"] is not None
    assert composer.base()["system"] is None
    assert composer.parts.unknown([unasked]) == [unasked]
    composer.parts.learn([unasked], [["optimizer"]])
    taken = composer.trial({"model.lr": 0.2}, 0)
    assert (taken["system"], taken["scheduler"]) == (None, None) and taken["optimizer"]["lr"] == 0.003
    assert list(taken) == list(unasked) == list(Composer("train").trial({}, 0))


def test_a_net_whose_system_cannot_be_resolved_is_refused_by_the_key_it_lacks(tmp_path: Path) -> None:
    composer = Composer("train", ["model=mine", "data=mine"], own_options(tmp_path / "own"))
    composer.parts.learn([composer.trial({}, 0)], [PARTS])
    with pytest.raises(ConfigError, match=r"system\.metrics\.acc\.num_classes.*data\.num_classes"):
        composer.trial({}, 0)


def test_parts_refer_to_those_that_the_model_does_not_take(tmp_path: Path) -> None:
    overrides = ["model=mine", "+model.optimizer=${optimizer}", "+model.smoothing=${system.label_smoothing}"]
    composer = Composer("train", overrides, own_options(tmp_path / "own"))
    composer.parts.learn([composer.trial({}, 0)], [()])
    taken = composer.trial({"optimizer.lr": 0.5}, 0)
    assert taken["optimizer"] is None and taken["model"]["optimizer"]["lr"] == 0.5
    assert taken["model"]["smoothing"] == 0.0


@pytest.mark.parametrize("part", PARTS)
def test_a_part_may_be_null(part: str) -> None:
    assert Composer("train", [f"{part}=null"]).trial({}, 0)[part] is None


def test_a_function_is_asked_about_each_of_its_words_and_not_of_its_numbers() -> None:
    parts = PartsTaken()
    own = {"model": {"_target_": "kit.make", "kind": "own", "lr": 0.1}}
    net = {"model": {"_target_": "kit.make", "kind": "net", "lr": 0.1}}
    shipped = {"model": {"_target_": "lightning_modules.nets.mlp.MLP"}}
    again = {"model": {"_target_": "kit.make", "kind": "own", "lr": 0.2}}
    assert parts.unknown([own, net, again, shipped]) == [own, net]
    parts.learn([own, net], [[], PARTS])
    assert parts.of(again["model"]) == frozenset() and parts.of(net["model"]) == frozenset(PARTS)
    assert parts.of({"_target_": "kit.make", "kind": "other"}) is None
