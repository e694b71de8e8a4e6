import numpy as np
import pytest

from lightning_modules.data.split import fold_out, hold_out

LABELS = np.random.default_rng(0).choice(3, size=1000, p=[0.7, 0.2, 0.1])
ALL = np.arange(len(LABELS))


def test_a_split_holds_every_sample_once():
    kept, held_out = hold_out(LABELS, ALL, 0.15, seed=0)
    assert len(held_out) == 150
    assert np.array_equal(np.sort(np.concatenate([kept, held_out])), ALL)


def test_every_class_is_held_out_in_proportion():
    _, held_out = hold_out(LABELS, ALL, 0.15, seed=0)
    assert np.bincount(LABELS[held_out]) == pytest.approx(0.15 * np.bincount(LABELS), abs=1)


def test_a_split_depends_on_its_seed_only():
    first, again, other = (hold_out(LABELS, ALL, 0.15, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_fraction_of_nothing_holds_out_nothing():
    kept, held_out = hold_out(LABELS, ALL, 0.0, seed=0)
    assert len(held_out) == 0 and np.array_equal(kept, ALL)


def test_a_fraction_is_not_lost_to_rounding():
    assert len(hold_out(LABELS[:100], ALL[:100], 0.29, seed=0)[1]) == 29


def test_folds_are_disjoint_and_together_everything():
    folds = [fold_out(LABELS, ALL, 4, fold, seed=0)[1] for fold in range(4)]
    assert np.array_equal(np.sort(np.concatenate(folds)), ALL)
    assert {(LABELS[fold] == 2).sum() for fold in folds} <= {(LABELS == 2).sum() // 4, (LABELS == 2).sum() // 4 + 1}
