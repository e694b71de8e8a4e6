"""The promises of `Classifier` and `TensorBatches` over two ranks, each a process of gloo on the CPU."""

import multiprocessing
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional

NUM_SAMPLES = 103  # odd: one rank has one sample more


def rank_main(rank: int, init_file: str, results) -> None:
    """Train and validate as rank `rank` of two; put what it logged, and its weights' sum, into `results`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    from pytorch_lightning import LightningDataModule, Trainer
    from pytorch_lightning.strategies import DDPStrategy
    from torch.optim import SGD
    from torchmetrics.classification import MulticlassAccuracy

    from lightning_modules.data.tensor_batches import TensorBatches
    from lightning_modules.nets.mlp import MLP
    from lightning_modules.systems.classifier import Classifier

    torch.distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    x, y = samples()

    class Data(LightningDataModule):
        def batches(self, **options):
            place = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
            return TensorBatches(x, y, batch_size=17, **place, **options)

        def train_dataloader(self):
            return self.batches(shuffle=True)

        def val_dataloader(self):
            return self.batches()

    torch.manual_seed(0)
    net = MLP([1, 4, 4], 5, normalization="batch")
    system = Classifier(net, partial(SGD, lr=0.1), metrics={"acc": MulticlassAccuracy(5, average="micro")})
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        plugins=[environment(rank)],
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(system, Data())
    net.eval()
    with torch.no_grad():
        scores = net(x)
    results.put(
        {name: value.item() for name, value in trainer.callback_metrics.items()}
        | {
            "expected loss": functional.cross_entropy(scores, y).item(),
            "expected acc": (scores.argmax(1) == y).float().mean().item(),
            "weights": sum(p.double().sum().item() for p in net.parameters()),
        }
    )


def samples():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(NUM_SAMPLES, 1, 4, 4, generator=generator), torch.arange(NUM_SAMPLES) % 5
    return x, y


def environment(rank: int):
    from pytorch_lightning.plugins.environments import LightningEnvironment

    class Environment(LightningEnvironment):
        creates_processes_externally = True

        def world_size(self):
            return 2

        def global_rank(self):
            return rank

        def local_rank(self):
            return rank

        def set_world_size(self, size):
            pass

        def set_global_rank(self, rank):
            pass

    return Environment()


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_log_the_same_exact_values(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=rank_main, args=(rank, str(tmp_path / "init"), results), daemon=True)
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    one, other = results.get(timeout=120), results.get(timeout=120)
    for process in ranks:
        process.join(timeout=30)
    assert one["weights"] == other["weights"]
    assert {key: one[key] for key in ("train/loss", "val/loss", "val/acc")} == {
        key: other[key] for key in ("train/loss", "val/loss", "val/acc")
    }
    for result in (one, other):
        assert result["val/acc"] == pytest.approx(result["expected acc"], rel=1e-6)
        assert result["val/loss"] == pytest.approx(result["expected loss"], rel=1e-5)
