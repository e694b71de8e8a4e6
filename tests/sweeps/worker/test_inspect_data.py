"""What is seen of the data before training is what training has."""

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeChannel

from sweeps.config.composer import ALLOWED_MODULES, Composer, Config
from sweeps.core.messages import DataContent, RankJob
from sweeps.reproduce.trace import read_trace
from sweeps.worker import fit as train
from sweeps.worker.preflight import inspect_data
from sweeps.worker.process_group import Ranks

ALLOWED = ("user_modules", *ALLOWED_MODULES)


def configured(folder: Path, **parts: Any) -> Config:
    composer = Composer("train", [f"store_dir={folder}", "trainer=cpu", "trainer.max_epochs=1"])
    return composer.trial({}, seed=3) | parts


def seen(config: Config, folder: Path) -> Any:
    channel = FakeChannel()
    inspect_data([config], channel, Ranks(), RankJob(folder=str(folder), allowed_modules=ALLOWED))  # type: ignore[arg-type]
    (content,) = (event.content for event in channel.events if isinstance(event, DataContent))
    return content


def trained(config: Config, folder: Path) -> Any:
    train.fit(config, FakeChannel(), Ranks(), RankJob(folder=str(folder), allowed_modules=ALLOWED))  # type: ignore[arg-type]
    return read_trace(folder / "trace.jsonl").data


@pytest.mark.parametrize("width", [8, 16])
def test_a_split_that_is_drawn_is_the_one_of_training(tmp_path: Path, width: int) -> None:
    config = configured(tmp_path, data={"_target_": "user_modules.Splits"})
    config["model"]["width"] = width
    before, after = seen(config, tmp_path), trained(config, tmp_path)
    assert before == {split: after[split] for split in ("train", "val")}  # the test part is drawn anew, after training
    assert "hash" in after["test"]


def test_of_the_shipped_data_all_splits_are_seen(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert seen(config, tmp_path) == trained(config, tmp_path)


def test_data_is_seen_although_the_model_cannot_be_built(tmp_path: Path) -> None:
    config = configured(tmp_path, model={"_target_": "user_modules.NotThere"})
    assert set(seen(config, tmp_path)) == {"train", "val", "test"}
