"""Registering a model and finding it again: by SQL what MLflow's client finds."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_stores import StoreWriter

from sweeps.core.errors import StoreError, UsageError
from sweeps.serving.names import find_registered, registered_names
from sweeps.tracking.registry import ModelName, NewVersion, Registry, parse_model_name

LOADER = "def _load_pyfunc(path):\n    raise NotImplementedError\n"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    shutil.copy(request.getfixturevalue("empty_mlflow"), tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def a_version(folder: Path, run_id: str, name: str = "it's digits") -> NewVersion:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "model.json").write_text("{}")
    (folder / "loader_of_mine.py").write_text(LOADER)
    return NewVersion(
        name=name,
        run_id=run_id,
        step=3,
        data=folder / "data",
        loader_module="loader_of_mine",
        code=[folder / "loader_of_mine.py"],
        requirements=["numpy"],
        examples=np.zeros((2, 1, 8, 8), np.uint8),
        classes=True,
        num_values=10,
        description="**it**",
        version_tags={"lightsweep.content": "abc", "lightsweep.reproduced": "exact: " + "x" * 9000},
    )


def test_what_was_registered_is_found_by_sql_as_by_the_client(uri: str, tmp_path: Path) -> None:
    writer = StoreWriter(uri, tmp_path / "artifacts")
    run_id = writer.add({"val/acc": [0.1, 0.9]}, {"model.depth": 1}, kind="train")
    registry = Registry(uri)
    first = registry.register(a_version(tmp_path, run_id))
    second = registry.register(a_version(tmp_path, run_id))
    assert (first.version, second.version) == (1, 2)
    assert registry.set_alias(first, "champion") is None
    assert registry.set_alias(second, "champion") == 1
    registry.set_alias(first, "old")

    for text in ("it's digits", "it's digits/1", "it's digits@champion", "it's digits@old"):
        by_client = registry.find(parse_model_name(text))
        assert find_registered(uri, parse_model_name(text)) == by_client
        assert by_client.version == (1 if text[-1] in "1d" else 2)
    assert (tmp_path / "artifacts" / "models" / by_client.model_id / "artifacts" / "MLmodel").is_file()
    assert registered_names(uri) == ["it's digits", "it's digits@champion", "it's digits@old"]
    found = registry.find_version("it's digits", {"lightsweep.content": "abc"})
    assert found is not None and found.version == 2
    assert registry.find_version("it's digits", {"lightsweep.content": "x"}) is None
    assert registry.find_version("its digits", {}) is None


def test_a_version_that_was_deleted_is_gone(uri: str, tmp_path: Path) -> None:
    writer = StoreWriter(uri, tmp_path / "artifacts")
    registry = Registry(uri)
    version = registry.register(a_version(tmp_path, writer.add({}, kind="train")))
    writer.client.delete_model_version(version.name, str(version.version))
    for find in (registry.find, lambda wanted: find_registered(uri, wanted)):
        with pytest.raises(UsageError, match="has no version"):
            find(ModelName(name=version.name))


def test_a_model_that_cannot_be_written_is_no_version(uri: str, tmp_path: Path) -> None:
    writer = StoreWriter(uri, tmp_path / "artifacts")
    run_id = writer.add({}, kind="train")
    version = a_version(tmp_path, run_id)
    shutil.rmtree(version.data)
    with pytest.raises(StoreError):
        Registry(uri).register(version)
    assert registered_names(uri) == []
    (model,) = writer.client.search_logged_models([writer.experiment])
    assert str(model.status) == "FAILED"


def test_a_run_that_is_gone_says_so(uri: str, tmp_path: Path) -> None:
    StoreWriter(uri, tmp_path / "artifacts")
    with pytest.raises(StoreError, match="does not take this"):
        Registry(uri).register(a_version(tmp_path, "0" * 32))


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    where: Any = f"sqlite:///{tmp_path}/none.db"
    for find in (lambda: Registry(where), lambda: find_registered(where, ModelName(name="a"))):
        with pytest.raises(StoreError, match="There is no store"):
            find()
    assert not (tmp_path / "none.db").exists()
