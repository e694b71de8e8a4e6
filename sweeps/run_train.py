"""`lightsweep train`: one run through the same driver, processes and record as a trial of a sweep."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sweeps import paths
from sweeps.config import Composer
from sweeps.display import Heading, make_display
from sweeps.driver import Driver, Limits, Outcome, Totals, TrialSetup
from sweeps.search import Ask, EndState, Told, Verdict
from sweeps.tracking import tags
from sweeps.workbench import (
    CommandLine,
    check,
    common_tags,
    lease_slots,
    open_recorder,
    preparing,
    python_path,
    start_launcher,
)

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished `train`."""

    outcome: Outcome | None
    totals: Totals
    run_id: str | None
    folder: Path
    num_unsent: int


@dataclass(slots=True)
class _OneRun:
    """A search that proposes the one configuration that was typed."""

    num_finished: int = 0
    is_exhausted: bool = False

    def ask(self) -> Ask:
        self.is_exhausted = True
        return Ask(number=0, values={})

    def report(self, number: int, value: float, step: int) -> Verdict:
        return Verdict(prune=False)

    def tell(self, number: int, state: EndState, value: float | None, reason: str) -> Told:
        self.num_finished = 1
        return Told(state=state, reason=reason)

    def requeue(self, number: int) -> None:
        """Leave it to the user to train again."""


def train(command: CommandLine, console: Console) -> TrainResult:
    """Train what the command line describes, and record it.

    Raises:
        LightsweepError: The configuration is wrong or the store cannot be opened.
    """
    composer = Composer(command.config_name, command.overrides, command.config_dir)
    config = composer.trial({}, seed=composer.tree.seed)
    slots = lease_slots(composer.base(), slots=1)
    store_dir = Path(config["store_dir"])
    launcher = start_launcher(composer, [config], log=store_dir / "server.log")
    with closing(launcher):
        recorder = open_recorder(composer, store_dir)
        with preparing(console):
            recorder.wait_until_open()  # the server imports meanwhile
            check(launcher, composer, config, [], slots[0], store_dir)  # a fork more, and no half-made run
        folder = paths.train_dir(store_dir)
        objective = config["objective"]
        display = make_display(
            Heading(
                title=f"{_name(composer, folder)}: {config['trainer']['max_epochs']} epochs",
                name=folder.name,
                metric=objective["metric"],
                direction=objective["direction"],
                num_trials=1,
                is_sweep=False,
            ),
            console,
        )
        driver = Driver(
            search=_OneRun(),
            setup=TrialSetup(
                compose=lambda values, number: config,
                folder=lambda number: folder,
                name=lambda number, values: _name(composer, folder),
                run_tags={
                    **common_tags("train", command.overrides, config["tracking"]["tags"]),
                    tags.KIND: "train",
                    tags.METRIC: objective["metric"],
                    tags.DIRECTION: objective["direction"],
                },
                python_path=python_path(composer),
                allowed_modules=composer.allowed_modules,
                answers=False,
                has_parent=False,
            ),
            slots=slots,
            limits=Limits(num_trials=1, grace_s=composer.base()["launcher"]["grace_s"]),
            launcher=launcher,
            recorder=recorder,
            display=display,
        )
        try:
            totals = driver.run()
        finally:
            display.close()
            num_unsent = recorder.close()
    outcome = totals.outcomes[0] if totals.outcomes else None
    return TrainResult(outcome=outcome, totals=totals, run_id=recorder.run_id(0), folder=folder, num_unsent=num_unsent)


def _name(composer: Composer, folder: Path) -> str:
    return f"train {int(folder.name)} {composer.choices['data']} {composer.choices['model']}"
