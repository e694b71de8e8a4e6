"""What is captured of code, packages and machine, and how two captures are told apart."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.reproduce.checkout import recorded_code
from sweeps.reproduce.original import IncompleteError
from sweeps.reproduce.provenance import Provenance, artifact_name, capture, differences


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "net.py").write_text("WIDTH = 8\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("A: 1\n")


def code(folder: Path, config_dir: Path | None = None) -> Any:
    return capture(["train"], config_dir, folder=folder).content["code"]


def told(folder: Path, before: Provenance) -> dict[str, list[str]]:
    return differences(before.content, capture(["train"], folder=folder).content)


def test_two_captures_of_the_same_are_equal(repository: Path) -> None:
    first, second = (capture(["train"], folder=repository) for _ in range(2))
    assert first.digest == second.digest
    assert not any(differences(first.content, second.content).values())


def test_the_patch_gives_back_what_was_not_committed(repository: Path) -> None:
    (repository / "net.py").write_text("WIDTH = 9\n")
    (repository / "image.bin").write_bytes(bytes(range(256)))
    git(repository, "add", "image.bin")
    patch = code(repository)["diff"]["text"]
    git(repository, "stash")
    (repository / "it.patch").write_text(patch)
    git(repository, "apply", "--binary", "it.patch")
    assert (repository / "net.py").read_text() == "WIDTH = 9\n"
    assert (repository / "image.bin").read_bytes() == bytes(range(256))


def test_a_patch_that_is_no_text_is_kept(repository: Path) -> None:
    (repository / "net.py").write_bytes("# gr\xfcn\n".encode("latin-1"))
    assert "base64" in code(repository)["diff"]


def test_a_patch_that_is_too_long_says_so(repository: Path) -> None:
    (repository / "net.py").write_text("x\n" * 3_000_000)
    found = code(repository)
    assert found["diff"] == {"cut": found["diff"]["cut"]} and "too many" in found["diff"]["cut"]
    assert len(found["diff_sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "net.py").write_text("WIDTH = 9\n"), "the uncommitted changes"),
        (lambda folder: (folder / "more.py").write_text("A = 1\n"), "more.py is new"),
        (lambda folder: git(folder, "commit", "--allow-empty", "-qm", "second"), "commit "),
    ],
    ids=["edited", "untracked", "committed"],
)
def test_a_change_of_the_code_is_named(repository: Path, change: Any, message: str) -> None:
    before = capture(["train"], folder=repository)
    change(repository)
    (only,) = told(repository, before)["code"]
    assert message in only


def test_a_changed_file_of_the_config_folder_is_named(tmp_path: Path) -> None:
    own = tmp_path / "mine"
    (own / "model").mkdir(parents=True)
    (own / "net.py").write_text("A = 1\n")
    (own / "model" / "net.yaml").write_text("_target_: net.Net\n")
    before = capture(["train"], own, folder=tmp_path)
    (own / "net.py").write_text("A = 2\n")
    after = capture(["train"], own, folder=tmp_path)
    assert before.content["code"]["files"]["mine/net.py"]["text"] == "A = 1\n"
    assert set(after.content["code"]["files"]) == {"mine/net.py", "mine/model/net.yaml"}
    assert differences(before.content, after.content)["code"] == ["mine/net.py has changed"]


def test_environments_caches_and_the_store_are_no_code_of_the_user(tmp_path: Path) -> None:
    for name in (".venv/own.py", "env/lib/site-packages/six.py", "__pycache__/x.py", ".hidden/x.yaml"):
        write(tmp_path / name)
    for name in ("mlruns/s/0000/config.yaml", "own_net.py", "model/own.yaml", "notes.txt"):
        write(tmp_path / name)
    found = capture(["train"], tmp_path, folder=tmp_path, store_dir=Path("mlruns")).content["code"]["files"]
    assert set(found) == {"own_net.py", "model/own.yaml"}


def test_a_folder_that_is_the_store_itself_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "own_net.py")
    found = capture(["train"], tmp_path, folder=tmp_path, store_dir=tmp_path).content["code"]["files"]
    assert set(found) == {"own_net.py"}


def test_in_a_repository_the_config_folder_has_what_git_lists(repository: Path) -> None:
    (repository / ".gitignore").write_text("env/\nscratch/\n")
    for name in ("env/a.py", "new.yaml", "mlruns/s/config.yaml", "mlruns/s/code.py", "scratch/model/own.yaml"):
        write(repository / name)
    whole, ignored = (
        capture(["train"], place, folder=repository, store_dir=Path("mlruns")).content["code"]["files"]
        for place in (repository, repository / "scratch")
    )
    assert set(whole) == {"net.py", "new.yaml"}
    assert set(ignored) == {"scratch/model/own.yaml"}  # the whole folder is ignored, and was named all the same


def test_many_untracked_files_leave_room_for_the_config_folder(repository: Path) -> None:
    for index in range(510):
        write(repository / "a" / f"{index}.py")
    write(repository / "mine" / "own_net.py")
    found = code(repository, repository / "mine")["files"]
    assert "mine/own_net.py" in found and found["..."] == {"cut": "11 more files"}


def test_what_git_cannot_tell_is_said_and_is_no_difference(repository: Path) -> None:
    write(repository / "more.py")
    before = capture(["train"], folder=repository)
    index = (repository / ".git" / "index").read_bytes()
    (repository / ".git" / "index").write_bytes(b"broken")
    broken = capture(["train"], folder=repository)
    found = broken.content["code"]
    assert found["diff_sha256"] is None and found["diff"] == found["files"]["..."] == {"cut": "git could not tell"}
    (repository / ".git" / "index").write_bytes(index)
    (repository / "net.py").write_text("WIDTH = 9\n")
    after = capture(["train"], folder=repository)
    assert not any(differences(before.content, broken.content).values())
    assert not any(differences(broken.content, after.content).values())
    assert differences(before.content, after.content)["code"] == ["the uncommitted changes"]
    with pytest.raises(IncompleteError, match="The uncommitted changes are not in the record: git could not tell"):
        recorded_code(broken.content, repository)


def test_outside_git_the_repository_of_the_record_is_no_difference(repository: Path, tmp_path: Path) -> None:
    write(repository / "more.py")
    before = capture(["train"], folder=repository)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert told(elsewhere, before)["code"] == []
    assert differences(capture(["train"], folder=elsewhere).content, before.content)["code"] == []


def test_what_may_be_secret_is_not_kept(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_API_KEY", "canary1")
    monkeypatch.setenv("NCCL_NET", "tcp://me:canary2@host")
    (repository / "my_secrets.py").write_text("A = 'canary3'\n")
    (repository / "notes.yaml").write_text("a: canary4\n")
    (repository / "net.py").write_text("URL = 'postgresql://me:canary5@host/db'\n")
    text = capture(["train", "tracking.uri=postgresql://me:canary6@host"], folder=repository).text()
    assert "canary" not in text and "me:***@host" in text


def test_a_folder_that_is_no_repository_has_no_commit(tmp_path: Path) -> None:
    assert code(tmp_path)["commit"] is None


def test_packages_and_machine_are_those_of_this_process(tmp_path: Path) -> None:
    from importlib.metadata import version

    content = capture(["train"], folder=tmp_path).content
    assert content["packages"]["optuna"] == version("optuna")
    assert content["packages"]["torch"] == version("torch")
    assert content["machine"]["python"].endswith(sys.version.split()[0])
    assert content["machine"]["cpu"] and content["machine"]["usable_cores"] >= 1


def test_edited_records_are_compared_as_they_are(tmp_path: Path) -> None:
    now = capture(["train"], folder=tmp_path).content
    then = json.loads(json.dumps(now))
    then["packages"]["torch"] = "2.1.0"
    then["machine"]["cpu"] = "another"
    then["environment"]["OMP_NUM_THREADS"] = "7"
    found = differences(then, now)
    assert found["packages"] == [f"torch 2.1.0 (now {now['packages']['torch']})"]
    assert found["hardware"] == [f"cpu another (now {now['machine']['cpu']})"]
    assert found["code"] == []
    for broken in ({}, {"code": 7, "packages": [], "machine": None}):
        assert not any(differences(broken, now).values()) or broken == {}


def test_a_file_of_ours_that_has_changed_is_named_nets_first(tmp_path: Path) -> None:
    now = capture(["train"], folder=tmp_path).content
    then = json.loads(json.dumps(now))
    for name in ("sweeps/cli/main.py", "lightning_modules/nets/mlp.py"):
        then["code"]["lightsweep"]["files"][name] = "another"
    changed = [f"{name} has changed" for name in ("lightning_modules/nets/mlp.py", "sweeps/cli/main.py")]
    assert differences(then, now)["code"] == changed


def test_packages_that_compute_come_first_and_threads_of_the_shell_do_not_count(tmp_path: Path) -> None:
    now = capture(["train"], folder=tmp_path).content
    then = json.loads(json.dumps(now))
    then["packages"] |= {"alembic": "0", "torch": "0"}
    then["environment"]["OMP_NUM_THREADS"] = "7"  # ranks are given their own
    found = differences(then, now)
    assert [word.split()[0] for word in found["packages"]] == ["torch", "alembic"]
    assert found["environment"] == []


def test_it_is_written_once_under_its_hash(tmp_path: Path) -> None:
    found = capture(["train"], folder=tmp_path)
    path = found.write(tmp_path / "study")
    assert path.name == artifact_name(found.digest) and json.loads(path.read_text()) == found.content
    assert found.write(tmp_path / "study") == path


def test_capturing_imports_no_torch() -> None:
    script = "import sys, sweeps.reproduce.provenance as p; p.capture(['x']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
