"""Hashes of weights and of batches: the same for the same bits, and for nothing else."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sweeps.reproducing.tracing import _Order, weights_hash

Pair = namedtuple("Pair", "x y")


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2).bfloat16())


def last_bit(module: Any) -> None:
    module[0].weight.data.view(torch.int32)[0, 0] ^= 1


def buffer(module: Any) -> None:
    module[1].num_batches_tracked += 1


def negative_zero(module: Any) -> None:
    module[1].bias.data[0] = -0.0


def kind(module: Any) -> None:
    module[2].float()


@pytest.mark.parametrize("change", [last_bit, buffer, negative_zero, kind])
def test_any_change_of_the_weights_is_seen(change: Callable[[Any], None]) -> None:
    changed = net()
    assert weights_hash(changed) == weights_hash(net())
    change(changed)
    assert weights_hash(changed) != weights_hash(net())


def test_a_view_that_is_not_contiguous_counts_by_its_values() -> None:
    one, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    other.load_state_dict(one.state_dict())
    other.weight = torch.nn.Parameter(one.weight.detach().t().contiguous().t())
    assert weights_hash(one) == weights_hash(other)


def test_hashing_leaves_a_storage_that_fsdp_can_resize() -> None:
    module = net()
    weights_hash(module)
    module[0].weight.untyped_storage().resize_(0)


def test_parameters_that_do_not_exist_yet_have_a_hash() -> None:
    assert weights_hash(torch.nn.LazyLinear(2)) != weights_hash(torch.nn.LazyBatchNorm1d())


def digest(*batches: Any) -> str:
    order = _Order()
    for batch in batches:
        order.add(batch)
    return order.digest()


def test_the_order_of_batches_and_within_them_is_seen() -> None:
    x, y = torch.rand(200, 1, 8, 8), torch.randint(0, 10, (200,))
    first, second = (x[:100], y[:100]), (x[100:], y[100:])
    swapped = torch.cat([torch.arange(60), torch.tensor([61, 60]), torch.arange(62, 100)])
    assert digest(first, second) == digest(first, second)
    assert digest(first, second) != digest(second, first)
    assert digest(first) != digest((x[swapped], y[swapped]))


@pytest.mark.parametrize(
    "batch",
    [
        {"image": torch.ones(3), "name": ["a", "b"]},
        Pair(torch.ones(3), torch.ones(2, dtype=torch.bfloat16)),
        [torch.ones(2, dtype=torch.bool), None, 3],
        torch.empty(0),
        torch.eye(3).to_sparse(),
        (torch.ones(3, requires_grad=True), torch.ones(2)),
        torch.ones(6, 6)[::2, ::3],
        {"image": torch.ones(3, 2), "name": ["a", "c"]},
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_batches_of_any_form_have_hashes_of_their_own(batch: Any) -> None:
    assert digest(batch) == digest(batch)
    assert digest(batch) not in {digest(), digest({"image": torch.ones(3), "name": ["a", "d"]})}


def test_what_is_not_data_and_holds_itself_is_passed_over() -> None:
    class Odd:
        pass

    odd: Any = Odd()
    odd.itself, odd.x = odd, torch.ones(1)
    assert digest(odd) == digest(odd)


def test_a_batch_that_is_changed_in_place_later_counts_as_it_was() -> None:
    batch = torch.zeros(10)
    order = _Order()
    order.add(batch)
    batch += 1
    assert order.digest() == digest(torch.zeros(10))


def test_very_many_batches_are_held_in_parts() -> None:
    order = _Order()
    for index in range(5000):
        order.add(torch.tensor([index]))
    assert len(order._held) < 1000 and order.num_batches == 5000
    assert order.digest() == digest(*(torch.tensor([index]) for index in range(5000)))
