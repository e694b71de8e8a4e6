"""Hashes of weights and of batches: the same for the same bits, and for nothing else."""

import tracemalloc
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from sweeps.worker.tracer import BatchOrder, weights_hash

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


def rows(*sizes: int, fill: float = 1.0) -> list[torch.Tensor]:
    return [torch.full((size, 3), fill) for size in sizes]


SHAPED: dict[str, Callable[[float], torch.Tensor]] = {
    **{
        str(kind).removeprefix("torch."): lambda fill, kind=kind: torch.full((70,), fill).to(kind)  # type: ignore[misc]
        for kind in (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32)
    },
    "coo": lambda fill: (torch.eye(70) * fill).to_sparse(),
    "csr": lambda fill: (torch.eye(70) * fill).to_sparse_csr(),
    "csc": lambda fill: (torch.eye(70) * fill).to_sparse_csc(),
    "bsr": lambda fill: (torch.eye(70) * fill).to_sparse_bsr((2, 2)),
    "nested": lambda fill: torch.nested.nested_tensor(rows(2, 3, fill=fill)),
    "jagged": lambda fill: torch.nested.nested_tensor(rows(2, 3, fill=fill), layout=torch.jagged),
    "quantized": lambda fill: torch.quantize_per_tensor(torch.full((3,), fill), 0.5, 0, torch.qint8),
    "of a class of its own": lambda fill: TwoTensor(torch.ones(3), torch.full((3,), fill)),
}


@pytest.mark.parametrize("make", SHAPED.values(), ids=SHAPED.keys())
def test_tensors_of_any_type_and_layout_have_hashes_of_their_own(make: Callable[[float], torch.Tensor]) -> None:
    def held(fill: float) -> str:
        module = torch.nn.Module()
        module.register_buffer("it", make(fill))
        return weights_hash(module)

    assert held(1.0) == held(1.0) != held(2.0)
    for batch in (make(1.0), [make(1.0), 3], {"x": make(1.0)}):
        assert digest(batch) == digest(batch)
    assert digest(make(1.0)) == digest(make(1.0)) != digest(make(2.0))


def test_where_the_values_of_a_tensor_are_is_seen() -> None:
    places = [torch.diag(torch.ones(3), offset) for offset in (1, -1)]
    assert len({digest(place.to_sparse()) for place in places}) == 2
    assert len({digest(place.to_sparse_csr()) for place in places}) == 2
    lengths = [rows(2, 3), rows(3, 2)]
    assert len({digest(torch.nested.nested_tensor(of)) for of in lengths}) == 2
    assert len({digest(torch.nested.nested_tensor(of, layout=torch.jagged)) for of in lengths}) == 2


def test_plain_tensors_have_the_hashes_that_old_records_have() -> None:
    x, y = torch.arange(6000.0).reshape(100, 60), torch.arange(100)
    batches = [(x[index % 100 : index % 100 + 2], y[:2]) for index in range(3000)]
    last = [x.bfloat16(), torch.empty(0), y.bool()]
    assert digest(*batches, last, (x.clone().requires_grad_(),)) == "92418c8a36b847ecf7c65db631f1c8302e71ba06"
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    for parameter in module.parameters():
        parameter.data = torch.arange(float(parameter.numel())).reshape(parameter.shape)
    assert weights_hash(module) == "6459a743a92231326b5aad664a03e524741f7e55"


def digest(*batches: Any) -> str:
    order = BatchOrder()
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
    order = BatchOrder()
    order.add(batch)
    batch += 1
    assert order.digest() == digest(torch.zeros(10))


def test_very_many_batches_are_held_in_parts() -> None:
    order = BatchOrder()
    for index in range(5000):
        order.add(torch.tensor([index]))
    assert len(order._held) < 1000 and order.num_batches == 5000
    assert order.digest() == digest(*(torch.tensor([index]) for index in range(5000)))


def test_arrays_are_hashed_and_not_held() -> None:
    arrays = [np.full(250_000, index, dtype=np.float32) for index in range(8)]
    tracemalloc.start()
    order = BatchOrder()
    for array in arrays:
        order.add([array.copy(), "a text"])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500_000  # half of one
    assert order.digest() == digest(*([array, "a text"] for array in arrays))
    assert order.digest() != digest(*([array, "a text"] for array in reversed(arrays)))


def test_tensors_and_values_of_a_batch_count_in_their_order() -> None:
    x = torch.ones(2)
    assert len({digest([x, "a"]), digest(["a", x]), digest([x, x, "a"]), digest([x, "a", x])}) == 4
