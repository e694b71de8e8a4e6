"""Record runs from one thread of the driver, so that neither training nor the search waits for the store.

A failed write is retried with growing pauses while the sweep continues. At the driver's end, data that is still unsent
after `timeout_s` goes to a file, one JSON object a line, so that nothing is lost. A store that responds, but more
slowly than trials end, delays the start of the next ones.

Data that the store rejects is sent again in parts, so that one bad point, param or tag does not lose the others; only
what is rejected alone goes to the file.

The description of a run (`note`) may change often: it is written once in a while, and at the end of the run.
"""

import json
import logging
import os
import queue
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError

from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.messages import MetricPoint
from sweeps.core.secrets import Secrets
from sweeps.tracking.operations import Operation, merged
from sweeps.tracking.store import Note, RunRecorder, RunStore, Unsent
from sweeps.tracking.tags import NOTE
from sweeps.tracking.ui import Pages, RunKey

__all__ = ["Recorder"]

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_LAST_WAIT_S = 5.0
_MAX_BEHIND = 1000  # operations; about a hundred trials, and some seconds' work
_LONGEST_DELAY_S = 1.0  # of one trial
_WORDY = ("start", "params", "tags", "end")  # kinds of operations that have texts of the user's
_HOPELESS = (
    *(StoreError, DataError, IntegrityError, KeyError, TypeError, UnicodeError, OverflowError),
    *(FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError),
)
_REFUSED = (
    *("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"),
    *("BAD_REQUEST", "MALFORMED_REQUEST", "PERMISSION_DENIED", "ENDPOINT_NOT_FOUND"),
)
_OF_ALL = ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "ENDPOINT_NOT_FOUND")  # refusals of no single part
_MOST_REFUSALS = 256  # of the parts of an operation, if not one is taken: then the whole run is, such as a deleted one
_MAX_POINTS = 1000  # of one request
_MOST_ALIKE = 100  # records that are looked back on, so that none is logged twice in a row
_MAX_AT_ONCE = 50  # operations between two looks at how far behind the recorder is


class _WholeError(StoreError):
    """What keeps an operation from being written, in parts also: its run is not in the store, or time is over."""


class Recorder(RunRecorder):
    """Queues what happens to runs and writes it to a store in the background.

    Args:
        open_store: Opens the store; called in the recorder's thread, since importing MLflow takes seconds.
        unsent: The file for what could not be written.
        timeout_s: How long `close` waits for a store that does not respond.
        note_interval_s: How long a note waits for a newer one to take its place.
        secrets: What must not be written: neither to the store nor to the file of the unsent.

    Attributes:
        busy_s: Seconds of work in the background so far.
    """

    def __init__(
        self,
        open_store: Callable[[], RunStore],
        *,
        unsent: Path,
        timeout_s: float = 60.0,
        note_interval_s: float = 5.0,
        secrets: Secrets | None = None,
    ) -> None:
        self.busy_s = 0.0
        self._open_store = open_store
        self._unsent = unsent
        self._timeout_s = timeout_s
        self._note_interval_s = note_interval_s
        self._secrets = secrets or Secrets({})
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._run_ids: dict[RunKey, str] = {}
        self._notes: dict[RunKey, tuple[Note, float]] = {}  # that are not written yet, and when they shall be
        self._known: dict[RunKey, dict[str, deque[int]]] = {}  # of runs that go on: the steps that come again
        self._opened = threading.Event()
        self._error: BaseException | None = None
        self._store: RunStore | None = None
        self._deadline: float | None = None
        self._records_unsent: list[str] = []
        self._num_put = 0  # operations so far; counted by the callers' thread
        self._num_done = 0  # likewise those that are written or kept; counted by the recorder's
        self._is_answered = True  # the last attempt to write came through
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def wait_until_open(self) -> RunStore:
        """Wait until the store is open and return it.

        Raises:
            StoreError: The store cannot be opened.
        """
        self._opened.wait()
        if self._error is not None:
            raise self._error
        assert self._store is not None
        return self._store

    def start(
        self,
        run: RunKey,
        name: str,
        *,
        params: Mapping[str, object],
        run_tags: Mapping[str, str],
        parent: RunKey | None = None,
    ) -> None:
        """Create a run; waits a little if very much is to be written still, and the store answers."""
        self._wait_for_room()
        self._put("start", run, name=name, run_tags=dict(run_tags), parent=parent, start_time_ms=_now_ms())
        self._put("params", run, params=dict(params))  # apart, so that a second try makes no second run

    def resume(self, run: RunKey, run_id: str | None = None, *, step: int = 0) -> None:
        """Go on with a run that was interrupted; points that it has already are not added again.

        Args:
            run: The run.
            run_id: Its id in the store; None for a run of this recorder's own.
            step: The step from which its points come again.
        """
        self._put("resume", run, run_id=run_id, step=step)

    def metrics(self, run: RunKey, points: Iterable[MetricPoint]) -> None:
        """Add metric points to a run."""
        self._put("metrics", run, points=list(points))

    def tags(self, run: RunKey, run_tags: Mapping[str, str]) -> None:
        """Set tags on a run."""
        self._put("tags", run, run_tags=dict(run_tags))

    def note(self, run: RunKey, note: Note) -> None:
        """Describe a run; of the notes that come within some seconds the last is written.

        Args:
            run: The run.
            note: Called in the recorder's thread, so that it must not read what changes.
        """
        self._put("note", run, note=note)

    def know(self, run_ids: Mapping[RunKey, str]) -> None:
        """Take note of runs that are in the store already, so that notes can point to them."""
        self._run_ids |= {run: run_id for run, run_id in run_ids.items() if run not in self._run_ids}

    def artifact(self, run: RunKey, path: Path, artifact_path: str = "") -> None:
        """Copy a file, which must stay until it is copied, into a run's artifacts."""
        self._put("artifact", run, path=str(path), artifact_path=artifact_path)

    def end(self, run: RunKey, status: str, run_tags: Mapping[str, str]) -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self._put("end", run, status=status, run_tags=dict(run_tags), end_time_ms=_now_ms())

    def when_written(self, run: RunKey, do: Callable[[], None]) -> None:
        """Call `do` in the recorder's thread once what was queued so far of a run is written, or kept as unsent."""
        self._put("call", run, do=do)

    def run_id(self, run: RunKey) -> str | None:
        """Return the id of a run, once it is written."""
        return self._run_ids.get(run)

    def wait_until_written(self, timeout_s: float) -> bool:
        """Wait until what was queued so far is written or kept; False if that takes longer than `timeout_s`."""
        awaited, until = self._num_put, time.monotonic() + timeout_s
        while self._num_done < awaited and time.monotonic() < until:
            time.sleep(0.005)
        return self._num_done >= awaited

    @property
    def unsent(self) -> Unsent:
        """What went to the file of the unsent so far."""
        return Unsent(file=self._unsent, records=tuple(self._records_unsent))

    def close(self) -> int:
        """Write what is queued, and return how many records had to go to the file of the unsent."""
        self._deadline = time.monotonic() + self._timeout_s
        self._queue.put(None)
        try:
            self._thread.join()
        except KeyboardInterrupt:  # the user waits no longer: what is left goes to the file
            self._deadline = 0.0
            self._thread.join(_LAST_WAIT_S)
        return len(self._records_unsent)

    def _wait_for_room(self) -> None:
        """Let the trials go at the store's pace: else memory grows, and `close` cannot write what is left in time."""
        until = time.monotonic() + _LONGEST_DELAY_S
        while self._num_put - self._num_done > _MAX_BEHIND and self._is_answered and time.monotonic() < until:
            time.sleep(0.01)

    def _put(self, kind: str, run: RunKey, **arguments: Any) -> None:
        self._num_put += 1
        if kind in _WORDY:
            arguments = self._secrets.hide_in(arguments)
        self._queue.put(Operation(kind=kind, run=run, arguments=arguments))

    # --- the recorder's thread -----------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._store = self._open_store()
        except BaseException as error:
            self._error = error
        self._opened.set()
        if self._store is None:
            return
        is_closing = False
        while not is_closing:
            operations, is_closing = self._drain()
            for operation in merged(operations):
                if operation.kind == "note":
                    _, due_s = self._notes.get(operation.run, (None, time.monotonic() + self._note_interval_s))
                    self._notes[operation.run] = (operation.arguments["note"], due_s)
                    continue
                if operation.kind == "call":
                    operation.arguments["do"]()
                    continue
                if operation.kind == "end":  # in one transaction with it
                    operation.arguments["run_tags"] |= self._noted(operation.run)
                self._write(operation)
            self._write_notes(is_closing=is_closing)
            self._num_done += len(operations)

    def _drain(self) -> tuple[list[Operation], bool]:
        """Wait for an operation and take those that are queued by then, up to a limit."""
        operations: list[Operation] = []
        due_s = min((due_s for _, due_s in self._notes.values()), default=None)
        try:
            operation = self._queue.get(timeout=None if due_s is None else max(0.0, due_s - time.monotonic()))
        except queue.Empty:
            return operations, False
        while operation is not None:
            operations.append(operation)
            if len(operations) == _MAX_AT_ONCE:
                return operations, False
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                return operations, False
        return operations, True

    def _write_notes(self, *, is_closing: bool) -> None:
        """Write the notes that have waited for long enough."""
        now_s = time.monotonic()
        for run in [run for run, (_, due_s) in self._notes.items() if is_closing or due_s <= now_s]:
            run_tags = self._noted(run)
            if run_tags:
                self._write(Operation(kind="tags", run=run, arguments={"run_tags": run_tags}))

    def _noted(self, run: RunKey) -> dict[str, str]:
        """Take the note that waits for a run, as the tag that MLflow shows."""
        note, _ = self._notes.pop(run, (None, 0.0))
        if note is None or self._store is None:
            return {}
        try:
            return {NOTE: self._secrets.hide(note(Pages(self._store.experiment_id, self._run_ids)))}
        except Exception:  # a bug of ours; it must not end the thread, and with it the record
            _LOG.exception("the description of %s could not be written", run)
            return {}

    def _write(self, operation: Operation) -> None:
        """Write an operation; of one that the store refuses, all parts that it takes."""
        left, num_refused, is_any_taken = [operation], 0, False
        while left:
            part = left.pop()
            error = self._try(part)
            if error is None:
                is_any_taken = True
                continue
            num_refused += 1
            is_worth_it = is_any_taken or num_refused < _MOST_REFUSALS
            parts = part.parts() if is_worth_it and _is_of_a_part(error) else []
            if parts:
                left += reversed(parts)
            else:
                self._keep(part, error)

    def _try(self, operation: Operation) -> Exception | None:
        """Write one operation, again and again until it is written; return why not where that is in vain."""
        pause_s = _FIRST_PAUSE_S
        while True:
            if self._deadline is not None and time.monotonic() > self._deadline:
                return _WholeError("out of time")
            began = time.perf_counter()
            try:
                self._apply(operation)
                self._is_answered = True
                return None
            except Exception as error:  # whatever the store's client raises: nothing may be lost
                is_late = self._deadline is not None and time.monotonic() + pause_s > self._deadline
                if _is_hopeless(error) or is_late:
                    return error
                self._is_answered = False
                _LOG.warning("the tracking store does not answer, trying again in %.1f s: %s", pause_s, error)
            finally:
                self.busy_s += time.perf_counter() - began
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _apply(self, operation: Operation) -> None:
        store, arguments = self._store, dict(operation.arguments)
        assert store is not None
        if operation.kind == "start":
            parent = arguments.pop("parent")
            parent_id = None if parent is None else self._id_of(parent)
            self._run_ids[operation.run] = store.create_run(**arguments, parent=parent_id)
            return
        if operation.kind == "resume":
            run_id = arguments["run_id"] or self._id_of(operation.run)
            store.reopen_run(run_id)
            known = store.steps_from(run_id, arguments["step"])
            self._known[operation.run] = {key: deque(steps) for key, steps in known.items()}
            self._run_ids[operation.run] = run_id
            return
        run_id = self._id_of(operation.run)
        if operation.kind == "metrics":
            if not operation.is_sifted:  # a second try, or a part, must not ask again
                arguments["points"][:] = [p for p in arguments["points"] if not self._is_known(operation.run, p)]
                operation.is_sifted = True
            while arguments["points"]:  # what is written is gone: a second try writes no point twice
                store.log_metrics(run_id, arguments["points"][:_MAX_POINTS])
                del arguments["points"][:_MAX_POINTS]
        elif operation.kind == "params":
            store.log_params(run_id, arguments["params"])
        elif operation.kind == "tags":
            store.set_tags(run_id, arguments["run_tags"])
        elif operation.kind == "artifact":
            path = Path(arguments["path"])
            if not stat.S_ISREG(path.lstat().st_mode):  # a link, put there by others, would publish what it leads to
                raise StoreError(f"{path} must be a file, but is a link or none: it is not recorded.")
            with self._secrets.public_copy(path) as public:
                if public is None:
                    _LOG.warning(
                        "%s is not recorded: it has a secret of the configuration in it. A module saves what it was "
                        "given by save_hyperparameters(ignore=[...]).",
                        arguments["path"],
                    )
                else:
                    store.log_artifact(run_id, public, arguments["artifact_path"])
        else:
            if arguments["run_tags"]:
                store.set_tags(run_id, arguments["run_tags"])
            store.end_run(run_id, arguments["status"], end_time_ms=arguments["end_time_ms"])

    def _id_of(self, run: RunKey) -> str:
        if run not in self._run_ids:
            raise _WholeError(f"{run} is not in the store")
        return self._run_ids[run]

    def _is_known(self, run: RunKey, point: MetricPoint) -> bool:
        """Tell whether a run that goes on has this point from before. One step may have several points of a metric."""
        steps = self._known.get(run, {}).get(point.key)
        if not steps or point.step > steps[-1]:
            return False
        steps.popleft()
        return True

    def _keep(self, operation: Operation, error: Exception) -> None:
        words = operation.in_words()
        if words not in self._records_unsent[-_MOST_ALIKE:]:  # points of a metric come again and again
            _LOG.error("not recorded, kept in %s: %s: %s", self._unsent, words, error)
        self._records_unsent.append(words)
        record = asdict(operation) | {"run_id": self._run_ids.get(operation.run), "error": str(error)}
        del record["is_sifted"]
        try:
            line = json.dumps(record, default=str)
            self._unsent.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(paths.open_to_append(self._unsent), "a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except (OSError, TypeError, ValueError) as problem:  # the disk is full: the others may still get through
            _LOG.error("not even kept: %s", problem)


def _is_of_a_part(error: BaseException | None) -> bool:
    """Tell whether the store may take parts of what it has refused."""
    if isinstance(error, _WholeError) or not _is_hopeless(error):
        return False
    return getattr(error, "error_code", None) not in _OF_ALL


def _is_hopeless(error: BaseException | None) -> bool:
    """Tell whether trying again is in vain, since the store refuses the request itself, or it cannot be made."""
    while error is not None:
        if isinstance(error, _HOPELESS) or getattr(error, "error_code", None) in _REFUSED:
            return True
        error = error.__cause__  # of which MLflow makes an error of the server
    return False


def _now_ms() -> int:
    return int(time.time() * 1000)
