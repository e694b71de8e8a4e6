"""What `train` and `sweep` set up alike: the composed command line, processes, the record."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.config.composer import Composer, Config
from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.core.secrets import HIDDEN, is_secret
from sweeps.core.urls import default_uri
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.rank_group import Patience
from sweeps.launchers.slots import Slot, num_cores, plan_slots, visible_gpus
from sweeps.search.space.typed_secrets import hide_typed
from sweeps.tracking import tags
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import RunStore

__all__ = [
    "CommandLine",
    "common_tags",
    "lease_slots",
    "open_recorder",
    "python_path",
    "start_launcher",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """What the user typed, as far as configuration goes."""

    overrides: tuple[str, ...]
    config_name: str
    config_dir: Path | None = None


def python_path(composer: Composer) -> tuple[str, ...]:
    """Return the folders in which the user's modules are found: --config-dir and the working folder."""
    folders = [str(composer.config_dir)] if composer.config_dir else []
    return (*folders, str(Path.cwd()))


def start_launcher(composer: Composer, configs: Sequence[Config], *, threads: int, log: Path) -> LocalLauncher:
    """Start the launcher and let its server import what the configs name, while the caller goes on.

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
        patience=Patience(join_s=launching["join_timeout_s"], stall_s=launching["stall_timeout_s"]),
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
