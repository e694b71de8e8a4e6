"""Seed the random streams of a process."""

import random

import numpy as np
import torch

__all__ = ["seed_streams"]


def seed_streams(seed: int) -> None:
    """Seed Python, NumPy and torch, on all devices that are in use."""
    # `torch.manual_seed` formats a traceback for each kind of device that is not in use: 2 ms
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
