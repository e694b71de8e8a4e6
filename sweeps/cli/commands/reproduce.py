"""`lightsweep reproduce`: train a recorded run again, and prove it equal or say where it parts, and why."""

import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.cli.commands.run_request import RunRequest
from sweeps.cli.console import preparing
from sweeps.cli.live import make_display, warn_unsent
from sweeps.config.composer import Config, fingerprint, freeze
from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.core.messages import DataContent, Exited, Failed, RankJob, StopAfter
from sweeps.core.secrets import withhold
from sweeps.core.text import plain
from sweeps.core.trials import TrialResult
from sweeps.driver.display import Display, Heading
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.session import common_tags, open_recorder, python_path, start_launcher
from sweeps.driver.single_run import SingleRun
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.slots import Slot, num_cores, plan_slots, visible_gpus
from sweeps.reproduce.export import is_export, load_exported
from sweeps.reproduce.local_config import as_of_today, derived, deriving, secrets_missing
from sweeps.reproduce.original import IncompleteError, Original, load_original, points_of
from sweeps.reproduce.provenance import capture, differences
from sweeps.reproduce.trace import Epoch, Trace, read_trace
from sweeps.reproduce.verdict import Evidence, Tolerance, Verdict, data_changes, judge, merged, rank_changes
from sweeps.results.reader import open_reader
from sweeps.search.space.typed_secrets import hide_typed
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import Unsent

__all__ = ["ReproduceRequest", "Reproduction", "original_of", "print_reproduction", "reproduce"]

_MOST_THREADS = 1024
_OWN_CODE = ("lightning_modules/", "sweeps/")  # Lightsweep's, of which the traces do not tell
_FIRST = " (the first "  # the mark of a verdict over the first epochs alone
_LOOK = -1  # the number of the look at the data among the trials


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
        self._secrets_missing = secrets_missing(whole)
        self._deriving = [hide_typed(override) for override in deriving(request.overrides, original.config)]
        self._last, self._is_part = _last_epoch(original, request.epochs)
        self._slot = self._planned()
        self._provenance = capture(
            ["lightsweep", "reproduce", request.run, *request.overrides],
            request.config_dir,
            store_dir=request.store_dir,
            hide=self._composer.secrets.hide,
        )
        self._differs = self._known_differences()

    def run(self) -> Reproduction:
        for note in self._original.notes:
            self._say(note)
        for key in self._secrets_missing:
            self._say(
                f"{plain(key)} is secret, so that the record does not have it: it is trained with *** in its place. "
                f"Give it after --, from a variable: '{plain(key)}=${{oc.env:NAME}}'"
            )
        for note in self._notes:
            self._say(plain(note))
        log = self._request.store_dir / "server.log"
        launcher = start_launcher(self._composer, [self._config], threads=self._slot.threads, log=log)
        with closing(launcher):
            recorder = open_recorder(self._composer, self._request.store_dir)
            with preparing(self._console):
                looked = _look(launcher, self._job(), self._config, self._request.store_dir, self._slot.devices)
                store = recorder.wait_until_open()
            if isinstance(looked, Failed) and looked.cause != "usage":
                recorder.close()
                raise IncompleteError(f"The data cannot be had: {looked.message}")
            if isinstance(looked, Failed):
                recorder.close()
                raise ConfigError(f"{looked.message}{self._hint()}")
            if self._config["data"] is not None:  # else it is seen as it trains
                self._differs["data"] = data_changes(self._original.evidence.trace.data, looked.content)
            self._announce()
            folder = paths.reproduction_dir(self._request.store_dir)
            outcome = self._train(launcher, recorder, folder)
            recorder.close()
            run_id = recorder.run_id(0)
            verdict = self._verdict(outcome, folder, run_id)
            if run_id is not None:
                store.set_tags(run_id, {tags.REPRODUCED: f"{verdict.kind}: {verdict.reason}"})
                if verdict.kind not in ("derived", "not verifiable") and self._is_of_the_run:
                    with open_reader(self._request.store_uri) as reader:
                        known = reader.run(self._original.run.run_id).tags.get(tags.REPRODUCED, "")
                    told = _told(verdict, known, is_part=self._is_part)
                    if told is not None:
                        named = {tags.REPRODUCED: told, tags.REPRODUCED_BY: run_id}
                        store.set_tags(self._original.run.run_id, named)
        return Reproduction(
            original=self._original.name,
            verdict=verdict,
            outcome=outcome,
            run_id=run_id,
            folder=folder,
            unsent=recorder.unsent,
            is_whole=self._is_of_the_run and not self._is_part,
        )

    @property
    def _is_of_the_run(self) -> bool:
        """Whether the verdict is the original's, and that is in the store."""
        threads = self._request.threads
        return self._original.is_stored and threads in (None, _recorded_threads(self._original.evidence.trace))

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
        threads = self._request.threads or _recorded_threads(self._original.evidence.trace)
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

    def _known_differences(self) -> dict[str, list[str]]:
        """Return what is known to differ before anything is trained."""
        original, trace = self._original, self._original.evidence.trace
        found: dict[str, list[str]] = {"seed": [], "configuration": [], "data": [], "threads": []}
        edited = list(original.edited)
        if trace.segments and fingerprint(original.config) != trace.segments[0].config and not edited:
            edited = ["a key that the run has no param of"]
        if trace.segments and trace.segments[0].seed != original.config["seed"]:
            found["seed"].append(f"{trace.segments[0].seed} was trained, and the record's config has another")
        seeds = [key for key in edited if key.rpartition(".")[2] == "seed"]
        found["seed"] += [f"{key} in the record is not what its params say" for key in seeds if not found["seed"]]
        found["configuration"] += [f"{key} in the record is not what was trained" for key in edited if key not in seeds]
        recorded = _recorded_threads(trace)
        if recorded is not None and recorded != self._slot.threads:
            found["threads"].append(f"threads {recorded} (now {self._slot.threads})")
        if original.provenance:
            for name, words in differences(original.provenance, self._provenance.content).items():
                found.setdefault(name, []).extend(words)
        if trace.segments and trace.segments[0].ranks:
            had_gpu = trace.segments[0].ranks[0].get("device") == "cuda"
            if had_gpu and not self._slot.gpus:
                found.setdefault("hardware", []).append("device cuda (now cpu)")
        return {name: list(map(plain, words)) for name, words in found.items()}

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

    def _hint(self) -> str:
        """Say how modules of the user's are found, which a record cannot bring along."""
        return " Modules of your own are found with --config-dir DIR or --allow MODULE."

    def _job(self) -> RankJob:
        return RankJob(
            kind="look",
            folder="",
            python_path=python_path(self._composer),
            allowed_modules=self._composer.allowed_modules,
            threads=self._slot.threads,
            environment=self._slot.environment,
            hidden={fingerprint(self._config): self._hidden} if self._hidden else {},
        )

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
                python_path=python_path(self._composer),
                hidden=lambda config: self._hidden,
                allowed_modules=self._composer.allowed_modules,
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
        if outcome.state == "failed":
            if "allowed module" in outcome.reason:
                raise ConfigError(f"{outcome.reason}{self._hint()}")
            return Verdict(
                kind="not verifiable", reason=f"The training failed: {outcome.reason}", differs=self._differs
            )
        if outcome.state == "interrupted":
            return Verdict(kind="not verifiable", reason="It was interrupted.", differs=self._differs)
        if run_id is None:
            return Verdict(kind="not verifiable", reason="The store did not take its run.", differs=self._differs)
        trace = read_trace(folder / paths.TRACE)
        before = self._original.evidence
        changes = {name: list(map(plain, words)) for name, words in rank_changes(before.trace, trace).items()}
        self._sort_files(changes.pop("code"), before.trace, trace)
        self._differs = merged(self._differs, changes)
        self._differs["data"] = data_changes(before.trace.data, trace.data)  # what was seen before is a forecast
        with open_reader(self._request.store_uri) as reader:
            again = Evidence(trace=trace, points=points_of(reader, reader.run(run_id)), value=outcome.value)
        metric = self._config["objective"]["metric"]
        reference = before.reference(metric)
        verdict = judge(
            before,
            again,
            metric=metric,
            tolerance=None if reference is None else Tolerance.of(reference, self._original.replicates),
            differs={name: words for name, words in self._differs.items() if words},
            midway=[
                (begins, {name: list(map(plain, words)) for name, words in changes.items() if words})
                for begins, changes in self._original.midway
            ],
            last=self._last,
            is_record_end=not self._is_part,
        )
        if self._deriving:
            return Verdict(
                kind="derived",
                reason=f"This is a run derived by {' '.join(self._deriving)}, and no reproduction.",
                differs=verdict.differs,
            )
        return verdict

    def _sort_files(self, imported: Sequence[str], before: Trace, again: Trace) -> None:
        """Tell files that training has imported from those that differ, too, where the traces say which it has.

        Args:
            imported: In words, the files that both have imported and that differ.
            before: The trace of the original.
            again: That of the reproduction.
        """
        known = self._differs.get("code", [])
        if not (before.segments and again.segments):
            return
        new = [word for word in imported if not _is_told(word, known)]
        told = [word for word in known if any(_is_told(name, [word]) for name in imported)]
        ours = [word for word in known if word.startswith(_OWN_CODE) and word not in told]
        self._differs["code"] = [*told, *new, *ours]
        self._differs["other files"] = [word for word in known if word not in (*told, *ours)]


def _last_epoch(original: Original, epochs: int | None) -> tuple[Epoch | None, bool]:
    """Return the epoch that is the last one to train, and whether the record has more; None if it comes to its end.

    The number of epochs is left as it is, since schedules may depend on it. Of a run that did not come to its end, the
    trace may tell of epochs whose metrics were still to be sent, or the metrics of one that the trace does not have.

    Raises:
        IncompleteError: There is nothing to compare.
    """
    evidence = original.evidence
    recorded = evidence.trace.epochs
    if epochs is not None and not recorded:
        raise IncompleteError("--epochs needs a trace, which the run does not have.")
    is_complete = original.state == "complete"
    if not is_complete and evidence.trace.segments:
        metrics_end = 1 + max((step for of in evidence.points.values() for step, _ in of), default=-1)
        recorded = tuple(epoch for epoch in recorded if epoch.metrics_end <= metrics_end)
        if not recorded:
            raise IncompleteError("It ended before trace and metrics had a whole epoch: there is nothing to compare.")
    if epochs is not None and epochs < len(recorded):
        return recorded[epochs - 1], True
    return (None if is_complete or not recorded else recorded[-1]), False


def _told(verdict: Verdict, known: str, *, is_part: bool) -> str | None:
    """Return what the original is told, in which a part of it never takes the place of the whole; None for nothing.

    Args:
        verdict: The verdict.
        known: What it was told before; empty if nothing.
        is_part: Whether only its first epochs were trained again.
    """
    if not is_part:
        return f"{verdict.kind}: {verdict.reason}"
    if known and _FIRST not in known.partition(":")[0]:
        return None
    epochs = "epoch" if verdict.num_epochs == 1 else f"{verdict.num_epochs} epochs"
    return f"{verdict.kind}{_FIRST}{epochs}): {verdict.reason}"


def _recorded_threads(trace: Trace) -> int | None:
    ranks = trace.segments[0].ranks if trace.segments else ()
    threads = ranks[0].get("threads") if ranks else None
    return threads if isinstance(threads, int) and 0 < threads <= _MOST_THREADS else None


def _is_told(word: str, known: Sequence[str]) -> bool:
    """Tell whether a changed file is named already, by a path that ends the same."""
    return any(other.split()[0].endswith(word.split()[0]) for other in known if other)


def _look(
    launcher: LocalLauncher, job: RankJob, config: Config, store_dir: Path, num_ranks: int
) -> DataContent | Failed:
    """Let a process look at the data, and return what it saw."""
    folder = paths.check_dir(store_dir)
    found: DataContent | Failed | None = None
    try:
        freeze(config, folder)
        launcher.start(_LOOK, replace(job, folder=str(folder)), num_ranks)
        is_running = True
        while is_running:
            for _, event in launcher.poll(1.0):
                if isinstance(event, DataContent | Failed):
                    found = found or event
                is_running = is_running and not isinstance(event, Exited)
    finally:
        launcher.kill(_LOOK)
        shutil.rmtree(folder, ignore_errors=True)
    assert found is not None, "a process that has looked says what it saw, or that it failed"
    return found
