"""Look at the data of a config before anything is trained: a rank's side."""

import pickle
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from sweeps.building import build_data, build_module
from sweeps.channel import Channel
from sweeps.config.composer import Config
from sweeps.core.messages import CheckPassed, DataContent, RankJob
from sweeps.ranks import Ranks
from sweeps.reproducing.data_content import data_content
from sweeps.train import seed_process

__all__ = ["loader_of", "look"]


def look(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Tell what the samples of the first config are; the arguments are those of `preflight.check`.

    Raises:
        FileNotFoundError: The data is not on this machine.
        ConfigError: The data cannot be built.
    """
    config = configs[0]
    seed_process(config["seed"])
    data = build_data(config, allowed=job.allowed_modules)
    with suppress(Exception):  # training will tell
        build_module(config, allowed=job.allowed_modules)  # as it does first: a split may be drawn after the weights
    if ranks.is_first and data is None:  # the module has the loaders: what is in them is seen as it trains
        channel.send(DataContent(content={}))
    elif ranks.is_first and data is not None:
        data.prepare_data()
        data.setup("fit")
        loaders = {name: loader_of(data, name) for name in ("train", "val")}
        before = _streams()
        data.setup("test")
        test = loader_of(data, "test")
        if _streams() == before:  # else it is drawn after all of training, and not known before
            loaders["test"] = test
        channel.send(DataContent(content=data_content(loaders)))
    return CheckPassed()


def loader_of(data: Any, split: str) -> Any:
    """Return the loader of a split; None where the data has none, or makes one for a Trainer alone."""
    try:
        return getattr(data, f"{split}_dataloader")()
    except Exception:  # Lightning raises several kinds for a method that is not there; training will tell
        return None


def _streams() -> tuple[object, ...]:
    """Return where the random streams of this process are."""
    return torch.get_rng_state().tolist(), random.getstate(), pickle.dumps(np.random.get_state())
