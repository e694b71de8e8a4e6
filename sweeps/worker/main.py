"""The entry of a rank: set the process up, do the job, and report its end. Nothing here reads a command line."""

import faulthandler
import io
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from sweeps.config.composer import fingerprint, load_frozen
from sweeps.core import lightning_alias, paths
from sweeps.core.errors import ConfigError, LightsweepError
from sweeps.core.failure_text import leaves_of, one_line, traceback_text
from sweeps.core.messages import Cause, CheckPassed, Failed, Finished, Joined, RankJob
from sweeps.core.secrets import Secrets, reveal
from sweeps.worker.channel import Channel, die_with_driver

if TYPE_CHECKING:
    from sweeps.worker.process_group import Ranks

__all__ = ["main", "pool_sizes", "warm_up"]

_POLL_S = 0.2
_POOLS = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")


def main(connection: Connection) -> None:
    """Wait for a job and do it; the last event is `Finished`, `CheckPassed` or `Failed`.

    A process that ends without such a final message has failed, whatever its exit code.
    """
    os.setpgid(0, 0)  # one signal reaches the rank and all that it starts; the terminal's Ctrl-C does not
    die_with_driver()
    lightning_alias.install()
    lightning_alias.install_in_workers()
    if "fork" in multiprocessing.get_all_start_methods():  # as in a program of its own: a loader's workers start in
        multiprocessing.set_start_method("fork", force=True)  # milliseconds; a server's children take a server again
    _redirect_output(os.open(os.devnull, os.O_WRONLY))
    with suppress(Exception):  # the job meets the error again, and can tell
        warm_up()
    try:
        job: RankJob = connection.recv()
        serves = job.place.rank == 0 and job.place.world_size > 1 and not job.place.is_given
        listener = reduction.recv_handle(connection) if serves else None
    except EOFError:  # the driver has ended and needs this process no more
        return
    secrets = Secrets()
    try:
        final_message = _assign_job(job, connection, listener, secrets)
    except BaseException as error:  # before there was anything to train, as on a full disk
        final_message = Failed(
            cause="error", message=one_line(error, secrets.hide), traceback=traceback_text(error, secrets.hide)
        )
        connection.send(final_message)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the user's code may have closed it, and the disk may be full
            stream.flush()
    os._exit(1 if isinstance(final_message, Failed) else 0)  # skip tear-down: libraries' threads may hang there


def _assign_job(
    job: RankJob, connection: Connection, listener: int | None, secrets: Secrets
) -> Finished | CheckPassed | Failed:
    """Set the process up for its job, and do it."""
    folder = Path(job.folder)
    if any(job.hidden.values()):
        secrets.add(value for hidden in job.hidden.values() for _, value in hidden)
        os.umask(0o077)  # logs and checkpoints may have in them what the user's modules were given
    folder.mkdir(parents=True, exist_ok=True)
    _redirect_output(paths.open_to_append(paths.rank_log(folder, job.place.rank)))
    os.environ.update(_environment(job))
    sys.path[:0] = [path for path in job.python_path if path not in sys.path]
    config = load_frozen(folder)
    channel = Channel(
        connection,
        flush_interval_s=config["tracking"]["flush_interval_s"],
        prunes=job.prunes,
        records=job.place.rank == 0,
        hide=secrets.hide_in,
    )
    _own_signals(channel)
    return _run(job, config, channel, listener, secrets)


def _environment(job: RankJob) -> dict[str, str]:
    """Return what libraries read: how many threads, and where there are several ranks, which of them this is."""
    place, variables = job.place, pool_sizes(job.threads)
    if place.world_size > 1:
        variables |= {
            "RANK": str(place.rank),
            "LOCAL_RANK": str(place.local_rank),
            "WORLD_SIZE": str(place.world_size),
            "LOCAL_WORLD_SIZE": str(place.world_size // place.num_nodes),
        }
    return variables | dict(job.environment)


def pool_sizes(threads: int) -> dict[str, str]:
    """Return the variables by which libraries such as NumPy's learn, when they are loaded, how many threads to use."""
    return dict.fromkeys((f"{library}_NUM_THREADS" for library in _POOLS), str(threads))


def warm_up() -> None:
    """Do what every training run does once at its start, before there is a job: imports, lazy parts of torch.

    It leaves no trace in a result: all streams are seeded when the job comes.
    """
    import torch

    from sweeps.worker import fit, preflight, process_group  # noqa: F401
    from sweeps.worker.trainer import quieten

    quieten()
    if torch.version.cuda:  # a backward pass and a step ask for the GPUs, before the job says which are visible
        return
    torch.set_num_threads(1)
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.zeros(1, 1)).sum().backward()
    optimizer.step()


def _run(
    job: RankJob,
    config: dict[str, object],
    channel: Channel,
    listener: int | None,
    secrets: Secrets,
) -> Finished | CheckPassed | Failed:
    """Join the other ranks, do the job, report its end, and leave with the others."""
    from sweeps.worker.process_group import Ranks

    ranks = Ranks(job.place)
    final_message: Finished | CheckPassed | Failed
    try:
        _join(ranks, job, config, channel, listener)
        channel.send(Joined())
        final_message = _do(job, config, channel, ranks)
    except BaseException as error:  # the boundary of the process: whatever it is, the driver must receive it
        final_message = _failed(error, ranks, secrets)
        with suppress(Exception):  # the user's code may have closed it, and the disk may be full
            print(final_message.traceback, file=sys.stderr, flush=True)
    channel.send(final_message)
    if not isinstance(final_message, Failed):
        ranks.leave()
    return final_message


def _join(ranks: "Ranks", job: RankJob, config: dict[str, object], channel: Channel, listener: int | None) -> None:
    """Join the other ranks; where others start them, watch from now on what this rank cannot see while it waits."""
    import torch

    from sweeps.worker import building, fit, preflight  # noqa: F401 - an import that fails is reported before joining

    torch.set_num_threads(job.threads)
    has_joined = threading.Event()
    if job.place.is_given:
        arguments = (ranks, channel, has_joined)
        threading.Thread(target=_watch_peers, args=arguments, name="group", daemon=True).start()
    ranks.join(config, job, listener)
    has_joined.set()


def _do(job: RankJob, config: dict[str, object], channel: Channel, ranks: "Ranks") -> Finished | CheckPassed:
    """Train the config, or try it and those in the folders below that of the job."""
    from sweeps.worker import building, fit, preflight

    if job.kind == "fit":
        return fit.fit(config, channel, ranks, job)
    corners = [corner for corner in sorted(Path(job.folder).iterdir()) if (corner / paths.CONFIG).is_file()]
    configs = [config, *map(load_frozen, corners)]
    configs = [reveal(one, job.hidden.get(fingerprint(one), ())) for one in configs]
    do = {
        "check": preflight.try_corners,
        "measure": preflight.measure,
        "compare": preflight.compare,
        "inspect_data": preflight.inspect_data,
        "inspect": building.inspect_models,
    }[job.kind]
    return do(configs, channel, ranks, job)


def _watch_peers(ranks: "Ranks", channel: Channel, has_joined: threading.Event) -> None:
    """End a rank of a group that others start, which cannot see the reason itself while it waits in a collective.

    Until it has joined, the reason is an order to stop; afterwards, the failure of another rank, which only the
    group's store knows, because that rank has another launcher.
    """
    while not has_joined.wait(_POLL_S):
        if channel.stop_requested.is_set():
            os._exit(1)
    cause, message = ranks.wait_for_failure()
    channel.send(Failed(cause=cause, message=message))
    os._exit(1)


def _failed(error: BaseException, ranks: "Ranks", secrets: Secrets) -> Failed:
    """Return the failure for the driver; this must work even where torch cannot be imported."""
    cause, message = _cause(error), _message(error, secrets)
    if cause == "peer":
        told = ranks.first_failure()
        if told is not None and ranks.place.is_given:
            cause = "elsewhere"
        message = told or message
    else:
        ranks.publish_failure(message)
    return Failed(cause=cause, message=message, traceback=traceback_text(error, secrets.hide))


def _cause(error: BaseException) -> Cause:
    """Return the cause that all exceptions of a group have in common, if they have one."""
    try:
        causes = {_cause_of_one(leaf) for leaf in leaves_of(error)}
    except Exception:  # the class of the exception raises wherever it is touched, or torch cannot be imported
        return "error"
    return causes.pop() if len(causes) == 1 else "error"


def _cause_of_one(error: BaseException) -> Cause:
    import torch

    from sweeps.worker.callbacks import DivergedError
    from sweeps.worker.process_group import is_peer_failure

    if any(isinstance(one, (MemoryError, torch.OutOfMemoryError)) for one in (error, error.__cause__)):
        return "memory"
    if isinstance(error, DivergedError):
        return "diverged"
    if is_peer_failure(error):
        return "peer"
    return "usage" if isinstance(error, ConfigError) else "error"


def _message(error: BaseException, secrets: Secrets) -> str:
    try:
        from sweeps.worker.callbacks import DivergedError
    except Exception:  # that is what has failed
        return one_line(error, secrets.hide)
    return one_line(error, secrets.hide, ours=(LightsweepError, DivergedError))


def _redirect_output(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a rank that is killed has lost nothing that it printed
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # whatever PYTHONIOENCODING says


def _own_signals(channel: Channel) -> None:
    """Take SIGTERM as the order to stop after the running step."""

    def request_stop(signum: int, frame: FrameType | None) -> None:
        channel.stop_requested.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()  # where native code crashes, the launcher reads the place in the log
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the launcher asks a silent rank where it is
