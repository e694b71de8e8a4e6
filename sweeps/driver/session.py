"""The session of a command: its processes, its recorder, its checks and its driver, set up once for every command."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.config.composer import Composer, Config
from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.core.messages import Place
from sweeps.core.secrets import HIDDEN, is_secret
from sweeps.core.trials import Search, Totals
from sweeps.core.urls import default_uri
from sweeps.driver.display import Display, Heading
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.inspect import inspect_models
from sweeps.driver.jobs import JobBuilder, python_path
from sweeps.driver.preflight import Compose, Corner, check
from sweeps.driver.preflight_report import CheckReport
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.rank_group import Timeouts
from sweeps.launchers.slots import Slot, num_cores, plan_slots, visible_gpus
from sweeps.launchers.torchrun import joining_environment
from sweeps.reproduce.provenance import Provenance, capture
from sweeps.search.space.space import Space
from sweeps.search.space.typed_secrets import hide_typed
from sweeps.tracking import tags
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import RunRecorder, RunStore

__all__ = [
    "CommandLine",
    "Reporter",
    "Session",
    "common_tags",
    "lease_slots",
    "open_recorder",
    "python_path",
    "ranks_of",
    "start_launcher",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """The part of a command line that is configuration."""

    overrides: tuple[str, ...]
    config_name: str
    config_dir: Path | None = None


class Reporter:
    """Hears what a command does, and does nothing; a command line overrides what it prints."""

    def preparing(self) -> AbstractContextManager[object]:
        """Return a context for the seconds before the first trial."""
        return nullcontext()

    def echo(self, text: str) -> None:
        """Print a line."""

    def warn(self, report: CheckReport) -> None:
        """Print the warnings of a check."""

    def display(self, heading: Heading) -> Display:
        """Open the display of the trials."""
        return Display()


class Session:
    """One command at work: leases, processes, recorder and checks, from its composed command line to its end.

    A context manager: entering starts the launcher, whose server imports in the background; leaving ends all
    processes, and writes what is still to be recorded.

    Args:
        command: What was typed.
        composer: The composed command line.
        compose_corners: Composes the points to check, with their configs; of a single run its config alone.
        slots: The leases.
        reporter: Hears what happens.
        place: The place of this process in a group that torchrun or srun started.
        hidden: Returns the secrets that a config hides; by default those that the composer knows.

    Attributes:
        corners: The points and their configs, as last composed.
        jobs: Builds what ranks are started with.
    """

    def __init__(
        self,
        command: CommandLine,
        composer: Composer,
        compose_corners: Callable[[], list[Corner]],
        slots: list[Slot],
        *,
        reporter: Reporter,
        place: Place | None = None,
        **jobs: Any,
    ) -> None:
        self.command = command
        self.composer = composer
        self.slots = slots
        self.reporter = reporter
        self.store_dir = Path(composer.base()["store_dir"])
        environment = joining_environment(place) if place else ()
        self.jobs = JobBuilder.of(composer, place=place, environment=environment, **jobs)
        self.corners = compose_corners()
        self._compose_corners = compose_corners
        self._launcher: LocalLauncher | None = None
        self._recorder: Recorder | None = None
        self._is_recording = False

    def __enter__(self) -> "Session":
        log, threads = self.store_dir / "server.log", self.slots[0].threads
        self._launcher = start_launcher(self.composer, self._configs, threads=threads, log=log)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._recorder is not None and self._is_recording:
                self._recorder.close()
        finally:
            self.launcher.close()

    @property
    def launcher(self) -> LocalLauncher:
        """The launcher; there is one inside the `with` block."""
        assert self._launcher is not None, "a session starts processes once it is entered"
        return self._launcher

    @property
    def _configs(self) -> list[Config]:
        return [config for _, config in self.corners]

    def open_recorder(self) -> Recorder:
        """Start the recorder; its store opens in the background, see `wait_until_open`."""
        self._recorder = open_recorder(self.composer, self.store_dir)
        return self._recorder

    def wait_until_open(self) -> RunStore:
        """Wait for the store of the recorder.

        Raises:
            StoreError: The store cannot be opened.
        """
        assert self._recorder is not None, "the recorder has been started"
        store = self._recorder.wait_until_open()
        self._is_recording = True
        return store

    def inspect(self) -> bool:
        """Learn which parts the models take, and leave the others out of the corners; return whether this was news.

        Raises:
            ConfigError: A model cannot be built.
            PreflightError: A model's own code failed.
        """
        is_news = inspect_models(self.launcher, self.composer, self.jobs, self._configs, self.slots[0], self.store_dir)
        if is_news:
            self.corners = self._compose_corners()
        return is_news

    def check(
        self, *, space: Space | None = None, compose: Compose | None = None, judged: Sequence[str] = ()
    ) -> CheckReport:
        """Try the corners before the first trial; see `preflight.check`."""
        return check(
            self.launcher,
            self.jobs,
            self.corners,
            self.slots,
            self.store_dir,
            space=space,
            compose=compose,
            judged=judged,
        )

    def capture(self, name: str) -> Provenance:
        """Return code, packages and machine, and the command `lightsweep NAME` as it was typed."""
        return capture(
            ["lightsweep", name, *self.command.overrides],
            self.command.config_dir,
            store_dir=self.store_dir,
            hide=self.composer.secrets.hide,
        )

    def drive(
        self, search: Search, setup: TrialSetup, limits: Limits, recorder: RunRecorder, display: Display, **more: Any
    ) -> Totals:
        """Drive the trials of a search to their end, and close the display; `more` is for `Driver`."""
        driver = Driver(
            search=search,
            setup=setup,
            slots=self.slots,
            limits=limits,
            launcher=self.launcher,
            recorder=recorder,
            display=display,
            **more,
        )
        try:
            return driver.run()
        finally:
            display.close()


def start_launcher(composer: Composer, configs: Sequence[Config], *, threads: int, log: Path) -> LocalLauncher:
    """Start the launcher and let its server import what the configs name, while the caller continues.

    Raises:
        ConfigError: The start method is unknown, or a time-out is not positive.
    """
    launching = composer.base()["launcher"]
    start_method = launching["start_method"]
    for key in ("join_timeout_s", "stall_timeout_s"):
        if launching[key] is not None and launching[key] <= 0:
            raise ConfigError(f"launcher.{key} must be above 0, but got {launching[key]:g}.")
    if start_method not in ("forkserver", "spawn"):
        raise ConfigError(f"launcher.start_method must be 'forkserver' or 'spawn', but got {start_method!r}.")
    modules = {module for config in configs for module in _modules(config, composer.allowed_modules)}
    return LocalLauncher(
        start_method="spawn" if start_method == "spawn" else "forkserver",
        modules=sorted(modules),
        python_path=python_path(composer),
        log=log,
        threads=threads,
        timeouts=Timeouts(join_s=launching["join_timeout_s"], stall_s=launching["stall_timeout_s"]),
    )


def lease_slots(config: Config, *, slots: int | None) -> list[Slot]:
    """Share the devices of this machine out as the configuration says.

    Args:
        config: What is launched, with `trainer` and `launcher`.
        slots: How many slots there are at most; None for `launcher.slots`.

    Raises:
        ConfigError: A number is not positive, there are fewer devices than a trial needs, or it needs several hosts.
    """
    trainer, launching = config["trainer"], config["launcher"]
    if trainer["num_nodes"] != 1:
        raise ConfigError(
            f"trainer.num_nodes is {trainer['num_nodes']}, but a launcher starts ranks on this host alone: start "
            "`lightsweep train` on every host by torchrun or srun (docs/distributed.md has the commands)."
        )
    return plan_slots(
        slots=slots or launching["slots"],
        devices=trainer["devices"],
        trials_per_device=launching["trials_per_device"],
        threads=launching["threads"],
        accelerator=trainer["accelerator"],
        cores=num_cores(),
        gpus=visible_gpus(),
    )


def ranks_of(slot: Slot) -> str:
    """Say how many ranks a trial in a slot has, if there are several; after the number of slots."""
    return "" if slot.devices == 1 else f" of {slot.devices} ranks each"


def open_recorder(composer: Composer, folder: Path) -> Recorder:
    """Start the recorder; it opens the store in the background."""
    config = composer.base()
    store_dir, tracking = Path(config["store_dir"]), config["tracking"]

    def open_store() -> RunStore:
        uri = tracking["uri"] or default_uri(store_dir)
        return MlflowStore(uri, tracking["experiment"], store_dir / paths.ARTIFACTS)

    return Recorder(open_store, unsent=folder / paths.UNSENT, timeout_s=tracking["timeout_s"], secrets=composer.secrets)


def common_tags(command: str, overrides: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that every run gets: the code, the command and the user's own."""
    run_tags = {
        **{key: HIDDEN if is_secret(key) else value for key, value in own.items()},
        "mlflow.source.name": f"lightsweep {command}",
        tags.OVERRIDES: " ".join(map(hide_typed, overrides)),
    }
    commit = _git("rev-parse", "HEAD")
    if commit:
        run_tags["mlflow.source.git.commit"] = commit
        run_tags["lightsweep.git.dirty"] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    return run_tags


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _modules(tree: Any, allowed: Sequence[str]) -> set[str]:
    """Collect the modules of all targets that may be imported."""
    if isinstance(tree, Mapping):
        found = {module for value in tree.values() for module in _modules(value, allowed)}
        target = tree.get("_target_")
        if isinstance(target, str) and any(target.startswith(f"{module}.") for module in allowed):
            found.add(target.rpartition(".")[0])
        return found
    if isinstance(tree, list):
        return {module for value in tree for module in _modules(value, allowed)}
    return set()
