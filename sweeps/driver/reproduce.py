"""Train a recorded run again in a run of its own, and prove both equal or report where they diverge, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.core.messages import Failed, StopAfter
from sweeps.core.secrets import withhold
from sweeps.core.text import plain
from sweeps.core.trials import TrialResult
from sweeps.driver.display import Heading
from sweeps.driver.driver import Limits
from sweeps.driver.inspect import inspect_data
from sweeps.driver.run_request import RunRequest
from sweeps.driver.session import CommandLine, Reporter, Session, common_tags
from sweeps.driver.single_run import SingleRun
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.slots import Slot, num_cores, plan_slots, visible_gpus
from sweeps.reproduce import comparison
from sweeps.reproduce.export import is_export, load_exported
from sweeps.reproduce.local_config import derived, deriving, localize, secrets_missing
from sweeps.reproduce.original import IncompleteError, Original, load_original, points_of
from sweeps.reproduce.trace import read_trace
from sweeps.reproduce.verdict import Evidence, Verdict, data_changes
from sweeps.results.reader import open_reader
from sweeps.search.space.typed_secrets import hide_typed
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import RunStore, Unsent

__all__ = ["ReproduceRequest", "Reproduction", "original_of", "reproduce"]

_HINT = " Modules of your own are found with --config-dir DIR or --allow MODULE."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceRequest(RunRequest):
    """What is to be reproduced, and how; `overrides` make it a derived run.

    Attributes:
        epochs: How many epochs to train; None for all that are recorded.
        threads: CPU threads of each rank; None for as many as it had.
        start_method: How processes are made.
    """

    epochs: int | None = None
    threads: int | None = None
    start_method: str = "forkserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A reproduction that has come to its end.

    Attributes:
        original: The name of the run that was trained again.
        verdict: What it has shown.
        outcome: What became of the training; None if nothing was trained.
        run_id: The run that records it.
        folder: Where its log and checkpoints are.
        unsent: What the store did not take; None if nothing was trained.
        is_whole: Whether the verdict is the original's: over all of its record, trained with as many threads as it had.
    """

    original: str
    verdict: Verdict
    outcome: TrialResult | None = None
    run_id: str | None = None
    folder: Path | None = None
    unsent: Unsent | None = None
    is_whole: bool = False

    @classmethod
    def impossible(cls, name: str, error: IncompleteError) -> "Reproduction":
        """Return what is said of a run whose record does not suffice."""
        return cls(original=name, verdict=Verdict(kind="not verifiable", reason=str(error)))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "original": self.original,
            **self.verdict.as_dict(),
            "run_id": self.run_id,
            "folder": None if self.folder is None else str(self.folder),
        }


def reproduce(request: ReproduceRequest, reporter: Reporter) -> Reproduction:
    """Train a recorded run again in a run of its own, and compare both.

    Args:
        request: What, and how.
        reporter: Hears, line by line, what differs today, before anything is trained; and shows the training.

    Raises:
        UsageError: There is no such run, or an override makes no sense.
        LightsweepError: The store cannot be read or written.
    """
    try:
        return _Reproducing(request, original_of(request), reporter).run()
    except IncompleteError as error:
        return Reproduction.impossible(request.run, error)


def original_of(request: ReproduceRequest) -> Original:
    """Read the record of what is to be reproduced: a run of the store, or an exported folder.

    Raises:
        UsageError: There is no such run.
        IncompleteError: The record lacks what training it again takes.
    """
    if is_export(request.run):
        return load_exported(Path(request.run))
    with open_reader(request.store_uri) as reader:
        return load_original(reader, request.store_uri, request.run, request.store_dir)


class _Reproducing:
    """One reproduction, from the record to the verdict."""

    def __init__(self, request: ReproduceRequest, original: Original, reporter: Reporter) -> None:
        self._request = request
        self._original = original
        self._reporter = reporter
        self._say = reporter.echo
        composer = request.composer(f"launcher.start_method={request.start_method}")
        today, place = composer.trial({}, 0), composer.config_dir
        today, self._notes = localize(original.config, today, typed=request.overridden, config_dir=place)
        whole = derived(today, request.overrides)
        self._config, hidden = withhold(whole, composer.secrets)
        self._secrets_missing = secrets_missing(whole)
        self._deriving = [hide_typed(override) for override in deriving(request.overrides, original.config)]
        self._last, self._is_part = comparison.last_epoch(original, request.epochs)
        self._slot = self._planned()
        self._session = Session(
            CommandLine(
                overrides=(request.run, *request.overrides), config_name="train", config_dir=request.config_dir
            ),
            composer,
            lambda: [({}, self._config)],
            [self._slot],
            reporter=reporter,
            hidden=lambda config: hidden,
        )
        self._provenance = self._session.capture("reproduce")
        self._differs = comparison.known_differences(
            original, self._provenance.content, threads=self._slot.threads, has_gpu=bool(self._slot.gpus)
        )

    def run(self) -> Reproduction:
        """Show the notes, inspect the data, show what differs, train, judge, and record the verdict."""
        self._show_notes()
        with self._session as session:
            recorder = session.open_recorder()
            with self._reporter.preparing():
                inspected = inspect_data(session.launcher, session.jobs, self._config, self._slot, session.store_dir)
                store = session.wait_until_open()
            if isinstance(inspected, Failed) and inspected.cause == "usage":
                raise ConfigError(f"{inspected.message}{_HINT}")
            if isinstance(inspected, Failed):
                raise IncompleteError(f"The data cannot be had: {inspected.message}")
            if self._config["data"] is not None:  # else it is seen as it trains
                self._differs["data"] = data_changes(self._original.evidence.trace.data, inspected.content)
            self._announce()
            folder = paths.reproduction_dir(session.store_dir)
            outcome = self._train(recorder, folder)
            recorder.close()
            run_id = recorder.run_id(0)
            verdict = self._verdict(outcome, folder, run_id)
            if run_id is not None:
                self._record(verdict, run_id, store)
        return Reproduction(
            original=self._original.name,
            verdict=verdict,
            outcome=outcome,
            run_id=run_id,
            folder=folder,
            unsent=recorder.unsent,
            is_whole=self._is_of_the_run and not self._is_part,
        )

    def _show_notes(self) -> None:
        for note in self._original.notes:
            self._say(note)
        for key in self._secrets_missing:
            self._say(
                f"{plain(key)} is secret, so that the record does not have it: it is trained with *** in its place. "
                f"Give it after --, from a variable: '{plain(key)}=${{oc.env:NAME}}'"
            )
        for note in self._notes:
            self._say(plain(note))

    def _record(self, verdict: Verdict, run_id: str, store: RunStore) -> None:
        """Tag both runs with the verdict."""
        store.set_tags(run_id, {tags.REPRODUCED: f"{verdict.kind}: {verdict.reason}"})
        if verdict.kind in ("derived", "not verifiable") or not self._is_of_the_run:
            return
        original = self._original.run.run_id
        with open_reader(self._request.store_uri) as reader:
            known = reader.run(original).tags.get(tags.REPRODUCED, "")
        summary = comparison.summary_for(verdict, known, is_part=self._is_part)
        if summary is not None:
            store.set_tags(original, {tags.REPRODUCED: summary, tags.REPRODUCED_BY: run_id})

    @property
    def _is_of_the_run(self) -> bool:
        """Whether the verdict is the original's, and that is in the store."""
        threads = self._request.threads
        return self._original.is_stored and threads in (
            None,
            comparison.recorded_threads(self._original.evidence.trace),
        )

    # --- before training

    def _planned(self) -> Slot:
        """Return a lease with as many devices and threads as the original had."""
        trainer = self._config["trainer"]
        for key in ("devices", "num_nodes"):
            if type(trainer.get(key)) is not int:
                got = plain(repr(trainer.get(key)))[:100]
                raise IncompleteError(f"trainer.{key} must be a whole number, but the record has {got}.")
        if trainer["num_nodes"] != 1:
            raise IncompleteError(f"It was trained on {trainer['num_nodes']} hosts, and this command uses one.")
        threads = self._request.threads or comparison.recorded_threads(self._original.evidence.trace)
        (slot,) = plan_slots(
            slots=1,
            devices=trainer["devices"],
            trials_per_device=1,
            threads=threads,
            accelerator=trainer["accelerator"],
            cores=num_cores(),
            gpus=visible_gpus(),
        )
        return slot

    def _announce(self) -> None:
        """Say what differs today."""
        if not self._original.provenance:
            self._say("Code, packages and machine were not recorded.")
        if not self._original.evidence.trace.is_whole:
            self._say("Weights and data were not recorded: only the metrics can be compared.")
        lines = [f"  {name}: {word}" for name, words in self._differs.items() for word in words]
        self._say("What differs today:" if lines else "Nothing that is recorded differs today.")
        for line in lines:
            self._say(line)
        if self._deriving:
            self._say(f"This is a derived run, no reproduction: {' '.join(self._deriving)}")

    # --- training

    def _train(self, recorder: Recorder, folder: Path) -> TrialResult:
        objective = self._config["objective"]
        self._provenance.write(folder)
        title = f"reproduction {int(folder.name)} of {self._original.name}"
        heading = Heading(
            title=title,
            name=folder.name,
            metric=objective["metric"],
            direction=objective["direction"],
            num_trials=1,
            is_sweep=False,
        )
        link = {"lightsweep.derived_from" if self._deriving else tags.REPRODUCES: self._original.run.run_id}
        setup = TrialSetup(
            compose=lambda values, number, replicate: self._config,
            folder=lambda number: folder,
            name=lambda number, values: title,
            run_tags={
                **common_tags("reproduce", self._session.command.overrides, {}),
                tags.KIND: "reproduction",
                tags.METRIC: objective["metric"],
                tags.DIRECTION: objective["direction"],
                **link,
            },
            jobs=self._session.jobs,
            prunes=False,
            has_parent=False,
            provenance=self._provenance.digest,
            stop_after=None if self._last is None else StopAfter(epoch=self._last.epoch, batches=self._last.batches),
        )
        limits = Limits(num_trials=1, grace_s=self._session.composer.base()["launcher"]["grace_s"])
        display = self._reporter.display(heading)
        return self._session.drive(SingleRun(), setup, limits, recorder, display).outcomes[0]

    # --- after training

    def _verdict(self, outcome: TrialResult, folder: Path, run_id: str | None) -> Verdict:
        if outcome.state == "failed" and "allowed module" in outcome.reason:
            raise ConfigError(f"{outcome.reason}{_HINT}")
        problems = {"failed": f"The training failed: {outcome.reason}", "interrupted": "It was interrupted."}
        if outcome.state in problems or run_id is None:
            reason = problems.get(outcome.state, "The store did not take its run.")
            return Verdict(kind="not verifiable", reason=reason, differs=self._differs)
        trace, before = read_trace(folder / paths.TRACE), self._original.evidence
        self._differs = comparison.differences_of_traces(self._differs, before.trace, trace)
        with open_reader(self._request.store_uri) as reader:
            again = Evidence(trace=trace, points=points_of(reader, reader.run(run_id)), value=outcome.value)
        verdict = comparison.verdict_of(
            self._original,
            again,
            metric=self._config["objective"]["metric"],
            differs=self._differs,
            last=self._last,
            is_part=self._is_part,
        )
        if self._deriving:
            return Verdict(
                kind="derived",
                reason=f"This is a run derived by {' '.join(self._deriving)}, and no reproduction.",
                differs=verdict.differs,
            )
        return verdict
