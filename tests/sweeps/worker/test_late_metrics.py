"""Which metrics a module may still log, by the texts of its source."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps.worker.late_metrics import may_log

TEXT = """
NAME = "val/constant"

class Logs:
    def step(self, stage):
        self.log("val/late", 1)
        self.log(f"{stage}/gap", 1)
        self.log(f"{stage}{stage}", 1)
        self.metrics = Collection(prefix="test/")

class Sub(Logs):
    def more(self):
        self.log("val/of the sub class", 1)

class ByName(Logs):
    def more(self, name):
        self.log(name, 1)

class ByDict(Logs):
    def more(self):
        self.log_dict(self.metrics)

class Other:
    def step(self):
        self.log("val/other", 1)

def helps(module):
    module.log("val/of a function", 1)

def helps_by_name(module, name):
    module.log(name, 1)

class Helper:
    def help(self, module):
        helps(module)
        module.log("val/of a helper", 1)

class Helped:
    def __init__(self):
        self.helper = Helper()

class Given:
    def __init__(self, helper):
        self.helper = helper

class HelpedByName:
    def step(self):
        helps_by_name(self, self.name)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import importlib

    (tmp_path / "texts_of_a_module.py").write_text(TEXT)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("texts_of_a_module")


@pytest.mark.parametrize("name", ["val/late", "val/gap", "val/of the sub class", "val/constant", "test/f1"])
def test_a_name_that_stands_in_the_source_may_come(module: Any, name: str) -> None:
    assert may_log(name, [module.Sub()])


@pytest.mark.parametrize("name", ["val/lat", "val/later", "val/other", "gap", "VAL/LATE"])
def test_a_name_that_does_not_stand_there_never_comes(module: Any, name: str) -> None:
    assert not may_log(name, [module.Sub()])


@pytest.mark.parametrize("name", ["val/of a function", "val/of a helper"])
def test_what_it_names_and_what_it_holds_may_log(module: Any, name: str) -> None:
    assert may_log(name, [module.Helped()])
    assert may_log(name, [module.Given(module.Helper())])
    assert not may_log(name, [module.Given(None)])


@pytest.mark.parametrize("kind", ["ByName", "ByDict", "HelpedByName"])
def test_code_that_logs_by_a_variable_may_log_anything_if_that_counts(module: Any, kind: str) -> None:
    logs = [getattr(module, kind)()]
    assert may_log("val/unheard of", logs, by_variable=True)
    assert not may_log("val/unheard of", logs)
    assert not may_log("val/unheard of", [module.Sub()], by_variable=True)


def test_texts_of_a_configuration_may_be_names(module: Any) -> None:
    assert may_log("val/mine", [module.Sub()], ["val/mine"])
    assert may_log("val/mine", [module.Sub()], ["mine", "val/"])


def test_libraries_log_nothing_late() -> None:
    assert not may_log("val/loss", [torch.nn.Linear(1, 1)])


def test_a_class_without_a_source_may_log_anything() -> None:
    made = type("Made", (), {"__module__": "made.up"})
    assert may_log("val/anything", [made()])
