"""`lightsweep reproduce --at-commit` and `--in-env` at the real command, in a repository of a user's own."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from own_modules import MY_NET

from sweeps.cli import main as cli
from sweeps.reproduce.environment import environments_dir, recorded_lock
from sweeps.reproduce.provenance import local_packages

NET = f"""
import sys

from helper import SCALE

print(f"net in {{sys.prefix}}", flush=True)
{MY_NET.replace("1.0 *", "1.0 * SCALE *")}
"""
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, lightsweep_in: Command) -> Path:
    """A repository: trained at commit A with an uncommitted change and an untracked module, all changed in commit B."""
    folder = tmp_path_factory.mktemp("project")
    git(folder, "init", "-q")
    (folder / "mine" / "model").mkdir(parents=True)
    (folder / "mine" / "my_net.py").write_text(NET)
    (folder / "mine" / "model" / "my_net.yaml").write_text("_target_: my_net.MyNet\nnum_classes: ${data.num_classes}\n")
    (folder / ".gitignore").write_text("mlruns\n__pycache__\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "A")
    edit(folder / "mine" / "my_net.py", "1.0 * SCALE", "1.25 * SCALE")
    (folder / "helper.py").write_text("SCALE = 1.0\n")
    small = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "launcher.threads=1", "test=false")
    done = lightsweep_in("train", "--config-dir", "mine", "model=my_net", *small, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    git(folder, "checkout", "-q", ".")
    edit(folder / "mine" / "my_net.py", "hidden: int = 16", "hidden: int = 32")
    (folder / "helper.py").write_text("SCALE = 3.0\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "B")
    edit(folder / "mine" / "my_net.py", "hidden: int = 32", "hidden: int = 64")
    return folder


def state(folder: Path) -> dict[str, Any]:
    """Return the user's files, and what is checked out, staged and known to git."""
    asked = (("worktree", "list"), ("--no-optional-locks", "status"), ("ls-files", "--stage"), ("show-ref", "--head"))
    files = [path for kind in ("*.py", "*.yaml", ".git/config") for path in folder.rglob(kind)]
    return {
        **{str(path): path.read_bytes() for path in files if "mlruns" not in path.parts},
        **{" ".join(question): git(folder, *question) for question in asked},
    }


def provenance(folder: Path) -> Path:
    (path,) = folder.glob("mlruns/train/0000/provenance-*.json")
    (artifact,) = folder.glob(f"mlruns/artifacts/*/artifacts/{path.name}")
    return artifact


def reproductions(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("mlruns/reproductions/*"))


@pytest.mark.slow
def test_elsewhere_the_recorded_code_is_exact_where_todays_is_not(project: Path, lightsweep_in: Command) -> None:
    before = state(project)
    today = lightsweep_in("reproduce", "train#0", "--config-dir", "mine", "--format", "json", cwd=project)
    assert json.loads(today.stdout)["verdict"] == "diverged" and json.loads(today.stdout)["ingredient"] == "code"
    done = lightsweep_in("reproduce", "train#0", "--at-commit", "--yes", "--format", "json", cwd=project)
    found = json.loads(done.stdout)
    assert (found["verdict"], found["differs"], done.returncode) == ("exact", {}, 0)
    assert re.search(r"\+1 -0 +helper\.py", done.stderr) and "+        return 1.25 * SCALE" in done.stderr
    assert state(project) == before
    (where,) = re.findall(r"The recorded code is in (/\S+),", done.stderr)
    assert not Path(where).exists()
    shown = json.loads(lightsweep_in("show", "train#0", "--format", "json", cwd=project).stdout)
    assert shown["tags"]["lightsweep.reproduced"].startswith("exact: ")
    assert shown["tags"]["lightsweep.reproduced_by"] == found["run_id"]


@pytest.mark.slow
def test_both_together_run_in_the_recorded_environment(
    project: Path, tmp_path: Path, lightsweep_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = recorded_lock(json.loads(provenance(project).read_text()), local_packages())
    folder = environments_dir() / lock.key  # as if it had been made: with the packages of this one
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "these.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    (folder / ".complete").write_text("{}")
    arguments = ("--at-commit", "--in-env", "--yes", "--epochs", "1", "--format", "json")
    done = lightsweep_in("reproduce", "train#0", *arguments, cwd=project)
    found = json.loads(done.stdout)
    assert (found["verdict"], found["num_epochs"], found["differs"]) == ("exact", 1, {})
    logs = "".join(path.read_text() for path in (project / "mlruns").rglob("*.log"))
    assert f"net in {folder}" in logs


# --- refused -----------------------------------------------------------------------------------------------


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Type a command that is to be refused, and return its exit status and what it said; nothing has run."""
    before = reproductions(Path.cwd()), state(Path.cwd())
    capfd.readouterr()
    status = cli.main(["reproduce", "train#0", *arguments])
    out, err = capfd.readouterr()
    assert out == ""
    assert (reproductions(Path.cwd()), state(Path.cwd())) == before
    assert not list(Path.cwd().parent.rglob("harm"))
    return status, err


@pytest.mark.parametrize("where", ["--at-commit", "--in-env"])
def test_without_agreement_all_is_shown_and_nothing_runs(
    here: Path, capfd: pytest.CaptureFixture[str], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status, err = refused(capfd, where)
    assert status == 2 and "add --yes. Nothing was run." in err.splitlines()[-1]
    assert ("+SCALE = 1.0" if where == "--at-commit" else "torch==") in err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def record(here: Path) -> Any:
    """What changes the record of the code and the packages, which is as it was afterwards."""
    path = provenance(here)
    before = path.read_text()

    def change(**changed: Any) -> None:
        content = json.loads(before)
        if "patch" in changed:
            patch = changed.pop("patch")
            changed |= {"diff": {"text": patch}, "diff_sha256": hashlib.sha256(patch.encode()).hexdigest()}
        content["packages"] |= changed.pop("packages", {})
        content["code"] |= changed
        path.write_text(json.dumps(content))

    yield change
    path.write_text(before)


def entry(text: str) -> dict[str, str]:
    return {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


NEW = "diff --git a/{0} b/{0}\nnew file mode 100755\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+touch harm\n"
HOSTILE: dict[str, dict[str, Any]] = {
    "a commit that is an option": {"commit": "--upload-pack=touch harm"},
    "a difference that leads out": {"patch": NEW.format("../harm")},
    "a difference with a hook": {"patch": NEW.format(".git/hooks/post-checkout")},
    "a file that leads out": {"files": {"../../harm.py": entry("x = 1\n")}},
    "a file that is a hook": {"files": {".git/hooks/x.py": entry("x = 1\n")}},
    "a root that leads out": {"root": "/../.."},
    "a file that is not what its hash says": {"files": {"helper.py": entry("a") | {"text": "b"}}},
    "a package that is an option": {"packages": {"--index-url=https://example.org": "1"}},
    "a package that is an address": {"packages": {"torch @ https://example.org/x.whl": "1"}},
}


@pytest.mark.parametrize("changed", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_record_is_refused_though_the_user_agrees(
    record: Any, capfd: pytest.CaptureFixture[str], changed: dict[str, Any]
) -> None:
    record(**changed)
    status, err = refused(capfd, "--at-commit", "--in-env", "--yes")
    assert status == 1 and "not used" in err
    assert "trained by a process" not in err, "it is refused before anything of it is shown"


def test_what_a_record_has_cannot_steer_the_terminal(record: Any, capfd: pytest.CaptureFixture[str]) -> None:
    record(files={"x.py": entry("\x1b[2J\u202egnp.exe\x9b\r\x07\n")})
    _, err = refused(capfd, "--at-commit")
    assert "\\x1b[2J" in err and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", err)


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"commit": "a" * 40}, 2, "git fetch"),
        ({"commit": None}, 5, "outside any git repository"),
        ({"diff": {"cut": "9 bytes are too many to keep"}}, 5, "9 bytes are too many to keep"),
        ({"patch": "rm -r /\n"}, 1, "does not apply to commit"),
    ],
)
def test_code_that_cannot_be_had_is_told(
    record: Any, capfd: pytest.CaptureFixture[str], changed: dict[str, Any], status: int, message: str
) -> None:
    record(**changed)
    capfd.readouterr()
    assert cli.main(["reproduce", "train#0", "--at-commit", "--yes"]) == status
    assert message in "".join(capfd.readouterr())


@pytest.mark.parametrize("entry_file", ["sweeps/cli/main.py", "sweeps/cli.py"])
def test_a_lightsweep_that_cannot_reproduce_is_told(
    record: Any, capfd: pytest.CaptureFixture[str], entry_file: str
) -> None:
    project = '[project]\nname = "lightsweep"\n'
    lines = "".join(f"+{line}\n" for line in project.splitlines())
    text = NEW.format("pyproject.toml").replace("+1 @@\n+touch harm\n", f"+1,2 @@\n{lines}")
    record(patch=text, files={entry_file: entry("")})
    status, err = refused(capfd, "--at-commit", "--yes")
    assert status == 2 and "Lightsweep that cannot reproduce" in err


# --- at a terminal -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_at_a_terminal_it_asks_and_ctrl_c_leaves_nothing_behind(project: Path, record: Any) -> None:
    pexpect = pytest.importorskip("pexpect")
    config = provenance(project).with_name("config.yaml")
    before, text = state(project), config.read_text()
    config.write_text(text.replace("max_epochs: 2", "max_epochs: 5000"))
    command = ["-m", "sweeps", "reproduce", "train#0", "--at-commit"]
    # Tests that run in the background may ignore Ctrl-C, and all that they start with them
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    how = {"cwd": project, "timeout": 100, "encoding": "utf-8", "env": os.environ, "preexec_fn": heard}
    try:
        asked = pexpect.spawn(sys.executable, command, **how)
        asked.expect_exact("[y/N] ")
        asked.sendline("no")
        asked.expect_exact("Nothing was run.")
        asked.expect(pexpect.EOF)
        asked.close()
        assert asked.exitstatus == 2
        run = pexpect.spawn(sys.executable, command, **how)
        run.expect_exact("[y/N] ")
        run.sendline("y")
        run.expect(r"The recorded code is in (/\S+),")
        where = Path(run.match[1])
        run.expect("val/acc")
        assert where.is_dir()
        run.sendintr()
        run.expect(pexpect.EOF)
        run.close()
        assert run.exitstatus == 130
        assert not where.exists() and state(project) == before
    finally:
        config.write_text(text)
