"""The fingerprint of the data: of its samples, not of their order or their augmentation."""

import copy
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_modules.data.tensor_batches import TensorBatches
from sweeps.driver.reuse import KnownData
from sweeps.worker.hashing import data_content

X, Y = torch.arange(4000.0).reshape(1000, 4), torch.arange(1000)


class Augmented(Dataset[Any]):
    def __init__(self, x: torch.Tensor = X) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return {"x": self.x[index] + torch.rand(1) + random.random(), "name": f"image {index}"}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(range(3))


def one(loader: Any) -> dict[str, Any]:
    return data_content({"train": loader})["train"]


def with_a_pixel(place: int = 500) -> torch.Tensor:
    changed = X.clone()
    changed[place, 1] += 1
    return changed


def test_batches_and_order_do_not_matter_to_our_loader() -> None:
    many = [TensorBatches(X, Y, batch_size=size, shuffle=size > 8, seed=size) for size in (4, 32)]
    assert one(many[0]) == one(many[1])
    ranks = [TensorBatches(X, Y, batch_size=4, rank=rank, world_size=2) for rank in range(2)]
    assert one(ranks[0]) == one(ranks[1]) == one(many[0])


@pytest.mark.parametrize("indices", [None, torch.arange(0, 1000, 2)])
def test_one_pixel_is_seen_by_our_loader(indices: Any) -> None:
    assert one(TensorBatches(X, Y, batch_size=4, indices=indices)) != one(
        TensorBatches(with_a_pixel(), Y, batch_size=4, indices=indices)
    )


def test_another_split_is_seen_by_our_loader() -> None:
    splits = [TensorBatches(X, Y, batch_size=4, indices=torch.arange(n)) for n in (500, 501)]
    assert one(splits[0]) != one(splits[1])


def test_a_tensor_data_set_is_hashed_whole() -> None:
    found = one(DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True))
    assert found["hashed"] == "all samples"
    assert found == one(DataLoader(TensorDataset(X, Y), batch_size=8))
    assert found["hash"] != one(DataLoader(TensorDataset(with_a_pixel(), Y)))["hash"]


def test_any_other_data_set_by_some_samples_whatever_it_draws() -> None:
    found = one(DataLoader(Augmented(), batch_size=4, shuffle=True))
    assert found["hashed"] == "128 of 1000 samples"
    torch.rand(3), random.random()
    assert found == one(DataLoader(Augmented(), batch_size=2))
    assert found["hash"] != one(DataLoader(Augmented(with_a_pixel())))["hash"]
    assert found["hash"] != one(DataLoader(Augmented(X[:-1])))["hash"]


def test_what_cannot_be_hashed_says_why() -> None:
    class Broken(Augmented):
        def __getitem__(self, index: int) -> Any:
            raise ValueError("a broken file")

    assert one(DataLoader(Stream())) == {"problem": "it can only be read from its beginning to its end"}
    assert one(DataLoader(Broken())) == {"problem": "ValueError: a broken file"}


@dataclass(slots=True)
class Base:
    x: Any


@dataclass(slots=True)
class Slotted(Base):
    name: str = ""


class Of(Dataset[Any]):
    """Samples that are given."""

    def __init__(self, *samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


@pytest.mark.parametrize(
    ("one_sample", "another"),
    [
        (Slotted(X), Slotted(with_a_pixel())),
        (Slotted(X, "a"), Slotted(X, "b")),
        (np.array([1]), np.array([1, 0], dtype=np.int32)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.array(["a", None], dtype=object), np.array(["b", None], dtype=object)),
        (bytearray(b"a"), bytearray(b"b")),
        (1 + 2j, 1 + 3j),
    ],
    ids=[
        "slots",
        "slots of a subclass",
        "types of arrays",
        "shapes of arrays",
        "objects in arrays",
        "bytes",
        "complex",
    ],
)
def test_samples_of_any_kind_are_told_apart(one_sample: Any, another: Any) -> None:
    assert one(Of(one_sample)) == one(Of(copy.deepcopy(one_sample)))
    assert one(Of(one_sample))["hash"] != one(Of(another))["hash"]


@pytest.mark.parametrize("sample", [object(), None, {"x": object()}, []])
def test_a_sample_in_which_nothing_can_be_hashed_says_so(sample: Any) -> None:
    assert one(Of(1, sample)) == {
        "problem": f"sample 1, a {type(sample).__name__}, has no tensor, number or text to be hashed"
    }


def test_tensors_have_the_hashes_that_old_records_have() -> None:
    x, y = torch.arange(6000.0).reshape(100, 60), torch.arange(100)
    samples = Of(*({"x": x[index], "y": (y[index], 3, "a", 1.5)} for index in range(100)))
    assert one(TensorDataset(x, y))["hash"] == "90b2a042b05b9cb65cac20ea6d4b7ab3dc2916ce"
    assert one(samples)["hash"] == "5cd8c591d03dbb136ecabf2c044f4974bb0bd65d"
    assert one(TensorBatches(x, y, batch_size=3))["hash"].startswith("e8e185fe17bfe01c442c37fad352b7a4d6de6b05")


def test_several_loaders_of_a_split_are_told_apart() -> None:
    loader = DataLoader(TensorDataset(X))
    assert set(data_content({"val": [loader, loader], "test": None, "train": loader})) == {"val/0", "val/1", "train"}


def test_the_driver_knows_what_a_trial_of_the_same_data_has_told() -> None:
    known = KnownData()
    data = {"_target_": "a.Data", "root": "x", "seed": 1, "num_workers": 0}
    known.add({"data": data}, {"train": "it"}, ("seed",))
    assert known.find({"data": data | {"seed": 2, "num_workers": 4}}) == {"train": "it"}
    assert known.find({"data": data | {"root": "y"}}) is None
    assert known.find({"data": data | {"_target_": "b.Data"}}) is None


def test_samples_may_be_drawn_from_the_seed_and_after_the_weights_unless_the_data_says_otherwise() -> None:
    config = {"data": {"_target_": "a.Data"}, "seed": 1, "model": {"width": 8}, "optimizer": {"lr": 0.1}}
    others = [config | {"seed": 2}, config | {"model": {"width": 9}}]
    known = KnownData()
    known.add(config, {"train": "it"}, ())
    assert known.find(config | {"optimizer": {"lr": 0.2}}) == {"train": "it"}
    assert [known.find(other) for other in others] == [None, None]
    known.add(config, {"train": "it"}, ("seed",))
    assert [known.find(other) for other in others] == [{"train": "it"}] * 2
