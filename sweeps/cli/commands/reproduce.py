"""`lightsweep reproduce`: train a recorded run again, and prove it equal or report where it diverges, and why."""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.cli.arguments import INTERRUPTED, of_run
from sweeps.cli.commands.run_request import RunRequest
from sweeps.cli.console import SafeConsole, preparing
from sweeps.cli.live import make_display, warn_unsent
from sweeps.config.composer import Config, freeze
from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.core.messages import DataContent, Exited, Failed, RankJob, StopAfter
from sweeps.core.secrets import withhold
from sweeps.core.text import plain
from sweeps.core.trials import TrialResult
from sweeps.driver.display import Display, Heading
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.jobs import JobBuilder
from sweeps.driver.session import common_tags, open_recorder, start_launcher
from sweeps.driver.single_run import SingleRun
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.slots import Slot, num_cores, plan_slots, visible_gpus
from sweeps.reproduce import comparison
from sweeps.reproduce.export import is_export, load_exported
from sweeps.reproduce.local_config import as_of_today, derived, deriving, secrets_missing
from sweeps.reproduce.original import IncompleteError, Original, load_original, points_of
from sweeps.reproduce.provenance import capture
from sweeps.reproduce.trace import read_trace
from sweeps.reproduce.verdict import Evidence, Verdict, data_changes
from sweeps.results.reader import open_reader
from sweeps.search.space.typed_secrets import hide_typed
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import RunStore, Unsent

__all__ = ["ReproduceRequest", "Reproduction", "original_of", "print_reproduction", "reproduce", "run"]

_HINT = " Modules of your own are found with --config-dir DIR or --allow MODULE."
_INSPECTION = -1  # the number of the inspection of the data among the trials


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


Say = Callable[[str], None]


def reproduce(request: ReproduceRequest, console: Console, *, say: Say, is_quiet: bool = False) -> Reproduction:
    """Train a recorded run again in a run of its own, and compare both.

    Args:
        request: What, and how.
        console: Where the training is shown.
        say: Told, line by line, what differs today, before anything is trained.
        is_quiet: Whether to show nothing of the training.

    Raises:
        UsageError: There is no such run, or an override makes no sense.
        LightsweepError: The store cannot be read or written.
    """
    try:
        return _Reproducing(request, original_of(request), console, say, is_quiet).run()
    except IncompleteError as error:
        return Reproduction.impossible(request.run, error)


def print_reproduction(
    found: Reproduction, request: ReproduceRequest, console: Console, *, is_quiet: bool = False
) -> None:
    """Say where it is, what it has shown, and what to type next; if `is_quiet`, only what was not recorded."""
    if found.folder is not None:
        warn_unsent(found.unsent, console, is_sweep=False)
    if is_quiet:
        return

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    if found.folder is not None:
        say(f"run {found.run_id}  in {found.folder}")
    verdict = found.verdict
    style = {"exact": "bold green", "diverged": "bold red"}.get(verdict.kind, "bold yellow")
    say(f"{verdict.kind}: {verdict.reason}", style)
    if verdict.kind == "exact" and found.is_whole:
        register = f"lightsweep promote {shlex.quote(request.run)} --name NAME --require-reproduced"
        say(f"To register it: {register}{request.options()}")


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

    def __init__(
        self, request: ReproduceRequest, original: Original, console: Console, say: Say, is_quiet: bool
    ) -> None:
        self._request = request
        self._original = original
        self._console = console
        self._say = say
        self._is_quiet = is_quiet
        self._composer = request.composer(f"launcher.start_method={request.start_method}")
        today, place = self._composer.trial({}, 0), self._composer.config_dir
        today, self._notes = as_of_today(original.config, today, typed=request.overridden, config_dir=place)
        whole = derived(today, request.overrides)
        self._config, self._hidden = withhold(whole, self._composer.secrets)
        self._jobs = JobBuilder.of(self._composer, hidden=lambda config: self._hidden)
        self._secrets_missing = secrets_missing(whole)
        self._deriving = [hide_typed(override) for override in deriving(request.overrides, original.config)]
        self._last, self._is_part = comparison.last_epoch(original, request.epochs)
        self._slot = self._planned()
        self._provenance = capture(
            ["lightsweep", "reproduce", request.run, *request.overrides],
            request.config_dir,
            store_dir=request.store_dir,
            hide=self._composer.secrets.hide,
        )
        self._differs = comparison.known_differences(
            original, self._provenance.content, threads=self._slot.threads, has_gpu=bool(self._slot.gpus)
        )

    def run(self) -> Reproduction:
        """Show the notes, inspect the data, show what differs, train, judge, and record the verdict."""
        self._show_notes()
        log = self._request.store_dir / "server.log"
        launcher = start_launcher(self._composer, [self._config], threads=self._slot.threads, log=log)
        with closing(launcher):
            recorder = open_recorder(self._composer, self._request.store_dir)
            with preparing(self._console):
                inspected = _inspect_data(launcher, self._job(), self._config, self._slot.devices)
                store = recorder.wait_until_open()
            if isinstance(inspected, Failed):
                recorder.close()
                if inspected.cause == "usage":
                    raise ConfigError(f"{inspected.message}{_HINT}")
                raise IncompleteError(f"The data cannot be had: {inspected.message}")
            if self._config["data"] is not None:  # else it is seen as it trains
                self._differs["data"] = data_changes(self._original.evidence.trace.data, inspected.content)
            self._announce()
            folder = paths.reproduction_dir(self._request.store_dir)
            outcome = self._train(launcher, recorder, folder)
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

    def _job(self) -> RankJob:
        return self._jobs.job("inspect_data", paths.check_dir(self._request.store_dir), self._slot, [self._config])

    # --- training

    def _train(self, launcher: LocalLauncher, recorder: Recorder, folder: Path) -> TrialResult:
        objective = self._config["objective"]
        self._provenance.write(folder)
        heading = Heading(
            title=f"reproduction {int(folder.name)} of {self._original.name}",
            name=folder.name,
            metric=objective["metric"],
            direction=objective["direction"],
            num_trials=1,
            is_sweep=False,
        )
        display = Display() if self._is_quiet else make_display(heading, self._console)
        link = {"lightsweep.derived_from" if self._deriving else tags.REPRODUCES: self._original.run.run_id}
        driver = Driver(
            search=SingleRun(),
            setup=TrialSetup(
                compose=lambda values, number, replicate: self._config,
                folder=lambda number: folder,
                name=lambda number, values: f"reproduction {int(folder.name)} of {self._original.name}",
                run_tags={
                    **common_tags("reproduce", [self._request.run, *self._request.overrides], {}),
                    tags.KIND: "reproduction",
                    tags.METRIC: objective["metric"],
                    tags.DIRECTION: objective["direction"],
                    **link,
                },
                jobs=self._jobs,
                answers=False,
                has_parent=False,
                provenance=self._provenance.digest,
                stop_after=None
                if self._last is None
                else StopAfter(epoch=self._last.epoch, batches=self._last.batches),
            ),
            slots=[self._slot],
            limits=Limits(num_trials=1, grace_s=self._composer.base()["launcher"]["grace_s"]),
            launcher=launcher,
            recorder=recorder,
            display=display,
        )
        try:
            return driver.run().outcomes[0]
        finally:
            display.close()

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


def _inspect_data(launcher: LocalLauncher, job: RankJob, config: Config, num_ranks: int) -> DataContent | Failed:
    """Let a process read the data, and return what the samples are."""
    folder = Path(job.folder)
    found: DataContent | Failed | None = None
    try:
        freeze(config, folder)
        launcher.start(_INSPECTION, job, num_ranks)
        is_running = True
        while is_running:
            for _, event in launcher.poll(1.0):
                if isinstance(event, DataContent | Failed):
                    found = found or event
                is_running = is_running and not isinstance(event, Exited)
    finally:
        launcher.kill(_INSPECTION)
        shutil.rmtree(folder, ignore_errors=True)
    assert found is not None, "a process that reads the data sends what it is, or that it failed"
    return found


def run(args: argparse.Namespace) -> int:
    """Retrain a run, print the verdict, and return its exit status."""
    request = ReproduceRequest(**of_run(args), epochs=args.epochs, threads=args.threads, start_method=args.start_method)
    is_json, console = args.format == "json", SafeConsole()

    def say(text: str) -> None:
        if not is_json:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        if args.at_commit or args.in_env:
            return _reproduce_elsewhere(args, request)
        result = reproduce(request, console, say=say, is_quiet=is_json)
    except IncompleteError as error:
        result = Reproduction.impossible(request.run, error)
    if is_json:
        print(json.dumps(result.as_dict(), indent=2))
    print_reproduction(result, request, console, is_quiet=is_json)
    if result.outcome is not None and result.outcome.state == "interrupted":
        return INTERRUPTED
    return result.verdict.exit_status


def _reproduce_elsewhere(args: argparse.Namespace, request: ReproduceRequest) -> int:
    from sweeps.cli.commands.reproduce_isolated import Elsewhere, reproduce_elsewhere

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # not by rich, which would take the brackets of a patch for markup

    where = Elsewhere(at_commit=args.at_commit, in_env=args.in_env, agrees=args.yes or None)
    return reproduce_elsewhere(request, where, is_json=args.format == "json", say=say)
