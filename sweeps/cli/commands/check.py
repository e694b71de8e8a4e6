"""`lightsweep check`: what a sweep does before its first trial, and nothing more; the store stays as it is."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.cli.console import preparing
from sweeps.config.composer import Composer, Config
from sweeps.config.quoting import verbatim
from sweeps.core.errors import LightsweepError, PreflightError
from sweeps.driver.inspect import inspect_models
from sweeps.driver.preflight import check
from sweeps.driver.preflight_report import CheckReport
from sweeps.driver.session import CommandLine, lease_slots, start_launcher
from sweeps.driver.sweep_setup import (
    compose_trial,
    judged_metrics,
    read_sweep,
    require_logged,
    require_same_devices,
    require_sound,
)
from sweeps.search.objectives import parse_objectives, require_judgeable
from sweeps.search.replicates import replication
from sweeps.search.samplers import build_pruner, build_sampler
from sweeps.search.space.declare import split_overrides
from sweeps.search.space.space import Space

__all__ = ["CheckResult", "run_check"]

Corner = tuple[dict[str, Any], Config]

_DATA = "data"  # the folder of decoded data in the store


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What was checked, and what was found."""

    title: str
    report: CheckReport


def run_check(command: CommandLine, console: Console) -> CheckResult:
    """Check what the command line describes, a sweep or a single run, in a temporary store.

    Raises:
        LightsweepError: As `sweep` or `train` would before its first trial. The logs that a `PreflightError` names
            stay in the temporary folder.
    """
    typed = Composer(command.config_name, split_overrides(command.overrides)[0], command.config_dir)
    with _spare_store(Path(typed.base()["store_dir"])) as store_dir:
        aside = replace(command, overrides=(*command.overrides, f"store_dir={verbatim(str(store_dir))}"))
        if "study" in typed.tree:
            return _check_sweep(aside, store_dir, console)
        composer = Composer(aside.config_name, aside.overrides, aside.config_dir)

        def corners() -> list[Corner]:
            return [({}, composer.trial({}, seed=composer.base()["seed"]))]

        return _check(composer, None, corners, store_dir, console)


def _check_sweep(command: CommandLine, store_dir: Path, console: Console) -> CheckResult:
    composer, config, space = read_sweep(command)
    require_sound(config)
    objectives = parse_objectives(config["study"]["metric"], config["study"]["direction"])
    build_sampler(config["sampler"], space, config["allowed_modules"], num_objectives=len(objectives))
    pruner = build_pruner(config["pruner"], config["allowed_modules"])
    replicates = replication(config, space.keys)
    require_judgeable(pruner, objectives, (config["objective"]["metric"], config["objective"]["direction"]), replicates)

    def compose(values: Mapping[str, Any]) -> Config:
        return compose_trial(composer, config, replicates, values)

    def corners() -> list[Corner]:
        return [(values, compose(values)) for values in space.corners()]

    judged = [metric for metrics in judged_metrics(config).values() for metric in metrics]
    result = _check(composer, space, corners, store_dir, console, compose, judged)
    require_logged(config, result.report.metrics, result.report.late)
    return result


def _check(
    composer: Composer,
    space: Space | None,
    compose_corners: Callable[[], list[Corner]],
    store_dir: Path,
    console: Console,
    compose: Callable[[Mapping[str, Any]], Config] | None = None,
    judged: Sequence[str] = (),
) -> CheckResult:
    base = composer.base()
    corners = compose_corners()
    require_same_devices(base, [config for _, config in corners])
    slots = lease_slots(base, slots=None if space is not None else 1)
    launcher = start_launcher(
        composer, [config for _, config in corners], threads=slots[0].threads, log=store_dir / "server.log"
    )
    with closing(launcher), preparing(console):
        if inspect_models(launcher, composer, [config for _, config in corners], slots[0], store_dir):
            corners = compose_corners()
        report = check(
            launcher,
            composer,
            corners,
            slots,
            store_dir,
            space=space,
            compose=compose,
            judged=judged,
        )
    ranks = f" of {slots[0].devices} ranks each" if slots[0].devices > 1 else ""
    num_keys = 0 if space is None else len(space.keys)
    what = f"{num_keys} key{'s' if num_keys > 1 else ''} searched, {len(slots)} at once" if num_keys else "a single run"
    return CheckResult(title=f"{' '.join(composer.data_and_model)}: {what}{ranks}", report=report)


@contextmanager
def _spare_store(real: Path) -> Iterator[Path]:
    """Make a store for a while, with the decoded data of the real one, which messages name."""
    folder = Path(tempfile.mkdtemp(prefix="lightsweep-check-"))
    data = folder / _DATA
    data.mkdir()
    for entry in (real / _DATA).glob("*/"):
        (data / entry.name).symlink_to(entry.resolve(), target_is_directory=True)
    keeps_logs = False
    try:
        yield folder
    except LightsweepError as error:
        keeps_logs = isinstance(error, PreflightError)
        raise type(error)(str(error).replace(str(data), str((real / _DATA).resolve()))) from error
    finally:
        shutil.rmtree(data if keeps_logs else folder, ignore_errors=True)
