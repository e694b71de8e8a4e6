"""The finder, each case in an interpreter of its own: what is imported is imported once."""

import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.core.lightning_alias import real_name

pytestmark = pytest.mark.cold

SETUP = "import sys; from sweeps.core import lightning_alias; lightning_alias.install()\n"


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code with the finder installed, and folders before all others on the path."""
    folders = "".join(f"import sys; sys.path.insert(0, {str(folder)!r})\n" for folder in path)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", folders + SETUP + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_both_names_are_the_same_modules_and_classes() -> None:
    done = run("""
import lightning as L
import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.types import STEP_OUTPUT
import lightning.pytorch.loggers
from lightning.fabric.utilities.seed import seed_everything
import pytorch_lightning, lightning_fabric
assert pl is L.pytorch is pytorch_lightning and L.fabric is lightning_fabric
assert L.pytorch.loggers is pytorch_lightning.loggers
assert EarlyStopping is pytorch_lightning.callbacks.EarlyStopping
for name in ("Callback", "LightningDataModule", "LightningModule", "Trainer", "__version__", "seed_everything"):
    assert getattr(L, name) is getattr(pytorch_lightning, name), name
assert L.Fabric is lightning_fabric.Fabric and L.__version__ == pytorch_lightning.__version__
""")
    assert done.returncode == 0, done.stderr


def test_modules_keep_the_spec_under_which_they_were_loaded() -> None:
    done = run("""
import importlib, lightning.pytorch.callbacks as callbacks
assert callbacks.__spec__.name == callbacks.__name__ == "pytorch_lightning.callbacks"
assert importlib.reload(callbacks) is callbacks
""")
    assert done.returncode == 0, done.stderr


def test_nothing_of_lightning_is_imported_before_it_is_asked_for() -> None:
    done = run("import lightning; print(sorted({'torch', 'pytorch_lightning', 'lightning_fabric'} & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("name", ["lightning.app", "lightning.data", "lightning.pytorch.nothing", "lightning.Trainer"])
def test_what_is_no_alias_is_not_found_under_the_name_that_was_asked_for(name: str) -> None:
    done = run(f"import {name}")
    assert done.returncode == 1 and f"No module named '{name}'" in done.stderr


def installed(folder: Path, version: str) -> Path:
    """Make a folder with a package `lightning` of some version, which has a class of its own."""
    (folder / "lightning" / "data").mkdir(parents=True)
    (folder / "lightning" / "__init__.py").write_text(f"__version__ = '{version}'\nclass LightningModule: ...\n")
    (folder / "lightning" / "data" / "__init__.py").write_text("IS_ITS_OWN = True\n")
    return folder


def test_of_another_version_that_is_installed_it_is_said_once_which_is_used(tmp_path: Path) -> None:
    done = run(
        """
import lightning, pytorch_lightning
import lightning.pytorch
assert lightning.LightningModule is pytorch_lightning.LightningModule
from lightning.data import IS_ITS_OWN
""",
        installed(tmp_path, "1.9.0"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("lightning 1.9.0 is installed") == 1


def test_of_the_same_version_nothing_is_said(tmp_path: Path) -> None:
    from importlib.metadata import version

    done = run("import lightning.pytorch", installed(tmp_path, version("pytorch-lightning")))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_of_that_name_is_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "lightning.py").write_text("THUNDER = 3")
    done = run("import lightning; print(lightning.THUNDER)", tmp_path)
    assert done.stdout.strip() == "3", done.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_a_rank_starts_have_it_before_they_unpickle(tmp_path: Path, method: str) -> None:
    (tmp_path / "user_code.py").write_text("import lightning\ndef f(queue): queue.put(lightning.__name__)\n")
    done = run(
        f"""
lightning_alias.install_in_workers()
import multiprocessing, user_code
context = multiprocessing.get_context({method!r})
queue = context.Queue()
process = context.Process(target=user_code.f, args=(queue,))
process.start()
process.join(60)
assert process.exitcode == 0
print(queue.get(timeout=10))
""",
        tmp_path,
    )
    assert done.stdout.strip() == "lightning", done.stderr


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("lightning.pytorch.callbacks.EarlyStopping", "pytorch_lightning.callbacks.EarlyStopping"),
        ("lightning.fabric", "lightning_fabric"),
        ("lightning.Callback", "pytorch_lightning.Callback"),
        ("lightning.Fabric", "lightning_fabric.Fabric"),
        ("lightning_modules.nets.mlp.MLP", "lightning_modules.nets.mlp.MLP"),
        ("lightning.pytorchlike.X", "lightning.pytorchlike.X"),
        ("lightning.data", "lightning.data"),
    ],
)
def test_names_are_mapped_before_they_are_compared(name: str, real: str) -> None:
    assert real_name(name) == real
