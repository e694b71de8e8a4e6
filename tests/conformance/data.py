"""Small data modules, each odd in one way: 200 of scikit-learn's digits, 64 numbers each."""

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
    random_split,
)

BATCH = 20


@cache
def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32)[:240] / 16, torch.tensor(found.target)[:240]


def part(name: str) -> TensorDataset:
    """120 samples to train with, 60 to validate, 60 to test."""
    x, y = digits()
    chosen = {"train": slice(0, 120), "val": slice(120, 180), "test": slice(180, 240)}[name]
    return TensorDataset(x[chosen], y[chosen])


class Plain(pl.LightningDataModule):
    """Nothing is odd; `how` is given to all loaders, `train` to the one for training."""

    def __init__(self, batch_size: int = BATCH, how: dict | None = None, train: dict | None = None):
        super().__init__()
        self.batch_size = batch_size
        self.how = how or {}
        self.train = train or {"shuffle": True}

    def train_dataloader(self) -> Any:
        return DataLoader(part("train"), self.batch_size, **self.train, **self.how)

    def val_dataloader(self) -> Any:
        return DataLoader(part("val"), self.batch_size, **self.how)

    def test_dataloader(self) -> Any:
        return DataLoader(part("test"), self.batch_size, **self.how)


class NoTest(Plain):
    test_dataloader = pl.LightningDataModule.test_dataloader


class NoVal(Plain):
    val_dataloader = pl.LightningDataModule.val_dataloader


class Noisy(Dataset):
    """Noise is drawn when a sample is asked for, from each of the three streams."""

    def __init__(self, data: Any):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.data[index]
        noise = torch.randn(64) + torch.from_numpy(np.random.randn(64)).float() + random.random()
        return x + 0.1 * noise, y


class Augmented(Plain):
    def train_dataloader(self) -> Any:
        return DataLoader(Noisy(part("train")), self.batch_size, **self.train, **self.how)


class Generated(Plain):
    """The order comes from a generator of its own."""

    def train_dataloader(self) -> Any:
        return DataLoader(
            part("train"), self.batch_size, shuffle=True, generator=torch.Generator().manual_seed(5), **self.how
        )


class Stream(IterableDataset):
    """Batches may be counted or not, and may never end; workers share the samples out."""

    def __init__(self, name: str, is_endless: bool = False):
        self.data, self.is_endless = part(name), is_endless

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        while True:
            for index in range(first, len(self.data), step):
                yield self.data[index]
            if not self.is_endless:
                return


class SizedStream(Stream):
    def __len__(self) -> int:
        return len(self.data)


class Streamed(Plain):
    def __init__(self, kind: str = "unsized", how: dict | None = None):
        super().__init__(how=how)
        self.kind = kind

    def _loader(self, name: str) -> Any:
        if self.kind == "sized":
            return DataLoader(SizedStream(name), BATCH, **self.how)
        return DataLoader(Stream(name, self.kind == "endless"), BATCH, **self.how)

    def train_dataloader(self) -> Any:
        return self._loader("train")

    def val_dataloader(self) -> Any:
        return DataLoader(Stream("val"), BATCH, **self.how)


class Keyed(Dataset):
    """Samples are dicts, with a text in each."""

    def __init__(self, name: str):
        self.data = part(name)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.data[index][0], "y": self.data[index][1], "name": f"sample {index}"}


class Dicts(Plain):
    def train_dataloader(self) -> Any:
        return DataLoader(Keyed("train"), self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(Keyed("val"), self.batch_size)

    def test_dataloader(self) -> Any:
        return DataLoader(Keyed("test"), self.batch_size)


@dataclass
class Sheet:
    """A batch of a type that Lightning does not know."""

    x: Tensor
    y: Tensor


def to_sheet(samples: list[Any]) -> Sheet:
    return Sheet(torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples]))


class Transferred(Plain):
    """Batches are of a type of their own until `on_before_batch_transfer`, moved by hand, and noisy after that."""

    def __init__(self) -> None:
        super().__init__(how={"collate_fn": to_sheet})

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch.x * 0.9, batch.y] if isinstance(batch, Sheet) else batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return [tensor.to(device) for tensor in batch]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return (x + 0.05 * torch.randn_like(x), y) if self.trainer.training else (x, y)


class Several(Plain):
    """Several loaders at once, to train (`kind`) and, if asked for, to validate and test."""

    def __init__(self, kind: str = "one", num_val: int = 1, num_test: int = 1):
        super().__init__()
        self.kind, self.num_val, self.num_test = kind, num_val, num_test

    def train_dataloader(self) -> Any:
        first = DataLoader(part("train"), BATCH, shuffle=True)
        second = DataLoader(Subset(part("train"), range(50)), 10, shuffle=True)
        return {
            "one": first,
            "dict": {"a": first, "b": second},
            "list": [first, second],
            "min_size": CombinedLoader({"a": first, "b": second}, "min_size"),
            "sequential": CombinedLoader([first, second], "sequential"),
        }[self.kind]

    def val_dataloader(self) -> Any:
        loaders = [
            DataLoader(part("val"), BATCH),
            DataLoader(Subset(part("test"), range(35)), 10),
            DataLoader(Subset(part("test"), range(35, 60)), 10),
        ]
        return loaders[: self.num_val] if self.num_val > 1 else loaders[0]

    def test_dataloader(self) -> Any:
        loaders = [DataLoader(part("test"), BATCH), DataLoader(part("val"), 10)]
        return loaders[: self.num_test] if self.num_test > 1 else loaders[0]


class ByEpoch(Sampler):
    """An order that `set_epoch` decides."""

    def __init__(self, size: int):
        self.size, self.epoch = size, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch)).tolist()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Growing(BatchSampler):
    """Batches that become larger."""

    def __iter__(self) -> Iterator[list[int]]:
        order, size = torch.randperm(120).tolist(), 10
        while order:
            yield order[:size]
            order, size = order[size:], size + 10

    def __len__(self) -> int:
        return 5


class Sampled(Plain):
    def __init__(self, kind: str = "weighted"):
        super().__init__()
        self.kind = kind

    def train_dataloader(self) -> Any:
        data = part("train")
        if self.kind == "batches":
            return DataLoader(data, batch_sampler=Growing(RandomSampler(data), 10, False))
        samplers = {
            "weighted": lambda: WeightedRandomSampler(1.0 + data.tensors[1].double(), 80),
            "replacement": lambda: RandomSampler(data, replacement=True, num_samples=90),
            "set_epoch": lambda: ByEpoch(len(data)),
        }
        return DataLoader(data, BATCH, sampler=samplers[self.kind](), drop_last=self.kind == "replacement")


class Whole(Dataset):
    """Gives whole batches."""

    def __init__(self, name: str):
        self.data = part(name)

    def __len__(self) -> int:
        return len(self.data) // BATCH

    def __getitem__(self, index: int) -> Any:
        return self.data[index * BATCH : (index + 1) * BATCH]


class Unbatched(Plain):
    def train_dataloader(self) -> Any:
        return DataLoader(Whole("train"), batch_size=None, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(Whole("val"), batch_size=None)


class Counted:
    """An iterable with a length, which is no DataLoader."""

    def __init__(self, name: str):
        self.data = Whole(name)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return (self.data[index] for index in torch.randperm(len(self)).tolist())


class Counteds(Plain):
    def train_dataloader(self) -> Any:
        return Counted("train")

    def val_dataloader(self) -> Any:
        return Counted("val")

    def test_dataloader(self) -> Any:
        return Counted("test")


class ByHand:
    """An iterable without a length, which is no DataLoader."""

    def __init__(self, name: str):
        self.data = Whole(name)

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(len(self.data)).tolist():
            yield self.data[index]


class Iterables(Plain):
    def train_dataloader(self) -> Any:
        return ByHand("train")

    def val_dataloader(self) -> Any:
        return ByHand("val")


class Split(Plain):
    """The split is drawn in `setup`, which is called for each stage, from the stream of the process."""

    def prepare_data(self) -> None:
        Path("prepared").write_text("yes")

    def setup(self, stage: str) -> None:
        assert Path("prepared").read_text() == "yes"
        if stage == "fit":
            self.parts = random_split(part("train"), [90, 30])
            self.mean = 0.1 * torch.randn(64)

    def train_dataloader(self) -> Any:
        return DataLoader(Noisy(self.parts[0]), BATCH, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.parts[1], BATCH)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] - self.mean, batch[1]]

    def teardown(self, stage: str) -> None:
        self.torn = stage


class Stateful(Plain):
    """Has hyperparameters and a state in the checkpoint."""

    def __init__(self, batch_size: int = BATCH, flavour: str = "plain"):
        super().__init__(batch_size)
        self.save_hyperparameters()
        self.num_asked = 0

    def train_dataloader(self) -> Any:
        self.num_asked += 1
        return DataLoader(part("train"), self.hparams.batch_size, shuffle=True)

    def state_dict(self) -> dict[str, Any]:
        return {"num_asked": self.num_asked}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_asked = state_dict["num_asked"]


class Reloaded(Plain):
    """Another part of the data in each epoch."""

    def train_dataloader(self) -> Any:
        start = 10 * self.trainer.current_epoch
        return DataLoader(Subset(part("train"), range(start, start + 80)), BATCH, shuffle=True)


class Empty(Plain):
    def train_dataloader(self) -> Any:
        return DataLoader(Subset(part("train"), []), BATCH)


class EmptyVal(Plain):
    """An empty list of loaders means that there is no validation."""

    def val_dataloader(self) -> Any:
        return []


class Closing(Plain):
    """Its samples cannot be read any more once it is torn down."""

    class Open(Dataset):
        def __init__(self, owner: "Closing", name: str):
            self.owner, self.data = owner, part(name)

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, index: int) -> Any:
            if not self.owner.is_open:
                raise OSError("the file is closed")
            return self.data[index]

    def setup(self, stage: str) -> None:
        self.is_open = True

    def teardown(self, stage: str) -> None:
        self.is_open = False

    def train_dataloader(self) -> Any:
        return DataLoader(self.Open(self, "train"), BATCH, shuffle=True)


class Thing:
    """What no one knows how to hash."""

    def __init__(self) -> None:
        self.lock, self.rule = threading.Lock(), lambda: None

    def __repr__(self) -> str:
        raise RuntimeError("it has no name")


def oddly(samples: list[Any]) -> dict[str, Any]:
    x, y = torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])
    return {
        "x": x,
        "y": y,
        "nothing": None,
        "array": np.ones(3),
        "texts": ["a", "b"],
        "set": frozenset({1}),
        "sparse": x.to_sparse(),
        "packed": pack_sequence([x[0], x[1]]),
        "complex": x[0].to(torch.complex64),
        "flag": True,
        "thing": Thing(),
        "wants": x[:2].clone().requires_grad_(),
        "bytes": b"b",
        "nested": torch.nested.nested_tensor([x[0, :3], x[0, :5]]),
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0, 3),
    }


class OddBatches(Plain):
    def __init__(self) -> None:
        super().__init__(how={"collate_fn": oddly})


def from_datasets(batch_size: int = BATCH) -> pl.LightningDataModule:
    """Make a data module in a function."""
    return pl.LightningDataModule.from_datasets(
        part("train"), part("val"), part("test"), batch_size=batch_size, num_workers=0
    )
