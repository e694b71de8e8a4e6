"""`lightsweep train`: one run through the same driver, processes and record as a trial of a sweep."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from sweeps.config.composer import Composer, Config
from sweeps.core import paths
from sweeps.core.messages import Place
from sweeps.core.trials import Totals, TrialResult
from sweeps.driver.display import Display, Heading
from sweeps.driver.driver import Limits
from sweeps.driver.preflight import Corner
from sweeps.driver.session import CommandLine, Reporter, Session, common_tags, lease_slots
from sweeps.driver.single_run import SingleRun
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.slots import Slot, num_cores
from sweeps.launchers.torchrun import devices_overrides, given_place
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import RunRecorder, Unsent

__all__ = ["TrainResult", "only_corner", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished `train`.

    Attributes:
        totals: How it ended.
        run_id: The run that records it; None if there is none.
        is_non_zero_rank: Whether this process was one rank of several, and another one records.
        folder: Where its log and checkpoints are.
        unsent: What the store did not take; None if another process records.
    """

    totals: Totals
    run_id: str | None
    is_non_zero_rank: bool = False
    folder: Path
    unsent: Unsent | None

    @property
    def outcome(self) -> TrialResult | None:
        """How the run ended; None if it never started."""
        return self.totals.outcomes[0] if self.totals.outcomes else None


def train(command: CommandLine, reporter: Reporter) -> TrainResult:
    """Train what the command line describes, and record it.

    Started by torchrun or srun as one of several processes, it trains one of their ranks; rank 0 records.

    Raises:
        LightsweepError: The configuration is wrong or the store cannot be opened.
    """
    place = given_place()
    overrides = [*command.overrides, *(devices_overrides(place, command.overrides) if place else [])]
    composer = Composer(command.config_name, overrides, command.config_dir)
    slots = [_given_slot(composer, place)] if place else lease_slots(composer.base(), slots=1)
    with Session(command, composer, only_corner(composer), slots, reporter=reporter, place=place) as session:
        if place and place.rank > 0:
            session.inspect()
            return _follow(session, paths.non_zero_rank_dir(session.store_dir, place.rank))
        recorder = session.open_recorder()
        report = None
        with reporter.preparing():
            session.wait_until_open()  # the server imports meanwhile
            session.inspect()
            if place is None and composer.base()["check"]:  # a rank of several would need the others to be checked too
                report = session.check()  # before there is a run
        if report is not None:
            reporter.warn(report)
        return _lead(session, paths.train_dir(session.store_dir), recorder, is_one_of_several=place is not None)


def only_corner(composer: Composer) -> Callable[[], list[Corner]]:
    """Return what composes the config of a single run, as a session takes it."""
    return lambda: [({}, composer.trial({}, seed=composer.tree.seed))]


def _given_slot(composer: Composer, place: Place) -> Slot:
    """Return the lease of one rank of a group that others start: its share of the cores, and the GPUs it sees."""
    threads = composer.base()["launcher"]["threads"]
    return Slot(index=0, threads=threads or max(1, num_cores() * place.num_nodes // place.world_size))


def _lead(session: Session, folder: Path, recorder: Recorder, *, is_one_of_several: bool) -> TrainResult:
    """Train, show it and record it."""
    ((_, config),) = session.corners
    display = session.reporter.display(
        Heading(
            title=f"{_name(session, folder)}: {config['trainer']['max_epochs']} epochs{_ranks(config)}",
            name=folder.name,
            metric=config["objective"]["metric"],
            direction=config["objective"]["direction"],
            num_trials=1,
            is_sweep=False,
        )
    )
    with _undisturbed() if is_one_of_several else nullcontext():
        try:
            totals = _drive(session, folder, recorder, display)
        finally:
            recorder.close()
    return TrainResult(totals=totals, run_id=recorder.run_id(0), folder=folder, unsent=recorder.unsent)


def _follow(session: Session, folder: Path) -> TrainResult:
    """Train as a rank that records nothing; its folder stays if it fails."""
    totals = _drive(session, folder, RunRecorder(), Display())
    if totals.count("failed") == 0:
        shutil.rmtree(folder)
    return TrainResult(totals=totals, run_id=None, is_non_zero_rank=True, folder=folder, unsent=None)


def _drive(session: Session, folder: Path, recorder: RunRecorder, display: Display) -> Totals:
    ((_, config),) = session.corners
    base, objective = session.composer.base(), config["objective"]
    provenance = session.capture("train")
    provenance.write(folder)
    setup = TrialSetup(
        compose=lambda values, number, replicate: config,
        folder=lambda number: folder,
        name=lambda number, values: _name(session, folder),
        run_tags={
            **common_tags("train", session.command.overrides, config["tracking"]["tags"]),
            **({} if base["check"] else {tags.CHECKED: "false"}),
            tags.KIND: "train",
            tags.METRIC: objective["metric"],
            tags.DIRECTION: objective["direction"],
        },
        jobs=session.jobs,
        prunes=False,
        has_parent=False,
        provenance=provenance.digest,
    )
    limits = Limits(num_trials=1, grace_s=base["launcher"]["grace_s"])
    return session.drive(SingleRun(), setup, limits, recorder, display)


def _name(session: Session, folder: Path) -> str:
    number = f" {int(folder.name)}" if folder.name.isdigit() else ""
    return f"train{number} {' '.join(session.composer.data_and_model)}"


def _ranks(config: Config) -> str:
    devices, hosts = config["trainer"]["devices"], config["trainer"]["num_nodes"]
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
