"""A recorded configuration as it is trained today: what leads elsewhere is today's, typed anew, or refused."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.config.composer import Composer, Config
from sweeps.core.errors import ConfigError
from sweeps.reproduce.local_config import derived, deriving, localize, secrets_missing


@pytest.fixture(scope="module")
def today() -> Config:
    return Composer("train", ["store_dir=/today"]).trial({}, 0)


@pytest.fixture(scope="module")
def fashion() -> Config:
    return Composer("train", ["data=fashion_mnist", "model=cnn"]).trial({}, 0)


def changed(config: Config, key: str, value: Any) -> Config:
    part, _, rest = key.partition(".")
    return {**config, part: changed(config[part], rest, value) if rest else value}


def test_store_and_what_is_decoded_are_todays(today: Config, fashion: Config) -> None:
    recorded = changed(changed(fashion, "data.cache_dir", "/home/other/.ssh"), "store_dir", "/home/other")
    config, _ = localize({**recorded, "allowed_modules": ["os"]}, today)
    assert (config["store_dir"], config["data"]["cache_dir"], config["allowed_modules"]) == (
        "/today",
        "/today/data",
        [],
    )


def test_addresses_are_those_of_todays_option(today: Config, fashion: Config) -> None:
    config, notes = localize(changed(fashion, "data.mirrors", ["http://169.254.169.254"]), today)
    assert config["data"]["mirrors"] == fashion["data"]["mirrors"]
    assert notes == []


def test_checkpoints_go_to_the_folder_of_the_run(today: Config, fashion: Config) -> None:
    checkpoint = {**fashion["callbacks"]["checkpoint"], "dirpath": "/home/other/.ssh"}
    config, _ = localize(changed(fashion, "callbacks.checkpoint", checkpoint), today)
    assert config["callbacks"]["checkpoint"]["dirpath"] is None


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("callbacks.x", {"_target_": "x.OnExceptionCheckpoint", "dirpath": "/home/other"}, "callbacks.x.dirpath"),
        ("callbacks.checkpoint.filename", "../../x", "callbacks.checkpoint.filename"),
        ("callbacks.checkpoint.filename", "~/x", "callbacks.checkpoint.filename"),
        ("trainer.strategy", {"_target_": "x.Strategy", "nvme_path": "/home/other"}, "trainer.strategy.nvme_path"),
        ("model.weights", "https://example.org/x.pt", "model.weights"),
        ("data.url", ["https://example.org/x.csv"], "data.url"),
    ],
)
def test_what_leads_elsewhere_is_refused_unless_it_is_typed(
    today: Config, fashion: Config, key: str, value: Any, named: str
) -> None:
    recorded = changed(fashion, key, value)
    with pytest.raises(ConfigError, match=rf"after --: {named}="):
        localize(recorded, today)
    localize(recorded, today, typed=[named])
    assert deriving([f"{named}=elsewhere"], recorded) == []


def test_an_address_of_the_users_own_option_is_asked(today: Config, fashion: Config, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("_target_: mine.Data\nurl: https://example.org/x.csv\n")
    recorded = changed(fashion, "data", {"_target_": "mine.Data", "url": "https://example.org/x.csv"})
    with pytest.raises(ConfigError, match=r"data\.url"):
        localize(recorded, today)
    config, _ = localize(recorded, today, config_dir=tmp_path)
    assert config["data"]["url"] == "https://example.org/x.csv"


def test_a_root_that_is_not_todays_is_told(today: Config, fashion: Config) -> None:
    _, notes = localize(changed(fashion, "data.root", "/home/other"), today)
    assert notes == ["data.root is '/home/other', as recorded."]


def test_only_what_is_trained_makes_a_derived_run(fashion: Config) -> None:
    recorded = changed(fashion, "data.password", "***")
    typed = ["data.password=x", "data.root=/here", "callbacks.checkpoint.dirpath=x", "optimizer.lr=1", "data.fold=1"]
    assert deriving(typed, recorded) == ["optimizer.lr=1", "data.fold=1"]
    assert deriving(["data.password=x"], fashion) == ["data.password=x"]


def test_secrets_that_are_not_in_the_record_are_named(fashion: Config) -> None:
    recorded = changed(changed(fashion, "data.password", "***"), "data.url", "https://me:***@example.org")
    assert secrets_missing(recorded) == ["data.password", "data.url"]
    for address in ("https://***@example.org", "postgresql://host/db?password=***"):
        assert secrets_missing(changed(fashion, "data.url", address)) == ["data.url"]
    assert secrets_missing(fashion) == []


def test_a_variable_that_is_typed_is_looked_up(fashion: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2hunter2")
    recorded = changed(fashion, "data.password", "***")
    assert derived(recorded, ["data.password=${oc.env:DB_PASSWORD}"])["data"]["password"] == "hunter2hunter2"
    with pytest.raises(ConfigError, match=r"data\.password"):
        derived(recorded, ["data.password=${oc.env:NOT_THERE}"])
    assert derived(recorded, ["data.password=${other:DB_PASSWORD}"])["data"]["password"] == "${other:DB_PASSWORD}"
    assert recorded["data"]["password"] == "***"


def test_keys_that_are_numbers_stay_numbers_and_can_be_named() -> None:
    recorded = {"model": {"map": {0: "a", 1.5: "b", True: "c", "other": "d"}}}

    changed = derived(recorded, ["model.map.0=x"])

    assert changed["model"]["map"] == {0: "x", 1.5: "b", True: "c", "other": "d"}
    assert recorded["model"]["map"][0] == "a"


def test_text_is_taken_as_it_is_typed(fashion: Config) -> None:
    typed = [
        "tracking.experiment=2024_11_30",
        "trainer.precision=1e3",
        "trainer.profiler=null",
        "model.activation=2024-11-30",
    ]

    changed = derived(fashion, typed)

    assert changed["tracking"]["experiment"] == "2024_11_30" and changed["trainer"]["precision"] == "1e3"
    assert changed["trainer"]["profiler"] is None and changed["model"]["activation"] == "2024-11-30"
