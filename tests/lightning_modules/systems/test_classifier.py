import math
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from sklearn.metrics import f1_score, precision_score
from torch.nn import functional
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassPrecision

from lightning_modules import schedulers
from lightning_modules.data.digits import Digits
from lightning_modules.data.tensor_batches import TensorBatches
from lightning_modules.nets.cnn import CNN
from lightning_modules.nets.mlp import MLP
from lightning_modules.systems.classifier import Classifier

X = torch.randn(103, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 5, (103,), generator=torch.Generator().manual_seed(1))


def batches(x=X, y=Y, batch_size=10, **options):
    return TensorBatches(x, y, batch_size=batch_size, **options)


STANDSTILL = partial(SGD, lr=0.0)


def classifier(net=None, optimizer=STANDSTILL, **options):
    metrics = {
        "acc": MulticlassAccuracy(5, average="micro"),
        "f1": MulticlassF1Score(5),
        "precision": MulticlassPrecision(5),
    }
    return Classifier(net or MLP([1, 4, 4], 5), optimizer, **({"metrics": metrics} | options))


def trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    defaults = {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False} | quiet
    return Trainer(**(defaults | options))


def logged(fit: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in fit.callback_metrics.items()}


def test_validation_and_test_are_exact_over_batches_of_uneven_sizes():
    system, fit = classifier(), trainer()
    fit.fit(system, batches(shuffle=True), batches())
    found = logged(fit)
    fit.test(system, batches(), verbose=False)
    found |= logged(fit)
    scores = system.net(X).detach()
    predicted = scores.argmax(1).numpy()
    for part in ("val", "test"):
        assert found[f"{part}/loss"] == pytest.approx(functional.cross_entropy(scores, Y).item(), rel=1e-6)
        assert found[f"{part}/acc"] == pytest.approx(np.mean(predicted == Y.numpy()), rel=1e-6)
        assert found[f"{part}/f1"] == pytest.approx(f1_score(Y, predicted, average="macro"), rel=1e-6)
        precision = precision_score(Y, predicted, average="macro", zero_division=0)
        assert found[f"{part}/precision"] == pytest.approx(precision, rel=1e-6)


def test_train_loss_is_the_mean_of_what_is_minimised_over_the_samples_of_an_epoch():
    system, fit = classifier(label_smoothing=0.2, l1=0.01), trainer(max_epochs=2)
    fit.fit(system, batches(shuffle=True))
    norm = sum(p.abs().sum() for p in system.net.parameters() if p.ndim > 1)
    expected = functional.cross_entropy(system.net(X), Y, label_smoothing=0.2) + 0.01 * norm
    assert logged(fit)["train/loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_train_loss_is_of_the_last_epoch_only():
    class Halving(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.train_loss.reset()
            self.train_loss.update(torch.tensor(float(self.current_epoch)), 3)
            return loss

    fit = trainer(max_epochs=3)
    fit.fit(Halving(MLP([1, 4, 4], 5), partial(SGD, lr=0.0)), batches())
    assert logged(fit)["train/loss"] == 2.0


def test_a_nan_is_not_hidden():
    system, fit = classifier(), trainer()
    fit.fit(system, batches(torch.full_like(X, math.nan)), batches(torch.full_like(X, math.nan)))
    assert math.isnan(logged(fit)["train/loss"]) and math.isnan(logged(fit)["val/loss"])


def test_validation_loss_leaves_out_what_only_training_adds():
    losses = []
    for options in ({}, {"label_smoothing": 0.3, "l1": 0.1}):
        torch.manual_seed(0)
        system, fit = classifier(**options), trainer()
        fit.validate(system, batches(), verbose=False)
        losses.append(logged(fit)["val/loss"])
    assert losses[0] == losses[1]


def test_l1_draws_weights_towards_zero():
    norms = []
    for l1 in (0.0, 0.01):
        torch.manual_seed(0)
        system = classifier(optimizer=partial(Adam, lr=0.01), l1=l1)
        trainer(max_epochs=10).fit(system, batches(shuffle=True))
        norms.append(sum(p.abs().sum().item() for p in system.net.parameters() if p.ndim > 1))
    assert norms[1] < 0.7 * norms[0]


def test_no_step_of_training_logs():
    class Counting(Classifier):
        calls = 0

        def log(self, *args, **kwargs):
            self.calls += 1
            super().log(*args, **kwargs)

    system = Counting(MLP([1, 4, 4], 5), partial(SGD, lr=0.1))
    trainer(max_epochs=2).fit(system, batches())
    assert system.calls == 2


@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        schedulers.step,
        schedulers.exponential,
        schedulers.cosine,
        schedulers.one_cycle,
        schedulers.plateau,
        schedulers.warmup,
        partial(StepLR, step_size=1),
    ],
)
def test_every_scheduler_trains(scheduler):
    fit = trainer(max_epochs=3)
    fit.fit(classifier(optimizer=partial(SGD, lr=0.1), scheduler=scheduler), batches(), batches())
    assert fit.current_epoch == 3


def test_one_cycle_reaches_its_peak_and_takes_its_last_step_at_the_lowest_rate():
    class Rates(Callback):
        seen = ()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen += (trainer.optimizers[0].param_groups[0]["lr"],)

    rates = Rates()
    fit = trainer(max_epochs=2, callbacks=[rates])
    fit.fit(classifier(optimizer=partial(SGD, lr=0.1), scheduler=schedulers.one_cycle), batches())
    assert max(rates.seen) == pytest.approx(0.1, rel=0.02)
    assert rates.seen[-1] == min(rates.seen) == pytest.approx(0.1 / 25 / 1e4)


def test_a_scheduler_by_epochs_follows_the_epochs():
    fit = trainer(max_epochs=4)
    scheduler = partial(schedulers.step, step_size=2, gamma=0.5)
    fit.fit(classifier(optimizer=partial(SGD, lr=0.1), scheduler=scheduler), batches())
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize("scheduler", [None, schedulers.cosine, schedulers.one_cycle, schedulers.plateau])
def test_a_checkpoint_loads_with_weights_only_and_goes_on(tmp_path, scheduler):
    build = partial(classifier, optimizer=partial(Adam, lr=0.01), scheduler=scheduler)
    first = trainer(max_epochs=4)
    first.fit(build(), batches(), batches())
    first.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["epoch"] == 4 and all(key.startswith("net.") for key in content["state_dict"])
    trainer(max_epochs=4).fit(build(), batches(), batches(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    def train(max_epochs, checkpoint=None):
        torch.manual_seed(0)
        system = classifier(optimizer=partial(Adam, lr=0.01), scheduler=schedulers.step)
        fit = trainer(max_epochs=max_epochs)
        fit.fit(system, batches(shuffle=True), batches(), ckpt_path=checkpoint, weights_only=True)
        return fit, system

    _, whole = train(4)
    first, _ = train(2)
    first.save_checkpoint(tmp_path / "last.ckpt")
    _, rest = train(4, tmp_path / "last.ckpt")
    pairs = zip(whole.parameters(), rest.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"label_smoothing": 1.5}, "system.label_smoothing"),
        ({"l1": -1.0}, "system.l1"),
        ({"l1": math.nan}, "system.l1"),
        ({"metrics": {"loss": MulticlassAccuracy(5)}}, "system.metrics"),
    ],
)
def test_impossible_options_are_refused_by_their_dotted_key(options, key):
    with pytest.raises(ValueError, match=key):
        classifier(**options)


def test_no_metrics_at_all_are_allowed():
    fit = trainer()
    fit.fit(classifier(metrics=None), batches(), batches())
    assert set(logged(fit)) == {"train/loss", "val/loss"}


@pytest.mark.parametrize(
    "net", [lambda: MLP([1, 8, 8], 10), lambda: CNN([1, 8, 8], 10, channels=8, normalization="batch")]
)
def test_real_digits_are_learnt(tmp_path, net):
    torch.manual_seed(0)
    data = Digits(
        num_classes=10,
        input_shape=[1, 8, 8],
        cache_dir=str(tmp_path),
        batch_size=32,
        val_fraction=0.15,
        test_fraction=0.15,
        mean=0.3053,
        std=0.3761,
    )
    metrics = {"acc": MulticlassAccuracy(10, average="micro", validate_args=False)}
    system = Classifier(net(), partial(Adam, lr=0.003), metrics=metrics)
    fit = trainer(max_epochs=8)
    fit.fit(system, data)
    assert logged(fit)["val/acc"] > 0.95
    assert fit.test(system, data, verbose=False)[0]["test/acc"] > 0.95
