"""What makes two configurations the same."""

from typing import Any

from sweeps.config.composer import Composer
from sweeps.core.trials import Suggestion
from sweeps.driver.reuse import ResultCache, identity


def config(seed: int, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"depth": 2, "sizes": [seed, 3]},
        "data": {"seed": seed},
        "seed": seed,
        "store_dir": "mlruns",
        "tracking": {"uri": None},
        **changes,
    }


def test_the_seed_and_what_refers_to_it_do_not_count() -> None:
    assert identity(config(4711), {}) == identity(config(815), {})


def test_all_else_counts_but_where_it_is_recorded() -> None:
    own = identity(config(1), {})
    assert identity(config(1, store_dir="/elsewhere", tracking={"uri": "http://here"}), {}) == own
    assert identity(config(1, model={"depth": 3, "sizes": [1, 3]}), {}) != own
    assert identity(config(1, data={"seed": 5}), {}) != own


def test_a_truth_value_is_no_seed() -> None:
    assert identity(config(1, data={"shuffle": True}), {}) != identity(config(1, data={"shuffle": None}), {})


def test_a_seed_that_is_searched_counts() -> None:
    assert identity(config(1), {"seed": 1}) != identity(config(2), {"seed": 2})


def test_trials_of_the_shipped_configuration_differ_by_their_values_alone() -> None:
    composer = Composer("sweep", [])
    values = {"model.depth": 2, "optimizer": "sgd"}
    own = identity(composer.trial(values, 123456789), values)
    assert identity(composer.trial(values, 987654321), values) == own
    for other in ({**values, "model.depth": 3}, {**values, "optimizer": "adam"}):
        assert identity(composer.trial(other, 123456789), other) != own


def test_the_first_trial_of_a_configuration_has_the_result_until_it_fails() -> None:
    cache = ResultCache({"a": 3})
    cache.add("b", 5)
    cache.add("b", 6)
    assert (cache.find("a"), cache.find("b"), cache.find("c")) == (3, 5, None)
    cache.release(3, "complete")
    cache.release(5, "failed")
    assert cache.find("a") == 3
    assert cache.find("b") is None
    assert ResultCache({"a": 3}, is_on=False).find("a") is None


def test_duplicates_of_a_trial_wait_until_it_has_ended() -> None:
    cache, duplicates = ResultCache(), [Suggestion(number=number, values={}) for number in (1, 2)]
    for duplicate in duplicates:
        cache.wait(0, duplicate)
    assert cache.num_waiting == 2 and not cache.released
    cache.release(0, "pruned")
    assert cache.num_waiting == 0 and list(cache.released) == duplicates
