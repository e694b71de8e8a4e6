"""`lightsweep train`: one run through the same driver, processes and record as a trial of a sweep."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sweeps.cli.console import preparing
from sweeps.cli.live import make_display
from sweeps.cli.preflight_report import print_warnings
from sweeps.config.composer import Composer, Config
from sweeps.core import paths
from sweeps.core.messages import Place
from sweeps.core.trials import Totals, TrialResult
from sweeps.driver.display import Display, Heading
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.inspect import inspect_models
from sweeps.driver.preflight import check
from sweeps.driver.session import (
    CommandLine,
    common_tags,
    lease_slots,
    open_recorder,
    python_path,
    start_launcher,
)
from sweeps.driver.single_run import SingleRun
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.slots import Slot, num_cores
from sweeps.launchers.torchrun import devices_overrides, given_place, joining_environment
from sweeps.reproduce.provenance import capture
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import RunRecorder, Unsent

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished `train`.

    Attributes:
        totals: What became of it.
        run_id: The run that records it; None if there is none.
        is_guest: Whether this process was one rank of several, and another one records.
        folder: Where its log and checkpoints are.
        unsent: What the store did not take; None if another process records.
    """

    totals: Totals
    run_id: str | None
    is_guest: bool = False
    folder: Path
    unsent: Unsent | None

    @property
    def outcome(self) -> TrialResult | None:
        """What became of the run; None if it never started."""
        return self.totals.outcomes[0] if self.totals.outcomes else None


def train(command: CommandLine, console: Console) -> TrainResult:
    """Train what the command line describes, and record it.

    Started by torchrun or srun as one of several processes, it trains one rank of theirs; rank 0 records.

    Raises:
        LightsweepError: The configuration is wrong or the store cannot be opened.
    """
    place = given_place()
    overrides = [*command.overrides, *(devices_overrides(place, command.overrides) if place else [])]
    composer = Composer(command.config_name, overrides, command.config_dir)
    config = composer.trial({}, seed=composer.base()["seed"])
    store_dir = Path(config["store_dir"])
    slots = [_given_slot(composer, place)] if place else lease_slots(composer.base(), slots=1)
    launcher = start_launcher(composer, [config], threads=slots[0].threads, log=store_dir / "server.log")
    with closing(launcher):
        run = _Run(command, composer, config, slots, launcher, place)
        if place and place.rank > 0:
            run.inspect()
            return run.follow(paths.guest_dir(store_dir, place.rank))
        recorder = open_recorder(composer, store_dir)
        report = None
        with preparing(console):
            recorder.wait_until_open()  # the server imports meanwhile
            run.inspect()
            if place is None and composer.base()["check"]:  # a rank of several would need the others to be checked too
                report = check(launcher, composer, [({}, run.config)], slots, store_dir)  # and no half-made run
        if report is not None:
            print_warnings(report, console)
        return run.lead(paths.train_dir(store_dir), recorder, console)


def _given_slot(composer: Composer, place: Place) -> Slot:
    """Return the lease of one rank of a group that others start: its share of the cores, and the GPUs it sees."""
    threads = composer.base()["launcher"]["threads"]
    return Slot(index=0, threads=threads or max(1, num_cores() * place.num_nodes // place.world_size))


@dataclass(slots=True)
class _Run:
    """One run: the whole of it, or one rank of those that others start."""

    command: CommandLine
    composer: Composer
    config: Config
    slots: list[Slot]
    launcher: LocalLauncher
    place: Place | None

    def inspect(self) -> None:
        """Leave out of the config what its model does not take."""
        store_dir = Path(self.config["store_dir"])
        if inspect_models(self.launcher, self.composer, [self.config], self.slots[0], store_dir):
            self.config = self.composer.trial({}, seed=self.composer.tree.seed)

    def lead(self, folder: Path, recorder: Recorder, console: Console) -> TrainResult:
        """Train, show it and record it."""
        display = make_display(
            Heading(
                title=f"{self._name(folder)}: {self.config['trainer']['max_epochs']} epochs{self._ranks()}",
                name=folder.name,
                metric=self.config["objective"]["metric"],
                direction=self.config["objective"]["direction"],
                num_trials=1,
                is_sweep=False,
            ),
            console,
        )
        with _undisturbed() if self.place else nullcontext():
            try:
                totals = self._drive(folder, recorder, display)
            finally:
                display.close()
                recorder.close()
        return TrainResult(totals=totals, run_id=recorder.run_id(0), folder=folder, unsent=recorder.unsent)

    def follow(self, folder: Path) -> TrainResult:
        """Train as a rank that records nothing; its folder stays if it fails."""
        totals = self._drive(folder, RunRecorder(), Display())
        if totals.count("failed") == 0:
            shutil.rmtree(folder)
        return TrainResult(totals=totals, run_id=None, is_guest=True, folder=folder, unsent=None)

    def _drive(self, folder: Path, recorder: RunRecorder, display: Display) -> Totals:
        objective, own_tags = self.config["objective"], self.config["tracking"]["tags"]
        provenance = capture(
            ["lightsweep", "train", *self.command.overrides],
            self.command.config_dir,
            store_dir=Path(self.config["store_dir"]),
            hide=self.composer.secrets.hide,
        )
        provenance.write(folder)
        return Driver(
            search=SingleRun(),
            setup=TrialSetup(
                compose=lambda values, number, replicate: self.config,
                folder=lambda number: folder,
                name=lambda number, values: self._name(folder),
                run_tags={
                    **common_tags("train", self.command.overrides, own_tags),
                    **({} if self.composer.base()["check"] else {tags.CHECKED: "false"}),
                    tags.KIND: "train",
                    tags.METRIC: objective["metric"],
                    tags.DIRECTION: objective["direction"],
                },
                python_path=python_path(self.composer),
                hidden=self.composer.hidden,
                allowed_modules=self.composer.allowed_modules,
                answers=False,
                has_parent=False,
                place=self.place,
                environment=joining_environment(self.place) if self.place else (),
                provenance=provenance.digest,
            ),
            slots=self.slots,
            limits=Limits(num_trials=1, grace_s=self.composer.base()["launcher"]["grace_s"]),
            launcher=self.launcher,
            recorder=recorder,
            display=display,
        ).run()

    def _name(self, folder: Path) -> str:
        number = f" {int(folder.name)}" if folder.name.isdigit() else ""
        return f"train{number} {' '.join(self.composer.data_and_model)}"

    def _ranks(self) -> str:
        devices, hosts = self.config["trainer"]["devices"], self.config["trainer"]["num_nodes"]
        if devices * hosts == 1:
            return ""
        return f", {devices * hosts} ranks" + (f" on {hosts} hosts" if hosts > 1 else "")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Record to the end: torchrun and srun tell the others to end as soon as one has failed. The driver still hears."""
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
