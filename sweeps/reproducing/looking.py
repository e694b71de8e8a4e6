"""Look at the data of a config before anything is trained: a rank's side."""

from collections.abc import Sequence
from typing import Any

from sweeps.channel import Channel
from sweeps.config import Config, build
from sweeps.ranks import Ranks
from sweeps.records import CheckPassed, DataContent, RankJob
from sweeps.reproducing.data_content import data_content
from sweeps.seeding import seed_streams

__all__ = ["loader_of", "look"]


def look(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Tell what the samples of the first config are; the arguments are those of `preflight.check`.

    Raises:
        FileNotFoundError: The data is not on this machine.
        ConfigError: The data cannot be built.
    """
    seed_streams(configs[0]["seed"])
    data = build(configs[0]["data"], key="data", allowed=job.allowed_modules)
    if ranks.is_first:
        data.prepare_data()
        for stage in ("fit", "test"):
            data.setup(stage)
        loaders = {name: loader_of(data, name) for name in ("train", "val", "test")}
        channel.send(DataContent(content=data_content(loaders)))
    return CheckPassed()


def loader_of(data: Any, split: str) -> Any:
    """Return the loader of a split; None where the data has none, or makes one for a Trainer alone."""
    try:
        return getattr(data, f"{split}_dataloader")()
    except Exception:  # Lightning raises several kinds for a method that is not there; training will tell
        return None
