"""`lightsweep check`: do everything that a sweep does before its first trial; the store is not changed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.config.composer import Composer
from sweeps.config.quoting import verbatim
from sweeps.core.errors import LightsweepError, PreflightError
from sweeps.driver.preflight_report import CheckReport
from sweeps.driver.session import CommandLine, Reporter, Session, lease_slots, ranks_of
from sweeps.driver.sweep_setup import plan_sweep, require_logged
from sweeps.driver.train import only_corner
from sweeps.search.space.declare import split_overrides

__all__ = ["CheckResult", "dry_run", "spare_store"]

_DATA = "data"  # the folder of decoded data in the store


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What was checked, and what was found."""

    title: str
    report: CheckReport


def dry_run(command: CommandLine, reporter: Reporter) -> CheckResult:
    """Check what the command line describes, a sweep or a single run, in a temporary store.

    Raises:
        LightsweepError: As `sweep` or `train` would before its first trial. The logs that a `PreflightError` names
            stay in the temporary folder.
    """
    typed = Composer(command.config_name, split_overrides(command.overrides)[0], command.config_dir)
    with spare_store(Path(typed.base()["store_dir"])) as store_dir:
        aside = replace(command, overrides=(*command.overrides, f"store_dir={verbatim(str(store_dir))}"))
        return (_check_sweep if "study" in typed.tree else _check_run)(aside, reporter)


def _check_run(command: CommandLine, reporter: Reporter) -> CheckResult:
    composer = Composer(command.config_name, command.overrides, command.config_dir)
    slots = lease_slots(composer.base(), slots=1)
    with (
        Session(command, composer, only_corner(composer), slots, reporter=reporter) as session,
        reporter.preparing(),
    ):
        session.inspect()
        return CheckResult(title=_title(session, "a single run"), report=session.check())


def _check_sweep(command: CommandLine, reporter: Reporter) -> CheckResult:
    plan = plan_sweep(command)
    slots = lease_slots(plan.config, slots=None)
    num_keys = len(plan.space.keys)
    with Session(command, plan.composer, plan.corners, slots, reporter=reporter) as session, reporter.preparing():
        session.inspect()
        report = session.check(space=plan.space, compose=plan.trial, judged=plan.judged)
        title = _title(session, f"{num_keys} key{'s' if num_keys > 1 else ''} searched, {len(slots)} at once")
    require_logged(plan.config, report.metrics, report.late)
    return CheckResult(title=title, report=report)


def _title(session: Session, what: str) -> str:
    return f"{' '.join(session.composer.data_and_model)}: {what}{ranks_of(session.slots[0])}"


@contextmanager
def spare_store(real: Path) -> Iterator[Path]:
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
