"""Checkpoints that others can have written: a pickle that runs is refused, and plain data and tensors are loaded."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeChannel

from lightning_modules.data.digits import Digits
from sweeps.config.composer import ALLOWED_MODULES, Composer, Config, fingerprint
from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.messages import RankJob
from sweeps.worker import fit as train
from sweeps.worker.process_group import Ranks


class Harm:
    """Runs when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    store = tmp_path_factory.mktemp("store")
    overrides = [f"store_dir={store}", "trainer=cpu", "trainer.max_epochs=2", "model.width=4", "data.batch_size=512"]
    return Composer("train", [*overrides, "tracking.resume_overhead=1e9"]).trial({}, seed=0)


def job(folder: Path, resume_step: int | None) -> RankJob:
    return RankJob(folder=str(folder), allowed_modules=ALLOWED_MODULES, resume_step=resume_step)


def fit(config: Config, folder: Path, resume_step: int | None = None) -> Any:
    return train.fit(config, FakeChannel(), Ranks(), job(folder, resume_step))


def state(config: Config, folder: Path, change: Callable[[Any], object]) -> int:
    """Leave the state of a trained trial to go on from, changed by somebody else; return its step."""
    (left,) = [path for path in paths.resume_points(folder) if fingerprint(config)[:16] in path.name][:1] or [None]
    assert left is not None
    content = torch.load(left, weights_only=False)
    change(content)
    torch.save(content, left)
    left.chmod(0o666)
    return int(left.stem.rpartition("-")[2])


@pytest.fixture(scope="module")
def left(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trial, trained where everybody may write."""
    folder = tmp_path_factory.mktemp("trial")
    before = os.umask(0)
    try:
        fit(config, folder)
    finally:
        os.umask(before)
    return folder


@pytest.fixture
def trained(left: Path, tmp_path: Path) -> Path:
    return shutil.copytree(left, tmp_path / "trial")


@pytest.mark.parametrize("place", ["callbacks", "hyper_parameters", "loops", "state_dict"])
def test_pickle_that_runs_in_a_state_of_others_is_refused_and_did_not_run(
    config: Config, trained: Path, place: str
) -> None:
    canary = trained / "harm"
    step = state(config, trained, lambda content: content.setdefault(place, {}).update(x=Harm(canary)))

    with pytest.raises(StoreError, match=r"is not loaded: others than you can have written it.*chmod go-w"):
        fit(config, trained, step)
    assert not canary.exists()


def test_bare_pickle_in_place_of_a_state_is_refused_and_did_not_run(config: Config, trained: Path) -> None:
    canary = trained / "harm"
    step = state(config, trained, lambda content: None)
    left = paths.resume_point(trained, fingerprint(config), step)
    left.write_bytes(pickle.dumps(Harm(canary)))

    with pytest.raises(StoreError, match="is not loaded"):
        fit(config, trained, step)
    assert not canary.exists()


def test_state_that_is_put_there_after_the_look_is_judged_itself(
    config: Config, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns the folder waits until the user's own state has been looked at."""
    canary = trained / "harm"
    (own,) = [path for path in paths.resume_points(trained) if fingerprint(config)[:16] in path.name][:1] or [None]
    assert own is not None
    mine = own.read_bytes()
    step = state(config, trained, lambda content: content["callbacks"].update(x=Harm(canary)))
    theirs = own.rename(trained / "theirs")
    own.write_bytes(mine)
    own.chmod(0o600)
    setup = Digits.setup

    def swap(self: Digits, stage: str | None = None) -> None:
        if theirs.exists():
            theirs.replace(own)
        setup(self, stage)

    monkeypatch.setattr(Digits, "setup", swap)

    with pytest.raises(StoreError, match="is not loaded: others than you can have written it"):
        fit(config, trained, step)
    assert not canary.exists()


def test_plain_state_of_others_is_gone_on_from(config: Config, trained: Path) -> None:
    step = state(config, trained, lambda content: None)

    assert fit(config, trained, step).state == "complete"


def test_file_that_a_state_calls_the_best_checkpoint_is_neither_loaded_nor_recorded(
    config: Config, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret, canary = tmp_path_factory.mktemp("home") / "id_rsa", trained / "harm"
    torch.save({"state_dict": {}, "x": Harm(canary)}, secret)

    def point_to_it(content: Any) -> None:
        (own,) = [value for key, value in content["callbacks"].items() if "ModelCheckpoint" in key]
        own |= {"best_model_path": str(secret), "best_model_score": torch.tensor(9.0)}

    step = state(config, trained, point_to_it)
    channel = FakeChannel()
    train.fit(config, channel, Ranks(), job(trained, step))

    assert not canary.exists()
    assert not [event for event in channel.events if str(secret) in str(event)]


def test_state_of_this_user_alone_may_have_any_object(config: Config, trained: Path) -> None:
    canary = trained / "harm"
    step = state(config, trained, lambda content: content["callbacks"].update(x=Harm(canary)))
    paths.resume_point(trained, fingerprint(config), step).chmod(0o600)

    fit(config, trained, step)
    assert canary.exists()  # the canary sings where it may


def test_nobody_else_may_write_what_a_trial_saves_whatever_the_umask(left: Path) -> None:
    saved = list(left.rglob("*.ckpt"))
    assert len(saved) >= 2 and not [path for path in saved if path.stat().st_mode & 0o022]
