"""What a rank does before it has a job."""

from collections.abc import Iterator

import pytest
import torch

from sweeps.worker.main import warm_up


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_what_is_imported_before_the_job_exists() -> None:
    """A rank survives a warm-up that fails, and each trial would pay for it unseen."""
    warm_up()
    if not torch.version.cuda:
        assert torch.get_num_threads() == 1
