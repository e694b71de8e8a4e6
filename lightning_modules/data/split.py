"""Splitting labelled samples so that every part has each class in proportion."""

import numpy as np

__all__ = ["fold_out", "hold_out"]


def hold_out(y: np.ndarray, indices: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split `indices` into those kept and those held out, stratified by class.

    Exactly the fraction, rounded down, of all samples is held out, and of each class the fraction within one
    sample. The same `y`, `indices`, `fraction` and `seed` give the same split.

    Args:
        y: class numbers of all samples.
        indices: the samples to split.
        fraction: the part to hold out, at least 0 and below 1.
        seed: what the choice is drawn from.

    Returns:
        The indices kept and the indices held out, each ascending.
    """
    # The small addition keeps a product such as 0.29 * 100 from being rounded down to 28.
    steps = np.floor(np.arange(len(indices) + 1) * fraction + 1e-9).astype(np.int64)
    return _divide(_grouped_by_class(y, indices, seed), np.diff(steps) > 0)


def fold_out(y: np.ndarray, indices: np.ndarray, num_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split `indices` into those kept and those of fold `fold` out of `num_folds`, stratified by class.

    The folds of one seed are disjoint and together hold every index.
    """
    grouped = _grouped_by_class(y, indices, seed)
    return _divide(grouped, np.arange(len(grouped)) % num_folds == fold)


def _grouped_by_class(y: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
    """Order indices by class, at random within each, so that evenly spaced picks are in proportion."""
    shuffled = indices[np.random.default_rng(seed).permutation(len(indices))]
    return shuffled[np.argsort(y[shuffled], kind="stable")]


def _divide(indices: np.ndarray, is_held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sort(indices[~is_held_out]), np.sort(indices[is_held_out])
