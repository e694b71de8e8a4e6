"""What trains in Lightning trains in Lightsweep, to the same numbers; what does not, does not."""

from collections.abc import Iterator
from contextlib import chdir

import pytest
import torch
from conformance.cases import CASES, Case
from conformance.plain import same
from conformance.sides import Sides, differences


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = tmp_path_factory.mktemp("conformance")
    with chdir(folder):  # where modules and data write when they name no folder
        opened = Sides(folder)
        yield opened
        opened.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lightsweep_does_what_lightning_does(sides: Sides, case: Case) -> None:
    alone, swept = sides.run(case)
    if case.ends:
        assert (swept.error.partition(":")[0] or "complete") in case.ends, swept.error
        assert case.message in swept.error
        assert case.value is None or same(swept.value, torch.tensor(case.value).item())
    if case.differs is None:
        assert differences(alone, swept, case.objective) == []
