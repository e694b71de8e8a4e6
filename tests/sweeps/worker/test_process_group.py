"""What one rank makes of what another says."""

from typing import Any

import pytest

from sweeps.core.messages import Place
from sweeps.worker import process_group as ranks
from sweeps.worker.process_group import Ranks, is_peer_failure


def test_a_decision_that_failed_on_rank_0_is_not_the_fault_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(said: list[Any], src: int) -> None:
        said[:] = [None, "no disk"]

    monkeypatch.setattr(ranks.distributed, "broadcast_object_list", say)
    with pytest.raises(RuntimeError, match="no disk") as raised:
        Ranks(Place(rank=1, world_size=2)).decide(lambda: True)
    assert is_peer_failure(raised.value)
