"""Where a training goes on: the run never names a state whose file is gone, however slow the store is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.composer import Config, fingerprint
from sweeps.core import paths
from sweeps.driver.resume_points import ResumePoints
from sweeps.driver.trial_runs import InterruptedRun
from sweeps.tracking.tags import RESUME_STEP

CONFIG: Config = {"seed": 1}


class SlowRecorder:
    """Writes tags only when it is told to."""

    def __init__(self) -> None:
        self.step: int | None = None
        self._queue: list[Callable[[], None]] = []

    def tags(self, run: Any, run_tags: Mapping[str, str]) -> None:
        self._queue.append(lambda: setattr(self, "step", int(run_tags[RESUME_STEP])))

    def when_written(self, run: Any, do: Callable[[], None]) -> None:
        self._queue.append(do)

    def write(self, how_many: int | None = None) -> None:
        for do in self._queue[:how_many]:
            do()
        del self._queue[:how_many]


@pytest.fixture
def recorder() -> SlowRecorder:
    return SlowRecorder()


def resume_points_of(recorder: SlowRecorder, *, step: int | None = None) -> ResumePoints:
    runs = {} if step is None else {0: InterruptedRun(run_id="run", resume_step=step)}
    return ResumePoints(recorder, runs)  # type: ignore[arg-type]


def put(folder: Path, step: int) -> None:
    paths.resume_point(folder, fingerprint(CONFIG), step).touch()


def steps(folder: Path) -> list[int]:
    return sorted(paths.resume_points(folder).values())


def test_the_file_of_the_step_in_the_store_is_kept_while_the_store_is_slow(
    recorder: SlowRecorder, tmp_path: Path
) -> None:
    where = resume_points_of(recorder)
    for step in range(1, 100):
        put(tmp_path, step)
        where.saved(0, tmp_path, step)
        if step % 10 == 0:
            recorder.write(1)  # whether the driver has heard of it or not
        elif step % 10 == 5:
            recorder.write()
        assert recorder.step is None or recorder.step in steps(tmp_path), "it would begin anew"
        assert step in steps(tmp_path) and len(steps(tmp_path)) <= 3
    assert recorder.step is not None and recorder.step > 80


def test_files_that_a_driver_has_not_heard_of_yet_are_kept(recorder: SlowRecorder, tmp_path: Path) -> None:
    where = resume_points_of(recorder)
    for step in (1, 2, 3, 4):
        put(tmp_path, step)
    where.saved(0, tmp_path, 2)
    assert steps(tmp_path) == [2, 3, 4]


def test_what_an_earlier_driver_left_is_kept_until_the_run_has_a_later_step(
    recorder: SlowRecorder, tmp_path: Path
) -> None:
    recorder.step = 5
    for step in (3, 5, 9):
        put(tmp_path, step)
    where = resume_points_of(recorder, step=5)
    assert where.step(0, tmp_path, CONFIG) == 5
    put(tmp_path, 7)
    where.saved(0, tmp_path, 7)
    assert steps(tmp_path) == [5, 7, 9]
    recorder.write()
    put(tmp_path, 10)
    where.saved(0, tmp_path, 10)
    assert steps(tmp_path) == [7, 10]


def test_an_interrupted_training_goes_on_from_its_last_state(recorder: SlowRecorder, tmp_path: Path) -> None:
    where = resume_points_of(recorder)
    for step in (1, 2, 3):
        put(tmp_path, step)
        where.saved(0, tmp_path, step)
    where.ended(0, tmp_path, is_interrupted=True)
    recorder.write()
    assert recorder.step == 3 and where.step(0, tmp_path, CONFIG) == 3


def test_nothing_is_left_of_a_training_that_has_ended(recorder: SlowRecorder, tmp_path: Path) -> None:
    where = resume_points_of(recorder)
    put(tmp_path, 1)
    where.saved(0, tmp_path, 1)
    (tmp_path / "resume-0123-2.half").touch()
    where.ended(0, tmp_path, is_interrupted=False)
    assert not list(tmp_path.iterdir())


def test_a_state_of_another_config_or_whose_file_is_gone_is_not_gone_on_from(
    recorder: SlowRecorder, tmp_path: Path
) -> None:
    where = resume_points_of(recorder, step=5)
    assert where.step(0, tmp_path, CONFIG) is None
    put(tmp_path, 5)
    assert where.step(0, tmp_path, CONFIG) == 5
    assert where.step(0, tmp_path, {"seed": 2}) is None
    assert where.step(1, tmp_path, CONFIG) is None
