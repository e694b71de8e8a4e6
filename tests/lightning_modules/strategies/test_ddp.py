"""Lightning's DDP, alone and with synchronised batch normalisation, trains as one process does."""

from functools import partial

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy
from strategy_ranks import classifier, cnn, judge_alone, mlp, train, weights
from torch.optim import AdamW

from lightning_modules.strategies.fully_sharded import FullySharded
from lightning_modules.strategies.model_parallel import ModelParallel
from lightning_modules.strategies.periodic_averaging import PeriodicAveraging
from sweeps.worker.sync_batchnorm import SyncBatchNorm

CASES = {
    "mlp": {},
    "cnn": {"net": cnn, "system": partial(classifier, optimizer=AdamW, lr=0.01)},
    "clipping and accumulation": {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2},
}
STRATEGIES = {
    "ddp": DDPStrategy,
    "fully sharded": partial(FullySharded, min_unit_parameters=50),
    "averaged each step": partial(PeriodicAveraging, period=1),
    "two groups of one": partial(ModelParallel, tensor_parallel_size=1),
}


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_ranks_train_as_one_process(two_ranks, tmp_path, case):
    one, other = two_ranks(train, tmp_path / "ranks", DDPStrategy, **case)
    expected = train(tmp_path / "one", **case)
    assert one["weights"] == other["weights"] and one["validated"] == other["validated"]
    for seen, wanted in zip(one["validated"], expected["validated"], strict=True):
        assert seen == pytest.approx(wanted, abs=1e-5)
    ranks, alone = (weights(tmp_path / folder / "last.ckpt") for folder in ("ranks", "one"))
    torch.testing.assert_close(ranks, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.ddp
@pytest.mark.slow
def test_mixed_precision_keeps_ranks_equal(two_ranks, tmp_path):
    one, other = two_ranks(train, tmp_path, DDPStrategy, precision="bf16-mixed")
    assert one["weights"] == other["weights"] and one["validated"] == other["validated"]


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("net", [mlp, cnn])
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_with_synchronised_batch_normalization_too(two_ranks, tmp_path, net, strategy):
    net = partial(net, normalization="batch")
    one, other = two_ranks(train, tmp_path / "ranks", strategy, net=net, plugins=(SyncBatchNorm,))
    train(tmp_path / "one", net=net)
    ranks, alone = (weights(tmp_path / folder / "last.ckpt") for folder in ("ranks", "one"))
    torch.testing.assert_close(ranks, alone, atol=1e-4, rtol=1e-3)
    assert one["validated"] == other["validated"]
    assert one["test"] == pytest.approx(judge_alone(tmp_path / "ranks" / "best.ckpt", net), abs=1e-5)
