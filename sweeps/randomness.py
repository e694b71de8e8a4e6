"""Seeds that are derived, not carried: the same place in a training gives the same stream, however it was reached.

The seed of a trial follows from the study's seed and the trial's number; the stream of a batch from the trial's
seed, the epoch, the batch and the rank. So a trial that is resumed, re-run or scheduled elsewhere draws the same
numbers.
"""

import numpy as np

__all__ = ["derive_seed"]


def derive_seed(*parts: int) -> int:
    """Mix non-negative integers into one seed of 63 bits.

    Uses `numpy.random.SeedSequence`, whose algorithm NumPy promises to keep (NEP 19).
    """
    high, low = np.random.SeedSequence(parts).generate_state(2, np.uint32)
    return (int(high) << 31) ^ int(low)
