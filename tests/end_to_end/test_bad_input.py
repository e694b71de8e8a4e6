"""Whatever is typed wrongly: one clear message, the right status, no traceback, and no half-made run."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Command = Callable[..., CompletedProcess[str]]
SWEEP = ("sweep", "study.num_trials=2", "trainer.accelerator=cpu")
TRAIN = ("train", "trainer.max_epochs=1", "trainer.accelerator=cpu")


def complaint(result: CompletedProcess[str], status: int) -> str:
    """Return the message of a command that failed as it should, without noise."""
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith(("lightsweep: ", "usage: "))
    assert "Traceback" not in result.stderr and "INFO" not in result.stderr and "Warning" not in result.stderr
    return result.stderr


def runs(folder: Path) -> list[tuple[str]]:
    database = folder / "mlruns" / "mlflow.db"
    if not database.is_file():
        return []
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("select run_uuid from runs").fetchall()


def left_behind(folder: Path) -> set[str]:
    """Name what is in the store besides its databases, its log and decoded data."""
    store = folder / "mlruns"
    names = {path.name for path in store.iterdir()} if store.is_dir() else set()
    return {name for name in names if not name.startswith(("mlflow.db", "optuna.db", "server.log", "data"))}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRAIN, "optimizer.lrr=1"), "There is no key 'optimizer.lrr'. Did you mean 'optimizer.lr'"),
        ((*TRAIN, "modle=cnn"), "There is no key 'modle'. Did you mean 'model'"),
        ((*TRAIN, "model=resnet"), "model=resnet: there is no such option. Valid names: cnn, mlp"),
        ((*TRAIN, "optimizer=adm"), "Did you mean 'adam'"),
        ((*TRAIN, "trainer.max_epochs=abc"), "trainer.max_epochs must be an integer, but got 'abc'"),
        ((*TRAIN, "data=image_folder"), "data.root has no value"),
        ((*TRAIN, "trainer.devices=0"), "trainer.devices must be at least 1, but got 0"),
        ((*TRAIN, "--config-dir", "nowhere"), "--config-dir: 'nowhere' is not a directory"),
        ((*TRAIN, "--config-name", "mine"), "There is no primary config 'mine'"),
        ((*TRAIN, "model.depth=range(1,3)"), "model.depth=range(1,3)"),
        ((*TRAIN, "objective.direction=up"), "must be 'maximize' or 'minimize', but got 'up'"),
        ((*TRAIN, "optimizer.lr=${no.such}"), "optimizer.lr cannot be resolved"),
        ((*SWEEP, "optimizer.lr=interval(1,"), "optimizer.lr=interval(1,: the bracket ( at position 9 is not closed"),
        ((*SWEEP, "optimizer.lr=intervall(0.1,1)"), "there is no function 'intervall'. Did you mean 'interval'"),
        ((*SWEEP, "optimizer.lrr=interval(0.1,1)"), "There is no key 'optimizer.lrr'. Did you mean 'optimizer.lr'"),
        ((*SWEEP, "trainer.max_epochs=choice(a,b)"), "trainer.max_epochs must be an integer, but got 'a'"),
        ((*SWEEP, "optimizer=choice(adam,addam)"), "optimizer=addam: there is no such option. Did you mean 'adam'"),
        ((*SWEEP, "model=cnn", "search=mlp"), "There is no key 'model.width'"),
        ((*SWEEP, "trainer.devices=choice(1,2)"), "trainer.devices cannot be searched"),
        ((*SWEEP, "study.timeout_s=-1"), "study.timeout_s must be above 0"),
        ((*SWEEP, "study.device_hours=0"), "study.device_hours must be above 0, or null for no limit, but got 0"),
        ((*SWEEP, "study.trial_timeout_s=-2"), "study.trial_timeout_s must be above 0"),
        ((*SWEEP, "study.enqueue=[{optimizer.lr:7}]"), "study.enqueue[0]: optimizer.lr: 7 is not in tag(log"),
        ((*SWEEP, "study.enqueue=[{optimizer.lrr:7}]"), "study.enqueue[0]: optimizer.lrr is not searched"),
        ((*SWEEP, "launcher.slots=0"), "launcher.slots must be at least 1, but got 0"),
        ((*SWEEP, "launcher.start_method=xyz"), "launcher.start_method must be 'forkserver' or 'spawn'"),
        ((*SWEEP, "search=none"), "search space is empty"),
        (("sweep", "study.num_trials=0"), "study.num_trials must be at least 1, but got 0"),
        (("sweep", "--config-name", "train"), "--config-name=train is not a sweep config"),
        (("train", "--no-such-option"), "unrecognized arguments: --no-such-option"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_error_is_told_at_once(
    lightsweep: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in complaint(lightsweep(*arguments), 2)
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRAIN, "optimizer.lr=abc"), "optimizer.lr must be a number, but got 'abc'"),
        pytest.param(
            (*SWEEP, "model.activation=choice(relu,tanhh)"),
            "model.activation must be one of 'relu'",
            marks=pytest.mark.slow,
        ),
        ((*SWEEP, "study.metric=val/accc"), "It logs train/loss, val/acc, val/loss. Did you mean 'val/acc'"),
        pytest.param((*TRAIN, "trainer.precision=8"), "trainer: Lightning refuses this", marks=pytest.mark.slow),
    ],
    ids=["type", "choice", "metric", "trainer"],
)
def test_part_that_cannot_be_built_leaves_no_run(
    lightsweep: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in complaint(lightsweep(*arguments), 2)
    assert runs(tmp_path) == []
    assert left_behind(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "is not of an allowed module"),
        ("torch.optim.os.system", "torch.optim.os"),
        ("torch.optim.Adamm", "there is no 'Adamm' in torch.optim. Did you mean 'Adam'"),
        ("torch.optm.Adam", "Did you mean 'torch.optim.Adam'?"),
    ],
)
def test_target_that_may_not_be_built_is_refused(
    lightsweep: Command, tmp_path: Path, target: str, message: str
) -> None:
    assert message in complaint(lightsweep(*TRAIN, f"optimizer._target_={target}"), 2)
    assert runs(tmp_path) == []


def test_missing_data_names_the_folders_and_the_way_to_get_it(lightsweep: Command, tmp_path: Path) -> None:
    message = complaint(lightsweep(*TRAIN, "data=mnist", f"data.root={tmp_path}/pictures"), 1)

    assert f"{tmp_path}/pictures" in message and str(tmp_path / "mlruns" / "data") in message
    assert "data.download=true" in message
    assert "FileNotFoundError" not in message
    assert runs(tmp_path) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracking.uri=sqlite:///text.txt", "cannot be opened: file is not a database"),
        ("study.storage=sqlite:///text.txt", "cannot be opened: file is not a database"),
        ("study.storage=nonsense", "study.storage must be a database URL"),
        pytest.param("tracking.uri=sqlite:////proc/nowhere/mlflow.db", "cannot be opened", marks=pytest.mark.slow),
        pytest.param("study.storage=sqlite:////proc/nowhere/optuna.db", "cannot be opened", marks=pytest.mark.slow),
        ("store_dir=/proc/nowhere", "/proc/nowhere"),
        ("store_dir=text.txt", "text.txt"),
        pytest.param(
            "tracking.uri=postgresql://me:secret@127.0.0.1:1/mlflow", "Connection refused", marks=pytest.mark.slow
        ),
        ("study.storage=postgresql://me:secret@127.0.0.1:1/optuna", "Connection refused"),
        pytest.param("tracking.uri=http://127.0.0.1:9", "the server does not answer", marks=pytest.mark.slow),
    ],
)
def test_store_that_cannot_be_opened_is_told_in_one_line(
    lightsweep: Command, tmp_path: Path, override: str, message: str
) -> None:
    (tmp_path / "text.txt").write_text("This is no database, and it is long enough to look at its first bytes.\n" * 9)

    told = complaint(lightsweep(*SWEEP, override), 1)

    assert message in told and "secret" not in told
    assert len(told.splitlines()) == 1
    assert runs(tmp_path) == []


@pytest.mark.slow
def test_deleted_experiment_is_told_with_the_way_out(lightsweep: Command, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    store = tmp_path / "mlruns"
    store.mkdir()
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    client.delete_experiment(client.create_experiment("lightsweep"))

    assert "was deleted in MLflow" in complaint(lightsweep(*TRAIN), 1)
    assert runs(tmp_path) == []


def test_debug_shows_the_traceback(lightsweep: Command) -> None:
    result = lightsweep("--debug", *TRAIN, "model=resnet")

    assert result.returncode != 0
    assert "Traceback" in result.stderr and "ConfigError" in result.stderr


def test_unknown_study_names_the_nearest_to_resume(lightsweep: Command) -> None:
    assert "There is no study 'nope'" in complaint(lightsweep("resume", "nope"), 1)
