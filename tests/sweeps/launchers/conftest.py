"""One launcher for all tests of a module."""

from collections.abc import Iterator

import pytest
from benches import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.launcher.close()
