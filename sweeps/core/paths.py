"""The layout of the store: every file and folder name, and atomic writes that never follow a link.

A store may be shared. Only its own folder may be a link: a link that somebody puts into it could redirect a write to
any file of the user's. So a study's or a trial's folder that is a link is rejected (`require_no_link`), and a file is
never written through one (`write_bytes`, `open_to_append`).

mlruns/                       the store
    mlflow.db  optuna.db      SQL
    artifacts/                MLflow's artifacts
    data/                     decoded data sets, shared by all trials
    STUDY/                    one folder per study (or `train`, or `reproductions`)
        study.yaml            the input of `resume`: the command line and the space
        report.html           the report on the study, written at its end and by `lightsweep report`
        plots/                its plots as PNG
        provenance-HASH.json  code, packages and machine of its trials
        inbox/                commands to the study that its driver has not carried out yet
        0012/                 one folder per trial
            config.yaml       the frozen config that every rank reads
            rank0.log         what rank 0 printed, and so on
            trace.jsonl       hashes of the weights and of the data, epoch by epoch
            checkpoints/
            resume-HASH-STEP.ckpt  the state from which an interrupted trial resumes; deleted at its end
            replicate0/       of a replicated trial: the same for each training run
"""

import errno
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

from sweeps.core.errors import StoreError

__all__ = [
    "ARTIFACTS",
    "CHECKPOINTS",
    "CONFIG",
    "LOCK",
    "MLFLOW_DB",
    "OPTUNA_DB",
    "PLOTS",
    "REPORT",
    "REPRODUCTIONS",
    "STUDY",
    "TRACE",
    "UNSENT",
    "check_dir",
    "code_dir",
    "conf_dir",
    "inbox_dir",
    "non_zero_rank_dir",
    "open_to_append",
    "rank_log",
    "rank_logs",
    "replicate_dir",
    "reproduction_dir",
    "require_no_link",
    "resume_point",
    "resume_points",
    "study_dir",
    "train_dir",
    "trial_dir",
    "write_bytes",
    "write_text",
]

MLFLOW_DB = "mlflow.db"
OPTUNA_DB = "optuna.db"
ARTIFACTS = "artifacts"
CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
LOCK = ".driver.lock"
STUDY = "study.yaml"
REPORT = "report.html"
PLOTS = "plots"
TRACE = "trace.jsonl"
UNSENT = "unsent.jsonl"
REPRODUCTIONS = "reproductions"

_RESUME_POINT = re.compile(r"resume-[0-9a-f]+-(?P<step>\d+)\.(ckpt|half)")
_RESERVED = {"artifacts", "data", "train", REPRODUCTIONS}


def code_dir() -> Path:
    """Return the folder of the packages `sweeps` and `lightning_modules`."""
    return Path(__file__).parents[2]


def conf_dir() -> Path:
    """Return the shipped configuration: inside the package when installed, beside it in a checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else code_dir() / "conf"


def study_dir(store: Path, study: str) -> Path:
    """Return the folder of a study; any study name gives a safe name, and two names never share one."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", study).strip("-.")[:80]
    if slug != study or slug in _RESERVED:
        slug = f"{slug}-{hashlib.sha256(study.encode()).hexdigest()[:8]}".lstrip("-")
    return store / slug


def check_dir(store: Path) -> Path:
    """Create and return a new folder for a check, which is removed once the check has passed."""
    store.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=store, prefix="check-"))


def non_zero_rank_dir(store: Path, rank: int) -> Path:
    """Create and return a folder for a non-zero rank that torchrun or srun started; it is removed on success."""
    store.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=store, prefix=f"rank{rank}-"))


def inbox_dir(study_folder: Path) -> Path:
    """Return the folder of the command queue of a study."""
    return study_folder / "inbox"


def train_dir(store: Path) -> Path:
    """Create and return a new numbered folder for a single run below `store/train`."""
    return _new_numbered(store / "train")


def reproduction_dir(store: Path) -> Path:
    """Create and return a new numbered folder for a reproduction."""
    return _new_numbered(store / REPRODUCTIONS)


def _new_numbered(parent: Path) -> Path:
    require_no_link(parent)
    parent.mkdir(parents=True, exist_ok=True)
    number = max((int(entry.name) for entry in parent.iterdir() if entry.name.isdigit()), default=-1) + 1
    while True:  # another `train` may take the number between this look and the creation
        folder = trial_dir(parent, number)
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def trial_dir(study_folder: Path, number: int) -> Path:
    """Return the folder of trial `number`."""
    return study_folder / f"{number:04d}"


def replicate_dir(trial_folder: Path, replicate: int) -> Path:
    """Return the folder of one replicate of a trial."""
    return trial_folder / f"replicate{replicate}"


def rank_log(folder: Path, rank: int) -> Path:
    """Return the log file of a rank."""
    return folder / f"rank{rank}.log"


def resume_point(folder: Path, fingerprint: str, step: int) -> Path:
    """Return the file from which a trial of the config with this fingerprint resumes at `step`."""
    return folder / f"resume-{fingerprint[:16]}-{step}.ckpt"


def resume_points(folder: Path) -> dict[Path, int]:
    """Return the resume points in a folder and their steps, half-written files included."""
    found = {path: _RESUME_POINT.fullmatch(path.name) for path in folder.glob("resume-*")}
    return {path: int(match["step"]) for path, match in found.items() if match}


def rank_logs(folder: Path) -> list[Path]:
    """List the log files of all ranks in a folder, in the order of the ranks."""
    return sorted(folder.glob("rank*.log"), key=lambda log: (len(log.name), log.name))


def require_no_link(folder: Path) -> None:
    """Reject a folder of the store that is a link.

    Raises:
        StoreError: It is one.
    """
    if folder.is_symlink():
        raise StoreError(
            f"{folder} must be a folder, but is a link, which could redirect writes. Remove the link; only the store's "
            "own folder (store_dir) may be one."
        )


def open_to_append(path: Path) -> int:
    """Open a file to append to it, creating it if need be, and return its descriptor; a link is replaced by a file.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    if path.is_symlink():
        path.unlink(missing_ok=True)
    kind = os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe that nobody reads would be waited for
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | kind, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a file", str(path))
    return descriptor


def write_text(path: Path, text: str) -> None:
    """Write `text` as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new; a link is replaced."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
