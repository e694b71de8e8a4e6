"""What a check makes of what its processes say: whom it blames, what it warns of, and what it leaves behind."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeLauncher

from sweeps.config.composer import Composer, load_frozen
from sweeps.core.errors import ConfigError, PreflightError
from sweeps.core.messages import CheckPassed, CornerResult, Event, Exited, Failed, Memory
from sweeps.driver.jobs import JobBuilder
from sweeps.driver.preflight import check, host_memory_bytes
from sweeps.driver.preflight_report import CheckReport
from sweeps.launchers.slots import Slot
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space

PASSED = CheckPassed(metrics=("val/acc",), num_parameters=10, duration_s=0.5)
MB = 1_000_000


class Processes(FakeLauncher):
    """Answers a check with what `say` tells of each config, in the order of the configs."""

    def __init__(self, say: Callable[[Any], Event], final_message: Event = PASSED) -> None:
        super().__init__(script=lambda number: [])
        self.say = say
        self.final_message = final_message
        self.kinds: list[tuple[str, int]] = []

    def start(self, number: int, job: Any, num_ranks: int) -> None:
        folder = Path(job.folder)
        configs = [load_frozen(folder), *(load_frozen(path.parent) for path in sorted(folder.glob("0*/config.yaml")))]
        self.kinds.append((job.kind, len(configs)))
        said: list[Event] = []
        for config in configs:
            said.append(self.say(config))
            if isinstance(said[-1], Failed):
                break
        end = [] if isinstance(said[-1], Failed) else [self.final_message]
        self.script = lambda number: [*said, *end, Exited()]
        (folder / "rank0.log").write_text("what it printed")
        super().start(number, job, num_ranks)


def tried(size: int = MB, parameters: int = 10, digest: str = "", unused: Sequence[str] = ()) -> CornerResult:
    memory = Memory(parameters=0, gradients=0, optimizer=0, activations=size)
    return CornerResult(was_run=True, num_parameters=parameters, memory=memory, digest=digest, unused=tuple(unused))


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer("sweep", ["trainer=cpu", "search=none"])


@pytest.fixture
def run(composer: Composer, tmp_path: Path) -> Callable[..., CheckReport]:
    def run(
        launcher: FakeLauncher,
        space: Space,
        slots: Sequence[Slot] = (Slot(index=0, threads=1),),
        composer: Composer = composer,
    ) -> CheckReport:
        def compose(values: Any) -> Any:
            return composer.trial(values, 0)

        corners = [(point, compose(point)) for point in space.corners()]
        return check(
            launcher, JobBuilder.of(composer), corners, slots, tmp_path / "store", space=space, compose=compose
        )

    return run


DEPTHS = parse_space({"model.depth": "range(1,4)", "model.width": "8,16", "optimizer.lr": "0.1,0.2"})


def depth_of(config: Any) -> int:
    depth: int = config["model"]["depth"]
    return depth


# --- whom it blames ------------------------------------------------------------------------------------


def test_a_corner_that_fails_is_named_by_what_differs_from_the_first(run: Any, tmp_path: Path) -> None:
    failed = Failed(cause="error", message="RuntimeError: too deep")
    with pytest.raises(PreflightError, match=r"^model.depth=3: RuntimeError: too deep\n") as caught:
        run(Processes(lambda config: failed if depth_of(config) == 3 else tried()), DEPTHS)
    (log,) = (tmp_path / "store").glob("check-*/rank0.log")
    assert str(log) in str(caught.value)


def test_an_error_of_usage_names_the_corner_and_leaves_nothing(run: Any, tmp_path: Path) -> None:
    failed = Failed(cause="usage", message="model: MLP refuses its arguments.")
    with pytest.raises(ConfigError, match=r"^model.depth=3: model: MLP refuses its arguments.$"):
        run(Processes(lambda config: failed if depth_of(config) == 3 else tried()), DEPTHS)
    assert list((tmp_path / "store").iterdir()) == []


def test_of_the_first_corner_all_values_are_named_after_the_message(run: Any) -> None:
    with pytest.raises(
        PreflightError, match=r"^OSError: no data\n.* with model.depth=1 model.width=8 optimizer.lr=0.1"
    ):
        run(Processes(lambda config: Failed(cause="error", message="OSError: no data")), DEPTHS)
    with pytest.raises(ConfigError, match=r"^never logs$"):
        run(Processes(lambda config: Failed(cause="usage", message="never logs")), DEPTHS)


def test_an_interrupt_kills_the_process_and_leaves_nothing(run: Any, tmp_path: Path) -> None:
    launcher = Processes(lambda config: tried())

    def interrupt(polls: int) -> None:
        if polls == 2:
            raise KeyboardInterrupt

    launcher.on_poll = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(launcher, DEPTHS)
    assert launcher.killed == [-1]
    assert list((tmp_path / "store").iterdir()) == []


# --- what it finds -------------------------------------------------------------------------------------


def test_a_check_that_passes_leaves_nothing_and_warns_of_nothing(run: Any, tmp_path: Path) -> None:
    report = run(Processes(lambda config: tried(digest=str(config))), DEPTHS)
    assert (report.num_corners, report.num_run, report.warnings) == (4, 4, [])
    assert list((tmp_path / "store").iterdir()) == []


def test_what_is_large_is_joined_and_measured(run: Any) -> None:
    def say(config: Any) -> CornerResult:
        width = config["model"]["width"]
        return tried(depth_of(config) * width, parameters=depth_of(config) * width, digest=str(config))

    launcher = Processes(say)
    report = run(launcher, DEPTHS)
    assert launcher.kinds == [("check", 4), ("measure", 1)]
    assert report.largest.values == report.peak_memory.values == {"model.depth": 3, "model.width": 16}
    assert (report.smallest.num_parameters, report.largest.num_parameters) == (8, 48)
    assert report.peak_memory.memory.total == 48


def test_each_element_of_a_list_is_as_large_as_it_can_be(run: Any) -> None:
    space = parse_space({"model.depth": "range(1,4)", "model.width": {"values": "8,16", "repeat": "model.depth"}})
    report = run(Processes(lambda config: tried(sum(config["model"]["width"]), digest=str(config))), space)
    assert report.peak_memory.values == {"model.depth": 3, "model.width": [16, 16, 16]}


def test_what_is_large_together_and_fails_is_a_warning(run: Any) -> None:
    def say(config: Any) -> Event:
        if depth_of(config) == 3 and config["model"]["width"] == 16:
            return Failed(cause="memory", message="MemoryError")
        return tried(depth_of(config) * config["model"]["width"], digest=str(config))

    (warning,) = run(Processes(say), DEPTHS).warnings
    assert "model.depth=3 model.width=16" in warning and "MemoryError" in warning


def test_what_is_far_too_large_together_is_not_tried(run: Any) -> None:
    launcher = Processes(lambda config: tried(10 ** (8 + 2 * depth_of(config) + (config["model"]["width"] == 16) * 6)))
    report = run(launcher, DEPTHS)
    assert launcher.kinds == [("check", 4)]
    assert any("extrapolated" in warning for warning in report.warnings)


def test_a_key_that_no_run_reads_is_named(run: Any) -> None:
    space = parse_space({"model.depth": "range(1,4)", "study.max_failures": "range(3,9)"})
    launcher = Processes(lambda config: tried(digest=str(config)))
    report = run(launcher, space)
    assert report.unread == ("study.max_failures",)
    assert launcher.kinds == [("check", 3)]
    assert "study.max_failures changes nothing" in report.warnings[0]


def test_a_key_that_is_read_and_changes_nothing_is_named_after_a_second_look(run: Any) -> None:
    launcher = Processes(lambda config: tried(digest=str((depth_of(config), config["optimizer"]))))
    report = run(launcher, DEPTHS)
    assert report.idle == ("model.width",)
    assert launcher.kinds[1][0] == "compare"


@pytest.mark.parametrize(
    ("key", "values"), [("data.num_workers", "0,2"), ("trainer.max_epochs", "5,10")], ids=["workers", "epochs"]
)
def test_keys_that_act_otherwise_are_not_suspected(run: Any, key: str, values: str) -> None:
    composer = Composer("sweep", ["trainer=cpu", "search=none", "++data.num_workers=0"])
    launcher = Processes(lambda config: tried(digest=str(depth_of(config))))
    report = run(launcher, parse_space({"model.depth": "1,2", key: values}), composer=composer)
    assert (report.unread, report.idle) == ((), ())
    assert launcher.kinds == [("check", 3)]


def test_parameters_without_a_gradient_are_told_once_and_where(run: Any) -> None:
    def say(config: Any) -> CornerResult:
        return tried(digest=str(config), unused=["net.a", *(["net.b"] if depth_of(config) == 3 else [])])

    first, second = run(Processes(say), DEPTHS).warnings
    assert first.startswith("net.a got no gradient in the first batches: use it")
    assert second.startswith("net.b got no gradient in the first batches with model.depth=3: ")


def test_more_ranks_than_memory_has_room_for_are_a_warning(run: Any) -> None:
    slots = [Slot(index=index, threads=1, devices=2) for index in range(4)]
    size = host_memory_bytes() // 6
    (warning,) = run(Processes(lambda config: tried(size, digest=str(config))), DEPTHS, slots).warnings
    assert warning.startswith("8 ranks at once may take about") and "launcher.slots" in warning
    assert run(Processes(lambda config: tried(size, digest=str(config))), DEPTHS, slots[:2]).warnings == []


def test_trials_that_share_a_gpu_share_its_memory(run: Any) -> None:
    slots = [Slot(index=index, threads=1, gpus=(gpu,)) for index, gpu in enumerate("010")]
    passed = CheckPassed(metrics=(), device_bytes=100 * MB)
    report = run(Processes(lambda config: tried(60 * MB, digest=str(config)), passed), DEPTHS, slots)
    assert (report.available.where, report.available.num_ranks) == ("gpu", 2)
    assert "100 MB of memory are free on the GPU" in report.warnings[0]


def test_corners_that_were_not_run_are_counted(run: Any) -> None:
    report = run(
        Processes(
            lambda config: (
                tried(digest=str(config)) if depth_of(config) == 1 else CornerResult(was_run=False, num_parameters=7)
            )
        ),
        DEPTHS,
    )
    assert (report.num_corners, report.num_run) == (4, 3)
    assert report.warnings == ["1 of 4 corners were built, but not run: there was no more time for it."]


@pytest.mark.parametrize(("limit", "free"), [("max", 4096), ("3000", 1000), ("1000", 0)])
def test_free_memory_is_that_of_the_host_or_the_container(tmp_path: Path, limit: str, free: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:  4 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert host_memory_bytes(tmp_path, tmp_path) == free
