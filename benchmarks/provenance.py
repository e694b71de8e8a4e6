"""What a trial and a step pay for the record by which a training can be proved equal."""

import gc
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from epoch_against_raw import NoChannel
from harness import Result, median

from lightning_modules.data.pixels import Pixels
from lightning_modules.data.tensor_batches import TensorBatches
from sweeps.config.composer import Composer
from sweeps.driver.reuse import KnownData
from sweeps.reproduce.provenance import capture, imported_sources
from sweeps.reproduce.trace import Epoch, Segment, TraceFile
from sweeps.worker.building import build_module
from sweeps.worker.callbacks import Telemetry
from sweeps.worker.hashing import data_content
from sweeps.worker.process_group import Ranks
from sweeps.worker.tracer import Tracer, environment_of, weights_hash
from sweeps.worker.trainer import DerivedRandomness, quieten, trainer_for

_SAMPLES, _BATCH, _ROUNDS = 25_600, 64, 7


def milliseconds(work: Callable[[], Any], rounds: int = _ROUNDS) -> list[float]:
    """Return how much CPU time each call takes in this thread; others on the machine do not count."""
    found = []
    for _ in range(rounds):
        began = time.thread_time()
        work()
        found.append(1000 * (time.thread_time() - began))
    return found


class Watched(Tracer):
    """A tracer that knows when each batch began, and what it did then; medians do not suffer from what else goes on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.began: list[float] = []
        self.costs: list[float] = []
        self.at_end = 0.0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        super().on_train_batch_start(*args, **kwargs)
        self.costs.append(time.perf_counter() - began)
        self.began.append(began)

    def on_train_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        began = time.thread_time()
        super().on_train_epoch_end(*args, **kwargs)
        self.at_end = time.thread_time() - began


def epoch(config: dict[str, Any], allowed: Any, loader: TensorBatches, folder: Path) -> tuple[float, float]:
    """Return the microseconds of a step, and those that the trace takes, its part of the epoch's end included."""
    tracer = Watched(Ranks(), folder, config="", seed=0, provenance="")
    channel: Any = NoChannel()
    callbacks: list[Any] = [DerivedRandomness(0), Telemetry(channel, Ranks(), log_every_n_steps=1, num_parameters=0)]
    trainer = trainer_for(config, ranks=Ranks(), logger=False, callbacks=[tracer, *callbacks], folder=folder)
    gc.collect()
    trainer.fit(build_module(config, allowed=allowed), loader)
    step = median([after - before for before, after in itertools.pairwise(tracer.began)])
    return 1e6 * step, 1e6 * (median(tracer.costs) + tracer.at_end / len(loader))


def main() -> None:
    result = Result(
        name=Path(__file__).stem,
        claim="the record costs a trial at most 30 ms, and a small net's step at most 2 %; CPU time",
    )
    quieten()
    torch.set_num_threads(1)
    composer = Composer("train", ["data=fashion_mnist", "trainer=cpu", "trainer.max_epochs=1"])
    config, allowed = composer.trial({}, seed=0), composer.allowed_modules
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (60_000,), generator=generator)
    loader = TensorBatches(
        pixels[:_SAMPLES], labels[:_SAMPLES], batch_size=_BATCH, shuffle=True, transform=Pixels(255, 0.13, 0.31)
    )
    module = build_module(config, allowed=allowed)
    folder = Path(tempfile.mkdtemp(prefix="lightsweep-bench-"))
    trainer = trainer_for(config, ranks=Ranks(), logger=False, callbacks=[], folder=folder)
    file, known = TraceFile(folder), KnownData()
    known.add(config, {"train": {}}, ())
    segment = Segment(begins=0, config="", seed=0, provenance="", ranks=({},), weights=("",))
    one = Epoch(epoch=0, step=1, metrics_end=1, batches=1, order=("",), weights=("",))
    roots = [str(Path(__file__).parents[1])]
    imported_sources(roots)  # the server has looked already

    parts = {
        "source files that were imported": milliseconds(lambda: imported_sources(roots)),
        "threads, device, flags": milliseconds(lambda: environment_of(trainer)),
        "weights of the net, at the start": milliseconds(lambda: weights_hash(module)),
        "opening the trace": milliseconds(lambda: file.begin(segment)),
        "what the data is, as the driver knows it": milliseconds(lambda: (known.find(config), file.tell_data({}))),
    }
    for name, found in parts.items():
        result.raw[f"{name} (ms)"] = found
        result.add(name, f"{median(found):.2f} ms", "each trial")
    each_trial = sum(median(found) for found in parts.values())
    each_epoch = milliseconds(lambda: (weights_hash(module), file.add(one)))
    result.raw["an epoch (ms)"] = each_epoch
    result.add("**a trial**", f"{each_trial:.1f} ms", "the sum")
    result.add("an epoch's end", f"{median(each_epoch):.2f} ms", "weights of 101,770 parameters, and a line")
    once = milliseconds(lambda: capture(["lightsweep", "sweep"]), 7)
    content = milliseconds(lambda: data_content({"train": TensorBatches(pixels, labels, batch_size=_BATCH)}), 7)
    result.raw["capture (ms)"], result.raw["data (ms)"] = once, content
    result.add("code, packages, machine", f"{median(once):.0f} ms", "once a sweep, in the driver")
    result.add("60,000 images", f"{median(content):.0f} ms", "once a sweep, in the first trial, after its training")

    steps = [epoch(config, allowed, loader, folder) for _ in range(_ROUNDS)]
    share = median([of_trace / step for step, of_trace in steps])
    result.raw["a step, and of that the trace (us)"] = steps
    result.add("a step of an MLP", f"{median([step for step, _ in steps]):.0f} us", f"an epoch has {len(loader)}")
    result.add(
        "of that the trace", f"{median([of_trace for _, of_trace in steps]):.1f} us", "with its part of the epoch's end"
    )
    result.add("**the trace's share of a step**", f"{100 * share:.1f} %", f"median of {_ROUNDS} epochs")
    result.holds = each_trial <= 30 and share <= 0.02
    result.save()


if __name__ == "__main__":
    main()
